"""Existing objects of the cluster are taken over."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.errors import FailedPreconditionError
from pilothouse_server.kubernetes.ownership import OBJECT_UID
from pilothouse_simulator import gateway_definitions
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import CONFIG_MAPS, NETWORK_POLICIES, ROLES
from tests.objects.conftest import INGRESS, POLICY, JsonObject, Place, condition_of, ingress

SPEC: JsonObject = {
    "podSelector": {"matchLabels": {"app": "web"}},
    "policyTypes": ["Ingress"],
    "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "protocol": "TCP"}]}],
}
ROLE: JsonObject = {"api_version": "rbac.authorization.k8s.io/v1", "kind": "Role"}
ROUTE: JsonObject = {"api_version": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}


def there(place: Place, name: str = "web", **metadata: Any) -> JsonObject:
    """Makes a NetworkPolicy on the cluster, as another client."""
    place.store.create(
        NETWORK_POLICIES,
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": place.name, **metadata},
            "spec": copy_json(SPEC),
        },
    )
    return copy_json(place.on_cluster(NETWORK_POLICIES, name))


async def taken(place: Place, *names: str, **fields: Any) -> dict[str, pb.ImportedObject]:
    """Imports objects, and returns the results by name."""
    answer = await place.client.objects.import_(namespace=place.name, names=names, **{**POLICY, **fields})
    return {each.name: each for each in answer.results}


async def test_an_object_is_taken_over_unchanged(place: Place) -> None:
    before = there(
        place,
        labels={"app.kubernetes.io/managed-by": "Helm"},
        annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    )
    shown = (await taken(place, "web", validate_only=True))["web"]
    assert (list(shown.problems), list(shown.notes)) == ([], [])
    found = (await taken(place))["web"]
    assert (list(found.problems), list(found.notes)) == ([], [])
    assert found.object.drift_policy == resource_pb2.DRIFT_POLICY_REPAIR
    carried = await place.settled(POLICY)
    assert json.loads(carried.document)["spec"] == SPEC
    after = place.on_cluster(NETWORK_POLICIES)
    assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
    assert after["metadata"]["labels"] == {**before["metadata"]["labels"], OBJECT_UID: carried.uid}
    assert (await taken(place)) == {}
    again = (await taken(place, "web"))["web"]
    assert again.problems[0].startswith(f"metadata.labels.{OBJECT_UID}: it belongs to the platform")
    await place.delete(POLICY)
    await place.gone(POLICY)
    assert place.store.get(NETWORK_POLICIES, place.name, "web") is None


async def test_objects_that_may_not_be_imported_stay_with_a_reason(place: Place) -> None:
    named = {"apiVersion": "v1", "kind": "ConfigMap"}
    made = place.store.create(CONFIG_MAPS, {**named, "metadata": {"name": "o", "namespace": place.name}})
    owner = {**named, "name": "o", "uid": made["metadata"]["uid"], "controller": True}
    there(place, "owned", ownerReferences=[owner])
    found = await taken(place, "owned", "absent")
    assert found["owned"].problems[0].startswith("metadata.ownerReferences: ConfigMap o controls it")
    assert list(found["absent"].problems) == ["there is no such object"]
    with pytest.raises(FailedPreconditionError, match="calls of secrets"):
        await taken(place, api_version="v1", kind="Secret")
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["escalate"]}]
    place.store.create(
        ROLES,
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "wide", "namespace": place.name},
            "rules": rules,
        },
    )
    tenant = await place.server.user("importer", {place.name: "developer"})
    answer = await tenant.objects.import_(namespace=place.name, **ROLE)
    (wide,) = answer.results
    assert "object.rbac" in wide.problems[0]


def _route(place: Place) -> JsonObject:
    spec = {"parentRefs": [{"name": "web"}], "hostnames": [f"web.{place.name}.example.com"]}
    return {"spec": {**spec, "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}}


@pytest.mark.parametrize(("kind", "written"), [(INGRESS, ingress), (ROUTE, _route)], ids=["ingress", "route"])
async def test_import_and_adopt_take_over_no_host_of_others(
    place: Place, kind: JsonObject, written: Callable[[Place], JsonObject]
) -> None:
    place.cluster.install(*gateway_definitions())
    resource = place.store.types.find_kind(kind["api_version"], kind["kind"])
    assert resource is not None
    own, theirs = f"web.{place.name}.example.com", "web.elsewhere.example.com"
    dns = "external-dns.alpha.kubernetes.io/hostname"
    for name, annotated in {"mine": own, "alien": f"{own},{theirs}"}.items():
        metadata = {"name": name, "namespace": place.name, "annotations": {dns: annotated}}
        document = {"apiVersion": kind["api_version"], "kind": kind["kind"], "metadata": metadata}
        place.store.create(resource, {**document, **written(place)})
    found = await taken(place, "mine", "alien", **kind)
    assert list(found["mine"].problems) == []
    (problem,) = found["alien"].problems
    assert f"metadata.annotations[{dns}]" in problem
    assert theirs in problem
    await place.change(kind, "mine", drift_policy=resource_pb2.DRIFT_POLICY_ADOPT)
    await place.settled(kind, "mine")
    place.by_hand(resource, "mine", metadata={"annotations": {dns: theirs, "example.org/team": "red"}})
    carried = await place.until(
        lambda each: "external-dns" in getattr(condition_of(each, "Drifted"), "message", ""), kind, "mine"
    )
    assert dict(carried.annotations)[dns] == own
