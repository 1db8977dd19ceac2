"""Existing Services of the cluster are taken over as standalone Services."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.errors import PermissionDeniedError
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import DEPLOYMENTS, SERVICES
from tests.network.conftest import JsonObject, Place
from tests.network.test_drift import drifted

REPAIR, REPORT = resource_pb2.DRIFT_POLICY_REPAIR, resource_pb2.DRIFT_POLICY_REPORT
WHOLE: JsonObject = {
    "type": "LoadBalancer",
    "selector": {"app": "web", "tier": "front"},
    "ports": [
        {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30411, "appProtocol": "http"},
        {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
    ],
    "publishNotReadyAddresses": True,
    "sessionAffinity": "ClientIP",
    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    "externalTrafficPolicy": "Local",
    "internalTrafficPolicy": "Local",
    "loadBalancerSourceRanges": ["10.0.0.0/8"],
    "allocateLoadBalancerNodePorts": True,
    "trafficDistribution": "PreferClose",
}


def there(place: Place, name: str = "web", spec: JsonObject | None = None, **metadata: Any) -> JsonObject:
    """Makes a Service on the cluster, as another client."""
    wanted = spec or {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    place.store.create(
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": place.name, **metadata},
            "spec": copy_json(wanted),
        },
    )
    return copy_json(place.on_cluster(name))


async def taken(place: Place, *names: str, **fields: Any) -> dict[str, pb.ImportedService]:
    """Imports Services, and returns the results by name."""
    answer = await place.client.network.import_services(namespace=place.name, names=names, **fields)
    return {each.name: each for each in answer.results}


async def test_a_service_with_all_fields_is_taken_over_unchanged(place: Place) -> None:
    before = there(
        place,
        spec=WHOLE,
        labels={"app.kubernetes.io/managed-by": "Helm"},
        annotations={"example.org/lb": "fast", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    )
    found = (await taken(place, "web"))["web"]
    assert (list(found.problems), list(found.notes)) == ([], [])
    # No load balancer assigns an address here.
    service = await place.service(lambda each: not each.reconciling)
    assert service.drift_policy == REPAIR
    after = place.on_cluster()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert after["metadata"]["labels"] == {**before["metadata"]["labels"], SERVICE_UID: service.uid}
    assert dict(service.labels) == before["metadata"]["labels"]
    assert dict(service.annotations) == {"example.org/lb": "fast"}
    assert (service.ports[0].target, service.ports[0].node_port) == ("web", 30411)
    # After a deletion it is made again with the same meaning.
    place.store.delete(SERVICES, place.name, "web")
    again = await place.seen(lambda each: each["metadata"]["uid"] != before["metadata"]["uid"])
    chosen = ("clusterIP", "clusterIPs", "healthCheckNodePort")
    for spec in (again["spec"], before["spec"]):
        for key in chosen:
            spec.pop(key, None)
    assert again["spec"] == before["spec"]


async def test_a_headless_service_stays_headless(place: Place) -> None:
    before = there(place, spec={"clusterIP": "None", "selector": {"app": "web"}})
    assert (await taken(place))["web"].service.headless
    await place.settled()
    assert place.on_cluster()["metadata"]["uid"] == before["metadata"]["uid"]
    assert place.on_cluster()["spec"] == before["spec"]


async def test_without_names_all_services_except_the_platforms_are_imported(place: Place) -> None:
    await place.make("ours")
    await place.settled("ours")
    there(place, "of-a-container", labels={CONTAINER_UID: "some"})
    there(place, "first", labels={"app": "a"})
    there(place, "second", labels={"app": "b"})
    assert (await taken(place, label_selector="app=b", validate_only=True)).keys() == {"second"}
    assert (await taken(place)).keys() == {"first", "second"}
    assert await taken(place, "ours", "first") != {}
    assert {each.name async for each in place.client.network.list_services(namespace=place.name)} == {
        *("ours", "first", "second")
    }


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"labels": {CONTAINER_UID: "some"}}, "it belongs to a container already"),
        ({"labels": {SERVICE_UID: "some"}}, "it belongs to a Service of the platform already"),
        (
            {"ownerReferences": [{"kind": "Knative", "name": "api", "controller": True}]},
            "metadata.ownerReferences: Knative api controls it",
        ),
    ],
)
async def test_a_service_of_another_owner_stays_unchanged(
    place: Place, metadata: JsonObject, words: str
) -> None:
    before = there(place, **metadata)
    found = (await taken(place, "web", "missing"))["web"]
    assert not found.HasField("service")
    assert any(words in each for each in found.problems)
    assert place.on_cluster() == before


async def test_a_field_that_the_model_lacks_is_listed_and_not_reverted(place: Place) -> None:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 80}], "ofTheFuture": "yes"}
    there(place, spec=spec)
    # The simulated cluster itself drops such a field at the next write.
    found = (await taken(place, "web", validate_only=True))["web"]
    assert "spec.ofTheFuture: cannot be represented" in list(found.notes)
    assert found.service.drift_policy == REPORT


async def test_an_imported_container_leaves_the_service_alone(place: Place) -> None:
    there(place)
    await taken(place, "web")
    await place.settled()
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "a", "image": "nginx:1.27"}]},
    }
    place.store.create(
        DEPLOYMENTS,
        {
            "metadata": {"name": "web", "namespace": place.name},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
        },
    )
    (result,) = (await place.client.containers.import_(namespace=place.name)).results
    assert list(result.problems) == []
    assert "Service web: it is a Service of the platform already" in " ".join(result.notes)


async def test_a_dry_run_of_an_import_writes_nothing(place: Place) -> None:
    there(place)
    assert (await taken(place, "web", validate_only=True))["web"].HasField("service")
    assert [each async for each in place.client.network.list_services(namespace=place.name)] == []


async def test_the_quota_and_the_types_of_the_namespace_apply(place: Place) -> None:
    there(place, "first")
    there(place, "second")
    there(place, "third", spec={"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]})
    await place.client.namespaces.update(
        name=place.name,
        namespace=namespace_pb2.Namespace(
            resource_quota=namespace_pb2.ResourceQuota(services=1),
            service_types=[pb.SERVICE_TYPE_CLUSTER_IP],
        ),
        update_mask=FieldMask(paths=["resource_quota.services", "service_types"]),
    )
    found = await taken(place, "first", "second", "third")
    assert found["first"].HasField("service")
    assert "exceeded" in found["second"].problems[0]
    assert "allows Services of type CLUSTER_IP" in found["third"].problems[0]


@pytest.mark.full
async def test_an_import_needs_the_permissions_of_a_creation(place: Place) -> None:
    there(place, annotations={"example.org/lb": "fast"})
    there(place, "outside", spec={"ports": [{"port": 80}]})
    await place.client.identity.create_role(
        role=identity_pb2.Role(name="importer", permissions=["service.import", "namespace.get"])
    )
    importer = await place.server.user("importer", {place.name: "importer"})
    with pytest.raises(PermissionDeniedError, match=r"service\.create"):
        await importer.network.import_services(namespace=place.name)
    developer = await place.server.user("developer", {place.name: "developer"})
    answer = await developer.network.import_services(namespace=place.name)
    found = {each.name: each for each in answer.results}
    assert "object.privileged" in found["outside"].problems[0]
    assert list(found["web"].notes) == [
        "metadata.annotations.example.org/lb: stays unmanaged: setting it needs container.privileged"
    ]
    await place.settled()
    assert place.on_cluster()["metadata"]["annotations"] == {"example.org/lb": "fast"}


async def test_import_and_adopt_take_over_no_host_of_others(place: Place) -> None:
    own, theirs = f"web.{place.name}.example.com", "web.elsewhere.example.com"
    dns = "external-dns.alpha.kubernetes.io/hostname"
    hosts = namespace_pb2.Namespace(allowed_hosts=[own])
    await place.client.namespaces.update(
        name=place.name, namespace=hosts, update_mask=FieldMask(paths=["allowed_hosts"])
    )
    there(place, annotations={dns: own})
    there(place, "alien", annotations={dns: f"{own},{theirs}"})
    found = await taken(place, "web", "alien")
    assert list(found["web"].problems) == []
    (problem,) = found["alien"].problems
    assert theirs in problem
    await place.change("web", drift_policy=resource_pb2.DRIFT_POLICY_ADOPT)
    await place.settled()
    metadata = place.on_cluster()["metadata"]
    changed = {**place.on_cluster(), "metadata": {**metadata, "annotations": {dns: theirs}}}
    place.store.update(SERVICES, changed, manager="kubectl-edit")
    service = await place.service(lambda each: "external-dns" in drifted(each).message)
    assert dict(service.annotations)[dns] == own
