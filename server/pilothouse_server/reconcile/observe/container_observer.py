"""Watches one cluster and writes the state of our containers.

Informers watch workloads, replica sets, pods and namespaces with our label; each change marks its container. In
batches the marked containers are locked, loaded, observed (a pure function) and written, with history, pods and events,
in one transaction under the observer's lease. Rows that another transaction has locked are left for the next batch, so
a user's change and the observer never wait for each other.

The worker handles differences: a workload that vanished or was changed by others, a namespace that somebody deletes.
The sweep handles objects without a container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

import msgspec

from pilothouse_server.containers import manifests
from pilothouse_server.containers.drift_rules import DEFAULT_RULES
from pilothouse_server.containers.job_status import ContainerRun, run_end, runs_of
from pilothouse_server.containers.model import Container, Resources
from pilothouse_server.containers.observation import Observation, observe
from pilothouse_server.containers.schedule_status import (
    in_order,
    runs_of_schedule,
    runs_to_begin,
    shall_be_suspended,
)
from pilothouse_server.containers.workloads import WORKLOADS, WorkloadType, lists_runs, workload_type
from pilothouse_server.kubernetes.errors import ClusterError, Forbidden
from pilothouse_server.kubernetes.events import MESSAGE_LIMIT, Warned
from pilothouse_server.kubernetes.objects import (
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    Namespace,
    Pod,
    ReplicaSet,
    Resource,
    WorkloadObject,
)
from pilothouse_server.kubernetes.ownership import MANAGED_SELECTOR
from pilothouse_server.kubernetes.pod_observation import PodObservation
from pilothouse_server.kubernetes.set_objects import CronJob
from pilothouse_server.namespaces.manifests import QUOTA_NAME
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster, StatusObserver
from pilothouse_server.reconcile.observe.cluster_view import ClusterView, Objects
from pilothouse_server.reconcile.observe.explanations import Explanations
from pilothouse_server.reconcile.observe.images import Images, RunningImage
from pilothouse_server.reconcile.observe.imported_pods import ImportedPods
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.repository import (
    applied_objects,
    container_runs,
    container_status,
    images,
    namespace_status,
    work_queue,
)
from pilothouse_server.reconcile.repository.container_status import ORDINARY_REASONS, Change
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.permitted_additions import PermittedAdditions
from pilothouse_server.values.resources import NamespaceId


class ContainerObserverSettings(msgspec.Struct, frozen=True):
    """`gather_seconds`: how long changes are gathered before they are written together."""

    batch: int = 25
    gather_seconds: float = 0.05
    locked_again_seconds: float = 0.2
    # For a pod that is not ready: when its events are requested, and how often again if only they give the reason.
    unexplained_seconds: float = 2.0
    events_again_seconds: float = 15.0
    # A node lists an image some time after it has pulled it.
    node_seconds: float = 20.0
    # How long images are gathered before they are written: containers that start together mostly run the same ones.
    images_seconds: float = 1.0
    # Permitted additions by others to templates.
    permitted: PermittedAdditions = DEFAULT_RULES.permitted


class PodOwner(msgspec.Struct, frozen=True):
    """The container of a pod, for the measurement of pods.

    `programs`: the resources of its programs that run side by side; `pod`: the resources of the pod as a whole.
    """

    container_id: int
    namespace_id: NamespaceId
    programs: tuple[Resources, ...]
    pod: Resources

    def __hash__(self) -> int:
        return hash(self.container_id)


class ContainerObserver(StatusObserver):
    """The observer of one cluster's containers under one lease.

    `run` works until cancelled; raises LeaseLost.
    """

    subject = "containers"

    def __init__(
        self,
        cluster: LeasedCluster,
        applied_generations: AppliedGenerations,
        settings: ContainerObserverSettings = ContainerObserverSettings(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(cluster, gather_seconds=settings.gather_seconds)
        client = cluster.client
        self._settings = settings
        self.view = ClusterView(applied_generations, self._wake.set)
        self._imported = ImportedPods(client, self.view, self.watch_failed)
        owned = manifests.OWNED_SELECTOR
        self._workloads = [(type_, self._workload_informer(type_)) for type_ in WORKLOADS.values()]
        self._replica_sets = self.informer(REPLICA_SETS, self.view.replica_set_changed, owned)
        self._pods = self.informer(PODS, self.view.pod_changed, owned)
        self._namespaces = self.informer(NAMESPACES, self.view.namespace_changed, MANAGED_SELECTOR)
        # The last written values, so that only differences are written.
        self._written_pods: dict[str, tuple[PodObservation, ...]] = {}
        self._written_runs: dict[str, tuple[int, tuple[ContainerRun, ...]]] = {}
        self._owners: dict[str, PodOwner] = {}
        self._images = Images(client, settings.node_seconds)
        # By the container's uid; all are written at `_images_due`.
        self._images_seen: dict[str, tuple[Container, list[RunningImage]]] = {}
        self._images_due: float | None = None
        self._explanations = Explanations(
            client,
            self.view,
            self.watch_failed,
            first_seconds=settings.unexplained_seconds,
            again_seconds=settings.events_again_seconds,
        )
        # Uids of containers that objects carry and that the database does not have on this cluster -> since when.
        self.unknown: dict[str, float] = {}

    def _workload_informer(self, type_: WorkloadType) -> Informer[WorkloadObject]:
        def changed(old: WorkloadObject | None, new: WorkloadObject | None) -> None:
            self.view.workload_changed(type_.kind, old, new)
            self._imported.workload_changed(old, new)

        def failed(error: ClusterError) -> None:
            self.watch_failed(error)
            if isinstance(error, Forbidden) and type_.name != "deployment":
                # The cluster may deny a kind that was added after its registration: other kinds are still observed.
                informer.synced.set()

        informer: Informer[WorkloadObject] = Informer(
            self.cluster.client, type_.resource, manifests.OWNED_SELECTOR, changed, failed
        )
        return informer

    def workloads(self) -> Iterator[tuple[Resource[WorkloadObject], Collection[WorkloadObject]]]:
        """Yields our workloads of each kind."""
        for type_, informer in self._workloads:
            yield type_.resource, informer.objects.values()

    @property
    def namespaces(self) -> dict[tuple[str, str], Namespace]:
        """Returns our Kubernetes namespaces; the first part of the key is empty."""
        return self._namespaces.objects

    @property
    def compared(self) -> dict[str, Informer[Any]]:
        """The objects to compare with the last apply, by kind."""
        workloads = {type_.kind: informer for type_, informer in self._workloads}
        return {**workloads, NAMESPACES.kind: self._namespaces}

    def pod_owners(self) -> dict[str, PodOwner]:
        """Returns the container of every known pod by the pod's uid."""
        return {pod.metadata.uid: self._owners[uid] for uid, pod in self.view.pods() if uid in self._owners}

    def start(self, group: asyncio.TaskGroup) -> None:
        """Starts the informers, including those of imported workloads' pods, and the loop that writes."""
        super().start(group)
        group.create_task(self._imported.run(), name=self.task_name("inform imported pods for"))

    def informers(self) -> Sequence[Informer[Any]]:
        """Returns the informers of the objects that carry our label."""
        workloads = (informer for _, informer in self._workloads)
        return (self._namespaces, *workloads, self._replica_sets, self._pods)

    async def uids(self, transaction: ReadTransaction) -> Iterable[str]:
        """Returns the uids of all containers on the cluster."""
        return await container_status.of_cluster(transaction, self.cluster.name)

    def mark(self, uid: str, *, in_seconds: float = 0.0) -> None:
        """Schedules a check of a container."""
        self.view.mark(uid, in_seconds=in_seconds)

    def seconds_to_next(self) -> float | None:
        """Returns the seconds until the next check or write is due; None if there is none."""
        seconds = self.view.seconds_to_next()
        if self._images_due is None:
            return seconds
        left = max(0.0, self._images_due - monotonic())
        return left if seconds is None else min(left, seconds)

    async def write_due(self) -> None:
        """Writes the containers that are due, and requests repairs. Raises LeaseLost, PilothouseError."""
        while uids := self.view.take(self._settings.batch):
            await self.write(uids)
        if self._images_due is not None and monotonic() >= self._images_due:
            await self._write_images()
        await self._ask_for_repairs()

    async def write_batch(self, uids: list[str]) -> None:
        """Locks the free rows, and writes differences. Raises LeaseLost, PilothouseError."""
        seen: dict[str, Observation] = {}
        async with self.cluster.transaction() as transaction:
            locked = await container_status.lock_free_uids(transaction, self.cluster.name, uids)
            changes = []
            # Read with the observation: further workloads may end while it is written.
            ended: dict[str, list[tuple[str, str]]] = {}
            runs: dict[str, tuple[ContainerRun, ...]] = {}
            async for container in cooperatively(locked):
                observation = self._observe(container, transaction.now)
                seen[container.uid] = observation
                ended[container.uid] = list(self._objects(container).ended)
                if lists_runs(container):
                    runs[container.uid] = self._runs(container, observation)
                changes.append(self._change(container, observation))
            written = await container_status.write(transaction, changes, "kubernetes")
            await self._write_runs(transaction, locked, written, runs)
            missing = [
                int(c.id)
                for c in locked
                if _lost(c, self.view.containers.get(c.uid))
                or _has_other_nodes(c, seen[c.uid])
                or self._is_suspended_wrongly(c)
            ]
            await work_queue.requeue_containers(transaction, missing)
            await work_queue.requeue_namespaces(transaction, _short_of_quota(locked, seen))
            left = [uid for uid in uids if uid not in seen]
            known = await container_status.uids_there(transaction, self.cluster.name, left) if left else set()
        for container in locked:
            self._remember(container, seen[container.uid])
            if container.uid in runs:
                self._written_runs[container.uid] = container.spec.run, runs[container.uid]
            # Anybody can label a Job with the uid of a container that has no runs: it must not delay repairs.
            self.view.forget_ended(container.uid, ended[container.uid])
            self._explanations.record(container, seen[container.uid])
        for uid in left:
            if uid in known:
                self.view.mark(uid, in_seconds=self._settings.locked_again_seconds)
            else:
                self._forget(uid)
        await self._explanations.request_due({each.uid: (each, seen[each.uid]) for each in locked})
        self._note_images(locked)

    def _objects(self, container: Container) -> Objects:
        return self.view.containers.get(container.uid) or Objects()

    def _runs(self, container: Container, observation: Observation) -> tuple[ContainerRun, ...]:
        objects = self._objects(container)
        if workload_type(container).scheduled:
            return runs_of_schedule(container, objects.jobs, observation.pods)
        return runs_of(container, objects.all_workloads.values(), observation.pods)

    def _workload(self, container: Container) -> WorkloadObject | None:
        objects = self._objects(container)
        found = objects.all_workloads.get((workload_type(container).kind, container.kubernetes_name))
        if isinstance(found, CronJob):
            return msgspec.structs.replace(found, jobs=in_order(objects.jobs))
        return found

    def _is_suspended_wrongly(self, container: Container) -> bool:
        """Returns whether a CronJob must be suspended or resumed, or a requested run may begin.

        The platform suspends the schedule while as many runs are active as are allowed.
        """
        found = self._workload(container)
        if not isinstance(found, CronJob):
            return False
        return found.spec.suspend != shall_be_suspended(container, found.jobs) or bool(
            runs_to_begin(container, found, found.jobs)
        )

    async def _write_runs(
        self,
        transaction: Transaction,
        locked: Sequence[Container],
        written: Iterable[Container],
        runs: Mapping[str, tuple[ContainerRun, ...]],
    ) -> None:
        """Writes the runs that differ, and releases the quota of containers whose newest run has ended."""
        if not runs:
            return
        now = {each.uid: each for each in (*locked, *written) if each.uid in runs}
        differing = [
            (each, runs[uid])
            for uid, each in now.items()
            if self._written_runs.get(uid) != (each.spec.run, runs[uid])
        ]
        await container_runs.write(transaction, differing)
        await container_runs.release_quota(
            transaction, [each for each, _ in differing if run_end(each) is not None]
        )

    def _note_images(self, containers: list[Container]) -> None:
        """Records the images of the pods that are not written yet."""
        for container in containers:
            objects = self._objects(container)
            if found := self._images.unwritten(container, objects.pods.values()):
                self._images_seen[container.uid] = (container, found)
        if self._images_seen and self._images_due is None:
            self._images_due = monotonic() + self._settings.images_seconds

    async def _write_images(self) -> None:
        """Writes the images that were seen."""
        found = [(c, image) for c, those in self._images_seen.values() for image in those]
        # Nodes are read before the transaction begins, so that no lock waits for the cluster.
        seen = [(c, image, await self._images.describe(c, image)) for c, image in found if not image.failed]
        failed = [(int(c.id), image.program, image.image) for c, image in found if image.failed]
        # Each statement locks images in the order of their names; both in one transaction would break that order.
        if failed:
            async with self.cluster.transaction() as transaction:
                await images.write_failed(transaction, failed)
        if seen:
            async with self.cluster.transaction() as transaction:
                await images.write_seen(transaction, [described for _, _, described in seen])
        for container, image in found:
            if image.failed:
                self._images.record(container, image, complete=True)
        for container, image, described in seen:
            known = described.size_bytes is not None
            if self._images.record(container, image, complete=known) == "again":
                self.view.mark(container.uid, in_seconds=self._settings.node_seconds)
        self._images_seen.clear()
        self._images_due = None

    def _observe(self, container: Container, now: datetime) -> Observation:
        objects = self._objects(container)
        pods: Iterable[Pod] = objects.pods.values()
        replica_sets: Iterable[ReplicaSet] = objects.replica_sets.values()
        return observe(
            container,
            self._workload(container),
            replica_sets,
            pods,
            self._explanations.events(container.uid),
            now=now,
            cluster_now=self.cluster.client.now(),
            permitted=self._settings.permitted,
        )

    def _change(self, container: Container, observation: Observation) -> Change:
        warnings, look_up = self._explanations.unrecorded(container, observation)
        before = self._written_pods.get(container.uid)
        warnings += _newly_failed(before, observation)
        return Change(
            container,
            observation.observed,
            container.observed_generation,
            observed_replicas=observation.spec_replicas,
            pods=None if before == observation.pods else observation.pods,
            warnings=warnings,
            look_up=look_up,
        )

    def _remember(self, container: Container, observation: Observation) -> None:
        uid = container.uid
        self.unknown.pop(uid, None)
        self._written_pods[uid] = observation.pods
        self._owners[uid] = PodOwner(
            int(container.id), container.namespace_id, container.side_by_side, container.spec.pod_resources
        )
        if observation.observed.status == "pending" and observation.observed.reason in ORDINARY_REASONS:
            self.view.starts(uid)
        if observation.recheck_seconds is not None:
            self.view.mark(uid, in_seconds=observation.recheck_seconds + 0.05)

    def _forget(self, uid: str) -> None:
        self._written_pods.pop(uid, None)
        self._written_runs.pop(uid, None)
        self._owners.pop(uid, None)
        self._explanations.forget(uid)
        self._images.forget(uid)
        self._images_seen.pop(uid, None)
        if (objects := self.view.containers.get(uid)) is not None:
            self.view.forget_ended(uid, list(objects.ended))
        if uid in self.view.containers:
            self.unknown.setdefault(uid, monotonic())
        else:
            self.unknown.pop(uid, None)

    async def _ask_for_repairs(self) -> None:
        """Makes work due for objects that others changed or deleted."""
        suspects = set(self.view.take_suspects())
        lost, namespaces = self.view.take_lost()
        levels = self.view.take_levels()
        if not (suspects or lost or namespaces or levels):
            return
        async with self.cluster.transaction() as transaction:
            ids = await container_status.of_cluster(transaction, self.cluster.name)
            wanted = {ids[uid] for uid in lost if uid in ids}
            wanted |= set(await self._changed(transaction, {ids[uid]: uid for uid in suspects if uid in ids}))
            # By one statement: two would lock rows in another order than the worker that writes results.
            await work_queue.requeue_containers(transaction, sorted(wanted))
            if namespaces or levels:
                ours = await namespace_status.by_kubernetes_name(transaction, self.cluster.name)
                namespaces |= {name for name in levels if name in ours and levels[name] != ours[name].level}
                namespace_ids = sorted(ours[name].id for name in namespaces if name in ours)
                await work_queue.requeue_namespaces(transaction, namespace_ids)

    async def _changed(self, transaction: ReadTransaction, suspects: dict[int, str]) -> list[int]:
        """Returns the ids of the suspects whose workload differs from its last apply, in order."""
        noted = await applied_objects.of_resources(transaction, "container", sorted(suspects))
        return [
            id_ for id_, uid in sorted(suspects.items()) if not self.view.is_as_noted(uid, noted.get(id_, {}))
        ]


def _short_of_quota(locked: Iterable[Container], seen: Mapping[str, Observation]) -> list[int]:
    """Returns the namespaces whose ResourceQuota newly refuses pods: it may lag behind the containers."""
    words = f"exceeded quota: {QUOTA_NAME},"
    return sorted(
        {
            int(container.namespace_id)
            for container in locked
            if words in (message := seen[container.uid].observed.message)
            and message != container.observed.message
        }
    )


def _lost(container: Container, objects: Objects | None) -> bool:
    """Returns whether a workload that was applied before is missing.

    An ended run does not need one.
    """
    if run_end(container) is not None:
        return False
    where = workload_type(container).kind, container.kubernetes_name
    there = objects is not None and where in objects.workloads
    return not there and bool(container.observed.deployment_name) and container.observed_generation > 0


def _has_other_nodes(container: Container, observation: Observation) -> bool:
    """Returns whether a DaemonSet has pods on another number of nodes than its container's row says.

    A worker may have read the cluster before the number changed, and no later event may correct the row.
    """
    known = (0, container.wanted_replicas)
    wanted = workload_type(container).per_node and container.wanted_replicas > 0
    return wanted and observation.spec_replicas not in known


def _newly_failed(before: tuple[PodObservation, ...] | None, observation: Observation) -> tuple[Warned, ...]:
    """Returns warnings of pods that have failed since the last observation, mostly evicted ones.

    Their successors may run before anybody reads the status, and the status does not mention them.
    """
    if before is None:
        return ()
    known = {pod.uid for pod in before if pod.failed}
    return tuple(
        Warned(pod.reason[:100], f"Pod {pod.name}: {pod.message.strip()}"[:MESSAGE_LIMIT])
        for pod in observation.pods
        if pod.failed and pod.uid not in known and pod.reason not in ("", observation.observed.reason)
    )
