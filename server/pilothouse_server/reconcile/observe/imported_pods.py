"""Replica sets and pods of imported workloads.

They do not carry our label, so they are found by their owners.

An imported workload carries our label; its pod template does not, because a change of the template's labels would
replace the pods. So in each Kubernetes namespace with such a workload, all replica sets and pods without our label are
watched, and those that a known workload owns are put into the view. Owners and owned objects may arrive in any order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pilothouse_server.containers import manifests
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import (
    PODS,
    REPLICA_SETS,
    KubernetesObject,
    Pod,
    ReplicaSet,
    WorkloadObject,
)
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.reconcile.observe.cluster_view import ClusterView, container_uid
from pilothouse_server.reconcile.observe.informer import Informer


class _WatchedNamespace:
    """One Kubernetes namespace that is watched."""

    def __init__(self, replica_sets: Informer[ReplicaSet], pods: Informer[Pod]) -> None:
        self.replica_sets = replica_sets
        self.pods = pods
        self.task: asyncio.Task[None] | None = None


class ImportedPods:
    """The watches of one cluster.

    `workload_changed` is an informer's callback; `run` works until cancelled.
    """

    def __init__(
        self, client: ClusterClient, view: ClusterView, on_failure: Callable[[ClusterError], None]
    ) -> None:
        self._client = client
        self._view = view
        self._on_failure = on_failure
        # uid of an imported workload -> uid of its container, and the namespaces they are in.
        self._containers: dict[str, str] = {}
        self._namespaces: dict[str, set[str]] = {}
        # uid of a replica set or pod -> uid of the container it was assigned to.
        self._assigned: dict[str, str] = {}
        self._watched: dict[str, _WatchedNamespace] = {}
        self._changed = asyncio.Event()

    def workload_changed(self, old: WorkloadObject | None, new: WorkloadObject | None) -> None:
        """Records that a workload was created, changed or deleted."""
        there = new or old
        assert there is not None
        uid, namespace = there.metadata.uid, there.metadata.namespace
        container = container_uid(new) if new is not None and is_foreign(new) else None
        if container == self._containers.get(uid):
            return
        if container is None:
            del self._containers[uid]
            # Two workloads may have one uid if somebody tampers with the cluster.
            self._namespaces.get(namespace, set()).discard(uid)
            self._changed.set()
            return
        self._containers[uid] = container
        self._namespaces.setdefault(namespace, set()).add(uid)
        self._changed.set()
        if (watched := self._watched.get(namespace)) is not None:
            for replica_set in watched.replica_sets.objects.values():
                self._replica_set_changed(None, replica_set)
            for pod in list(watched.pods.objects.values()):
                if self._container_of(pod) == container and pod.metadata.uid not in self._assigned:
                    self._assign("pods", None, pod, container)

    async def run(self) -> None:
        """Watches the namespaces with imported workloads until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wanted = {namespace for namespace, uids in self._namespaces.items() if uids}
                for namespace in wanted - self._watched.keys():
                    watched = self._watched[namespace] = self._watch(namespace)
                    watched.task = group.create_task(
                        self._follow(watched), name=f"imported pods in {namespace}"
                    )
                for namespace in self._watched.keys() - wanted:
                    self._leave(self._watched.pop(namespace))
                await self._changed.wait()

    async def _follow(self, watched: _WatchedNamespace) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(watched.replica_sets.run())
            group.create_task(watched.pods.run())

    def _watch(self, namespace: str) -> _WatchedNamespace:
        selector = manifests.FOREIGN_SELECTOR
        return _WatchedNamespace(
            Informer(
                self._client,
                REPLICA_SETS,
                selector,
                self._replica_set_changed,
                self._on_failure,
                namespace=namespace,
            ),
            Informer(self._client, PODS, selector, self._pod_changed, self._on_failure, namespace=namespace),
        )

    def _leave(self, watched: _WatchedNamespace) -> None:
        if watched.task is not None:
            watched.task.cancel()
        for pod in watched.pods.objects.values():
            self._assign("pods", pod, None, None)
        for replica_set in watched.replica_sets.objects.values():
            self._assign("replica_sets", replica_set, None, None)

    def _replica_set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        there = new or old
        assert there is not None
        before = self._assigned.get(there.metadata.uid)
        container = self._containers.get(_owner(there, "Deployment"))
        self._assign("replica_sets", old, new, container)
        watched = self._watched.get(there.metadata.namespace)
        if container is not None and container != before and watched is not None:
            for pod in list(watched.pods.objects.values()):
                if _owner(pod, "ReplicaSet") == there.metadata.uid:
                    self._assign("pods", None, pod, container)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        there = new or old
        assert there is not None
        self._assign("pods", old, new, self._container_of(there))

    def _container_of(self, pod: Pod) -> str | None:
        """Returns the container of a pod: its owner is a workload, or a replica set of one."""
        owner = next((each.uid for each in pod.metadata.owner_references if each.controller), "")
        return self._assigned.get(owner) or self._containers.get(owner)

    def _assign(
        self, kind: str, old: KubernetesObject | None, new: KubernetesObject | None, container: str | None
    ) -> None:
        there = new or old
        assert there is not None
        uid = there.metadata.uid
        # A deleted object is removed from the container to which it was assigned, not from its present owner's.
        before = self._assigned.get(uid)
        if new is None or container is None:
            if self._assigned.pop(uid, None) is not None and before is not None:
                self._view.put(kind, before, there, None)
            return
        self._assigned[uid] = container
        self._view.put(kind, container, old, new)


def is_foreign(workload: WorkloadObject) -> bool:
    """Returns whether one of our workloads creates pods without our label."""
    return not workload.pod_template.metadata.label(CONTAINER_UID)


def _owner(owned: KubernetesObject, kind: str) -> str:
    references = owned.metadata.owner_references
    return next((owner.uid for owner in references if owner.kind == kind and owner.controller), "")
