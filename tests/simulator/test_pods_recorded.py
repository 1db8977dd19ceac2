"""The lives of pods as recorded: running, crash loop, image pull error, OOM kill, unschedulable."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import PODS
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.recordings import load
from tests.simulator.replay import Options, check, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_SPEED = 12.0
# The number of back-off events depends on when the kubelet checks the pod.
_COUNTS = frozenset({"count"})
_READ_SECONDS = 2.0


@virtual_time
async def test_a_running_pod_is_as_recorded() -> None:
    async with recorded_cluster(_SPEED) as cluster:
        differences = await replay(cluster, "05-pod-running", Options(varying=NODE_VALUES))
    check("05-pod-running", differences)


@virtual_time
async def test_an_unschedulable_pod_is_as_recorded() -> None:
    async with recorded_cluster(_SPEED) as cluster:
        differences = await replay(cluster, "05-pod-unschedulable", Options(varying=NODE_VALUES))
    check("05-pod-unschedulable", differences)


@virtual_time
async def test_an_oom_killed_pod_is_as_recorded() -> None:
    # The recorded read came milliseconds before the back-off was shown.
    async with recorded_cluster(_SPEED, show_back_off=1.2) as cluster:
        differences = await replay(cluster, "05-pod-oomkilled", Options(varying=NODE_VALUES))
    check("05-pod-oomkilled", differences)


@virtual_time
async def test_a_crash_loop_is_as_recorded() -> None:
    async with recorded_cluster(_SPEED, end_back_off=2.8) as cluster:
        differences = await replay(cluster, "05-pod-crashloop", Options(varying=NODE_VALUES | _COUNTS))
    check("05-pod-crashloop", differences)


@virtual_time
async def test_an_image_that_cannot_be_pulled_is_as_recorded() -> None:
    async with recorded_cluster(_SPEED, end_back_off=4.0) as cluster:
        differences = await replay(
            cluster, "05-pod-imagepull", Options(varying=NODE_VALUES | _COUNTS, read_deadline_seconds=1.0)
        )
    check("05-pod-imagepull", differences)


@pytest.mark.parametrize(
    ("name", "timings"),
    [
        ("05-pod-completed", {}),
        ("05-pod-configerror-configmap", {}),
        ("05-pod-configerror-secret", {}),
        ("05-pod-deadline-exceeded", {}),
        ("05-pod-evicted-by-api", {}),
        ("05-pod-failed", {}),
        ("05-pod-force-delete", {}),
        ("05-pod-image-never", {}),
        ("05-pod-init-failing", {}),
        ("05-pod-invalid-image-name", {}),
        ("05-pod-liveness-failing", {}),
        ("05-pod-readiness-failing", {}),
        ("05-pod-sidecar", {}),
        ("05-pod-start-error", {"end_back_off": 3.7}),
        ("05-pod-terminating-grace", {}),
        ("05-pod-two-containers", {}),
        ("05-pod-volume-configmap-missing", {}),
    ],
)
@virtual_time
async def test_a_pods_life_is_as_recorded(name: str, timings: dict[str, float]) -> None:
    async with recorded_cluster(1.0, **timings) as cluster:
        differences = await replay(
            cluster, name, Options(varying=NODE_VALUES | _COUNTS, read_deadline_seconds=_READ_SECONDS)
        )
    check(name, differences)


# The simulated cluster has neither pods/ephemeralcontainers nor pods/resize, because the platform calls neither.
# tests/kubernetes/test_program_status.py tests how such pods are observed. These exchanges are the rest of the
# recordings.
_WITHOUT_THE_SUBRESOURCES = {
    "12-pod-resize": {2, 3, 15, 24, 27},
    "27-ephemeral-containers": {2, 15, 19},
    "29-resize-of-a-deployments-pods": {0, 3, 4, 11, 12, 21, 22},
}


@pytest.mark.parametrize("name", _WITHOUT_THE_SUBRESOURCES)
@virtual_time
async def test_debugged_or_resized_pods_begin_as_recorded(name: str) -> None:
    skip = frozenset(range(len(load(name)["exchanges"]))) - _WITHOUT_THE_SUBRESOURCES[name]
    options = Options(varying=NODE_VALUES, skip=skip, read_deadline_seconds=_READ_SECONDS)
    async with recorded_cluster(_SPEED) as cluster:
        differences = await replay(cluster, name, options)
    check(name, differences)


def _step(pod: JsonObject) -> JsonObject:
    """Returns the parts of a pod's status that distinguish the steps of its life."""
    status = pod["status"]
    containers = []
    for entry in status.get("containerStatuses") or []:
        (kind, detail), *_ = entry["state"].items()
        last = {name: detail.get("reason") for name, detail in entry["lastState"].items()}
        containers.append(
            {"state": kind, "reason": detail.get("reason"), "last": last, "ready": entry["ready"],
             "restarts": entry["restartCount"], "started": entry["started"]}
        )  # fmt: skip
    return {
        "phase": status.get("phase"),
        "address": "podIP" in status,
        "conditions": {
            condition["type"]: (condition["status"], condition.get("reason"))
            for condition in status.get("conditions") or []
        },
        "containers": containers,
        "deleting": pod["metadata"].get("deletionGracePeriodSeconds"),
        "generation": pod["metadata"]["generation"],
        "observed": status.get("observedGeneration"),
        "node": bool(pod["spec"].get("nodeName")),
    }


def _steps(pods: list[JsonObject]) -> list[JsonObject]:
    """Returns the steps of a pod's life. A repeated status or a changed label is not a step."""
    steps = [_step(pod) for pod in pods]
    return [steps[0], *(after for before, after in pairwise(steps) if after != before)]


async def _run_until(cluster: SimulatedCluster, recording: JsonObject, until: int) -> list[JsonObject]:
    """Creates the recorded pod, deletes it after `until` steps, and returns its steps."""
    body = next(
        exchange["request"]["body"]
        for exchange in recording["exchanges"]
        if exchange["request"]["method"] == "POST" and exchange["response"]["status"] == 201
    )
    seen: list[JsonObject] = []
    subscription = cluster.store.subscribe(PODS)
    pod = {**body, "metadata": {**body["metadata"], "namespace": "default"}}
    cluster.store.create(PODS, pod, manager="pilothouse")
    deleted = False
    async for event in subscription:
        seen.append(event.object)
        if not deleted and len(_steps(seen)) >= until:
            deleted = True
            cluster.store.delete(PODS, "default", body["metadata"]["name"])
        if event.type == "DELETED":
            subscription.close()
    return _steps(seen)


@pytest.mark.parametrize(
    "name",
    [
        "05-pod-running",
        "05-pod-crashloop",
        "05-pod-imagepull",
        "05-pod-oomkilled",
        "05-pod-unschedulable",
        "05-pod-completed",
        "05-pod-failed",
        "05-pod-two-containers",
        "05-pod-init-failing",
        "05-pod-readiness-failing",
    ],
)
@virtual_time
async def test_a_pod_takes_each_recorded_step_in_order(name: str) -> None:
    recording = load(name)
    lines = next(
        exchange["response"]["lines"]
        for exchange in recording["exchanges"]
        if "lines" in exchange["response"] and exchange["request"]["path"].endswith("/pods")
    )
    recorded = _steps([line["json"]["object"] for line in lines])
    before_deletion = sum(1 for step in recorded if step["deleting"] is None)
    async with SimulatedCluster(speed=20) as cluster:
        simulated = await _run_until(cluster, recording, before_deletion)
    assert simulated == recorded
