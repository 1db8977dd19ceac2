"""A Kubernetes namespace of another owner is reported by a dry run and by a wait, and can be adopted later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.kubernetes.errors import Unreachable
from pilothouse_server.kubernetes.ownership import NAMESPACE_UID
from pilothouse_server.reconcile.apply import namespace_reconciler
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values import resources
from tests.conftest import connection
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.waiting import poll_until

TAKEN = "exists and is not managed by Pilothouse"
WHERE = ("--namespace", "theirs")


async def read_only(server: Server) -> bool:
    """Returns whether the namespace is read-only.

    Callers are loaded again a moment after the reconciler has detected the conflict.
    """
    wanted = container_pb2.Container(name="tried", image="nginx:1.27")
    try:
        await server.admin.containers.create(namespace="theirs", container=wanted, validate_only=True)
    except PilothouseError as error:
        return error.reason == "NAMESPACE_NOT_OURS"
    return False


@pytest.mark.full
async def test_a_foreign_namespace_is_reported_and_adopted_later(server: Server, tmp_path: Path) -> None:
    assert server.cluster is not None
    server.cluster.store.create(resources.NAMESPACES, {"metadata": {"name": "theirs"}})
    shell = await logged_in(server, tmp_path)
    tried = await shell.run("namespaces", "create", "theirs", "--validate-only")
    assert (tried.code, TAKEN in tried.errors) == (7, True), tried
    made = await shell.run("namespaces", "create", "theirs", "--wait")
    assert (made.code, TAKEN in made.errors) == (10, True), made
    # Until then our namespace is read-only, even for dry runs.
    await poll_until(lambda: read_only(server))
    creates: list[tuple[str, ...]] = [
        ("containers", "create", "web", *WHERE, "--image", "nginx:1.27"),
        ("configs", "create", "settings", *WHERE, "--from-literal", "a=1"),
        ("volumes", "create", "data", *WHERE, "--size", "1Gi", "--storage-class", "standard"),
    ]
    for command in creates:
        for more in ((), ("--validate-only",)):
            made = await shell.run(*command, *more)
            assert (made.code, 'namespace "theirs" is read-only' in made.errors) == (7, True), made
            assert TAKEN in made.errors

    operator = await server.user("dora", {"theirs": "operator"})
    with pytest.raises(PilothouseError) as refused:
        await operator.namespaces.update(name="theirs", adopt=True)
    assert (refused.value.code.name, refused.value.metadata) == ("PERMISSION_DENIED", {"permission": "*"})
    with pytest.raises(PilothouseError) as refused:
        await server.admin.namespaces.update(
            name="theirs", namespace=namespace_pb2.Namespace(display_name="Theirs")
        )
    assert refused.value.metadata["field"] == "update_mask"
    await shell.succeed("namespaces", "update", "theirs", "--adopt", "--validate-only")
    adopted = await shell.read("namespaces", "update", "theirs", "--adopt", "--wait")
    assert adopted["phase"] == "Active"
    for command in creates:
        await shell.succeed(*command)

    async def running() -> bool:
        found = await server.admin.containers.get(namespace="theirs", name="web")
        return found.status == container_pb2.CONTAINER_STATUS_RUNNING

    await poll_until(running)
    # An adoption of our own namespace changes nothing.
    before = await server.admin.namespaces.get(name="theirs")
    assert await server.admin.namespaces.update(name="theirs", adopt=True) == before
    # The deletion waits, too; objects that existed before the adoption stay.
    await shell.succeed("namespaces", "delete", "theirs", "--cascade", "--yes", "--wait")
    with pytest.raises(PilothouseError) as refused:
        await server.admin.namespaces.get(name="theirs")
    assert refused.value.code.name == "NOT_FOUND"
    assert server.cluster.store.get(resources.NAMESPACES, None, "theirs") is not None


@pytest.mark.full
@pytest.mark.parametrize("adopt", [False, True], ids=["made by us", "taken over"])
async def test_nothing_is_put_into_a_namespace_that_was_made_again(server: Server, adopt: bool) -> None:
    assert server.cluster is not None
    store, admin, name = server.cluster.store, server.admin, f"anew-{adopt}".lower()
    if adopt:
        store.create(resources.NAMESPACES, {"metadata": {"name": name}})
    home = await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name), adopt=adopt)
    all_there = await prepare(server, name)
    for resource, each in list(store.objects()):
        if each["metadata"].get("namespace") == name:
            store.remove(resource, name, each["metadata"]["name"])
    store.remove(resources.NAMESPACES, None, name)
    store.create(resources.NAMESPACES, {"metadata": {"name": name, "labels": {"owner": "somebody"}}})

    async def all_say_so() -> bool:
        found = [
            (await admin.config.get_secret(namespace=name, name="key")).conditions,
            (await admin.config.get_config_map(namespace=name, name="settings")).conditions,
            (await admin.storage.get_volume(namespace=name, name="data")).conditions,
            (await admin.containers.get(namespace=name, name="web")).conditions,
        ]
        said = [each.reason for conditions in found for each in conditions if each.type == "Applied"]
        return len(said) == len(found) and set(said) <= {"LabelLost", "NameTaken"}

    await poll_until(all_say_so)
    assert _ours(store, name) == set()
    # Another client restores the label, or the namespace is adopted again: then all objects are made again.
    if adopt:
        await admin.namespaces.update(name=name, adopt=True)
    else:
        label_again(store, name, home.uid)
    await poll_until(all_there, seconds=90)


@pytest.mark.full
@pytest.mark.parametrize("whole", [False, True], ids=["alone", "with the namespace"])
async def test_objects_deleted_before_a_takeover_are_deleted_on_the_cluster(
    server: Server, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    # The state before the loss of the namespace is known.
    monkeypatch.setattr(Rule, "acts_in_namespace", False)
    assert server.cluster is not None
    store, admin, name = server.cluster.store, server.admin, f"lost-{whole}".lower()
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
    await prepare(server, name)
    label_again(store, name, None)

    async def lost() -> bool:
        return [each.reason for each in (await admin.namespaces.get(name=name)).conditions] == ["LabelLost"]

    await poll_until(lost)
    # An object that was never made there is not waited for.
    secret = config_pb2.Secret(name="theirs", string_data={"a": "1"})
    store.create(resources.SECRETS, {"metadata": {"name": "theirs", "namespace": name}})
    await admin.config.create_secret(namespace=name, secret=secret)
    deletions = (
        admin.config.delete_secret(namespace=name, name="key"),
        admin.config.delete_secret(namespace=name, name="theirs"),
        admin.config.delete_config_map(namespace=name, name="settings"),
        admin.storage.delete_volume(namespace=name, name="data"),
        admin.containers.delete(namespace=name, name="web"),
    )
    for deletion in deletions:
        await deletion

    async def away(*_: Any) -> None:
        raise Unreachable("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(namespace_reconciler, "_apply", away)
        await admin.namespaces.update(name=name, adopt=True)
        before = await attempts(server)

        async def tried() -> bool:
            now = await attempts(server)
            return all(key not in now or now[key] > seen for key, seen in before.items())

        await poll_until(tried, seconds=90)
        if whole:
            await admin.namespaces.delete(name=name, cascade=True)

    async def gone() -> bool:
        if whole:
            return name not in [each.name async for each in admin.namespaces.list()]
        return await attempts(server) == {}

    await poll_until(gone, seconds=90)
    assert _ours(store, name) == set()
    assert store.get(resources.SECRETS, name, "theirs") is not None
    assert store.get(resources.NAMESPACES, None, name) is not None


async def attempts(server: Server) -> dict[tuple[str, int], int]:
    """Returns how often each existing resource was leased, except namespaces.

    Only this test uses the database.
    """
    async with connection(server.database.admin_dsn) as sql:
        rows = await sql.fetch(
            "SELECT resource_type, resource_id, lease_epoch FROM reconcile_work WHERE resource_type <> 'namespace'"
        )
    return {(row["resource_type"], row["resource_id"]): row["lease_epoch"] for row in rows}


def label_again(store: ObjectStore, name: str, uid: str | None) -> None:
    """Sets our label on a Kubernetes namespace, or removes it, as another client."""
    found = store.get(resources.NAMESPACES, None, name)
    assert found is not None
    labels = {key: value for key, value in found["metadata"]["labels"].items() if key != NAMESPACE_UID}
    if uid is not None:
        labels[NAMESPACE_UID] = uid
    store.update(resources.NAMESPACES, {**found, "metadata": {**found["metadata"], "labels": labels}})


async def prepare(server: Server, name: str) -> Callable[[], Awaitable[bool]]:
    """Makes one object of each kind in a namespace, and waits until all of them are on its cluster.

    Returns a function that checks that again.
    """
    assert server.cluster is not None
    store, admin = server.cluster.store, server.admin
    secret = config_pb2.Secret(name="key", string_data={"a": "1"})
    await admin.config.create_secret(namespace=name, secret=secret)
    config = config_pb2.ConfigMap(name="settings", data={"a": "1"})
    await admin.config.create_config_map(namespace=name, config_map=config)
    claim = storage_pb2.Volume(
        name="data",
        type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
        size="1Gi",
        storage_class="standard",
    )
    await admin.storage.create_volume(namespace=name, volume=claim)
    port = container_pb2.Port(container_port=80)
    await admin.containers.create(
        namespace=name, container=container_pb2.Container(name="web", image="nginx:1.27", ports=[port])
    )
    wanted = {"Secret", "ConfigMap", "PersistentVolumeClaim", "Deployment", "Service"}

    async def all_there() -> bool:
        return _ours(store, name) == wanted

    await poll_until(all_there)
    return all_there


def _ours(store: ObjectStore, namespace: str) -> set[str]:
    """Returns the kinds of the platform's objects in a Kubernetes namespace, except pods and objects made for pods."""
    return {
        resource.kind
        for resource, each in store.objects()
        if each["metadata"].get("namespace") == namespace
        and each["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "pilothouse"
        and resource.kind not in ("Pod", "ReplicaSet", "EndpointSlice", "Endpoints")
    }
