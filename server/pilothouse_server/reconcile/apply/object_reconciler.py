"""Carried objects on their clusters, by server-side apply.

The worker writes the result of the apply (the conditions `Applied`, `Drifted` and `Contested`, the observed
generation), certificates and the addresses of routes; `object_observer` writes the state that the cluster reports.

Drift is every change that a dry run of our apply would make. A field that was taken back three times in ten minutes is
left to the other manager (`objects.contests`). If the cluster does not serve the kind, that is not a refusal: the
object waits for the kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import msgspec

from pilothouse_server.containers.drift_rules import DriftRules
from pilothouse_server.kubernetes import field_paths, fingerprints, managed_fields
from pilothouse_server.kubernetes.client import FIELD_MANAGER
from pilothouse_server.kubernetes.conditions import APPLIED, set_condition
from pilothouse_server.kubernetes.discovery import KindDiscovery
from pilothouse_server.kubernetes.errors import ClusterError, Conflict, NotFound
from pilothouse_server.kubernetes.objects import AnyObject, Manifest, Resource
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.repository import get_many as get_namespaces
from pilothouse_server.objects import (
    adoption,
    contests,
    facts,
    guarding,
    kinds,
    manifests,
    operations,
    repository,
)
from pilothouse_server.objects.contests import Settlement
from pilothouse_server.objects.facts import KindFacts
from pilothouse_server.objects.model import CarriedObject, ObjectDriftPolicy, ObservedObject
from pilothouse_server.objects.observation import observe
from pilothouse_server.objects.operations import ObjectRights
from pilothouse_server.reconcile.apply import object_details
from pilothouse_server.reconcile.apply.drift import NOTHING, Difference, Drift, is_platforms
from pilothouse_server.reconcile.apply.object_details import Details
from pilothouse_server.reconcile.apply.row_reconciler import (
    AGAIN_SECONDS,
    RowReconciler,
    change_of_failure,
    dealt_with,
    namespace_retry_seconds,
    read_namespace_not_ready,
    waiting,
)
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.resource_reconciler import Done, Progress, Result
from pilothouse_server.reconcile.repository import applied_objects, object_status
from pilothouse_server.reconcile.repository.observed_rows import ObservedChange
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

_GONE_AGAIN_SECONDS = 0.05
# The pause while another client must act: a controller with a finalizer.
_OTHERS_SECONDS = 10.0
# Long, because the observer notices a kind that is installed, and enqueues the objects that wait for it.
_KIND_SECONDS = 300.0
_DETAILS_SECONDS = 30.0
# A resource version that no object has: the first write to a cluster gets version 2.
_OF_NONE = "1"


class LoadedObject(msgspec.Struct, frozen=True):
    """`namespace_not_ready`: why its namespace is not on the cluster; None if it is.

    `noted`: fingerprints of the last apply.
    """

    carried: CarriedObject
    namespace: Namespace
    kind: KindFacts
    namespace_not_ready: Condition | None
    noted: Mapping[str, str] = NOTHING


class ObjectProgress(Progress, frozen=True):
    """`found`: the object as `act` left it. `adopted`: the object with values of others that become desired.

    `done`: this generation was applied. `deleting`: reason and message of a deletion that waits.
    """

    done: bool = False
    conditions: tuple[Condition, ...] = ()
    found: AnyObject | None = None
    adopted: CarriedObject | None = None
    details: Details = Details()
    settlement: Settlement = Settlement()
    deleting: tuple[str, str] = ("", "")


class ObjectReconciler(RowReconciler[CarriedObject, LoadedObject, ObjectProgress]):
    """Applies and deletes carried objects."""

    # An application has dozens of objects, and each transaction costs as much as several of them.
    batch_size: ClassVar[int] = 32

    def __init__(self, rights: ObjectRights, rules: DriftRules) -> None:
        """Takes the `rights` that limit which values ADOPT may make desired."""
        self._rights = rights
        self._rules = rules
        self._discovery = KindDiscovery()

    async def load(self, transaction: ReadTransaction, works: Sequence[Work]) -> Mapping[Work, LoadedObject]:
        """Returns the objects that still have a row, in their present desired state."""
        found = await repository.get_many(transaction, [work.resource_id for work in works])
        if not found:
            return {}
        carried = {each.id: each for each in found}
        noted = await applied_objects.of_resources(transaction, "object", list(carried))
        ids = sorted({int(each.namespace_id) for each in found})
        namespaces = {each.id: each for each in await get_namespaces(transaction, ids)}
        namespace_ownership: dict[tuple[int, bool], Condition | None] = {}
        loaded: dict[Work, LoadedObject] = {}
        for work in works:
            wanted = carried.get(work.resource_id)
            namespace = None if wanted is None else namespaces.get(wanted.namespace_id)
            if wanted is None or namespace is None:
                continue
            home = int(wanted.namespace_id), wanted.deletion_requested_at is not None
            if home not in namespace_ownership:
                namespace_ownership[home] = await read_namespace_not_ready(
                    transaction, namespace, going=home[1]
                )
            kind = await facts.of_kind(transaction, namespace, wanted)
            marked = noted.get(wanted.id, NOTHING)
            loaded[work] = LoadedObject(wanted, namespace, kind, namespace_ownership[home], marked)
        return loaded

    async def act(self, client: LeasedClient, loaded: LoadedObject) -> ObjectProgress:
        """Applies the object to the cluster or deletes it there. Raises ClusterError, LeaseLost."""
        carried = loaded.carried
        going = carried.deletion_requested_at is not None
        if (namespace_not_ready := loaded.namespace_not_ready) is not None:
            # The namespace's own work creates it. If the object is being deleted, it was never applied or taken over.
            if going:
                return ObjectProgress(gone=True)
            return ObjectProgress(
                conditions=(namespace_not_ready,), again_seconds=namespace_retry_seconds(namespace_not_ready)
            )
        try:
            resource = await kinds.resource_on(client, self._discovery, carried)
        except NotFound as missing:
            if going:
                return ObjectProgress(gone=True)
            return _without_kind(missing)
        if going:
            return await _delete(client, resource, carried)
        try:
            return await self._apply(client, resource, loaded)
        except NotFound:
            known = await self._discovery.find(client, carried.api_version, carried.kind)
            if known is not None:
                raise
            return _without_kind(kinds.kind_not_found(carried.api_version, carried.kind))

    async def lock(
        self, transaction: Transaction, dones: Sequence[Done[LoadedObject, ObjectProgress]], *, wait: bool
    ) -> Mapping[int, CarriedObject]:
        """Locks rows and returns them by id.

        Deleted rows, and without `wait` locked rows, are left out.
        """
        found = {done.work.resource_id: done.loaded.carried for done in dones}
        return await object_status.lock_found(transaction, found, wait=wait)

    async def write_error(
        self,
        transaction: Transaction,
        row: CarriedObject,
        loaded: LoadedObject,
        error: ClusterError,
        attempts: int,
    ) -> None:
        """Writes a refusal, or a failure that occurred more than once."""
        change = change_of_failure(transaction, row, error, attempts, loaded.carried.generation)
        if change is not None:
            await object_status.OBJECTS.write(transaction, [change])

    async def write_deleted(self, transaction: Transaction, row: CarriedObject) -> Result:
        """Deletes the row, with its tombstone event."""
        await object_status.delete(transaction, row)
        return Result(removed=True)

    async def write_progress(
        self,
        transaction: Transaction,
        progresses: Sequence[tuple[CarriedObject, LoadedObject, ObjectProgress]],
    ) -> Sequence[Result]:
        """Writes whether the objects are applied, and adopts drift if their policies say so."""
        endpoints = await object_status.endpoints(transaction, (row for row, _, _ in progresses))
        changes: list[ObservedChange[CarriedObject, ObservedObject]] = []
        results: list[Result] = []
        for row, loaded, progress in progresses:
            again = progress.again_seconds
            if row.deletion_requested_at is not None:
                if loaded.carried.deletion_requested_at is not None:
                    reason, message = progress.deleting
                    observed = msgspec.structs.replace(row.observed, reason=reason, message=message)
                    changes.append(ObservedChange(row, observed, row.observed_generation))
                again = AGAIN_SECONDS if again is None else again
            else:
                known = endpoints.get(row.namespace_id, {})
                changes.append(await _change(transaction, row, loaded, progress, known))
            results.append(Result(again_seconds=again, applied=_written_version(progress)))
        await object_status.OBJECTS.write(transaction, changes)
        return results

    async def _apply(
        self, client: LeasedClient, resource: Resource[AnyObject], loaded: LoadedObject
    ) -> ObjectProgress:
        carried = loaded.carried
        drift = Drift(
            carried,
            guarding.may_be_sent(carried, loaded.kind.compared.opened),
            policy=_policy(carried),
            settled=carried.observed_generation >= carried.generation,
            noted=loaded.noted,
            rules=self._rules,
        )
        never_there = carried.observed_generation == 0 and not carried.taken_over and not loaded.noted
        if never_there and (made := await _make(client, resource, carried, drift)) is not None:
            return await self._applied(client, resource, loaded, drift, made)
        return await self._apply_to_found(client, resource, loaded, drift)

    async def _apply_to_found(
        self, client: LeasedClient, resource: Resource[AnyObject], loaded: LoadedObject, drift: Drift
    ) -> ObjectProgress:
        carried = loaded.carried
        found = await client.find(resource, carried.kubernetes_namespace, carried.name)
        manifests.check_ours(carried, found)
        if found is None:
            if carried.observed_generation > 0:
                # It existed before: if it was deleted with its namespace, it is not put into another one of that name.
                await client.check_namespace_ownership(carried.namespace_ref)
        elif found.metadata.deletion_timestamp is not None:
            # Another client is deleting it; an apply would succeed and be lost.
            words = await _finalizing(client, resource, carried)
            deleting = waiting("Deleting", f"the object is being deleted{words}")
            return ObjectProgress(conditions=(deleting,), found=found, again_seconds=AGAIN_SECONDS)
        settled = drift.settled
        wanted = manifests.manifest(carried)
        left = [each.field for each in contests.contested(carried.observed.contests)]
        settlement = Settlement()
        if left and found is not None:
            live = await client.read(resource, carried.kubernetes_namespace, carried.name)
            back = [path for path in left if _same(wanted, live, path)]
            settlement = Settlement(settled=tuple(back))
            left = [path for path in left if path not in back]
        ours = field_paths.without(wanted, left)
        if found is not None and settled and await drift.is_untouched(client, resource, ours):
            written = found
        elif found is not None and settled and drift.policy == "repair":
            written = await _repair(client, resource, ours, wanted, drift)
            taken = tuple((each.field, each.manager) for each in drift.repaired)
            settlement = msgspec.structs.replace(settlement, taken_back=taken)
        else:
            written = await drift.apply(client, resource, ours, present=found is not None)
        return await self._applied(client, resource, loaded, drift, written, settlement)

    async def _applied(
        self,
        client: LeasedClient,
        resource: Resource[AnyObject],
        loaded: LoadedObject,
        drift: Drift,
        written: AnyObject,
        settlement: Settlement = Settlement(),  # noqa: B008 - immutable
    ) -> ObjectProgress:
        """Returns the progress after an apply. Raises ClusterError."""
        carried = loaded.carried
        adopted = await self._adopted(client, resource, loaded, drift)
        details = await object_details.look(client, carried)
        return ObjectProgress(
            done=True,
            conditions=(Condition(APPLIED, "True", "Applied"), drift.condition()),
            found=written,
            objects=fingerprints.by_object((resource, written)),
            adopted=adopted,
            details=details,
            settlement=settlement,
            again_seconds=_DETAILS_SECONDS if details.is_incomplete else None,
        )

    async def _adopted(
        self,
        client: LeasedClient,
        resource: Resource[AnyObject],
        loaded: LoadedObject,
        drift: Drift,
    ) -> CarriedObject | None:
        """Returns the desired values after the adoption of drift.

        Adopted fields no longer count as drift.

        Raises ClusterError.
        """
        if drift.policy != "adopt" or not drift.kept:
            return None
        carried = loaded.carried
        live = await client.read(resource, carried.kubernetes_namespace, carried.name)
        allowed = partial(self._check_adopted, loaded)
        wanted = adoption.adopt(carried, live, [difference.field for difference in drift.kept], allowed)
        taken = [each for each in drift.kept if adoption.is_adopted(wanted, live, each.field)]
        drift.adopted += [str(difference) for difference in taken]
        drift.kept = [difference for difference in drift.kept if difference not in taken]
        return None if wanted == carried else wanted

    def _check_adopted(self, loaded: LoadedObject, stored: CarriedObject, wanted: CarriedObject) -> None:
        self._rights.check(loaded.namespace, stored, wanted, loaded.kind)


def _policy(carried: CarriedObject) -> ObjectDriftPolicy:
    """Returns the drift policy.

    Changes on the cluster are not adopted by objects that only few callers may change.
    """
    kept = carried.protected or carried.privileged
    return "report" if kept and carried.drift_policy == "adopt" else carried.drift_policy


def _without_kind(missing: NotFound) -> ObjectProgress:
    condition = waiting(missing.reason, missing.message)
    return ObjectProgress(conditions=(condition,), again_seconds=_KIND_SECONDS)


def _same(wanted: Manifest, live: Manifest, path: str) -> bool:
    return bool(field_paths.value_at(wanted, path) == field_paths.value_at(live, path))


async def _make(
    client: LeasedClient, resource: Resource[AnyObject], carried: CarriedObject, drift: Drift
) -> AnyObject | None:
    """Creates an object that was never there; returns None if the cluster has one of its name.

    An apply with a resource version creates a missing object, and conflicts with an object of another version. Raises
    ClusterError, LeaseLost.
    """
    wanted = manifests.manifest(carried)
    of_none = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": _OF_NONE}}
    try:
        return await client.apply(resource, of_none, drift.admitted, whole=wanted)
    except Conflict:
        return None


async def _repair(
    client: LeasedClient, resource: Resource[AnyObject], ours: Manifest, wanted: Manifest, drift: Drift
) -> AnyObject:
    """Reverts changes of others that a dry run shows. Raises ClusterError, LeaseLost."""
    metadata = ours["metadata"]
    live = await client.read(resource, metadata["namespace"], metadata["name"])
    after = await client.dry_run(resource, ours, force=True)
    drift.repaired += [
        Difference(
            ours["kind"], metadata["name"], path, managed_fields.holder(live, path, apart_from=FIELD_MANAGER)
        )
        for path in field_paths.differing(ours, live, after)
        if not is_platforms(path)
    ]
    return await client.apply(resource, ours, drift.admitted, force=True, whole=wanted)


async def _delete(
    client: LeasedClient, resource: Resource[AnyObject], carried: CarriedObject
) -> ObjectProgress:
    found = await client.find(resource, carried.kubernetes_namespace, carried.name)
    if found is None or not manifests.is_ours(carried, found):
        return ObjectProgress(gone=True)
    if found.metadata.deletion_timestamp is None:
        home, uid = carried.namespace_ref, found.metadata.uid
        await client.delete(resource, home, carried.name, uid=uid, propagation="Background")
        return ObjectProgress(again_seconds=_GONE_AGAIN_SECONDS)
    if not found.metadata.finalizers:
        return ObjectProgress(again_seconds=AGAIN_SECONDS)
    words = await _finalizing(client, resource, carried)
    return ObjectProgress(
        again_seconds=_OTHERS_SECONDS,
        deleting=("WaitingForFinalizers", f"the cluster has not deleted it yet{words}"),
    )


async def _finalizing(client: LeasedClient, resource: Resource[AnyObject], carried: CarriedObject) -> str:
    """Returns a text about finalizers that delay a deletion. Raises ClusterError."""
    try:
        live = await client.read(resource, carried.kubernetes_namespace, carried.name)
    except NotFound:
        return ""
    said = []
    for finalizer in (live["metadata"].get("finalizers") or ())[:8]:
        manager = managed_fields.setter_of_finalizer(live, finalizer)
        said.append(f'"{finalizer}"' + (f' of "{manager}"' if manager else ""))
    return f": it waits for the finalizer {', '.join(said)}" if said else ""


async def _change(
    transaction: Transaction,
    row: CarriedObject,
    loaded: LoadedObject,
    progress: ObjectProgress,
    endpoints: Mapping[str, int],
) -> ObservedChange[CarriedObject, ObservedObject]:
    """Returns the values to write after `act`. Adopted values are written here, as the next generation."""
    generation = row.observed_generation
    if progress.done:
        generation = dealt_with(row, loaded.carried.generation)
    observed = _observed(transaction, row, loaded, progress, endpoints)
    if progress.adopted is not None and row.generation == loaded.carried.generation:
        # Only without a newer request; with one, its reconciliation finds the changes by others again.
        row = await _store_adopted(transaction, row, progress.adopted)
        generation = row.generation
    return ObservedChange(row, observed, generation)


def _written_version(progress: ObjectProgress) -> tuple[str, int] | None:
    """Returns uid and version of the object whose state is written, if the version is a number."""
    metadata = progress.found.metadata if progress.done and progress.found is not None else None
    if metadata is None or not metadata.resource_version.isdecimal():
        return None
    return metadata.uid, int(metadata.resource_version)


def _observed(
    transaction: Transaction,
    row: CarriedObject,
    loaded: LoadedObject,
    progress: ObjectProgress,
    endpoints: Mapping[str, int],
) -> ObservedObject:
    """Returns the observed state after `act`.

    `endpoints`: the ready endpoints of the namespace's Services.
    """
    settlement = progress.settlement
    # Contests end when the row has changed since it was loaded.
    before = row.observed.contests if row.generation == loaded.carried.generation else ()
    kept = contests.after(before, settlement.taken_back, settlement.settled, transaction.now)
    conditions = row.observed.conditions
    contested = contests.with_condition(conditions, kept)
    for condition in (*progress.conditions, *((contested,) if contested is not None else ())):
        conditions = set_condition(conditions, condition, transaction.now)
    observed = observe(row, progress.found, endpoints, conditions)
    observed = msgspec.structs.replace(observed, contests=kept)
    if not progress.done:
        return observed
    details = progress.details
    addresses = observed.addresses if details.addresses is None else details.addresses
    return msgspec.structs.replace(observed, certificates=details.certificates, addresses=addresses)


async def _store_adopted(
    transaction: Transaction, stored: CarriedObject, there: CarriedObject
) -> CarriedObject:
    """Writes the desired values of `there` as the next generation of `stored`.

    `stored` is locked. Work is enqueued.
    """
    wanted = msgspec.structs.replace(
        stored, document=there.document, labels=there.labels, annotations=there.annotations
    )
    if wanted == stored:
        return stored
    written = await repository.update_object(transaction, stored, wanted)
    await operations.changed(transaction, written, "modified", stored)
    return written
