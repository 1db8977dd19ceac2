"""Usage of pods from metrics.k8s.io, for a cluster that does not allow reading its kubelets.

The right to `nodes/proxy` gives more than usage, so some clusters refuse it, and have metrics-server instead. Its
metrics have the cores and memory of each program, but neither network nor disks. Version v1 (Kubernetes 1.37) is
requested before v1beta1; both have the same documents (KEP-5207). Written from Kubernetes' documentation, not from a
recording.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

import msgspec

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import NotFound
from pilothouse_server.kubernetes.objects import KubernetesObject, Partial, Resource
from pilothouse_server.kubernetes.usage import (
    NANO,
    ContainerStats,
    CpuStats,
    MemoryStats,
    PodReference,
    PodStats,
    StatsSummary,
)
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.quantity import Quantity

_VERSIONS: Final = ("v1", "v1beta1")


class ProgramMetrics(Partial, frozen=True, rename="camel"):
    """Usage of a program: quantities for `cpu` and `memory`."""

    name: str = ""
    usage: dict[str, str] = msgspec.field(default_factory=dict)


class PodMetrics(KubernetesObject, frozen=True, rename="camel"):
    """Usage of a pod, which has the name of the pod."""

    containers: tuple[ProgramMetrics, ...] = ()


async def read_summaries(
    client: ClusterClient, uids: Mapping[tuple[str, str], str]
) -> list[StatsSummary] | None:
    """Returns the usage of pods, by the uids of namespace and name; None if the cluster has no such API.

    The response has all pods of the cluster. Each gets a summary of its own, so that they are added up in small steps.

    Raises ClusterError.
    """
    for version in _VERSIONS:
        resource = Resource(f"/apis/metrics.k8s.io/{version}", "pods", "PodMetrics", PodMetrics)
        try:
            found = await client.list(resource)
        except NotFound:
            continue
        return [StatsSummary((each,)) async for each in _known(found.items, uids)]
    return None


async def _known(found: Iterable[PodMetrics], uids: Mapping[tuple[str, str], str]) -> AsyncIterator[PodStats]:
    async for pod in cooperatively(found):
        place = pod.metadata.namespace, pod.metadata.name
        if (uid := uids.get(place)) is not None:
            yield PodStats(PodReference(pod.metadata.name, pod.metadata.namespace, uid), _programs(pod))


def _programs(pod: PodMetrics) -> tuple[ContainerStats, ...]:
    return tuple(
        ContainerStats(
            each.name,
            CpuStats(usage_nano_cores=_nanos(each.usage.get("cpu", ""))),
            MemoryStats(working_set_bytes=_nanos(each.usage.get("memory", "")) // NANO),
        )
        for each in pod.containers
    )


def _nanos(quantity: str) -> int:
    """Returns billionths; 0 for a text that is not a quantity."""
    try:
        return Quantity.parse(quantity).nanos
    except InvalidValueError:
        return 0
