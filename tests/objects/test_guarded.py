"""The guard over carried objects through the API: hosts, Roles, autoscalers."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.object.v1 import object_pb2 as pb
from pilothouse_client.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResourceExhaustedError,
)
from pilothouse_server.objects import scaling
from tests.objects.conftest import ACCOUNT, INGRESS, POLICY, JsonObject, Place, ingress
from tests.waiting import poll_until

RBAC = "rbac.authorization.k8s.io"
ROLE: JsonObject = {"api_version": f"{RBAC}/v1", "kind": "Role"}
BINDING: JsonObject = {"api_version": f"{RBAC}/v1", "kind": "RoleBinding"}
AUTOSCALER: JsonObject = {"api_version": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}


def role(*verbs: str, resource: str = "pods") -> JsonObject:
    """Returns the document of a Role."""
    return {"rules": [{"apiGroups": [""], "resources": [resource], "verbs": list(verbs)}]}


def binding(name: str, account: str = "web") -> JsonObject:
    """Returns the document of a RoleBinding."""
    return {
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account}],
    }


def autoscaler(target: str, most: int = 3) -> JsonObject:
    """Returns the document of an autoscaler of a container."""
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    usage = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    metrics = [{"type": "Resource", "resource": usage}]
    return {"spec": {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": most, "metrics": metrics}}


async def test_a_tenant_makes_and_binds_a_role_of_rights_that_it_has(place: Place) -> None:
    tenant = Place(place.server, place.cluster, place.name)
    tenant.client = await place.server.user("role-maker", {place.name: "developer"})
    await tenant.make(ACCOUNT, {"automountServiceAccountToken": True})
    await tenant.make(ROLE, role("get", "list", "watch"))
    await tenant.make(BINDING, binding("web"))
    await tenant.settled(ROLE)
    assert (await tenant.settled(BINDING)).health == pb.OBJECT_HEALTH_HEALTHY
    for document in (role("create"), role("*"), role("get", resource="secrets")):
        with pytest.raises(PermissionDeniedError):
            await tenant.make(ROLE, document, "wide")
    with pytest.raises((PermissionDeniedError, InvalidArgumentError)):
        await tenant.make(BINDING, binding("missing"), "dangling")


async def test_a_misspelt_field_is_refused_by_its_path_for_every_caller(place: Place) -> None:
    tenant = Place(place.server, place.cluster, place.name)
    tenant.client = await place.server.user("speller", {place.name: "developer"})
    await tenant.make(POLICY, {"spec": {"podSelector": {}}})
    wrong: JsonObject = {"spec": {"podSelectr": {}}}
    for caller in (tenant, place):
        for call in (caller.make(POLICY, wrong, "wrong"), caller.change(POLICY, document=wrong)):
            with pytest.raises(InvalidArgumentError, match='did you mean "podSelector"') as refused:
                await call
            assert refused.value.metadata["field"] == "object.document.spec.podSelectr"
    # A field that resembles no known one needs the permission: it may belong to a later Kubernetes.
    with pytest.raises(PermissionDeniedError):
        await tenant.make(POLICY, {"spec": {"podSelector": {}, "later": {"a": "b"}}}, "later")


async def test_an_autoscaler_must_target_a_container_of_the_platform(place: Place) -> None:
    await place.run("web")
    made: Any = await place.make(AUTOSCALER, autoscaler("web"))
    assert made.api_group == "autoscaling"
    await place.settled(AUTOSCALER)
    with pytest.raises(InvalidArgumentError, match="not a container of the platform"):
        await place.make(AUTOSCALER, autoscaler("theirs"), "theirs")


async def test_an_autoscaler_counts_its_maximum_of_pods(place: Place) -> None:
    quota = namespace_pb2.ResourceQuota(cpu="1")
    await place.client.namespaces.update(
        name=place.name,
        namespace=namespace_pb2.Namespace(resource_quota=quota),
        update_mask=FieldMask(paths=["resource_quota"]),
    )

    async def used() -> str:
        return (await place.client.namespaces.get_quota_usage(name=place.name)).used.cpu

    def size(cpu: str) -> container_pb2.Container:
        return container_pb2.Container(resources=container_pb2.Resources(cpu_request=cpu))

    await place.run("web", resources=size("200m").resources)
    assert await used() == "200m"
    with pytest.raises(ResourceExhaustedError) as refused:
        await place.make(AUTOSCALER, autoscaler("web", 6))
    assert dict(refused.value.metadata) == {"resource": "cpu", "limit": "1", "used": "0", "asked": "1200m"}
    await place.make(AUTOSCALER, autoscaler("web", 3))
    assert await used() == "600m"
    with pytest.raises(ResourceExhaustedError):
        await place.change(AUTOSCALER, document=autoscaler("web", 6))
    await place.change(AUTOSCALER, document=autoscaler("web", 5))
    assert await used() == "1"
    named: JsonObject = {"namespace": place.name, "name": "web"}
    mask = FieldMask(paths=["resources.cpu_request"])
    with pytest.raises(ResourceExhaustedError):
        await place.client.containers.update(**named, container=size("300m"), update_mask=mask)
    await place.client.containers.update(**named, container=size("100m"), update_mask=mask)
    assert await used() == "500m"
    # A container that is made again is counted by the next recount.
    await place.client.containers.delete(**named)

    async def gone() -> bool:
        return not [each async for each in place.client.containers.list(namespace=place.name)]

    await poll_until(gone, what="the end of the container")
    again = container_pb2.Container(name="web", image="nginx:1.27", resources=size("200m").resources)
    await place.client.containers.create(namespace=place.name, container=again)
    await scaling.recount(place.server.application.store)
    assert await used() == "1"
    await place.delete(AUTOSCALER)
    assert await used() == "200m"


async def test_a_host_must_be_among_those_of_the_namespace(place: Place) -> None:
    document = ingress(place)
    document["spec"]["rules"][0]["host"] = "web.elsewhere.example.com"
    with pytest.raises(FailedPreconditionError) as refused:
        await place.make(INGRESS, document)
    assert refused.value.reason == "HOST_NOT_ALLOWED"
    assert refused.value.metadata["host"] == "web.elsewhere.example.com"
