"""Objects for tests of the simulated cluster, and helpers that observe them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.resources import CRON_JOBS, DEPLOYMENTS, PODS, REPLICA_SETS, ResourceType
from tests.waiting import poll_until

JsonObject = dict[str, Any]
T = TypeVar("T")

NAMESPACE = "default"
BEHAVIOR = "simulate.pilothouse.dev/behavior"


def container(name: str = "main", script: str | None = None, **fields: Any) -> JsonObject:
    """Returns a container; with a script it runs `sh -c`, otherwise a server."""
    spec: JsonObject = {"name": name, "image": "busybox:1", **fields}
    if script is not None:
        spec["command"] = ["sh", "-c", script]
    return spec


def pod(
    name: str, *containers: JsonObject, annotations: dict[str, str] | None = None, **spec: Any
) -> JsonObject:
    """Returns a pod with these containers (one server by default)."""
    metadata: JsonObject = {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": {"containers": list(containers) or [container()], **spec}}


def deployment(
    name: str, replicas: int, *containers: JsonObject, annotations: dict[str, str] | None = None, **spec: Any
) -> JsonObject:
    """Returns a deployment whose pods are labelled `app: NAME`."""
    metadata: JsonObject = {"labels": {"app": name}}
    if annotations:
        metadata["annotations"] = annotations
    template = {"metadata": metadata, "spec": {"containers": list(containers) or [container()]}}
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template,
            **spec,
        },
    }


def stateful_set(name: str, replicas: int, *, storage: str = "", **spec: Any) -> JsonObject:
    """Returns a StatefulSet whose pods are labelled `app: NAME`; with storage each has a claim `data-NAME-N`."""
    body = deployment(name, replicas, serviceName=name, **spec)
    if storage:
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}
        body["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
        mount = {"name": "data", "mountPath": "/data"}
        body["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [mount]
    return body


def daemon_set(name: str, **spec: Any) -> JsonObject:
    """Returns a DaemonSet whose pods are labelled `app: NAME`."""
    body = deployment(name, 1, **spec)
    del body["spec"]["replicas"]
    return body


def job(name: str, *containers: JsonObject, restart: str = "Never", **spec: Any) -> JsonObject:
    """Returns a Job whose pods are labelled `app: NAME`."""
    pod_spec = {"containers": list(containers) or [container()], "restartPolicy": restart}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod_spec}
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"template": template, **spec}}


def cron_job(name: str, *containers: JsonObject, schedule: str = "0 0 30 2 *", **spec: Any) -> JsonObject:
    """Returns a CronJob that by default runs only through `run_cron_job`."""
    template = {"spec": job(name, *containers)["spec"]}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"metadata": metadata, "spec": {"schedule": schedule, "jobTemplate": template, **spec}}


def run_cron_job(cluster: SimulatedCluster, name: str, *, minute: int) -> str:
    """Starts the run of a CronJob for a minute since 1970; returns the name of its Job.

    The minute must be later than that of any earlier run.
    """
    changed = copy.deepcopy(stored(cluster, CRON_JOBS, name))
    run_at = format_time(datetime.fromtimestamp(60 * minute, UTC))
    changed["metadata"].setdefault("annotations", {})["simulate.pilothouse.dev/run-at"] = run_at
    cluster.store.update(CRON_JOBS, changed, manager="test")
    return f"{name}-{minute}"


def change(cluster: SimulatedCluster, resource: ResourceType, name: str, **spec: Any) -> None:
    """Sets fields of the spec of a stored object; a field `image` is that of the first container."""
    changed = copy.deepcopy(stored(cluster, resource, name))
    image = spec.pop("image", None)
    changed["spec"].update(spec)
    if image is not None:
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = image
    cluster.store.update(resource, changed, manager="test")


def stored(cluster: SimulatedCluster, resource: ResourceType, name: str) -> JsonObject:
    """Returns the stored object. Raises KeyError if there is none."""
    namespace = NAMESPACE if resource.namespaced else None
    found = cluster.store.get(resource, namespace, name)
    if found is None:
        raise KeyError(name)
    return found


def exists(cluster: SimulatedCluster, resource: ResourceType, name: str) -> bool:
    """Returns whether the object is stored."""
    namespace = NAMESPACE if resource.namespaced else None
    return cluster.store.get(resource, namespace, name) is not None


def pods_of(cluster: SimulatedCluster, app: str) -> list[JsonObject]:
    """Returns the pods labelled `app: APP` that are not being deleted."""
    return [
        entry
        for entry in cluster.store.list(PODS, NAMESPACE)
        if (entry["metadata"].get("labels") or {}).get("app") == app
        and "deletionTimestamp" not in entry["metadata"]
    ]


def replica_sets_of(cluster: SimulatedCluster, app: str) -> list[JsonObject]:
    """Returns the replica sets whose pods are labelled `app: APP`, oldest revision first."""
    found = [
        entry
        for entry in cluster.store.list(REPLICA_SETS, NAMESPACE)
        if entry["spec"]["template"]["metadata"]["labels"]["app"] == app
    ]
    return sorted(found, key=lambda entry: int(entry["metadata"]["annotations"][REVISION]))


REVISION = "deployment.kubernetes.io/revision"


def is_ready(entry: JsonObject) -> bool:
    """Returns whether a pod is ready."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in entry["status"].get("conditions") or []
    )


def is_complete(cluster: SimulatedCluster, name: str) -> bool:
    """Returns whether a rollout is complete, with no old pod left."""
    found = stored(cluster, DEPLOYMENTS, name)
    status, wanted = found["status"], found["spec"]["replicas"]
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("replicas", 0) == wanted
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("terminatingReplicas", 0) == 0
    )


def condition(obj: JsonObject, kind: str) -> JsonObject:
    """Returns a condition of an object, or an empty one if it is missing."""
    conditions: list[JsonObject] = obj["status"].get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


async def poll_cluster(cluster: SimulatedCluster, look: Callable[[], T], *, seconds: float = 10.0) -> T:
    """Returns the first true result of `look`.

    Calls `look` after each change of the cluster, to catch short-lived states, and periodically, for effects that
    change no object.
    """

    async def seen() -> T:
        return look()

    subscription = cluster.store.subscribe()
    try:
        return await poll_until(seen, seconds=seconds, woken_by=subscription.next_batch)
    finally:
        subscription.close()
