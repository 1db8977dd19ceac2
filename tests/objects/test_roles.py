"""Roles and RoleBindings through the API: nobody grants more than they have, and a lost permission is a condition."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.identity.v1 import identity_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import AsyncClient
from pilothouse_client.errors import PermissionDeniedError
from pilothouse_server.objects.rechecking import recheck
from pilothouse_simulator.values.resources import ROLES
from tests.objects.conftest import Place, condition_of

ROLE = {"api_version": "rbac.authorization.k8s.io/v1", "kind": "Role"}
UNKNOWN = resource_pb2.CONDITION_STATUS_UNSPECIFIED
BINDING = {"api_version": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}


def _role(*rights: str) -> dict[str, Any]:
    """Returns a Role with rights such as `get secrets`."""
    rules = [
        {"apiGroups": [""], "resources": [resource], "verbs": [verb]}
        for verb, resource in (right.split() for right in rights)
    ]
    return {"rules": rules}


def _binding(place: Place, role: str) -> dict[str, Any]:
    return {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": place.name}],
    }


async def _tenant(place: Place) -> tuple[Place, AsyncClient]:
    """Returns the place with the client of an operator who may also reveal secrets, and the administrator's client."""
    name = f"nora-{place.name}"
    role = identity_pb2.Role(name=f"revealer-{place.name}", permissions=["config.reveal"])
    await place.client.identity.create_role(role=role)
    mine = Place(place.server, place.cluster, place.name)
    mine.client = await place.server.user(name, {place.name: "operator"})
    await place.client.identity.grant_role(username=name, role=role.name, namespace=place.name)
    return mine, place.client


def _permitted(found: Any) -> tuple[int, str]:
    condition = condition_of(found, "Permitted")
    return (UNKNOWN, "") if condition is None else (condition.status, condition.message)


async def test_a_lost_permission_becomes_a_condition_and_deletes_nothing(place: Place) -> None:
    mine, administrator = await _tenant(place)
    store = place.server.application.store
    await mine.make(ROLE, _role("get secrets", "get pods"), "reader")
    await mine.settled(ROLE, "reader")
    await recheck(store)
    assert _permitted(await mine.get(ROLE, "reader")) == (UNKNOWN, "")
    name, role = f"nora-{place.name}", f"revealer-{place.name}"
    await administrator.identity.revoke_role(username=name, role=role, namespace=place.name)
    await recheck(store)
    status, message = _permitted(await mine.get(ROLE, "reader"))
    assert status == resource_pb2.CONDITION_STATUS_FALSE
    assert "config.reveal" in message
    assert place.on_cluster(ROLES, "reader")["rules"]
    with pytest.raises(PermissionDeniedError) as refused:
        await mine.change(ROLE, "reader", document=_role("get secrets"))
    assert refused.value.metadata["permission"] == "config.reveal"
    await administrator.identity.grant_role(username=name, role=role, namespace=place.name)
    await recheck(store)
    assert _permitted(await mine.get(ROLE, "reader")) == (resource_pb2.CONDITION_STATUS_TRUE, "")


async def test_a_role_widened_by_an_administrator_shows_at_its_binding(place: Place) -> None:
    mine, _ = await _tenant(place)
    store = place.server.application.store
    await mine.make(ROLE, _role("get pods"), "worker")
    await mine.make(BINDING, _binding(place, "worker"), "worker")
    await recheck(store)
    assert _permitted(await mine.get(BINDING, "worker")) == (UNKNOWN, "")
    # Only an administrator over all namespaces grants rights beyond the table.
    with pytest.raises(PermissionDeniedError) as refused:
        await mine.change(ROLE, "worker", document=_role("create pods"))
    assert refused.value.metadata["permission"] == "object.rbac"
    await place.change(ROLE, "worker", document=_role("create pods"))
    await recheck(store)
    assert "object.rbac" in _permitted(await mine.get(BINDING, "worker"))[1]
    assert _permitted(await place.get(ROLE, "worker")) == (UNKNOWN, "")


async def test_a_keys_limits_apply_to_roles_and_its_end_costs_its_owner_nothing(
    place: Place,
) -> None:
    mine, administrator = await _tenant(place)
    store = place.server.application.store
    keys = {
        name: await mine.client.identity.create_api_key(name=f"{name}-{place.name}", permissions=permissions)
        for name, permissions in {
            "narrow": ["object.create", "object.update", "container.get"],
            "wide": ["object.create", "object.update", "container.get", "config.reveal"],
        }.items()
    }
    for name, made in keys.items():
        async with AsyncClient(place.server.address, token=made.key) as client:
            by_key = Place(place.server, place.cluster, place.name)
            by_key.client = client
            await by_key.make(ROLE, _role("get pods"), f"pods-{name}")
            for call in (
                by_key.make(ROLE, _role("get secrets"), f"secrets-{name}"),
                by_key.change(ROLE, f"pods-{name}", document=_role("get pods", "get secrets")),
            ):
                if name == "wide":
                    await call
                    continue
                with pytest.raises(PermissionDeniedError) as refused:
                    await call
                assert refused.value.metadata["permission"] == "config.reveal"
        await mine.client.identity.revoke_api_key(api_key_id=made.api_key.api_key_id)
    # Its owner could make the Role again without the key.
    await recheck(store)
    assert _permitted(await place.get(ROLE, "secrets-wide")) == (UNKNOWN, "")
    await administrator.identity.revoke_role(
        username=f"nora-{place.name}", role=f"revealer-{place.name}", namespace=place.name
    )
    await recheck(store)
    for name in ("secrets-wide", "pods-wide"):
        assert "config.reveal" in _permitted(await place.get(ROLE, name))[1]
    assert _permitted(await place.get(ROLE, "pods-narrow")) == (UNKNOWN, "")
