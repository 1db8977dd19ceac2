"""Namespaces on their clusters.

A Kubernetes namespace is ours if it carries the uid of our namespace. An existing namespace without it belongs to
another owner: it is adopted only on request (`adopted`), and is released at the end instead of deleted, because it
existed before. If it is deleted and created again under the same name, it belongs to another owner again.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.guard.model import Admitted
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.conditions import APPLIED, set_condition
from pilothouse_server.kubernetes.errors import LABEL_LOST, NAME_TAKEN, ClusterError, Conflict, Refused
from pilothouse_server.kubernetes.namespace_ownership import taken_words
from pilothouse_server.kubernetes.objects import NAMESPACES, KubernetesObject
from pilothouse_server.kubernetes.objects import Namespace as KubernetesNamespace
from pilothouse_server.kubernetes.ownership import NAMESPACE, NAMESPACE_UID, label_value
from pilothouse_server.namespaces.manifests import (
    POD_SECURITY,
    namespace_manifest,
    reclaimed_namespace_manifest,
    released_namespace_manifest,
)
from pilothouse_server.namespaces.model import Namespace, PodDemand, Quota
from pilothouse_server.reconcile.apply import managed_fields_diff
from pilothouse_server.reconcile.apply.namespace_quota import (
    QUOTA_ENFORCED,
    apply_quota,
    remove_quota,
)
from pilothouse_server.reconcile.apply.row_reconciler import (
    OneByOne,
    dealt_with,
    failed,
)
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.queue.resource_reconciler import Progress, Result
from pilothouse_server.reconcile.repository import namespace_status
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import Condition

# The deletion of a namespace takes seconds.
AGAIN_SECONDS = 1.0
# How often a namespace that is to be deleted and has lost its label is checked.
LABEL_SECONDS = 30.0


class LoadedNamespace(msgspec.Struct, frozen=True):
    """`is_empty`: no resource is left, not even one being deleted.

    `demand`: read only with a quota.
    """

    namespace: Namespace
    is_empty: bool
    demand: PodDemand = PodDemand()


class NamespaceProgress(Progress, frozen=True):
    """`phase`: as the cluster reports it, with its reason.

    `level`: of Pod Security; None if it was not read. `taken_over`: the namespace is ours now, although more is to be
    done. `quota`: the condition of its quota on the cluster.
    """

    phase: str = ""
    reason: str = ""
    message: str = ""
    level: str | None = None
    taken_over: bool = False
    quota: Condition | None = None


class NamespaceReconciler(OneByOne[Namespace, LoadedNamespace, NamespaceProgress]):
    """Applies, deletes or releases Kubernetes namespaces."""

    async def load_one(self, transaction: ReadTransaction, work: Work) -> LoadedNamespace | None:
        """Returns the namespace in its desired state; None if it has ended."""
        namespace = await namespace_status.find(transaction, work.resource_id)
        if namespace is None:
            return None
        demand = PodDemand()
        if namespace.quota != Quota():
            demand = await namespace_status.pod_demand(transaction, int(namespace.id))
        is_empty = await namespace_status.is_empty(transaction, int(namespace.id))
        return LoadedNamespace(namespace, is_empty, demand)

    async def act(self, client: LeasedClient, loaded: LoadedNamespace) -> NamespaceProgress:
        """Applies the namespace, or deletes it once it is empty. Raises ClusterError, LeaseLost."""
        namespace = loaded.namespace
        if namespace.deletion_requested_at is None:
            applied = await _apply(client, namespace)
            if applied.phase != "Active":
                return applied
            quota = await apply_quota(client, namespace, loaded.demand)
            objects = {**(applied.objects or {}), **quota.objects}
            return msgspec.structs.replace(applied, objects=objects, quota=quota.condition)
        if not loaded.is_empty:
            # Resources are deleted first, each with its own events, so that the namespace's deletion removes no others.
            return await _wait_until_empty(client, namespace)
        return await _delete(client, namespace)

    async def lock_one(self, transaction: Transaction, resource_id: int) -> Namespace | None:
        """Locks and returns a namespace that has not ended."""
        return await namespace_status.lock(transaction, resource_id)

    async def write_error(
        self,
        transaction: Transaction,
        row: Namespace,
        loaded: LoadedNamespace,
        error: ClusterError,
        attempts: int,
    ) -> None:
        """Writes why the namespace is not applied."""
        refused = error.outlook != "passing"
        generation = row.observed_generation
        # A namespace that was refused is not on the cluster: its containers still wait for it.
        if refused and generation:
            generation = dealt_with(row, loaded.namespace.generation)
        progress = NamespaceProgress(phase=row.phase, reason=error.reason, message=error.message)
        await _write(transaction, row, progress, failed(error, refused=refused), generation)

    async def write_deleted(self, transaction: Transaction, row: Namespace) -> Result:
        """Ends the namespace, unless something was created in it since."""
        if not await namespace_status.is_empty(transaction, int(row.id)):
            return Result(again_seconds=AGAIN_SECONDS)
        await namespace_status.delete(transaction, row)
        return Result(removed=True)

    async def write_one(
        self, transaction: Transaction, row: Namespace, loaded: LoadedNamespace, progress: NamespaceProgress
    ) -> Result:
        """Writes the cluster's state of the namespace."""
        applied, generation = None, row.observed_generation
        if progress.again_seconds is None or (progress.taken_over and not generation):
            applied = Condition(APPLIED, "True", "Applied")
            generation = dealt_with(row, loaded.namespace.generation)
        await _write(transaction, row, progress, applied, generation)
        return Result(again_seconds=progress.again_seconds)


def _admitted(namespace: Namespace) -> Admitted:
    return Admitted(namespace.kubernetes_name, frozenset({NAMESPACE, NAMESPACE_UID}), frozenset())


async def _apply(client: LeasedClient, namespace: Namespace) -> NamespaceProgress:
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    if found is not None:
        if found.metadata.deletion_timestamp is not None:
            # Another client is deleting it: it must end before it can be created again.
            return _terminating(found)
        if _has_lost_its_label(namespace, found) or _is_made_anew(namespace, found):
            raise Refused(_lost(namespace), code=409, status_reason=LABEL_LOST)
        if not _is_ours(namespace, found) and not namespace.adopted:
            raise Conflict(taken_words(namespace.kubernetes_name), status_reason=NAME_TAKEN)
    wanted = namespace_manifest(namespace)
    # In our namespace, values that others wrote over ours are reverted: namespaces have no drift policy.
    ours = found is not None and _is_ours(namespace, found)
    settled = ours and namespace.observed_generation >= namespace.generation
    applied = found
    if (
        applied is None
        or not settled
        or not await managed_fields_diff.live_matches_manifest(client, NAMESPACES, wanted)
    ):
        if found is not None:
            # If it is replaced before the apply, the new one is not taken over: the cluster refuses another uid.
            wanted = wanted | {"metadata": wanted["metadata"] | {"uid": found.metadata.uid}}
        applied = await client.apply(
            NAMESPACES, wanted, _admitted(namespace), force=namespace.adopted or ours
        )
    objects = fingerprints.by_object((NAMESPACES, applied))
    level = applied.metadata.label(POD_SECURITY) or ""
    return NamespaceProgress(phase=applied.status.phase or "Active", objects=objects, level=level)


async def _wait_until_empty(client: LeasedClient, namespace: Namespace) -> NamespaceProgress:
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    waiting = NamespaceProgress(
        phase=namespace.phase, reason="DeletingContainers", again_seconds=AGAIN_SECONDS / 2
    )
    if found is not None and (_has_lost_its_label(namespace, found) or _is_made_anew(namespace, found)):
        return _report_lost(namespace, found)
    if found is None or found.metadata.deletion_timestamp is not None or not namespace.adopted:
        return waiting
    if not _is_ours(namespace, found):
        # Its adoption was requested, and it may have been ours before. Our objects in it can be deleted only once it is
        # ours.
        wanted = reclaimed_namespace_manifest(namespace, found.metadata.uid)
        await client.apply(NAMESPACES, wanted, _admitted(namespace), force=True)
    return msgspec.structs.replace(waiting, taken_over=True)


async def _delete(client: LeasedClient, namespace: Namespace) -> NamespaceProgress:
    found = await client.find(NAMESPACES, None, namespace.kubernetes_name)
    if found is not None and _has_lost_its_label(namespace, found):
        # The row stays, because the objects that are left there would have no owner.
        return _report_lost(namespace, found)
    if found is None or not _is_ours(namespace, found):
        return NamespaceProgress(gone=True)
    if namespace.adopted:
        if any(each.type == QUOTA_ENFORCED for each in namespace.conditions):
            await remove_quota(client, namespace)
        await client.apply(NAMESPACES, released_namespace_manifest(namespace), _admitted(namespace))
        return NamespaceProgress(gone=True)
    if found.metadata.deletion_timestamp is None:
        await client.delete_namespace(namespace.kubernetes_name, uid=found.metadata.uid)
    return _terminating(found)


async def _write(
    transaction: Transaction,
    row: Namespace,
    progress: NamespaceProgress,
    condition: Condition | None,
    observed_generation: int,
) -> None:
    conditions = row.conditions
    if condition is not None:
        conditions = set_condition(conditions, condition, transaction.now)
    if progress.quota is not None:
        conditions = set_condition(conditions, progress.quota, transaction.now)
    elif condition is not None and condition.status == "True":
        # The namespace was applied, and has no quota any more.
        conditions = tuple(each for each in conditions if each.type != QUOTA_ENFORCED)
    written = msgspec.structs.replace(
        row,
        phase=progress.phase,
        reason=progress.reason,
        message=progress.message,
        conditions=conditions,
        pod_security_level=row.pod_security_level if progress.level is None else progress.level,
        observed_generation=observed_generation,
    )
    await namespace_status.write(transaction, row, written)


def _is_ours(namespace: Namespace, found: KubernetesObject) -> bool:
    return found.metadata.label(NAMESPACE_UID) == namespace.uid


def _has_lost_its_label(namespace: Namespace, found: KubernetesObject) -> bool:
    """Returns whether a namespace that we created has lost its label."""
    return not namespace.adopted and namespace.observed_generation > 0 and not _is_ours(namespace, found)


def _is_made_anew(namespace: Namespace, found: KubernetesObject) -> bool:
    """Returns whether an adopted namespace was replaced, judged by labels: it has none of our labels, or another uid.

    If only the uid is missing, the next apply writes it. A requested adoption starts at observed generation 0.
    """
    if not namespace.adopted or namespace.observed_generation == 0 or _is_ours(namespace, found):
        return False
    labels = found.metadata.label
    return bool(labels(NAMESPACE_UID)) or labels(NAMESPACE) != label_value(namespace.name)


def _report_lost(namespace: Namespace, found: KubernetesNamespace) -> NamespaceProgress:
    """Returns the result of a deletion that waits for the label.

    Without the label nothing is deleted there.
    """
    return NamespaceProgress(
        phase=found.status.phase or "Active",
        reason=LABEL_LOST,
        message=_lost(namespace),
        # In an adopted namespace only the objects that we created wait for the label; they may be deleted any moment.
        again_seconds=AGAIN_SECONDS if namespace.adopted else LABEL_SECONDS,
    )


def _lost(namespace: Namespace) -> str:
    return (
        f"the Kubernetes namespace {namespace.kubernetes_name} has lost the label "
        f"{NAMESPACE_UID}={namespace.uid} that marks it as the platform's, or somebody else created it "
        "again: set the label, delete the namespace on the cluster, or have an administrator take it over (--adopt)"
    )


def _terminating(found: KubernetesNamespace) -> NamespaceProgress:
    """Returns the progress of a deletion, with the cluster's message about obstacles."""
    remaining = "; ".join(
        condition.message
        for condition in found.status.conditions
        if condition.status == "True" and condition.message
    )
    return NamespaceProgress(
        phase="Terminating", reason="Terminating", message=remaining, again_seconds=AGAIN_SECONDS
    )
