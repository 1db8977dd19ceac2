"""Selects the objects of a cluster whose Kubernetes Events belong to a container."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse_server.containers.model import Container, Pod
from pilothouse_server.containers.workloads import workload_type
from pilothouse_server.kubernetes.events import EventSubject

MOST_PODS = 10


def subjects_of(container: Container, pods: Sequence[Pod]) -> list[EventSubject]:
    """Returns the objects of a container: its workload, replica sets, pods and Services.

    At most `MOST_PODS` pods are returned; pods that are not ready come first, because the others explain little.
    """
    chosen = sorted(pods, key=lambda pod: (pod.ready, pod.name))[:MOST_PODS]
    # A pod's name is its replica set's name and five characters, so a rollout's older replica sets are found, too.
    replica_sets = {pod.name.rpartition("-")[0] for pod in chosen} | {container.observed.replica_set_name}
    services = {port.service_name for port in container.ports}
    return [
        EventSubject(workload_type(container).kind, container.kubernetes_name),
        *(EventSubject("ReplicaSet", name) for name in sorted(replica_sets) if name),
        *(EventSubject("Service", name) for name in sorted(services) if name),
        *(EventSubject("Pod", pod.name, pod.uid) for pod in chosen),
    ]
