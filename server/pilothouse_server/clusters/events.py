"""Kubernetes Events that a caller requests with a container or a volume: read from the cluster, with a deadline.

What is stored is returned whether the cluster answers or not; where it does not, the response says why there are no
events.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.events import KubernetesEvent, Subject, events_of

SECONDS = 3.0


class Events(msgspec.Struct, frozen=True):
    """Events, or why there are none: `unavailable` is empty where the cluster has answered."""

    events: tuple[KubernetesEvent, ...] = ()
    unavailable: str = ""


async def read(connect: Connect, cluster: str, namespace: str, subjects: Iterable[Subject]) -> Events:
    """Returns the newest events of some objects, in a Kubernetes namespace, if they come within `SECONDS`."""

    async def newest() -> tuple[KubernetesEvent, ...]:
        return await events_of(await connect(cluster), namespace, subjects)

    try:
        return Events(await within(newest(), cluster, SECONDS))
    except ClusterError as error:
        return Events(unavailable=str(refusal(error, cluster)))
