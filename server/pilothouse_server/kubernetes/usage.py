"""Turns the kubelets' summaries into one usage sample for each of our containers.

The summary (`/stats/summary`, through the API server's node proxy) is the only source that every cluster has:
metrics.k8s.io is an add-on, which is used if the summaries are refused (`pod_metrics`). One of our containers may
have pods on several nodes, so the summaries of one round are added up per container. `usageNanoCores` is the kubelet's
average over its last samples, and 0 until it has two. Network counters count from the pod's start and are added
unchanged; the sum falls when a pod is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from pilothouse_server.runtime.event_loop import cooperatively

NANO = 1_000_000_000
# More than the database stores. A cluster may send a number with thousands of digits, which no float can hold.
_MOST_NANO_CORES = 10**18
_MOST_BYTES = 2**63 - 1
# The same number as in the status of a container.
_MOST_PROGRAMS = 40
_LONGEST_NAME = 63
Key = TypeVar("Key")


class Stats(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base of the summary's parts; only fields that we read are decoded."""


class CpuStats(Stats, frozen=True, rename="camel"):
    time: datetime | None = None
    usage_nano_cores: int | None = None


class MemoryStats(Stats, frozen=True, rename="camel"):
    time: datetime | None = None
    usage_bytes: int | None = None
    working_set_bytes: int | None = None


class NetworkStats(Stats, frozen=True, rename="camel"):
    rx_bytes: int | None = None
    tx_bytes: int | None = None


class FileSystemStats(Stats, frozen=True, rename="camel"):
    used_bytes: int | None = None
    capacity_bytes: int | None = None


class ContainerStats(Stats, frozen=True, rename="camel"):
    name: str = ""
    cpu: CpuStats | None = None
    memory: MemoryStats | None = None
    rootfs: FileSystemStats | None = None
    logs: FileSystemStats | None = None


class PodReference(Stats, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""


class PodStats(Stats, frozen=True, rename="camel"):
    pod_ref: PodReference = PodReference()
    containers: tuple[ContainerStats, ...] = ()
    network: NetworkStats | None = None


class StatsSummary(Stats, frozen=True, rename="camel"):
    pods: tuple[PodStats, ...] = ()


class PodUsage(msgspec.Struct, Generic[Key], frozen=True):
    """Usage of one of our containers, all its pods together, at `time`.

    `network_*` and `disk_*` are None if no summary has them. `programs`: cores and bytes of each program by its name,
    if there are several.
    """

    key: Key
    time: datetime
    pods: int
    cpu_cores: float
    memory_bytes: int
    network_bytes_rx: int | None = None
    network_bytes_tx: int | None = None
    disk_bytes_used: int | None = None
    disk_bytes_total: int | None = None
    programs: dict[str, tuple[float, int]] | None = None


class _Sum:
    """A running sum; None for a value that no pod has had."""

    def __init__(self) -> None:
        self.pods = 0
        self.nano_cores = 0
        self.memory = 0
        self.received: int | None = None
        self.sent: int | None = None
        self.disk_used: int | None = None
        self.disk_total: int | None = None
        self.programs: dict[str, tuple[int, int]] = {}

    def add(self, pod: PodStats) -> None:
        self.pods += 1
        for container in pod.containers:
            nano_cores = (container.cpu and container.cpu.usage_nano_cores) or 0
            memory = _memory(container.memory)
            self.nano_cores += nano_cores
            self.memory += memory
            before = self.programs.get(container.name, (0, 0))
            self.programs[container.name] = before[0] + nano_cores, before[1] + memory
            for file_system in (container.rootfs, container.logs):
                if file_system is not None:
                    self.disk_used = _plus(self.disk_used, file_system.used_bytes)
            if container.rootfs is not None:
                # All containers of a node share its disk: for several nodes, the largest disk is the best estimate.
                self.disk_total = max(self.disk_total or 0, container.rootfs.capacity_bytes or 0) or None
        if pod.network is not None:
            self.received = _plus(self.received, pod.network.rx_bytes)
            self.sent = _plus(self.sent, pod.network.tx_bytes)


async def usage_by_container(
    summaries: Iterable[StatsSummary], pods: Mapping[str, Key], time: datetime
) -> list[PodUsage[Key]]:
    """Sums the summaries of one round per container; `pods` maps a pod's uid to the container it belongs to.

    Pods that belong to no container are left out, as are containers without a pod in the summaries. Every sample of a
    round has the round's `time`, so that a container has one row per round although its pods' own times differ.
    """
    sums: dict[Key, _Sum] = {}
    async for summary in cooperatively(summaries):
        for pod in summary.pods:
            key = pods.get(pod.pod_ref.uid)
            if key is not None:
                sums.setdefault(key, _Sum()).add(pod)
    return [
        PodUsage(
            key=key,
            time=time,
            pods=total.pods,
            cpu_cores=_cores(total.nano_cores),
            memory_bytes=total.memory,
            network_bytes_rx=total.received,
            network_bytes_tx=total.sent,
            disk_bytes_used=total.disk_used,
            disk_bytes_total=total.disk_total,
            programs=_by_program(total.programs) if len(total.programs) > 1 else None,
        )
        for key, total in sums.items()
    ]


def _by_program(used: dict[str, tuple[int, int]]) -> dict[str, tuple[float, int]]:
    return {
        name[:_LONGEST_NAME]: (max(0.0, _cores(nano_cores)), max(0, min(memory, _MOST_BYTES)))
        for name, (nano_cores, memory) in list(used.items())[:_MOST_PROGRAMS]
    }


def _cores(nano_cores: int) -> float:
    return max(-1, min(nano_cores, _MOST_NANO_CORES)) / NANO


def _memory(memory: MemoryStats | None) -> int:
    if memory is None:
        return 0
    return memory.working_set_bytes if memory.working_set_bytes is not None else memory.usage_bytes or 0


def _plus(total: int | None, more: int | None) -> int | None:
    return total if more is None else (total or 0) + more
