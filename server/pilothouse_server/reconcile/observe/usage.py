"""Collects the usage of containers from every node's kubelet, and passes it on in batches.

Each round reads all nodes, a few concurrently, adds the figures up per container and stores one sample for each. A node
that does not respond is left out of its round, and so are the containers that have a pod on it: a partial sum would
look like a drop. On a cluster that denies access to its kubelets, the usage of pods is read from metrics.k8s.io.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Literal, Protocol

import orjson
import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.errors import ClusterError, Forbidden
from pilothouse_server.kubernetes.objects import NODES
from pilothouse_server.kubernetes.pod_metrics import read_summaries
from pilothouse_server.kubernetes.usage import PodUsage, StatsSummary, usage_by_container
from pilothouse_server.metrics.model import UsageSample
from pilothouse_server.reconcile.observe.container_observer import ContainerObserver, PodOwner
from pilothouse_server.reconcile.queue.cluster_clients import log_failure
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.values.quantity import Quantity

log = structlog.get_logger(__name__)

NODES_AT_ONCE = 8


class UsageSink(Protocol):
    """Stores samples."""

    async def store(self, samples: list[UsageSample]) -> None:
        """Stores a batch without samples of deleted containers.

        If it raises PilothouseError, the batch is lost.
        """


class UsageCollector:
    """The collection of one cluster's usage, next to its observer.

    `run` works until cancelled.
    """

    def __init__(
        self,
        observer: ContainerObserver,
        sink: UsageSink,
        period_seconds: float,
    ) -> None:
        self._observer = observer
        self._cluster = observer.cluster
        self._sink = sink
        self._period_seconds = period_seconds
        self._silent: set[str] = set()

    async def run(self) -> None:
        """Collects until cancelled.

        Rounds start every `period_seconds`, or later if a round takes longer.
        """
        await self._observer.synced.wait()
        next_round = monotonic()
        while True:
            try:
                await self.collect()
            except ClusterError as error:
                log_failure("usage cannot be read", self._cluster.name, error)
            except PilothouseError as error:
                log.warning("usage cannot be stored", cluster=self._cluster.name, reason=error.reason)
            next_round = max(monotonic(), next_round + self._period_seconds)
            await asyncio.sleep(next_round - monotonic())

    async def collect(self) -> list[UsageSample]:
        """Collects one round.

        Raises ClusterError if nothing can be read, and PilothouseError from the sink.
        """
        owners = self._observer.pod_owners()
        if not owners:
            return []
        try:
            summaries = await self._of_kubelets()
            owners = self._without_nodes(owners, self._silent)
        except Forbidden:
            if (found := await read_summaries(self._cluster.client, self._pod_uids())) is None:
                raise
            summaries = found
        usages = await usage_by_container(summaries, owners, datetime.now(UTC))
        samples = [sample_of(usage) async for usage in cooperatively(usages)]
        if samples:
            await self._sink.store(samples)
        return samples

    async def _of_kubelets(self) -> list[StatsSummary]:
        """Returns the summaries of all nodes that respond.

        Raises Forbidden if no kubelet may be read, ClusterError if the nodes cannot be listed.
        """
        nodes = [node.metadata.name for node in (await self._cluster.client.list(NODES)).items]
        gate = asyncio.Semaphore(NODES_AT_ONCE)
        found = await asyncio.gather(*(self._summary(node, gate) for node in nodes))
        refusals = [each for each in found if isinstance(each, Forbidden)]
        if refusals and len(refusals) == len(found):
            raise refusals[0]
        summaries = {
            node: each for node, each in zip(nodes, found, strict=True) if isinstance(each, StatsSummary)
        }
        self._silent = set(nodes) - summaries.keys()
        return list(summaries.values())

    def _pod_uids(self) -> dict[tuple[str, str], str]:
        return {
            (pod.metadata.namespace, pod.metadata.name): pod.metadata.uid
            for _, pod in self._observer.view.pods()
        }

    async def _summary(self, node: str, gate: asyncio.Semaphore) -> StatsSummary | Forbidden | None:
        async with gate:
            try:
                return await self._cluster.client.node_stats(node)
            except Forbidden as error:
                return error
            except ClusterError as error:
                # Logged once, not in every round: a node may be away for days.
                if node not in self._silent:
                    log.info(
                        "node does not report usage",
                        cluster=self._cluster.name,
                        node=node,
                        message=error.message,
                    )
                return None

    def _without_nodes(self, owners: Mapping[str, PodOwner], silent: set[str]) -> dict[str, PodOwner]:
        if not silent:
            return dict(owners)
        left_out = {
            owner.container_id
            for _, pod in self._observer.view.pods()
            if pod.spec.node_name in silent and (owner := owners.get(pod.metadata.uid)) is not None
        }
        return {uid: owner for uid, owner in owners.items() if owner.container_id not in left_out}


def sample_of(usage: PodUsage[PodOwner]) -> UsageSample:
    """Returns the stored form of a container's usage."""
    owner = usage.key
    return UsageSample(
        container_id=owner.container_id,
        namespace_id=int(owner.namespace_id),
        timestamp=usage.time,
        pods=usage.pods,
        cpu_cores_used=usage.cpu_cores,
        memory_bytes_used=usage.memory_bytes,
        cpu_cores_request=_cores(_requests(owner, "cpu"), usage.pods),
        cpu_cores_limit=_cores(_limits(owner, "cpu"), usage.pods),
        memory_bytes_request=_bytes(_requests(owner, "memory"), usage.pods),
        memory_bytes_limit=_bytes(_limits(owner, "memory"), usage.pods),
        network_bytes_rx=usage.network_bytes_rx,
        network_bytes_tx=usage.network_bytes_tx,
        disk_bytes_used=usage.disk_bytes_used,
        disk_bytes_total=usage.disk_bytes_total,
        programs=None if usage.programs is None else orjson.dumps(usage.programs).decode(),
    )


def _requests(owner: PodOwner, resource: Literal["cpu", "memory"]) -> list[str]:
    """Returns the requests of a pod: its own, else those of its programs."""
    whole = owner.pod.request(resource)
    return [whole] if whole else [text for each in owner.programs if (text := each.request(resource))]


def _limits(owner: PodOwner, resource: Literal["cpu", "memory"]) -> list[str]:
    """Returns the limits of a pod: its own, else those of its programs.

    None if a program has no limit.
    """
    whole = owner.pod.limit(resource)
    limits = [whole] if whole else [each.limit(resource) for each in owner.programs]
    return limits if all(limits) else []


def _cores(quantities: list[str], pods: int) -> float | None:
    millicores = [Quantity.parse(each).millicores for each in quantities]
    return sum(millicores) * pods / 1000 if millicores else None


def _bytes(quantities: list[str], pods: int) -> int | None:
    sizes = [Quantity.parse(each).whole for each in quantities]
    return sum(sizes) * pods if sizes else None
