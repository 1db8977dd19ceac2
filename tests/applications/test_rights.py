"""Permissions for applications: a call needs the permissions that each object's own noun requires for the change."""

from __future__ import annotations

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from tests.applications.conftest import (
    JsonObject,
    Place,
    budget,
    claim,
    config_map,
    deployment,
    secret,
    service,
)
from tests.harness import Server

from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_client.errors import InvalidArgumentError, PermissionDeniedError
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES

_OF_NOUNS: dict[str, JsonObject] = {
    "container": deployment(),
    "service": service(),
    "object": budget(),
    "storage": claim(),
    "config": config_map(),
}
_NOUNS = (*_OF_NOUNS, "application")
_WRITERS = {"admin", "operator", "developer"}


async def _caller(server: Server, place: Place, name: str, permissions: list[str]) -> AsyncClient:
    """Creates a user with a role of these permissions in a namespace. Returns its client."""
    role = identity_pb2.Role(name=name, display_name=name, permissions=permissions)
    await server.admin.identity.create_role(role=role)
    return await server.user(name, {place.name: name})


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def shop_of(shared_server: Server) -> Place:
    """Creates a namespace with one application for each noun. Its object changes in the second revision."""
    name = "rights"
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
    assert shared_server.cluster is not None
    place = Place(shared_server, shared_server.cluster, name)
    # Only administrators may change objects that an administrator created.
    place.client = await shared_server.user("maker", {name: "operator"})
    for noun, document in _OF_NOUNS.items():
        await place.apply([document, config_map(f"{noun}-other")], name=noun)
        changed = {**document, "metadata": {**document["metadata"], "labels": {"revision": "2"}}}
        await place.apply([changed, config_map(f"{noun}-other", level="debug")], name=noun)
    return place


@pytest.mark.parametrize("noun", _OF_NOUNS)
async def test_an_apply_requires_the_permissions_of_each_noun(
    shared_server: Server, shop_of: Place, noun: str
) -> None:
    document = {**_OF_NOUNS[noun], "metadata": {**_OF_NOUNS[noun]["metadata"], "name": f"new-{noun}"}}
    lacking = [f"{each}.*" for each in (*_NOUNS, "namespace") if each != noun]
    lacking += [f"{noun}.get", f"{noun}.list"]
    caller = await _caller(shared_server, shop_of, f"without-{noun}", lacking)
    tried = await shop_of.apply([document], name=f"new-{noun}", client=caller, validate_only=True)
    assert f"{noun}.create" in {each.permission for each in tried.problems}, tried.problems
    pruned = await shop_of.apply(
        [], name=noun, client=caller, prune=True, delete_claims=True, validate_only=True
    )
    assert f"{noun}.delete" in {each.permission for each in pruned.problems}, pruned.problems
    with pytest.raises(InvalidArgumentError) as refused:
        await shop_of.apply([document], name=f"new-{noun}", client=caller)
    assert refused.value.reason == "DOCUMENTS_REFUSED"
    with pytest.raises(PermissionDeniedError):
        await caller.applications.delete(namespace=shop_of.name, name=noun, delete_claims=True)
    rolled = await caller.applications.rollback(namespace=shop_of.name, name=noun, validate_only=True)
    assert {each.permission for each in rolled.problems} == {f"{noun}.update"}


@pytest.mark.full
@pytest.mark.parametrize("role", SHIPPED_ROLES)
async def test_shipped_roles_may_apply_prune_and_roll_back_or_not(
    shared_server: Server, shop_of: Place, role: str
) -> None:
    caller = await shared_server.user(f"some-{role}", {shop_of.name: role})
    documents = [
        {**each, "metadata": {**each["metadata"], "name": f"{role}-{noun}"}}
        for noun, each in _OF_NOUNS.items()
    ]
    if role not in _WRITERS:
        for call in (
            shop_of.apply(documents, name=role, client=caller, validate_only=True),
            caller.applications.rollback(namespace=shop_of.name, name="config", validate_only=True),
            caller.applications.delete(namespace=shop_of.name, name="config", validate_only=True),
        ):
            with pytest.raises(PermissionDeniedError):
                await call
        return
    tried = await shop_of.apply(documents, name=role, client=caller, validate_only=True)
    assert not tried.problems
    for noun in _OF_NOUNS:
        pruned = await shop_of.apply([], name=noun, client=caller, prune=True, validate_only=True)
        assert not pruned.problems
        rolled = await caller.applications.rollback(namespace=shop_of.name, name=noun, validate_only=True)
        assert not rolled.problems


async def test_a_plan_hides_fields_of_objects_that_the_caller_may_not_get(
    shared_server: Server, shop_of: Place
) -> None:
    permissions = ["application.*", "config.update", "config.create", "namespace.get"]
    caller = await _caller(shared_server, shop_of, "blind", permissions)
    documents = [config_map(), config_map("config-other", level="warn")]
    tried = await shop_of.apply(documents, name="config", client=caller, validate_only=True)
    (change,) = [each for each in tried.changes if each.name == "config-other"]
    assert not change.fields
    revision = await caller.applications.get_revision(namespace=shop_of.name, name="config")
    assert "debug" not in str(revision)
    difference = await caller.applications.diff_revisions(namespace=shop_of.name, name="config")
    assert "debug" not in str(difference)
    exported = await caller.applications.export(namespace=shop_of.name, name="config")
    assert not exported.documents


async def test_secrets_are_exported_only_to_callers_who_may_reveal_them(
    shared_server: Server, place: Place
) -> None:
    await place.apply([secret(), config_map()])
    developer = await shared_server.user(f"developer-{place.name}", {place.name: "developer"})
    exported = await developer.applications.export(namespace=place.name, name="shop")
    assert list(exported.left_out) == ["Secret password"]
    assert len(exported.documents) == 1
    assert len((await place.client.applications.export(namespace=place.name, name="shop")).documents) == 2


async def test_a_read_only_key_exports_no_secrets(shared_server: Server, place: Place) -> None:
    """RevealSecret also refuses such a key."""
    await place.apply([secret(), config_map()])
    made = await place.client.identity.create_api_key(name=f"reader-{place.name}", read_only=True)
    async with AsyncClient(shared_server.address, token=made.key) as reader:
        exported = await reader.applications.export(namespace=place.name, name="shop")
    assert list(exported.left_out) == ["Secret password"]


async def test_revisions_mask_the_secret_values_of_custom_resources(
    shared_server: Server, place: Place
) -> None:
    opened = namespace_pb2.ObjectKind(
        api_version="data.example.com/v1",
        kind="Store",
        open_to=namespace_pb2.KIND_OPEN_TO_TENANTS,
        secret_paths=["spec.password"],
    )
    await place.client.namespaces.update_cluster(
        name="local",
        cluster=namespace_pb2.Cluster(object_kinds=[opened]),
        update_mask=FieldMask(paths=["object_kinds"]),
    )
    for password in ("tap", "water"):
        store = {"apiVersion": "data.example.com/v1", "kind": "Store", "metadata": {"name": "main"}}
        await place.apply([{**store, "spec": {"size": 1, "password": password}}, config_map()])
    developer = await shared_server.user(f"reader-{place.name}", {place.name: "developer"})
    named: JsonObject = {"namespace": place.name, "name": "shop"}
    for caller, is_shown in ((place.client, True), (developer, False)):
        calls = caller.applications
        revision = str(await calls.get_revision(**named))
        difference = str(await calls.diff_revisions(**named))
        exported = await calls.export(**named)
        assert ("water" in revision, "tap" in difference) == (is_shown, is_shown)
        assert (list(exported.left_out), "water" in str(exported)) == (
            ([], True) if is_shown else (["Store main"], False)
        )
    # A rollback restores the value itself.
    await place.client.applications.rollback(**named)
    assert "tap" in str(await place.client.applications.get_revision(**named))


async def test_a_caller_without_permission_takes_no_apply_seat(place: Place) -> None:
    """All seats are taken, so a caller that waited for a seat would be refused for that reason instead."""
    viewer = await place.server.user("viewer-of-turns", {place.name: "viewer"})
    running = place.server.application._server
    assert running is not None
    turns = running._admission.applies
    others = [f"other-{number}" for number in range(turns.bounds.seats)]
    for other in others:
        assert turns.try_acquire(other)
    try:
        # The second request is too long to be read before the call has a seat.
        for size in (10, 200_000):
            with pytest.raises(PermissionDeniedError):
                await place.apply([config_map(level="x" * size)], client=viewer)
    finally:
        for other in others:
            turns.release(other)
