"""Custom resources: the Gateway API as recorded, and the tests' own definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pilothouse_simulator import SimulatedCluster, gateway_definitions
from pilothouse_simulator.admission.cel import ExpressionError, UnsupportedRuleError, compile_rule
from pilothouse_simulator.values.resources import CUSTOM_RESOURCE_DEFINITIONS, SERVICES, ResourceType
from tests.simulator.replay import Options, Replay, check, replay
from tests.simulator.workloads import NAMESPACE, poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_ROUTES = "31-httproute"
_NOT_YET_SERVED, _DEFINITION_DELETED = 0, 30


async def _install(run: Replay) -> None:
    """Installs the definitions; that of routes has the recorded descriptions."""
    recorded: JsonObject = run.recording["exchanges"][_DEFINITION_DELETED]["response"]["body"]
    routes = {"metadata": {"name": recorded["metadata"]["name"]}, "spec": recorded["spec"]}
    routes["metadata"]["annotations"] = recorded["metadata"]["annotations"]
    others = [
        entry for entry in gateway_definitions() if entry["metadata"]["name"] != routes["metadata"]["name"]
    ]
    run.cluster.install(routes, *others)


@virtual_time
async def test_routes_are_as_recorded() -> None:
    async with SimulatedCluster(speed=20, nodes=1) as cluster:
        options = Options(after={_NOT_YET_SERVED: _install})
        differences = await replay(cluster, _ROUTES, options)
    check(_ROUTES, differences)


_ITEM_LIST = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name", "protocol"],
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "protocol": {"type": "string", "default": "TCP", "enum": ["TCP", "UDP"]},
            "port": {"x-kubernetes-int-or-string": True},
        },
    },
}
_SPEC = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "mode": {"type": "string", "default": "single"},
        "ports": _ITEM_LIST,
        "settings": {"type": "object", "additionalProperties": {"type": "string"}},
        "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
    "x-kubernetes-validations": [
        {"rule": "self.mode != 'single' || self.size == 1", "message": "one alone has the size 1"},
        {"rule": "self.size >= oldSelf.size", "message": "it does not shrink"},
    ],
}
_STATUS = {"type": "object", "properties": {"phase": {"type": "string"}}}


def _definition(kind: str, *, scope: str = "Namespaced", **version: Any) -> JsonObject:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": _SPEC, "status": _STATUS}}
    served = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.data.example.com"},
        "spec": {
            "group": "data.example.com",
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "shortNames": [kind[:2].lower()]},
            "versions": [{**served, "subresources": {"status": {}}, **version}],
        },
    }


class _Client:
    """Requests to the objects of `store`s in the default namespace."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        kind: str = "application/json",
        **query: str,
    ) -> tuple[int, JsonObject]:
        headers = {"Content-Type": kind}
        async with self._session.request(method, path, json=body, headers=headers, params=query) as response:
            text = await response.text()
            return response.status, await response.json() if text.startswith("{") else {"text": text}

    async def apply(
        self, name: str, spec: JsonObject, manager: str = "pilothouse", **query: str
    ) -> tuple[int, JsonObject]:
        body = {
            "apiVersion": "data.example.com/v1",
            "kind": "Store",
            "metadata": {"name": name},
            "spec": spec,
        }
        kind = "application/apply-patch+yaml"
        return await self("PATCH", f"{_STORES}/{name}", body, kind=kind, fieldManager=manager, **query)


_STORES = "/apis/data.example.com/v1/namespaces/default/stores"


def _client(cluster: SimulatedCluster) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cluster.url, headers={"authorization": f"Bearer {cluster.token}"})


@virtual_time
async def test_a_definition_defaults_prunes_and_refuses() -> None:
    async with (
        SimulatedCluster(nodes=1, definitions=[_definition("Store")]) as cluster,
        _client(cluster) as session,
    ):
        client = _Client(session)
        status, made = await client.apply(
            "main", {"size": 1, "ports": [{"name": "a"}], "raw": {"x": {"y": [1]}}}
        )
        assert (status, made["spec"]["mode"]) == (201, "single")
        assert made["spec"]["ports"] == [{"name": "a", "protocol": "TCP"}]
        fields = made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
        assert set(fields["f:ports"]) == {'k:{"name":"a","protocol":"TCP"}'}
        assert fields["f:raw"] == {"f:x": {"f:y": {}}}
        # Another manager may add its own item to a keyed list, but not change our value.
        status, shared = await client.apply(
            "main", {"ports": [{"name": "b", "port": "http"}]}, manager="other"
        )
        assert (status, len(shared["spec"]["ports"])) == (200, 2)
        status, refusal = await client.apply("main", {"size": 2}, manager="other")
        assert (status, refusal["details"]["causes"][0]["field"]) == (409, ".spec.size")
        status, refusal = await client.apply("main", {"size": 3})
        assert (status, refusal["message"].rpartition(": ")[2]) == (422, "one alone has the size 1")
        assert (await client.apply("main", {"size": 3, "mode": "many"}))[0] == 200
        status, refusal = await client.apply("main", {"size": 2, "mode": "many"})
        assert (status, refusal["message"].rpartition(": ")[2]) == (422, "it does not shrink")
        wrong = {"metadata": {"name": "w"}, "spec": {"size": "x", "ports": [{"protocol": "SCTP"}], "more": 1}}
        status, refusal = await client("POST", _STORES, wrong)
        assert status == 422
        assert [cause["field"] for cause in refusal["details"]["causes"]] == [
            "spec.size", "spec.ports[0].name", "spec.ports[0].protocol", "<nil>",
        ]  # fmt: skip
        status, refusal = await client(
            "POST", _STORES, {**wrong, "spec": {"size": 1, "more": 1}}, fieldValidation="Strict"
        )
        assert (status, 'unknown field "spec.more"' in refusal["message"]) == (400, True)
        status, pruned = await client("POST", _STORES, {**wrong, "spec": {"size": 1, "more": 1}})
        assert (status, pruned["spec"]) == (201, {"size": 1, "mode": "single"})
        merge = "application/strategic-merge-patch+json"
        assert (await client("PATCH", f"{_STORES}/w", {"spec": {"size": 1}}, kind=merge))[0] == 415


@virtual_time
async def test_status_finalizers_and_the_end_of_a_definition() -> None:
    async with (
        SimulatedCluster(nodes=1, definitions=[_definition("Store")]) as cluster,
        _client(cluster) as session,
    ):
        client = _Client(session)
        body = {"metadata": {"name": "main", "finalizers": ["data.example.com/hold"]}, "spec": {"size": 1}}
        status, made = await client("POST", _STORES, {**body, "status": {"phase": "Ready"}})
        assert (status, "status" in made) == (201, False)
        merge = "application/merge-patch+json"
        status, shown = await client(
            "PATCH", f"{_STORES}/main/status", {"status": {"phase": "Ready"}}, kind=merge
        )
        assert (status, shown["status"], shown["metadata"]["generation"]) == (200, {"phase": "Ready"}, 1)
        assert (await client("PATCH", f"{_STORES}/main/status", {"status": {"phase": 1}}, kind=merge))[
            0
        ] == 422
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/stores.data.example.com"
        async with session.get(_STORES, params={"watch": "true", "resourceVersion": "1"}) as stream:
            assert (await client("DELETE", path))[1]["metadata"]["finalizers"] == [
                "customresourcecleanup.apiextensions.k8s.io"
            ]
            resource = cluster.store.types.custom("data.example.com", "stores")
            assert resource is not None
            await poll_cluster(cluster, lambda: _is_deleting(cluster, resource, "main"))
            assert (await client("GET", path))[0] == 200
            released = {"metadata": {"finalizers": None}}
            assert (await client("PATCH", f"{_STORES}/main", released, kind=merge))[0] == 200
            await poll_cluster(cluster, lambda: not cluster.store.list(CUSTOM_RESOURCE_DEFINITIONS))
            types = [line.split(b'"')[3] for line in (await stream.read()).splitlines()]
        assert (types[0], types[-1]) == (b"ADDED", b"DELETED")
        assert await client("GET", _STORES) == (404, {"text": "404 page not found\n"})


def _is_deleting(cluster: SimulatedCluster, resource: ResourceType, name: str) -> bool:
    obj = cluster.store.get(resource, NAMESPACE, name)
    return obj is not None and "deletionTimestamp" in obj["metadata"]


@virtual_time
async def test_a_gateway_and_its_route_get_the_status_of_the_simulated_controller() -> None:
    async with SimulatedCluster(nodes=1, definitions=gateway_definitions()) as cluster:
        gateways, routes = (
            cluster.store.types.custom("gateway.networking.k8s.io", plural)
            for plural in ("gateways", "httproutes")
        )
        assert gateways is not None
        assert routes is not None
        listener = {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"}
        gateway = {"gatewayClassName": "simulated", "listeners": [listener]}
        cluster.store.create(gateways, {"metadata": {"name": "web", "namespace": NAMESPACE}, "spec": gateway})
        for name, host in (("shop", "shop.example.com"), ("other", "shop.example.org")):
            rules = [{"backendRefs": [{"name": "shop", "port": 80}]}]
            spec = {"parentRefs": [{"name": "web"}], "hostnames": [host], "rules": rules}
            cluster.store.create(routes, {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})

        def reasons(name: str) -> list[str]:
            route = cluster.store.get(routes, NAMESPACE, name) or {}
            parents = route.get("status", {}).get("parents") or []
            return [condition["reason"] for parent in parents for condition in parent["conditions"]]

        await poll_cluster(cluster, lambda: reasons("shop") == ["Accepted", "BackendNotFound"])
        await poll_cluster(cluster, lambda: reasons("other")[:1] == ["NoMatchingListenerHostname"])
        service = {"metadata": {"name": "shop", "namespace": NAMESPACE}, "spec": {"ports": [{"port": 80}]}}
        cluster.store.create(SERVICES, service)
        await poll_cluster(cluster, lambda: reasons("shop") == ["Accepted", "ResolvedRefs"])
        web = cluster.store.get(gateways, NAMESPACE, "web")
        assert web is not None
        assert web["status"]["addresses"] == [{"type": "IPAddress", "value": "192.0.2.2"}]
        assert [entry["status"] for entry in web["status"]["conditions"]] == ["True", "True"]
        assert web["status"]["listeners"][0]["attachedRoutes"] == 1


@virtual_time
async def test_custom_resources_are_kept_between_runs(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    async with (
        SimulatedCluster(nodes=1, definitions=[_definition("Store")], state_path=path) as cluster,
        _client(cluster) as session,
    ):
        assert (await _Client(session).apply("main", {"size": 1}))[0] == 201
    async with SimulatedCluster(nodes=1, state_path=path) as cluster, _client(cluster) as session:
        client = _Client(session)
        assert (await client("GET", f"{_STORES}/main"))[1]["spec"] == {"size": 1, "mode": "single"}
        assert (await client.apply("more", {"size": 1}))[0] == 201


_RULES = [
    ("size(self.a) == 0 || self.a[0].b.startsWith('x')", {"a": [{"b": "xy"}]}, True),
    ("has(self.a) && self.a.b in ['x', \"y\"] ? 1 + 2 * 3 == 7 : false", {"a": {"b": "y"}}, True),
    ("self.filter(e, e > 1).map(e, e * 2) == [4, 6]", [1, 2, 3], True),
    ("self.exists_one(e, e == 'a') && !self.all(e, e.matches(r'^[ab]$'))", ["a", "c"], True),
    ("duration(self) > duration('1m30s')", "2m", True),
    ("self.missing || true", {}, True),
    ("self.x__dash__y == -1", {"x-y": -1}, True),
]


@pytest.mark.parametrize(("rule", "value", "result"), _RULES)
def test_rules_are_evaluated(rule: str, value: Any, result: bool) -> None:
    assert compile_rule(rule)({"self": value}) is result


def test_failing_and_unsupported_rules_raise() -> None:
    with pytest.raises(ExpressionError, match="no such key: missing"):
        compile_rule("self.missing == 1")({"self": {}})
    for text in ("self.isSorted()", "quantity(self)", "self ==", "self.all(e)"):
        with pytest.raises(UnsupportedRuleError):
            compile_rule(text)
