"""The operations on containers: creation, change, lifecycle, deletion, quota.

Every operation commits the desired state, an event, and work for the reconciler; it never waits for the cluster. Every
create and every change reads the facts with one statement, decides here, and writes with another statement
(`repository.creation`, `repository.changing`). The write refuses outdated facts; then the operation starts again. The
quota is enforced because the write counts again under the namespace's counting lock. Without a quota, writes do not
wait for one another.

A call drafts its change, so nothing is locked while it decides. An operation that also changes other rows, or only
tries a change (`validate_only`), works in a transaction.

    state      start      stop       pause      resume     restart
    running    nothing    stopped    paused     nothing    rolls
    stopped    running    nothing    refused    refused    refused
    paused     refused    refused    nothing    running    refused
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple
from uuid import uuid4

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.containers import admission, repository, rules
from pilothouse_server.containers.changes import (
    changed,
    illegal_transition,
    marked,
    mounted,
    new_run,
    refuse_deleting,
    refuse_ended,
    refuse_rollout,
    refuse_running,
    restarted,
    starting_run,
    with_quota,
)
from pilothouse_server.containers.facts_cache import FactsCache
from pilothouse_server.containers.job_status import run_end
from pilothouse_server.containers.model import Container, DesiredState, Image, Pod
from pilothouse_server.containers.namespace_facts import ChangeFacts, CreationFacts, NamespaceFacts, Needs
from pilothouse_server.containers.namespace_limits import refuse_exceeded_numbers, refuse_unfit
from pilothouse_server.containers.repository import ContainerChange, Creation, FactReader, ServiceLimits
from pilothouse_server.containers.revisions import DesiredFields, Rollback, RollbackChoice, restored, revised
from pilothouse_server.containers.workload_rules import replacing
from pilothouse_server.containers.workloads import has_schedule, lists_runs
from pilothouse_server.errors import Aborted, FailedPrecondition, PilothouseError, already_exists, not_found
from pilothouse_server.guard.model import Keys
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.revisions.operations import read_revision
from pilothouse_server.runtime.event_loop import Share, others_first
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.unit_of_work import Actor, Event, Kind, ReadTransaction, Transaction
from pilothouse_server.values.image_reference import ImageReference
from pilothouse_server.values.resources import NamespaceId, NamespaceRef, ObjectWarning

Check = Callable[[Container], None]
# Collects the warnings about a container that is accepted; None if they are not needed.
Collected = list[ObjectWarning] | None
# Where a change is written: as a draft, or in a transaction.
Target = Draft | Transaction
# Returns the change that the facts lead to; None if the container already is as requested.
Decide = Callable[[ChangeFacts], Awaitable[ContainerChange | None]]
PauseMode = Literal["suspend", "hold_rollout", "freeze"]

# How often a transaction reads the facts, if others change them before the write compares them.
_ATTEMPTS = 5

stream = repository.stream_containers
list_history = repository.list_history
find_image = repository.find_image
list_images = repository.list_images
list_observed_pods = repository.list_observed_pods
list_pods = repository.list_pods
list_runs = repository.list_runs
find_run_name = repository.find_run_name
get_many = repository.get_many
CACHED = repository.CACHED
stream_runs = repository.stream_runs


async def locate(transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False) -> Container:
    """Returns the container of this name.

    Raises:
        NotFound: the namespace or the container does not exist, or is outside of the caller's scope.
    """
    found = await repository.find(transaction, namespace, name, lock=lock)
    if found is None:
        await locate_namespace(transaction, namespace)
        raise not_found("container", name)
    return found


async def create(
    transaction: Transaction,
    namespace_name: str,
    wanted: Container,
    *,
    keys: Keys,
    may: May,
    uid: str = "",
    collected: Collected = None,
) -> Container:
    """Creates a container in a transaction.

    `keys`: annotation and label keys, by the permission to set them. `may`: whether the caller has a permission in the
    namespace. `uid`: the uid of an orphan on the cluster, which keeps it; a new one if empty.

    Raises:
        InvalidArgument: the container breaks rules; the error names at most 20 violations.
        NotFound: the namespace does not exist.
        AlreadyExists: the name of the container or of a service is taken.
        FailedPrecondition: the namespace is inactive or being deleted.
        PermissionDenied: the caller lacks a permission, for example for a folder of the node or rights over the node.
        ResourceExhausted: the quota is exceeded.
        Aborted: the deciding facts changed each time that they were read.
    """
    wanted = rules.checked(rules.with_pod_labels(wanted))
    needs = admission.needs_of(wanted, None)
    for attempts_left in reversed(range(_ATTEMPTS)):
        facts = await repository.admit(transaction, namespace_name, wanted.name, needs)
        if facts is None:
            raise not_found("namespace", namespace_name)
        caller = Caller(transaction.actor, may, keys, collected)
        creation = await _decided_creation(transaction, facts, wanted, needs, caller, uid)
        try:
            await repository.write(transaction, creation)
        except Aborted:
            if not attempts_left:
                raise
            continue
        transaction.emit(event(creation.container, "added"))
        transaction.follow_up |= creation.follow_up
        return creation.container
    raise AssertionError("the last attempt returns or raises")


async def draft_creation(
    draft: Draft,
    cache: FactsCache,
    namespace_name: str,
    wanted: Container,
    *,
    keys: Keys,
    may: May,
    share: Share,
    collected: Collected = None,
) -> Container:
    """Drafts a new container.

    One statement reads the facts, and another writes everything at the commit. A namespace in `cache` is not read
    again.

    Raises as `create` does, in the same order; for a replay, raises Replayed or BeingServed first.
    """
    try:
        wanted = rules.checked(rules.with_pod_labels(wanted))
    except PilothouseError:
        # A replay returns the stored response without applying the rules.
        await repository.admit_draft(draft, "", "", Needs())
        raise
    await share.used()
    needs, caller = admission.needs_of(wanted, None), Caller(draft.actor, may, keys, collected)
    creation, warned = None, len(collected or ())
    if (cached := cache.find(draft.user_id, namespace_name, needs)) is not None:
        try:
            creation = await _decided_creation(draft, cached, wanted, needs, caller)
        except PilothouseError:
            # No create is refused because of a cached value.
            del (collected or [])[warned:]
    if creation is None:
        facts = await repository.admit_draft(draft, namespace_name, wanted.name, needs)
        if facts is None:
            raise not_found("namespace", namespace_name)
        creation = await _decided_creation(draft, facts, wanted, needs, caller)
    cache.learn(draft.user_id, creation.facts)
    outdated = partial(cache.forget, draft.user_id, namespace_name)
    repository.draft_creation(draft, creation, written=cache.add_id, outdated=outdated)
    draft.emit(event(creation.container, "added"))
    draft.follow_up = creation.follow_up
    return creation.container


async def _decided_creation(
    target: FactReader, facts: CreationFacts, wanted: Container, needs: Needs, caller: Caller, uid: str = ""
) -> Creation:
    """Returns the container as the namespace's facts and limits admit it; adds limits that it reads to the facts."""
    creation, namespace = admitted_creation(facts, wanted, needs, caller, uid), facts.namespace.name
    await refuse_unfit(target, namespace, creation.container, None)
    limits = None if facts.service_types is None else ServiceLimits(facts.service_types, 0, 0)
    if limits is None and needs.services:
        # These limits are of the same version of the namespace as the facts. If they are of a newer version, the write
        # refuses the facts as outdated.
        limits = await repository.service_limits(target, namespace)
        if not limits.most:
            facts = msgspec.structs.replace(facts, service_types=limits.types)
    most = await refuse_exceeded_numbers(target, namespace, wanted, None, limits)
    return msgspec.structs.replace(creation, facts=facts, most=most)


class Caller(NamedTuple):
    """The user who creates a container, with the permissions and keys that decide about its rights."""

    actor: Actor
    may: May
    keys: Keys
    collected: Collected


def admitted_creation(
    facts: CreationFacts, wanted: Container, needs: Needs, caller: Caller, uid: str = ""
) -> Creation:
    """Returns the container as the facts admit it; raises as `create` does, except for the errors of `rules`."""
    namespace = facts.namespace
    refuse_inactive_namespace(namespace)
    if facts.name_taken is not None:
        raise already_exists("container", wanted.name, being_deleted=facts.name_taken == "being_deleted")
    wanted = msgspec.structs.replace(
        wanted,
        namespace_ref=namespace.ref,
        kubernetes_name=wanted.kubernetes_name or wanted.name,
    )
    wanted = admission.settled(wanted, None, facts.found, caller.keys, caller.may)
    share = rules.quota_share(wanted)
    admission.refuse_exceeded_quota(namespace, facts.used, share)
    admission.warn_of_quota(namespace, share, caller.collected)
    created = msgspec.structs.replace(
        wanted,
        id=facts.container_id,
        uid=uid or str(uuid4()),
        created_at=facts.moment,
        updated_at=facts.moment,
        created_by=caller.actor.username,
    )
    return Creation(created, facts, needs, share, admission.limits_of(namespace.quota))


async def change(
    target: Target,
    namespace: str,
    name: str,
    merge: Callable[[Container], Container],
    check: Check,
    *,
    keys: Keys,
    may: May,
    collected: Collected = None,
) -> Container:
    """Changes the desired state; `merge` adds the caller's fields to the stored container.

    Raises as `create` does; `check` raises Aborted if the etag is not the current one.
    """

    async def decide(facts: ChangeFacts) -> ContainerChange | None:
        check(facts.stored)
        refuse_deleting(facts.stored)
        return await admitted_change(
            target, facts, merge(facts.stored), keys=keys, may=may, collected=collected
        )

    return await _decided(target, namespace, name, decide)


async def rollback(
    target: Target,
    namespace: str,
    name: str,
    choice: RollbackChoice,
    check: Check,
    *,
    keys: Keys,
    may: May,
    collected: Collected = None,
) -> Rollback:
    """Restores all desired fields of a revision.

    They are checked like any other change by the caller. Raises as `change` does; NotFound also for a revision that is
    no longer stored.
    """
    origin, before = 0, None

    async def decide(facts: ChangeFacts) -> ContainerChange | None:
        nonlocal origin, before
        stored = before = facts.stored
        check(stored)
        refuse_deleting(stored)
        origin = choice.number or stored.revision_number - 1
        desired = await read_revision(target, revised(stored), origin, DesiredFields) if origin > 0 else None
        if desired is None:
            raise not_found("revision", str(choice.number or "before the newest"))
        merge = partial(restored, desired=desired)
        wanted = replacing(starting_run(merge) if choice.rerun else merge, replace=choice.replace)(stored)
        change = await admitted_change(target, facts, wanted, keys=keys, may=may, collected=collected)
        return change and msgspec.structs.replace(change, origin=origin)

    container = await _decided(target, namespace, name, decide)
    assert before is not None
    return Rollback(container, before, origin)


async def admitted_change(
    target: Target, facts: ChangeFacts, wanted: Container, *, keys: Keys, may: May, collected: Collected
) -> ContainerChange | None:
    """Returns the change to `wanted` as the rules and the facts admit it; None if it changes nothing."""
    stored, namespace = facts.stored, facts.namespace.name
    if wanted.is_long:
        await others_first()
    wanted = rules.checked(wanted)
    if wanted == stored:
        return None
    if wanted.is_long:
        await others_first()
    needs, found, volumes = admission.needs_of(wanted, stored), NamespaceFacts(), None
    if needs != Needs():
        admitted = await repository.admit(target, namespace, stored.name, needs)
        if admitted is None:
            raise not_found("namespace", namespace)
        found, volumes = admitted.found, admitted.volume_definitions
    wanted = admission.settled(wanted, stored, found, keys, may)
    if wanted == stored:
        return None
    most = await refuse_exceeded_numbers(target, namespace, wanted, stored)
    await refuse_unfit(target, namespace, wanted, stored)
    admission.warn_of_quota(facts.namespace, rules.quota_share(wanted), collected)
    return msgspec.structs.replace(
        with_quota(changed(stored, wanted, facts.moment), facts),
        most=most,
        needs=needs,
        volume_definitions=volumes,
    )


async def start(target: Target, namespace: str, name: str) -> Container:
    """Requests the pods of a stopped container again; raises FailedPrecondition if paused."""
    return await _move(target, namespace, name, "start", {"stopped": "running", "running": "running"})


async def stop(target: Target, namespace: str, name: str) -> Container:
    """Requests no pods, but keeps the stored number of replicas; raises FailedPrecondition if paused."""
    return await _move(target, namespace, name, "stop", {"running": "stopped", "stopped": "stopped"})


async def pause(target: Target, namespace: str, name: str, mode: PauseMode) -> tuple[Container, list[str]]:
    """Pauses a container; returns it with a list of the things that its pods lose.

    Raises:
        FailedPrecondition: the container is stopped (for `hold_rollout` also if suspended), its newest run has ended,
            or the mode is not supported.
    """
    if mode == "freeze":
        raise FailedPrecondition(
            "Kubernetes has no call that freezes a container: use SUSPEND or HOLD_ROLLOUT",
            reason="PAUSE_MODE_UNSUPPORTED",
        )
    if mode == "hold_rollout":
        return await _decided(target, namespace, name, _hold_rollout), []
    moved = await _move(target, namespace, name, "pause", {"running": "paused", "paused": "paused"})
    if has_schedule(moved):
        # Active runs continue.
        return moved, []
    losses = ["pod address", "memory"]
    losses += [f"emptyDir {item.name}" for item in moved.spec.empty_dirs]
    return moved, losses


async def resume(target: Target, namespace: str, name: str) -> Container:
    """Ends a pause of either mode; raises FailedPrecondition if stopped."""
    return await _move(
        target, namespace, name, "resume", {"paused": "running", "running": "running"}, release=True
    )


async def restart(target: Target, namespace: str, name: str) -> Container:
    """Requests the replacement of every pod; for a Job or CronJob, requests a new run.

    The new run of a Job replaces a run that has not ended. Raises FailedPrecondition if the container is stopped or
    paused, or if a CronJob has as many active runs as it may have.
    """

    async def decide(facts: ChangeFacts) -> ContainerChange:
        refuse_deleting(facts.stored)
        if run_end(facts.stored) is None and facts.stored.desired_state != "running":
            raise illegal_transition("restart", facts.stored)
        if has_schedule(facts.stored):
            refuse_running(facts.stored)
        if lists_runs(facts.stored):
            return new_run(facts)
        return restarted(facts.stored, facts.moment)

    return await _decided(target, namespace, name, decide)


async def run(target: Target, namespace: str, name: str, *, replacing: bool = False) -> Container:
    """Starts a new run of a Job or CronJob.

    `replacing`: the new run of a Job replaces one that has not ended.

    Raises:
        InvalidArgument: the container is neither a Job nor a CronJob.
        FailedPrecondition: the newest run of a Job has not ended, or a CronJob has as many active runs as it may have.
        ResourceExhausted: the quota is exceeded.
    """

    async def decide(facts: ChangeFacts) -> ContainerChange:
        refuse_deleting(facts.stored)
        if not replacing:
            refuse_running(facts.stored)
        return new_run(facts)

    return await _decided(target, namespace, name, decide)


async def delete(target: Target, namespace: str, name: str, check: Check) -> Container:
    """Marks a container for deletion; returns it unchanged if it is already marked."""

    async def decide(facts: ChangeFacts) -> ContainerChange | None:
        check(facts.stored)
        change = marked(facts.stored, facts.moment)
        return change and msgspec.structs.replace(change, mounted=mounted(facts.stored))

    return await _decided(target, namespace, name, decide)


async def delete_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Marks every container of a namespace for deletion, for a cascading delete, which deletes volumes afterwards."""
    found = [item async for item in repository.stream_containers(transaction, namespace_id=namespace.id)]
    # In the order in which all other operations lock containers and their work.
    for item in sorted(found, key=lambda item: item.id):
        stored = await repository.get(transaction, item.id, lock=True)
        if stored is not None and (change := marked(stored, await transaction.moment())):
            await write_locked(transaction, change)


async def forget_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Removes every container of a namespace from the database, with a tombstone each; its cluster objects stay."""
    found = [item async for item in repository.stream_containers(transaction, namespace_id=namespace.id)]
    runs = await repository.runs_by_id(transaction, found)
    for container in await repository.remove_all(transaction, namespace.id):
        transaction.emit(event(container, "deleted", container))
    for id_, (owner, run) in runs.items():
        transaction.emit(repository.run_event(owner, run, id_, "deleted", run))


async def held(transaction: ReadTransaction, namespace_id: NamespaceId) -> Mapping[str, int]:
    """Returns how many containers a namespace has, including those that are being deleted."""
    return {"containers": await repository.count(transaction, namespace_id)}


async def locate_image(transaction: ReadTransaction, image: str, visible: frozenset[int] | None) -> Image:
    """Returns the image that a reference names; raises NotFound if none of the caller's containers use it."""
    found = await find_image(transaction, ImageReference.parse(image), visible)
    if found is None:
        raise not_found("image", image)
    return found


async def delete_image(transaction: Transaction, image: str) -> Image:
    """Deletes the row of an image; raises FailedPrecondition if containers use it."""
    found = await locate_image(transaction, image, None)
    users = await repository.count_users(transaction, found)
    if users:
        raise FailedPrecondition(
            f'image "{image}" is used by {users} containers',
            reason="IMAGE_IN_USE",
            metadata={"containers": str(users)},
        )
    await repository.delete_image(transaction, found)
    return found


def event(container: Container, kind: Kind, before: Container | None = None) -> Event:
    """Returns the event of a change of a container."""
    return Event(
        resource_type="container",
        resource_id=container.id,
        namespace_id=container.namespace_id,
        name=container.name,
        kind=kind,
        entity=container,
        labels=container.labels,
        status=container.observed.status,
        labels_before=None if before is None else before.labels,
        status_before=None if before is None else before.observed.status,
    )


async def restart_locked(transaction: Transaction, stored: Container) -> Container:
    """Requests the replacement of every pod of a locked container."""
    return await write_locked(transaction, restarted(stored, await transaction.moment()))


async def write_locked(transaction: Transaction, change: ContainerChange) -> Container:
    """Writes a change of a container that the transaction has locked, with its event; returns it as stored."""
    await repository.write_change(transaction, change)
    return _emitted(transaction, change)


async def _decided(target: Target, namespace: str, name: str, decide: Decide) -> Container:
    """Writes the change that `decide` returns for the facts, if any; returns the container."""
    if isinstance(target, Draft):
        await target.take_turn(("container", namespace, name))
        change, stored = await _decision(target, namespace, name, decide)
        if change is None:
            return stored
        repository.draft_change(target, change)
        return _emitted(target, change)
    for attempts_left in reversed(range(_ATTEMPTS)):
        change, stored = await _decision(target, namespace, name, decide)
        if change is None:
            return stored
        try:
            return await write_locked(target, change)
        except Aborted:
            if not attempts_left:
                raise
    raise AssertionError("the last attempt returns or raises")


async def _decision(
    target: Target, namespace: str, name: str, decide: Decide
) -> tuple[ContainerChange | None, Container]:
    home, facts = await repository.admit_change(target, namespace, name)
    if facts is None:
        raise not_found("namespace", namespace) if home is None else not_found("container", name)
    return await decide(facts), facts.stored


def _emitted(target: Target, change: ContainerChange) -> Container:
    written = change.written
    target.emit(event(written, "modified", change.stored))
    return written


async def _move(
    target: Target,
    namespace: str,
    name: str,
    verb: str,
    allowed: dict[DesiredState, DesiredState],
    *,
    release: bool = False,
) -> Container:
    """Changes to the state that `allowed` has for the present one; `release` also ends a held rollout."""

    async def decide(facts: ChangeFacts) -> ContainerChange | None:
        stored = facts.stored
        refuse_deleting(stored)
        refuse_ended(stored, verb)
        wanted_state = allowed.get(stored.desired_state)
        if wanted_state is None:
            raise illegal_transition(verb, stored)
        hold = stored.hold_rollout and not release
        if wanted_state == stored.desired_state and hold == stored.hold_rollout:
            return None
        wanted = msgspec.structs.replace(stored, desired_state=wanted_state, hold_rollout=hold)
        moved = changed(stored, wanted, facts.moment)
        if wanted_state != "running":
            return moved
        refuse_inactive_namespace(facts.namespace)
        return msgspec.structs.replace(moved, namespace_version=facts.namespace.row_version)

    return await _decided(target, namespace, name, decide)


async def _hold_rollout(facts: ChangeFacts) -> ContainerChange | None:
    stored = facts.stored
    refuse_deleting(stored)
    refuse_rollout(stored)
    if stored.desired_state != "running":
        raise illegal_transition("hold the rollout of", stored)
    if stored.hold_rollout:
        return None
    return changed(stored, msgspec.structs.replace(stored, hold_rollout=True), facts.moment)


def ready_pod(pods: Sequence[Pod], name: str, container: str) -> Pod:
    """Returns the pod of this name.

    Without a name, returns the newest ready pod, or else the newest running pod.

    Raises:
        NotFound: there is no pod of this name.
        FailedPrecondition: no pod is running.
    """
    if name:
        for pod in pods:
            if pod.name == name:
                return pod
        raise not_found("pod", name)
    running = [pod for pod in pods if pod.phase == "Running" and not pod.deleting]
    if not running:
        raise FailedPrecondition(f'container "{container}" has no running pod', reason="NOT_RUNNING")
    return max(running, key=lambda pod: (pod.ready, pod.started_at.timestamp() if pod.started_at else 0.0))
