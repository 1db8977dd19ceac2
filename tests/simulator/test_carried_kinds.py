"""Kinds that applications bring along: routing, policies, autoscalers, roles. No recording shows them."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.resources import (
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INGRESS_CLASSES,
    INGRESSES,
    NETWORK_POLICIES,
    POD_DISRUPTION_BUDGETS,
    ROLE_BINDINGS,
    ROLES,
    SERVICES,
    ResourceType,
)
from tests.simulator.workloads import NAMESPACE, deployment, poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]


def _object(name: str, spec: JsonObject, **annotations: str) -> JsonObject:
    metadata: JsonObject = {"name": name, "namespace": NAMESPACE}
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


def _backend(name: str) -> JsonObject:
    return {"service": {"name": name, "port": {"number": 80}}}


def _ingress(name: str, host: str = "shop.example.com", **spec: Any) -> JsonObject:
    paths = [{"path": "/", "pathType": "Prefix", "backend": _backend("web")}]
    return _object(name, {"rules": [{"host": host, "http": {"paths": paths}}], **spec})


def _status(cluster: SimulatedCluster, resource: ResourceType, name: str) -> JsonObject:
    found = cluster.store.get(resource, NAMESPACE, name)
    assert found is not None
    return found.get("status") or {}


def _conditions(cluster: SimulatedCluster, resource: ResourceType, name: str) -> dict[str, tuple[str, str]]:
    entries = _status(cluster, resource, name).get("conditions") or []
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in entries}


@virtual_time
async def test_an_ingress_gets_the_default_class_and_an_address_by_its_class() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        stored = cluster.store.create(INGRESSES, _ingress("shop"))
        assert stored["spec"]["ingressClassName"] == "simulated"
        cluster.store.create(INGRESSES, _ingress("other", ingressClassName="absent"))
        await poll_cluster(
            cluster,
            lambda: _status(cluster, INGRESSES, "shop")["loadBalancer"] == {"ingress": [{"ip": "192.0.2.1"}]},
        )
        assert _status(cluster, INGRESSES, "other") == {"loadBalancer": {}}
        controller = {"spec": {"controller": "example.com/ingress"}, "metadata": {"name": "absent"}}
        cluster.store.create(INGRESS_CLASSES, controller)
        await poll_cluster(
            cluster, lambda: bool(_status(cluster, INGRESSES, "other")["loadBalancer"].get("ingress"))
        )


@virtual_time
async def test_a_budget_counts_its_pods() -> None:
    async with SimulatedCluster(speed=20, nodes=1) as cluster:
        selector = {"matchLabels": {"app": "web"}}
        for name, spec in (("most", {"maxUnavailable": "25%"}), ("least", {"minAvailable": 4})):
            cluster.store.create(POD_DISRUPTION_BUDGETS, _object(name, {"selector": selector, **spec}))
        await poll_cluster(
            cluster,
            lambda: (
                _conditions(cluster, POD_DISRUPTION_BUDGETS, "most")
                == {"DisruptionAllowed": ("False", "InsufficientPods")}
            ),
        )
        cluster.store.create(DEPLOYMENTS, deployment("web", 4))
        await poll_cluster(
            cluster, lambda: _status(cluster, POD_DISRUPTION_BUDGETS, "most")["disruptionsAllowed"] == 1
        )
        shown = _status(cluster, POD_DISRUPTION_BUDGETS, "most")
        assert (shown["currentHealthy"], shown["desiredHealthy"], shown["expectedPods"]) == (4, 3, 4)
        assert _status(cluster, POD_DISRUPTION_BUDGETS, "least")["disruptionsAllowed"] == 0


@virtual_time
async def test_an_autoscaler_scales_within_its_bounds() -> None:
    async with SimulatedCluster(speed=20, nodes=1) as cluster:
        cluster.store.create(DEPLOYMENTS, deployment("web", 2), manager="somebody")
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        annotation = {"simulate.pilothouse.dev/replicas": "9"}
        spec = {"scaleTargetRef": target, "maxReplicas": 5}
        cluster.store.create(HORIZONTAL_POD_AUTOSCALERS, _object("web", spec, **annotation))
        lost = {"scaleTargetRef": {**target, "name": "absent"}, "maxReplicas": 5}
        cluster.store.create(HORIZONTAL_POD_AUTOSCALERS, _object("lost", lost))
        kind = HORIZONTAL_POD_AUTOSCALERS
        await poll_cluster(cluster, lambda: _status(cluster, kind, "web").get("currentReplicas") == 5)
        web = cluster.store.get(DEPLOYMENTS, NAMESPACE, "web")
        assert web is not None
        assert web["spec"]["replicas"] == 5
        scaled = [entry for entry in web["metadata"]["managedFields"] if entry.get("subresource") == "scale"]
        assert [entry["manager"] for entry in scaled] == ["kube-controller-manager"]
        assert _conditions(cluster, kind, "web") == {
            "AbleToScale": ("True", "ReadyForNewScale"),
            "ScalingActive": ("True", "ValidMetricFound"),
            "ScalingLimited": ("True", "TooManyReplicas"),
        }
        assert _conditions(cluster, kind, "lost") == {"AbleToScale": ("False", "FailedGetScale")}
        stopped = {
            **web,
            "spec": {**web["spec"], "replicas": 0},
            "metadata": {"name": "web", "namespace": NAMESPACE},
        }
        cluster.store.update(DEPLOYMENTS, stopped)
        await poll_cluster(
            cluster,
            lambda: _conditions(cluster, kind, "web")["ScalingActive"] == ("False", "ScalingDisabled"),
        )


_NO_PORT = {"service": {"name": "web"}}
_RULE = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
_ROLE_REF = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "web"}
_REFUSED: list[tuple[ResourceType, JsonObject, list[str]]] = [
    (INGRESSES, _object("x", {}), ["spec"]),
    (INGRESSES, _ingress("x", "*.*.example.com"), ["spec.rules[0].host"]),
    (INGRESSES, _ingress("x", "10.0.0.1"), ["spec.rules[0].host"]),
    (INGRESSES, _object("x", {"defaultBackend": _NO_PORT}), ["spec.defaultBackend"]),
    (NETWORK_POLICIES, _object("x", {"ingress": [{"from": [{}]}]}), ["spec.ingress[0].from[0]"]),
    (
        NETWORK_POLICIES,
        _object("x", {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}]}]}),
        ["spec.egress[0].to[0].ipBlock.except[0]"],
    ),
    (POD_DISRUPTION_BUDGETS, _object("x", {"minAvailable": 1, "maxUnavailable": 1}), ["spec"]),
    (POD_DISRUPTION_BUDGETS, _object("x", {"minAvailable": "110%"}), ["spec.minAvailable"]),
    (
        ROLES,
        {"metadata": {"name": "a/b", "namespace": NAMESPACE}, "rules": [{**_RULE, "verbs": []}]},
        ["metadata.name", "rules[0].verbs"],
    ),
    (
        ROLE_BINDINGS,
        {
            "metadata": {"name": "x", "namespace": NAMESPACE},
            "roleRef": {**_ROLE_REF, "kind": "Rolle"},
            "subjects": [{"kind": "Robot", "name": "r"}],
        },
        ["roleRef.kind", "subjects[0].kind"],
    ),
]


@virtual_time
async def test_invalid_objects_are_refused_with_the_field() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        for resource, obj, fields in _REFUSED:
            with pytest.raises(ApiError) as refusal:
                cluster.store.create(resource, obj)
            causes = refusal.value.status["details"]["causes"]
            assert [cause["field"] for cause in causes] == fields, obj
        role = {"metadata": {"name": "web:reader", "namespace": NAMESPACE}, "rules": [_RULE]}
        assert cluster.store.create(ROLES, role)["rules"] == [_RULE]
        binding = {"metadata": {"name": "x", "namespace": NAMESPACE}, "roleRef": _ROLE_REF}
        stored = cluster.store.create(ROLE_BINDINGS, binding)
        with pytest.raises(ApiError, match="cannot change roleRef"):
            cluster.store.update(ROLE_BINDINGS, {**stored, "roleRef": {**_ROLE_REF, "name": "other"}})


@virtual_time
async def test_each_service_gets_an_address_from_the_load_balancer() -> None:
    cluster = SimulatedCluster(nodes=1)
    cluster.provide_load_balancers()
    async with cluster:

        def create(name: str, **spec: Any) -> None:
            ports = [{"port": 80}]
            cluster.store.create(SERVICES, _object(name, {"type": "LoadBalancer", "ports": ports, **spec}))

        def addresses(name: str) -> list[str]:
            balancer = _status(cluster, SERVICES, name)["loadBalancer"]
            return [each["ip"] for each in balancer.get("ingress") or []]

        create("one")
        create("of-a-class", loadBalancerClass="example.com/other")
        create("two")
        await poll_cluster(cluster, lambda: bool(addresses("two")))
        assert (addresses("one"), addresses("two")) == (["198.51.100.1"], ["198.51.100.2"])
        assert addresses("of-a-class") == []
        one = cluster.store.get(SERVICES, NAMESPACE, "one")
        assert one is not None
        cluster.store.update(SERVICES, {**one, "spec": {**one["spec"], "type": "ClusterIP"}})
        await poll_cluster(cluster, lambda: not addresses("one"))
        create("three")
        await poll_cluster(cluster, lambda: addresses("three") == ["198.51.100.1"])
