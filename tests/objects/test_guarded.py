"""The guard over carried objects through the API: hosts, Roles, autoscalers."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse_client.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PermissionDeniedError,
)
from tests.objects.conftest import ACCOUNT, INGRESS, JsonObject, Place, ingress

RBAC = "rbac.authorization.k8s.io"
ROLE: JsonObject = {"api_version": f"{RBAC}/v1", "kind": "Role"}
BINDING: JsonObject = {"api_version": f"{RBAC}/v1", "kind": "RoleBinding"}
AUTOSCALER: JsonObject = {"api_version": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}


def role(*verbs: str, resource: str = "pods") -> JsonObject:
    """The document of a Role."""
    return {"rules": [{"apiGroups": [""], "resources": [resource], "verbs": list(verbs)}]}


def binding(name: str, account: str = "web") -> JsonObject:
    """The document of a RoleBinding."""
    return {
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account}],
    }


def autoscaler(target: str) -> JsonObject:
    """The document of an autoscaler of a container."""
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    usage = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    metrics = [{"type": "Resource", "resource": usage}]
    return {"spec": {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 3, "metrics": metrics}}


async def test_a_tenant_makes_a_role_of_rights_that_it_has_and_binds_it(place: Place) -> None:
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


async def test_an_autoscaler_targets_a_container_of_the_platform(place: Place) -> None:
    await place.run("web")
    made: Any = await place.make(AUTOSCALER, autoscaler("web"))
    assert made.api_group == "autoscaling"
    await place.settled(AUTOSCALER)
    with pytest.raises(InvalidArgumentError, match="no container of the platform"):
        await place.make(AUTOSCALER, autoscaler("theirs"), "theirs")


async def test_a_host_must_be_among_those_of_the_namespace(place: Place) -> None:
    document = ingress(place)
    document["spec"]["rules"][0]["host"] = "web.elsewhere.example.com"
    with pytest.raises(FailedPreconditionError) as refused:
        await place.make(INGRESS, document)
    assert refused.value.reason == "HOST_NOT_ALLOWED"
    assert refused.value.metadata["host"] == "web.elsewhere.example.com"
