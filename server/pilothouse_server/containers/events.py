"""Kubernetes Events for those who ask for them with a container or a volume: read from the cluster, with a deadline.

What is stored is the answer whether the cluster answers or not; an asker who cannot be told the events is told why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from pilothouse_server.clusters.refusals import refusal, within
from pilothouse_server.containers.logs import Connect
from pilothouse_server.containers.model import Container, Pod
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.events import KubernetesEvent, Subject, events_of

SECONDS = 3.0
MOST_PODS = 10


class Told(msgspec.Struct, frozen=True):
    """Events, or why there are none: `unavailable` is empty where the cluster has answered."""

    events: tuple[KubernetesEvent, ...] = ()
    unavailable: str = ""


async def read(connect: Connect, cluster: str, namespace: str, subjects: Iterable[Subject]) -> Told:
    """The newest events of some objects, in a Kubernetes namespace, if they come in time."""

    async def asked() -> tuple[KubernetesEvent, ...]:
        return await events_of(await connect(cluster), namespace, subjects)

    try:
        return Told(await within(asked(), cluster, SECONDS))
    except ClusterError as error:
        return Told(unavailable=str(refusal(error, cluster)))


def subjects_of(container: Container, pods: Sequence[Pod]) -> list[Subject]:
    """The objects of a container: its Deployment, replica sets, pods and Services.

    Of many pods those that are not ready come first, the others tell little.
    """
    chosen = sorted(pods, key=lambda pod: (pod.ready, pod.name))[:MOST_PODS]
    # A pod's name is that of its replica set and five characters: so the older ones of a rollout are found, too.
    replica_sets = {pod.name.rpartition("-")[0] for pod in chosen} | {container.observed.replica_set_name}
    services = {port.service_name for port in container.ports}
    return [
        Subject("Deployment", container.kubernetes_name),
        *(Subject("ReplicaSet", name) for name in sorted(replica_sets) if name),
        *(Subject("Service", name) for name in sorted(services) if name),
        *(Subject("Pod", pod.name, pod.uid) for pod in chosen),
    ]
