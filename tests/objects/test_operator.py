"""An operator's custom resource that an administrator allowed, from its definition to its deletion.

The operator is a part of this test: it reports a state, makes an object of its own, and blocks the deletion of the
resource with a finalizer.
"""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.object.v1 import object_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.errors import PilothouseError
from pilothouse_simulator import gateway_definitions
from pilothouse_simulator.values.resources import CONFIG_MAPS, ResourceType
from tests.objects.conftest import Place, condition_of
from tests.waiting import poll_until

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

STORE = {"api_version": "data.example.com/v1", "kind": "Store"}
GATEWAY = {"api_version": "gateway.networking.k8s.io/v1", "kind": "Gateway"}
ROUTE = {"api_version": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}
_HOLD = "data.example.com/hold"
_USERS = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "password": {"type": "string"}},
    },
}
_SPEC = {
    "type": "object",
    "required": ["instances"],
    "properties": {
        "instances": {"type": "integer", "minimum": 1, "maximum": 9},
        "version": {"type": "string", "default": "17"},
        "users": _USERS,
        "parameters": {"type": "object", "additionalProperties": {"type": "string"}},
        "superuser": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
    "x-kubernetes-validations": [
        {"rule": "self.instances != 2", "message": "two instances have no majority"}
    ],
}
_SCHEMA = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": _SPEC,
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
DEFINITION: JsonObject = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "stores.data.example.com"},
    "spec": {
        "group": "data.example.com",
        "scope": "Namespaced",
        "names": {"kind": "Store", "plural": "stores"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": _SCHEMA},
            }
        ],
    },
}
DOCUMENT: JsonObject = {
    "spec": {
        "instances": 3,
        "users": [{"name": "app", "password": "tap-water"}],
        "parameters": {"max_connections": "200", "shared.buffers": "1GB"},
    }
}


class Operator:
    """The program behind the kind, with its own field manager."""

    def __init__(self, place: Place, resource: ResourceType) -> None:
        self._place = place
        self._resource = resource
        self._path = f"/apis/data.example.com/v1/namespaces/{place.name}/stores/main"

    async def patch(self, body: JsonObject, subresource: str = "") -> None:
        headers = {
            "authorization": f"Bearer {self._place.cluster.token}",
            "content-type": "application/merge-patch+json",
        }
        url = self._place.cluster.url + self._path + subresource
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.patch(url, data=json.dumps(body), params={"fieldManager": "store-operator"}) as response,
        ):
            assert response.status == 200, await response.text()

    async def report(self, *, ready: bool) -> None:
        """Writes the condition `Ready`."""
        found = self._place.on_cluster(self._resource, "main")
        generation = found["metadata"]["generation"]
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": "Up" if ready else "Starting",
            "message": "",
            "lastTransitionTime": "2026-11-30T00:00:00Z",
            "observedGeneration": generation,
        }
        await self.patch({"status": {"conditions": [condition], "observedGeneration": generation}}, "/status")

    def make_own(self) -> None:
        """Makes a config map that the resource owns."""
        owner = self._place.on_cluster(self._resource, "main")["metadata"]
        reference = {
            "apiVersion": "data.example.com/v1",
            "kind": "Store",
            "name": "main",
            "uid": owner["uid"],
        }
        metadata = {"name": "main-settings", "namespace": self._place.name, "ownerReferences": [reference]}
        self._place.store.create(CONFIG_MAPS, {"metadata": metadata, "data": {"a": "1"}})


async def _open(place: Place, kinds: list[namespace_pb2.ObjectKind]) -> None:
    await place.client.namespaces.update_cluster(
        name="local",
        cluster=namespace_pb2.Cluster(object_kinds=kinds),
        update_mask=FieldMask(paths=["object_kinds"]),
    )


async def _refused(made: Any, *words: str) -> None:
    with pytest.raises(PilothouseError) as refusal:
        await made
    for word in words:
        assert word in refusal.value.message, refusal.value.message


async def test_an_operators_kind_is_opened_carried_and_deleted(place: Place) -> None:
    place.cluster.install(DEFINITION)
    resource = place.store.types.custom("data.example.com", "stores")
    assert resource is not None
    await _refused(place.make(STORE, DOCUMENT, "main"), "Store")
    opened = namespace_pb2.ObjectKind(
        api_version=STORE["api_version"],
        kind=STORE["kind"],
        open_to=namespace_pb2.KIND_OPEN_TO_TENANTS,
        secret_paths=["spec.users.password"],
        refused_paths=["spec.superuser"],
    )
    await _open(place, [opened])
    dora = await place.server.user(f"dora-{place.name}", {place.name: "developer"})
    hers = Place(place.server, place.cluster, place.name)
    hers.client = dora
    privileged = {"spec": {**DOCUMENT["spec"], "superuser": {"enabled": True}}}
    await _refused(hers.make(STORE, privileged, "main"), "spec.superuser")

    await hers.make(STORE, DOCUMENT, "main")
    made = await place.settled(STORE, "main")
    # Every value as written; the only addition is the definition's default.
    assert place.on_cluster(resource, "main")["spec"] == {**DOCUMENT["spec"], "version": "17"}
    assert made.health != pb.OBJECT_HEALTH_HEALTHY

    operator = Operator(place, resource)
    await operator.patch({"metadata": {"finalizers": [_HOLD]}})
    operator.make_own()
    await operator.report(ready=False)
    await place.until(lambda each: each.health != pb.OBJECT_HEALTH_HEALTHY, STORE, "main")
    await operator.report(ready=True)
    await place.until(lambda each: each.health == pb.OBJECT_HEALTH_HEALTHY, STORE, "main")

    # A refusal by a rule of the definition becomes a condition with the rule's message.
    await hers.change(STORE, "main", document={"spec": {**DOCUMENT["spec"], "instances": 2}})
    failed = await place.until(lambda each: each.status == pb.OBJECT_STATUS_FAILED, STORE, "main")
    applied = condition_of(failed)
    assert applied is not None
    assert "two instances have no majority" in applied.message
    await hers.change(STORE, "main", document={"spec": {**DOCUMENT["spec"], "instances": 5}})
    await place.seen(resource, lambda found: found["spec"]["instances"] == 5, "main")

    # Drift of custom resources is reported, and the value stays.
    await place.settled(STORE, "main")
    await operator.patch({"spec": {"instances": 7}})
    await place.until(lambda each: _holds(each, "Drifted"), STORE, "main")
    assert place.on_cluster(resource, "main")["spec"]["instances"] == 7

    await hers.delete(STORE, "main")
    held = await place.until(lambda each: _HOLD in each.message, STORE, "main")
    assert held.status != pb.OBJECT_STATUS_ACTIVE or held.delete_time.seconds
    await operator.patch({"metadata": {"finalizers": None}})
    await place.gone(STORE, "main")
    assert place.store.get(resource, place.name, "main") is None

    async def collected() -> bool:
        return place.store.get(CONFIG_MAPS, place.name, "main-settings") is None

    await poll_until(collected)


def _holds(carried: pb.Object, kind: str) -> bool:
    condition = condition_of(carried, kind)
    return condition is not None and condition.status == resource_pb2.CONDITION_STATUS_TRUE


async def test_a_gateway_and_its_route_show_their_address_and_backends(place: Place) -> None:
    place.cluster.install(*gateway_definitions())
    host = f"*.{place.name}.example.com"
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "hostname": host}
    await place.make(GATEWAY, {"spec": {"gatewayClassName": "simulated", "listeners": [listener]}})
    rules = [{"backendRefs": [{"name": "shop", "port": 80}]}]
    spec = {"parentRefs": [{"name": "web"}], "hostnames": [f"shop.{place.name}.example.com"], "rules": rules}
    await place.make(ROUTE, {"spec": spec}, "shop")
    gateway = await place.until(lambda each: bool(each.addresses), GATEWAY)
    assert list(gateway.addresses) == ["192.0.2.2"]
    route = await place.until(lambda each: bool(each.backends), ROUTE, "shop")
    assert [(each.service, each.ready) for each in route.backends] == [("shop", False)]
