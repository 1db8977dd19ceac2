"""Kubernetes Events that a caller requests with a container or a volume: read from the cluster, with a deadline.

The stored state is returned whether the cluster responds or not. If it does not respond, the response gives the reason
why there are no events.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.events import EventSubject, KubernetesEvent, events_of
from pilothouse_server.kubernetes.namespace_ownership import refuse_foreign
from pilothouse_server.values.resources import NamespaceRef

SECONDS = 3.0


class Events(msgspec.Struct, frozen=True):
    """Events, or why there are none: `unavailable` is empty if the cluster has responded."""

    events: tuple[KubernetesEvent, ...] = ()
    unavailable: str = ""


async def read(connect: Connect, namespace_ref: NamespaceRef, subjects: Iterable[EventSubject]) -> Events:
    """Returns the newest events of some objects of a namespace, if they arrive within `SECONDS`.

    Errors of the cluster, and a Kubernetes namespace of another owner, are given as `unavailable`.
    """
    cluster = namespace_ref.cluster_name

    async def newest() -> tuple[KubernetesEvent, ...]:
        client = await connect(cluster)
        await refuse_foreign(client, namespace_ref)
        return await events_of(client, namespace_ref.kubernetes_name, subjects)

    try:
        return Events(await within(newest(), cluster, SECONDS))
    except ClusterError as error:
        return Events(unavailable=str(refusal(error, cluster)))
