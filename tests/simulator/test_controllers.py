"""The ReplicaSet and endpoint controllers, the scheduler, events and the arithmetic of rollouts."""

from __future__ import annotations

import copy
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.admission.pod_resources import pod_total, pod_total_quantities
from pilothouse_simulator.admission.strategy import KindStrategies
from pilothouse_simulator.controllers.deployments_scaling import (
    new_replica_set_size,
    proportional_sizes,
    surge_and_unavailable,
    template_hash,
    total_replicas,
)
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock
from pilothouse_simulator.values.resources import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
)
from tests.simulator.workloads import (
    change,
    condition,
    container,
    deployment,
    exists,
    is_ready,
    pod,
    pods_of,
    poll_cluster,
    stored,
)
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]


def _replica_set(name: str, replicas: int) -> JsonObject:
    body = deployment(name, replicas)
    return {"metadata": body["metadata"], "spec": body["spec"]}


@virtual_time
async def test_a_replica_set_keeps_its_number_of_pods() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(REPLICA_SETS, _replica_set("web", 3))
        await poll_cluster(
            cluster, lambda: stored(cluster, REPLICA_SETS, "web")["status"].get("readyReplicas") == 3
        )
        victim = pods_of(cluster, "web")[0]["metadata"]["name"]
        cluster.store.delete(PODS, "default", victim, grace_period_seconds=0)
        await poll_cluster(cluster, lambda: len(pods_of(cluster, "web")) == 3)
        assert not exists(cluster, PODS, victim)
        change(cluster, REPLICA_SETS, "web", replicas=1)
        await poll_cluster(cluster, lambda: len(cluster.store.list(PODS, "default")) == 1)


@virtual_time
async def test_a_replica_set_adopts_pods_with_its_labels() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("web"))
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "web")))
        cluster.store.create(REPLICA_SETS, _replica_set("web", 1))
        await poll_cluster(
            cluster, lambda: stored(cluster, REPLICA_SETS, "web")["status"].get("readyReplicas") == 1
        )
        owner = stored(cluster, PODS, "web")["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["controller"]) == ("ReplicaSet", True)
        assert len(pods_of(cluster, "web")) == 1


@virtual_time
async def test_the_least_useful_pods_are_deleted_first() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(REPLICA_SETS, _replica_set("web", 2))
        await poll_cluster(
            cluster, lambda: stored(cluster, REPLICA_SETS, "web")["status"].get("readyReplicas") == 2
        )
        ready = {entry["metadata"]["name"] for entry in pods_of(cluster, "web")}
        template = copy.deepcopy(stored(cluster, REPLICA_SETS, "web")["spec"]["template"])
        template["spec"]["containers"][0]["image"] = "registry.invalid/never:1"
        change(cluster, REPLICA_SETS, "web", replicas=3, template=template)
        await poll_cluster(cluster, lambda: len(pods_of(cluster, "web")) == 3)
        change(cluster, REPLICA_SETS, "web", replicas=2)
        await poll_cluster(cluster, lambda: len(pods_of(cluster, "web")) == 2)
        assert {entry["metadata"]["name"] for entry in pods_of(cluster, "web")} == ready


@virtual_time
async def test_endpoints_follow_address_readiness_and_deletion() -> None:
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 2, "periodSeconds": 1}
    main = container(readinessProbe=probe, ports=[{"name": "web", "containerPort": 8080}])
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    async with SimulatedCluster(speed=20) as cluster:
        metadata = {"name": "web", "namespace": "default"}
        cluster.store.create(
            SERVICES, {"metadata": metadata, "spec": {"selector": {"app": "web"}, "ports": ports}}
        )
        cluster.store.create(PODS, pod("web", main, terminationGracePeriodSeconds=3))

        def endpoints() -> list[JsonObject]:
            slices = cluster.store.list(ENDPOINT_SLICES, "default")
            mine = [
                entry
                for entry in slices
                if entry["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
            ]
            return list(mine[0]["endpoints"] or []) if mine else []

        await poll_cluster(
            cluster, lambda: [entry["conditions"]["ready"] for entry in endpoints()] == [False]
        )
        await poll_cluster(cluster, lambda: [entry["conditions"]["ready"] for entry in endpoints()] == [True])
        old = stored(cluster, ENDPOINTS, "web")["subsets"][0]
        assert old["addresses"][0]["ip"] == stored(cluster, PODS, "web")["status"]["podIP"]
        assert old["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
        cluster.store.delete(PODS, "default", "web")
        await poll_cluster(cluster, lambda: not endpoints() or endpoints()[0]["conditions"]["terminating"])
        await poll_cluster(cluster, lambda: not endpoints())
        cluster.store.delete(SERVICES, "default", "web")
        await poll_cluster(cluster, lambda: not exists(cluster, ENDPOINTS, "web"))


@virtual_time
async def test_pods_are_spread_over_the_nodes() -> None:
    async with SimulatedCluster(nodes=3, speed=20) as cluster:
        cluster.store.create(REPLICA_SETS, _replica_set("web", 9))
        await poll_cluster(
            cluster, lambda: stored(cluster, REPLICA_SETS, "web")["status"].get("readyReplicas") == 9
        )
        nodes = Counter(entry["spec"]["nodeName"] for entry in pods_of(cluster, "web"))
        assert set(nodes.values()) == {3}


@virtual_time
async def test_a_pod_waits_until_a_node_has_room() -> None:
    half = {"requests": {"cpu": "40"}}
    async with SimulatedCluster(nodes=1, speed=20) as cluster:
        cluster.store.create(PODS, pod("first", container(resources=half)))
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "first")))
        cluster.store.create(PODS, pod("second", container(resources=half)))
        await poll_cluster(
            cluster,
            lambda: condition(stored(cluster, PODS, "second"), "PodScheduled").get("status") == "False",
        )
        assert "Insufficient cpu" in condition(stored(cluster, PODS, "second"), "PodScheduled")["message"]
        cluster.store.delete(PODS, "default", "first", grace_period_seconds=0)
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "second")))


@pytest.mark.parametrize(
    ("node", "spec", "problem"),
    [
        ({"unschedulable": True}, {}, "unschedulable"),
        ({"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]}, {}, "untolerated taint"),
        ({}, {"nodeSelector": {"disk": "fast"}}, "affinity/selector"),
    ],
)
@virtual_time
async def test_unsuitable_nodes_are_not_chosen(node: JsonObject, spec: JsonObject, problem: str) -> None:
    async with SimulatedCluster(nodes=1, speed=20) as cluster:
        change(cluster, NODES, "node-0", **node)
        cluster.store.create(PODS, pod("one", **spec))
        await poll_cluster(
            cluster,
            lambda: problem in condition(stored(cluster, PODS, "one"), "PodScheduled").get("message", ""),
        )
        changed = copy.deepcopy(stored(cluster, NODES, "node-0"))
        changed["spec"] = {}
        changed["metadata"]["labels"]["disk"] = "fast"
        cluster.store.update(NODES, changed)
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "one")))


@virtual_time
async def test_a_toleration_allows_a_tainted_node() -> None:
    async with SimulatedCluster(nodes=1, speed=20) as cluster:
        change(cluster, NODES, "node-0", taints=[{"key": "a", "value": "b", "effect": "NoSchedule"}])
        tolerations = [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}]
        cluster.store.create(PODS, pod("one", tolerations=tolerations))
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "one")))


def _recorder() -> tuple[ObjectStore, EventRecorder, JsonObject]:
    clock = Clock()
    store = ObjectStore(KindStrategies(), clock.now)
    store.create(NAMESPACES, {"metadata": {"name": "default"}})
    metadata = {"name": "thing", "namespace": "default", "uid": "u", "resourceVersion": "1"}
    return store, EventRecorder(store, clock), {"metadata": metadata}


def test_a_repeated_event_is_counted() -> None:
    store, recorder, thing = _recorder()
    for _ in range(3):
        recorder.record(PODS, thing, "Pulled", "there", component="kubelet", host="node-0")
    (event,) = store.list(EVENTS, "default")
    assert (event["count"], event["source"]) == (3, {"component": "kubelet", "host": "node-0"})


def test_too_many_different_messages_share_one_event() -> None:
    store, recorder, thing = _recorder()
    for number in range(12):
        recorder.record(PODS, thing, "Scaled", f"to {number}", component="controller")
    events = store.list(EVENTS, "default")
    assert len(events) == 10
    combined = [event for event in events if event["message"].startswith("(combined from similar events)")]
    assert [(event["count"], event["message"][-5:]) for event in combined] == [(3, "to 11")]


def _sized(name: str, size: int, limit: int, created: int) -> JsonObject:
    annotations = {"deployment.kubernetes.io/max-replicas": str(limit)}
    moment = f"2026-01-01T00:00:{created:02d}Z"
    return {
        "metadata": {"name": name, "annotations": annotations, "creationTimestamp": moment},
        "spec": {"replicas": size},
    }


@given(
    replicas=st.integers(0, 50),
    spare=st.integers(0, 10),
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=4),
)
def test_proportional_sizes_add_up_to_the_allowed_total(replicas: int, spare: int, sizes: list[int]) -> None:
    wanted = deployment("web", replicas)
    before = sum(sizes) + spare
    sets = [_sized(f"rs-{number}", size, before, number) for number, size in enumerate(sizes)]
    surge, _ = surge_and_unavailable(wanted)
    allowed = replicas + surge if replicas else 0
    result = proportional_sizes(wanted, sets)
    assert sum(result.values()) == allowed
    assert all(size >= 0 for size in result.values())


@given(replicas=st.integers(0, 50), old=st.integers(0, 80), new=st.integers(0, 50), surge=st.integers(0, 10))
def test_a_new_replica_set_never_exceeds_the_surge(replicas: int, old: int, new: int, surge: int) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1}}
    wanted = deployment("web", replicas, strategy=strategy)
    new = min(new, replicas)
    sets = [_sized("old", old, 0, 0), _sized("new", new, 0, 1)]
    size = new_replica_set_size(wanted, sets, sets[1])
    assert new <= size <= max(replicas, new)
    assert size == new or total_replicas(sets) - new + size <= replicas + surge


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "expected"),
    [("25%", "25%", 4, (1, 1)), ("25%", "25%", 1, (1, 0)), ("0%", "0%", 5, (0, 1)), (2, 9, 3, (2, 3))],
)
def test_percentages_are_rounded_towards_progress(
    surge: int | str, unavailable: int | str, replicas: int, expected: tuple[int, int]
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    assert surge_and_unavailable(deployment("web", replicas, strategy=strategy)) == expected


def test_equal_templates_have_equal_hashes() -> None:
    first, second = deployment("web", 1)["spec"]["template"], deployment("web", 9)["spec"]["template"]
    assert template_hash(first, 0) == template_hash(second, 0)
    assert template_hash(first, 0) != template_hash(first, 1)
    second["spec"]["containers"][0]["image"] = "busybox:2"
    assert template_hash(first, 0) != template_hash(second, 0)


def test_the_requests_of_a_pod_include_init_containers_and_sidecars() -> None:
    def asks(name: str, cpu: str, **fields: Any) -> JsonObject:
        return container(name, resources={"requests": {"cpu": cpu}}, **fields)

    initial = [asks("side", "100m", restartPolicy="Always"), asks("init", "1")]
    subject = pod("one", asks("main", "300m"), asks("other", "200m"), initContainers=initial)
    assert pod_total(subject, "requests", "cpu") == Decimal("1.1")
    assert pod_total_quantities(subject, "requests") == {"cpu": "1100m"}
    subject["spec"]["initContainers"] = initial[:1]
    assert pod_total_quantities(subject, "requests") == {"cpu": "600m"}
