"""Rollouts of Deployments: as recorded, and by their documented rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import DEPLOYMENTS, PODS
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Body, Options, Replay, check, replay
from tests.simulator.workloads import (
    REVISION,
    change,
    condition,
    container,
    deployment,
    is_complete,
    is_ready,
    pods_of,
    poll_cluster,
    replica_sets_of,
    stored,
)
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_ROLLOUT = "03d-deployment-rollout-watches"
_STALLED = "03e-deployment-stalled-rollout"
_THREE = "28-deployment-of-three-containers-one-crashing"
_APPLIES = (4, 6, 9, 10, 12, 13, 14)


def _as_answered(index: int) -> Body:
    """Returns the body that was sent, derived from its response: the recording shows the last body for all requests."""

    def body(run: Replay) -> JsonObject:
        exchange = run.recording["exchanges"][index]
        sent: JsonObject = copy.deepcopy(exchange["request"]["body"])
        answered = exchange["response"]["body"]["spec"]
        spec, template = sent["spec"], answered["template"]
        spec["template"]["metadata"] = {
            name: value for name, value in template["metadata"].items() if name in ("labels", "annotations")
        }
        spec["template"]["spec"]["containers"][0]["env"] = template["spec"]["containers"][0]["env"]
        spec["replicas"] = answered["replicas"]
        spec.pop("paused", None)
        if "paused" in answered:
            spec["paused"] = answered["paused"]
        return sent

    return body


@virtual_time
async def test_a_whole_rollout_is_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        bodies = {index: _as_answered(index) for index in _APPLIES}
        differences = await replay(cluster, _ROLLOUT, Options(bodies=bodies, varying=NODE_VALUES))
    check(_ROLLOUT, differences)


@virtual_time
async def test_a_stalled_rollout_is_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _STALLED, Options(varying=NODE_VALUES))
    check(_STALLED, differences)


@virtual_time
async def test_a_deployment_of_three_containers_is_applied_and_logged_as_recorded() -> None:
    # The recorded watches and progress depend on the load of the recorded machine.
    options = Options(
        varying=NODE_VALUES,
        skip=frozenset(range(5)),
        racing=frozenset({7, 8, 9, 14, 15, 17, 19, 21, 23}),
    )
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _THREE, options)
    check(_THREE, differences)


@virtual_time
async def test_main_container_statuses_are_sorted_by_name() -> None:
    body = deployment("web", 1, container("zoo"), container("app"), container("main"))
    first = [container("two", "exit 0"), container("one", "exit 0")]
    body["spec"]["template"]["spec"]["initContainers"] = first
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(DEPLOYMENTS, body)
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        status = pods_of(cluster, "web")[0]["status"]
        assert [entry["name"] for entry in status["containerStatuses"]] == ["app", "main", "zoo"]
        assert [entry["name"] for entry in status["initContainerStatuses"]] == ["two", "one"]


@pytest.mark.parametrize(
    ("surge", "unavailable", "most", "least"),
    [("25%", "25%", 5, 3), (0, 1, 4, 3), (4, 0, 8, 4), ("100%", "100%", 8, 0)],
)
@virtual_time
async def test_a_rolling_update_keeps_within_surge_and_unavailability(
    surge: int | str, unavailable: int | str, most: int, least: int
) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    async with SimulatedCluster(speed=20) as cluster:
        probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 1, "periodSeconds": 1}
        body = deployment("web", 4, container(readinessProbe=probe), strategy=strategy)
        cluster.store.create(DEPLOYMENTS, body)
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        counts: list[tuple[int, int]] = []

        def is_done() -> bool:
            # The requested sizes are counted, because a deleted pod may still exist when the next pod is created.
            counts.append((sum(_sizes(cluster)), sum(map(is_ready, pods_of(cluster, "web")))))
            return is_complete(cluster, "web")

        change(cluster, DEPLOYMENTS, "web", image="busybox:2")
        await poll_cluster(cluster, is_done)
    assert max(count for count, _ in counts) <= most
    assert min(ready for _, ready in counts) >= least


@virtual_time
async def test_recreate_ends_all_old_pods_before_a_new_one_begins() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 2, strategy={"type": "Recreate"}))
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        images: set[frozenset[str]] = set()

        def is_done() -> bool:
            running = [
                entry["spec"]["containers"][0]["image"]
                for entry in cluster.store.list(PODS, "default")
                if entry["status"]["phase"] in ("Pending", "Running")
            ]
            images.add(frozenset(running))
            return is_complete(cluster, "web")

        change(cluster, DEPLOYMENTS, "web", image="busybox:2")
        await poll_cluster(cluster, is_done)
    assert frozenset({"busybox:1", "busybox:2"}) not in images
    assert frozenset({"busybox:2"}) in images


@virtual_time
async def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 1))
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        change(cluster, DEPLOYMENTS, "web", paused=True, image="busybox:2", replicas=3)
        await poll_cluster(
            cluster, lambda: stored(cluster, DEPLOYMENTS, "web")["status"].get("readyReplicas") == 3
        )
        assert len(replica_sets_of(cluster, "web")) == 1
        assert condition(stored(cluster, DEPLOYMENTS, "web"), "Progressing")["reason"] == "DeploymentPaused"
        change(cluster, DEPLOYMENTS, "web", paused=False)
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        assert {entry["spec"]["containers"][0]["image"] for entry in pods_of(cluster, "web")} == {"busybox:2"}


@virtual_time
async def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        rolling = {"maxSurge": 3, "maxUnavailable": 2}
        strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
        cluster.store.create(DEPLOYMENTS, deployment("web", 10, strategy=strategy))
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        change(cluster, DEPLOYMENTS, "web", image="registry.invalid/never:1")
        # Eight old replicas stay for availability; five new replicas fill up to the surge.
        await poll_cluster(cluster, lambda: _sizes(cluster) == [8, 5])
        change(cluster, DEPLOYMENTS, "web", replicas=15)
        await poll_cluster(cluster, lambda: _sizes(cluster) == [11, 7])


def _sizes(cluster: SimulatedCluster) -> list[int]:
    return [int(entry["spec"]["replicas"]) for entry in replica_sets_of(cluster, "web")]


@virtual_time
async def test_old_replica_sets_are_kept_up_to_the_history_limit() -> None:
    async with SimulatedCluster(speed=40) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 1, revisionHistoryLimit=1))
        for number in range(2, 5):
            await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
            change(cluster, DEPLOYMENTS, "web", image=f"busybox:{number}")
        await poll_cluster(
            cluster, lambda: is_complete(cluster, "web") and len(replica_sets_of(cluster, "web")) == 2
        )
        kept = [entry["metadata"]["annotations"][REVISION] for entry in replica_sets_of(cluster, "web")]
        assert kept == ["3", "4"]


@virtual_time
async def test_min_ready_seconds_delay_availability() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 1, minReadySeconds=5))
        await poll_cluster(
            cluster, lambda: stored(cluster, DEPLOYMENTS, "web")["status"].get("readyReplicas") == 1
        )
        assert "availableReplicas" not in stored(cluster, DEPLOYMENTS, "web")["status"]
        ready = cluster.clock.elapsed()
        await poll_cluster(cluster, lambda: is_complete(cluster, "web"))
        assert cluster.clock.elapsed() - ready > 3.5


@virtual_time
async def test_a_hundred_deployments_run_in_parallel() -> None:
    async with SimulatedCluster(speed=4) as cluster:
        for number in range(100):
            cluster.store.create(DEPLOYMENTS, deployment(f"web-{number}", 1))
        await poll_cluster(
            cluster,
            lambda: all(is_complete(cluster, f"web-{number}") for number in range(100)),
            seconds=30,
        )
        # The work grows linearly with the number of pods: some twenty writes per deployment.
        assert cluster.store.revision < 100 * 30
