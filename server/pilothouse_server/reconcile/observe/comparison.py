"""Compares the objects on a cluster once, after each list, with the last apply.

Watches report only changes that happen while a server watches. Earlier changes (all servers were stopped, the lease
changed hands, a watch had to start again, the cluster was restored to an older state) appear in no event: the list
contains them as if they had always been so. So whenever a kind was listed, each resource that has objects of that kind
is compared with the fingerprints of its last apply (`applied_objects`), using the informers' objects: nothing more is
read from the cluster, and if they agree nothing is applied, written or reported. Objects that differ, are missing, are
additional, or have no recorded fingerprint are left to the worker, which reads the whole resource and applies it by the
policy of the container.

Rows are read in pages. The next page follows once the worker has finished most of the work from the last one. So
neither memory nor the queue grows with the cluster, and users' work is not delayed.

The worker also checks a resource periodically even if nothing happened: `WorkerSettings.resync_seconds`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import msgspec
import structlog

from pilothouse_server.containers.workloads import WORKLOAD_KINDS
from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.client import object_key
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import RESOURCE_QUOTAS, SERVICE_ACCOUNTS
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, MANAGED_SELECTOR
from pilothouse_server.reconcile.observe.cluster_observer import ClusterObserver, LeasedCluster
from pilothouse_server.reconcile.observe.cluster_view import labelled_uid
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.repository import applied_objects, work_queue
from pilothouse_server.reconcile.repository.applied_objects import Applied, Key
from pilothouse_server.runtime.event_loop import cooperatively

log = structlog.get_logger(__name__)

_SERVICE, _NAMESPACE = "Service", "Namespace"
# The types of resources that have objects of a kind.
_TYPES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(WORKLOAD_KINDS, ("container",)),
    _SERVICE: ("container", "service"),
    "ConfigMap": ("config_map",),
    "Secret": ("secret",),
    "PersistentVolumeClaim": ("volume",),
    _NAMESPACE: ("namespace",),
    RESOURCE_QUOTAS.kind: ("namespace",),
}
_DATABASE_SECONDS = 1.0
_POLL_SECONDS = 0.1


class ComparisonSettings(msgspec.Struct, frozen=True):
    """`gather_seconds`: time to wait for further lists; their kinds are compared in the same pass.

    `rows`: number of resources in one step. `step_seconds`: the longest time for which a step waits until the worker
    has done most of the work from the step before.
    """

    gather_seconds: float = 0.2
    rows: int = 500
    step_seconds: float = 10.0


class _There(msgspec.Struct, frozen=True):
    """Inputs of the comparison: the listed kinds; the number of Services of a container; our service accounts."""

    kinds: frozenset[str]
    services: Counter[str] | None
    accounts: set[tuple[str, str]] | None


class Comparison(ClusterObserver):
    """The comparison of one cluster under one lease, with other observers' informers.

    `run` works until cancelled.
    """

    subject = "comparison"

    def __init__(
        self,
        cluster: LeasedCluster,
        informers: Mapping[str, Informer[Any]],
        settings: ComparisonSettings = ComparisonSettings(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(cluster)
        self._informers = informers
        self._settings = settings
        # Kinds that were listed since they were compared last.
        self._listed: set[str] = set()
        for kind, informer in informers.items():
            informer.on_listed = partial(self._note_listed, kind)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Starts the loop that compares."""
        group.create_task(self._compare_loop(), name=self.task_name("compare"))

    def _note_listed(self, kind: str) -> None:
        self._listed.add(kind)
        self._wake.set()

    async def _compare_loop(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._settings.gather_seconds)
            self._wake.clear()
            kinds, self._listed = self._listed, set()
            try:
                await self._compare(kinds)
            except PilothouseError as error:
                log.info("comparison interrupted", cluster=self.cluster.name, reason=error.reason)
                self._listed |= kinds
                self._wake.set()
                await asyncio.sleep(_DATABASE_SECONDS)

    async def _compare(self, kinds: Collection[str]) -> None:
        """Compares all resources that have objects of these kinds. Raises LeaseLost, PilothouseError."""
        types = {type_ for kind in kinds for type_ in _TYPES[kind]}
        there = _There(
            frozenset(kinds),
            await self._services() if _SERVICE in kinds else None,
            await self._accounts() if not WORKLOAD_KINDS.keys().isdisjoint(kinds) else None,
        )
        compared, differing = 0, 0
        after = applied_objects.FIRST
        while True:
            async with self.cluster.store.system_read() as transaction:
                rows = await applied_objects.page(
                    transaction, self.cluster.name, types, after, rows=self._settings.rows
                )
            if not rows:
                break
            after = rows[-1].key
            found = [row.key async for row in cooperatively(rows) if self._differs(row, there)]
            compared, differing = compared + len(rows), differing + len(found)
            if found:
                await self._ask_for_looks(found)
        write = log.info if differing else log.debug
        write(
            "compared",
            cluster=self.cluster.name,
            kinds=sorted(kinds),
            resources=compared,
            differing=differing,
        )

    async def _services(self) -> Counter[str]:
        """Returns the number of Services of each container."""
        found: Counter[str] = Counter()
        async for service in cooperatively(list(self._informers[_SERVICE].objects.values())):
            if (uid := labelled_uid(service, CONTAINER_UID)) is not None:
                found[uid] += 1
        return found

    async def _accounts(self) -> set[tuple[str, str]] | None:
        """Returns namespace and name of our service accounts; None if they cannot be listed."""
        try:
            listed = await self.cluster.client.list(SERVICE_ACCOUNTS, label_selector=MANAGED_SELECTOR)
        except ClusterError as error:
            self.watch_failed(error)
            return None
        return {object_key(each) for each in listed.items}

    def _differs(self, row: Applied, there: _There) -> bool:
        """Returns whether a resource has changed, or its last applied state is unknown."""
        if row.objects is None:
            return True
        services = 0
        for name, mark in row.objects.items():
            kind, _, object_name = name.partition("/")
            services += kind == _SERVICE
            namespace = "" if kind == _NAMESPACE else row.kubernetes_namespace
            if not self._is_there(kind, (namespace, object_name), mark, there):
                return True
        return (
            bool(row.container_uid)
            and there.services is not None
            and there.services[row.container_uid] > services
        )

    def _is_there(self, kind: str, where: tuple[str, str], mark: str, there: _There) -> bool:
        if kind == SERVICE_ACCOUNTS.kind:
            return there.accounts is None or where in there.accounts
        if kind not in there.kinds:
            return True
        found = self._informers[kind].objects.get(where)
        return found is not None and fingerprints.same(found.mark, mark)

    async def _ask_for_looks(self, resources: Collection[Key]) -> None:
        await work_queue.requeue_by_type(self.cluster.transaction, resources)
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._settings.step_seconds
        while loop.time() < ends:
            async with self.cluster.store.system_read() as transaction:
                most = self._settings.rows
                if await applied_objects.waiting(transaction, self.cluster.name, most) < most // 2:
                    return
            await asyncio.sleep(_POLL_SECONDS)
