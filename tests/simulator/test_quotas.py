"""Resource quotas and limit ranges, as recorded, and the rules for counting."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import parse_time
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    LIMIT_RANGES,
    NAMESPACES,
    PODS,
    RESOURCE_QUOTAS,
    SERVICES,
)
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.simulator.workloads import poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_QUOTA = "07a-quota-and-limitrange"
_NAMESPACE = "rec-quota"
_RAISED_BEFORE, _DEPLOYMENT_GONE = 13, 17
# The number of attempts of the replica set varies by milliseconds.
_VARYING = NODE_VALUES | {"count"}


async def _in_a_long_pause(run: Replay) -> None:
    """Waits until the replica set is in the middle of a long pause between its attempts."""
    cluster = run.cluster

    def quiet() -> bool:
        failures = [
            event for event in cluster.store.list(EVENTS, _NAMESPACE) if event["reason"] == "FailedCreate"
        ]
        last = max(parse_time(event["lastTimestamp"]) for event in failures)
        # The pauses double from 5 ms. After 21.5 s this is the pause of 41 s or a later one, so about as much time is
        # left.
        return (cluster.clock.now() - last).total_seconds() > 21.5

    await poll_cluster(cluster, quiet)


async def _time_goes_by(run: Replay) -> None:
    """Waits as long as the recording did; the wait for the long pause has used up the time between the requests."""
    await run.cluster.clock.sleep(15)


async def _deployment_goes(run: Replay) -> None:
    run.cluster.store.delete(DEPLOYMENTS, _NAMESPACE, "web", propagation_policy="Background")


@virtual_time
async def test_quotas_and_limit_ranges_are_as_recorded() -> None:
    async with recorded_cluster(10.0) as cluster:
        differences = await replay(
            cluster,
            _QUOTA,
            Options(
                varying=_VARYING,
                after={
                    _RAISED_BEFORE: _in_a_long_pause,
                    _RAISED_BEFORE + 1: _time_goes_by,
                    _DEPLOYMENT_GONE: _deployment_goes,
                },
            ),
        )
        failures = [
            event for event in cluster.store.list(EVENTS, _NAMESPACE) if event["reason"] == "FailedCreate"
        ]
    check(_QUOTA, differences)
    assert failures
    assert {event["involvedObject"]["kind"] for event in failures} == {"ReplicaSet"}


def _pod(name: str, resources: JsonObject, *, runs: bool = False) -> JsonObject:
    """Returns a pod that fits no node unless `runs` is set, so that its amounts stay in use."""
    spec: JsonObject = {"containers": [{"name": "c", "image": "busybox:1", "resources": resources}]}
    if not runs:
        spec["nodeSelector"] = {"no": "node"}
    return {"metadata": {"name": name, "namespace": "team"}, "spec": spec}


async def _with_quota(cluster: SimulatedCluster, hard: JsonObject) -> None:
    cluster.store.create(NAMESPACES, {"metadata": {"name": "team"}})
    quota = {"metadata": {"name": "quota", "namespace": "team"}, "spec": {"hard": hard}}
    cluster.store.create(RESOURCE_QUOTAS, quota)
    await poll_cluster(cluster, lambda: _used(cluster).keys() == hard.keys())


def _used(cluster: SimulatedCluster) -> JsonObject:
    quota = cluster.store.get(RESOURCE_QUOTAS, "team", "quota")
    assert quota is not None
    return dict(quota["status"].get("used") or {})


@virtual_time
async def test_deleted_and_ended_pods_release_their_amounts() -> None:
    async with SimulatedCluster(speed=20, nodes=1) as cluster:
        await _with_quota(cluster, {"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi"})
        amounts = {"requests": {"cpu": "400m"}, "limits": {"cpu": "400m", "memory": "256Mi"}}
        ending = _pod("ending", amounts, runs=True)
        ending["spec"]["restartPolicy"] = "Never"
        ending["spec"]["containers"][0]["command"] = ["true"]
        cluster.store.create(PODS, ending)
        cluster.store.create(PODS, _pod("waiting", amounts))
        with pytest.raises(
            ApiError, match=r"exceeded quota: quota, requested: pods=1,requests\.cpu=400m, used"
        ):
            cluster.store.create(PODS, _pod("third", amounts))
        await poll_cluster(
            cluster, lambda: _used(cluster) == {"pods": "1", "requests.cpu": "400m", "limits.memory": "256Mi"}
        )
        cluster.store.delete(PODS, "team", "waiting")
        await poll_cluster(
            cluster, lambda: _used(cluster) == {"pods": "0", "requests.cpu": "0", "limits.memory": "0"}
        )


@virtual_time
async def test_a_refused_write_and_a_dry_run_are_not_charged() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        await _with_quota(cluster, {"configmaps": "3", "services.nodeports": "1", "count/secrets": "0"})
        before = _used(cluster)
        cluster.store.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "team"}}, dry_run=True)
        two_ports = [{"name": name, "port": port} for name, port in (("a", 1), ("b", 2))]
        service = {
            "metadata": {"name": "s", "namespace": "team"},
            "spec": {"type": "NodePort", "ports": two_ports},
        }
        with pytest.raises(ApiError, match=r"services\.nodeports=2"):
            cluster.store.create(SERVICES, service)
        assert _used(cluster) == before
        assert not cluster.strategies.allocators.node_ports
        service["spec"] = {"type": "ClusterIP", "ports": two_ports[:1]}
        stored = cluster.store.create(SERVICES, service)
        changed = cluster.store.update(SERVICES, {**stored, "spec": {**stored["spec"], "type": "NodePort"}})
        assert _used(cluster)["services.nodeports"] == "1"
        cluster.store.update(SERVICES, {**changed, "spec": {**changed["spec"], "type": "ClusterIP"}})
        await poll_cluster(cluster, lambda: _used(cluster)["services.nodeports"] == "0")


@virtual_time
async def test_limit_ranges_bound_the_sum_of_a_pod_and_the_ratio() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        cluster.store.create(NAMESPACES, {"metadata": {"name": "team"}})
        limits = [
            {"type": "Pod", "max": {"cpu": "1"}},
            {"type": "Container", "maxLimitRequestRatio": {"memory": "2"}},
        ]
        bounds = {"metadata": {"name": "bounds", "namespace": "team"}, "spec": {"limits": limits}}
        cluster.store.create(LIMIT_RANGES, bounds)
        good = {"requests": {"memory": "64Mi"}, "limits": {"cpu": "600m", "memory": "128Mi"}}
        cluster.store.create(PODS, _pod("good", good))
        twice = _pod("twice", good)
        twice["spec"]["containers"].append({**twice["spec"]["containers"][0], "name": "d"})
        with pytest.raises(ApiError, match=r"maximum cpu usage per Pod is 1, but limit is 1\.2"):
            cluster.store.create(PODS, twice)
        steep = {"requests": {"memory": "32Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
        with pytest.raises(ApiError, match="memory max limit to request ratio per Container is 2"):
            cluster.store.create(PODS, _pod("steep", steep))


@pytest.mark.parametrize(
    ("hard", "field"),
    [
        ({"pods": "1500m"}, "spec.hard[pods]"),
        ({"wheels": "1"}, "spec.hard[wheels]"),
        ({"pods": "-1"}, "spec.hard[pods]"),
    ],
)
@virtual_time
async def test_an_invalid_quota_is_refused(hard: JsonObject, field: str) -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        quota = {"metadata": {"name": "quota", "namespace": "default"}, "spec": {"hard": hard}}
        with pytest.raises(ApiError) as refusal:
            cluster.store.create(RESOURCE_QUOTAS, quota)
        assert [cause["field"] for cause in refusal.value.status["details"]["causes"]] == [field]
