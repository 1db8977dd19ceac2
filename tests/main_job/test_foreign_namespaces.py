"""Objects in another owner's Kubernetes namespace are neither read, dry-run, taken over nor deleted."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_server.kubernetes import namespace_ownership
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_simulator.values import resources
from tests.conftest import connection
from tests.harness import Server
from tests.main_job.legacy import DEPLOYMENTS, Kubectl, deployment
from tests.waiting import poll_until

TAKEN = "exists and is not managed by Pilothouse"
SECRETS = "/api/v1/namespaces/legacy/secrets"
CONFIG_MAPS = "/api/v1/namespaces/legacy/configmaps"


async def theirs(server: Server) -> tuple[Kubectl, AsyncClient]:
    """Makes a foreign Kubernetes namespace with a Deployment that reads a Secret, and our namespace of the same
    name.
    """
    kubectl = Kubectl(server)
    await kubectl.ask(
        "POST",
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "legacy"}},
    )
    for path, kind in ((SECRETS, "Secret"), (CONFIG_MAPS, "ConfigMap")):
        body: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "db"}}
        body["data"] = {"password": "aHVudGVyMg=="}
        await kubectl.ask("POST", path, body)
    manifest = deployment("agent", replicas=1)
    reference = {"secretKeyRef": {"name": "db", "key": "password"}}
    manifest["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "PW", "valueFrom": reference}]
    await kubectl.ask("POST", DEPLOYMENTS, manifest)
    operator = await server.user("olga", {"": "operator"})
    with pytest.raises(PilothouseError) as denied:
        await operator.namespaces.create(namespace=namespace_pb2.Namespace(name="legacy"), adopt=True)
    assert denied.value.code.name == "PERMISSION_DENIED"
    await operator.namespaces.create(namespace=namespace_pb2.Namespace(name="legacy"))
    return kubectl, operator


async def known(server: Server) -> None:
    """Waits until our namespace is read-only.

    Callers are loaded again a moment after the reconciler has detected the conflict.
    """
    wanted = container_pb2.Container(name="tried", image="nginx:1.27")

    async def refuses() -> bool:
        try:
            await server.admin.containers.create(namespace="legacy", container=wanted, validate_only=True)
        except PilothouseError as error:
            return error.reason == "NAMESPACE_NOT_OURS"
        return False

    await poll_until(refuses)


async def refused(made: Awaitable[Any], reason: str) -> None:
    with pytest.raises(PilothouseError) as told:
        await made
    assert (told.value.code.name, told.value.reason) == ("FAILED_PRECONDITION", reason)
    assert TAKEN in told.value.message


def secret(name: str) -> config_pb2.Secret:
    return config_pb2.Secret(name=name, data={"a": b"b"})


async def test_an_operator_who_may_not_adopt_reads_and_deletes_nothing(server: Server) -> None:
    kubectl, operator = await theirs(server)
    await known(server)
    web = container_pb2.Container(name="web", image="nginx:1.27")
    calls: list[Awaitable[Any]] = [
        operator.containers.import_(namespace="legacy"),
        operator.containers.create(namespace="legacy", container=web),
        operator.containers.create(namespace="legacy", container=web, validate_only=True),
        operator.config.create_secret(namespace="legacy", secret=secret("db")),
        operator.storage.create_volume(
            namespace="legacy",
            volume=storage_pb2.Volume(
                name="data", type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM, size="1Gi"
            ),
        ),
    ]
    for call in calls:
        await refused(call, "NAMESPACE_NOT_OURS")
    # Our namespace is deleted, but none of their objects.
    await operator.namespaces.delete(name="legacy", cascade=True)

    async def gone() -> bool:
        return [item.name async for item in server.admin.namespaces.list()] == []

    await poll_until(gone)
    for path in (f"{SECRETS}/db", f"{CONFIG_MAPS}/db", f"{DEPLOYMENTS}/agent"):
        assert (await kubectl.ask("GET", path))["metadata"]["name"] in ("db", "agent")


async def test_the_cluster_is_asked_before_the_reconciler_has_looked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the observed state is disabled, as if the reconciler had not read the namespace yet."""
    monkeypatch.setattr(Rule, "acts_in_namespace", False)
    kubectl, operator = await theirs(server)
    await refused(operator.containers.import_(namespace="legacy"), "CLUSTER_REFUSED")
    web = container_pb2.Container(name="web", image="nginx:1.27")
    for call in (
        operator.containers.create(namespace="legacy", container=web, validate_only=True),
        operator.config.create_secret(namespace="legacy", secret=secret("x"), validate_only=True),
        operator.storage.create_volume(
            namespace="legacy",
            volume=storage_pb2.Volume(name="tmp", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR),
            validate_only=True,
        ),
    ):
        await refused(call, "CLUSTER_REFUSED")
    # Rows with the names of their objects, as an import would make them if it were not refused.
    await operator.config.create_secret(namespace="legacy", secret=secret("db"))
    await operator.config.create_config_map(namespace="legacy", config_map=config_pb2.ConfigMap(name="db"))
    for path, table in ((SECRETS, "secrets"), (CONFIG_MAPS, "config_maps")):
        uid = (await kubectl.ask("GET", f"{path}/db"))["metadata"]["uid"]
        async with connection(server.database.admin_dsn) as sql:
            await sql.execute(f"UPDATE {table} SET taken_over = $1 WHERE name = 'db'", uid)
    await operator.containers.create(
        namespace="legacy", container=container_pb2.Container(name="agent", image="a:1")
    )
    asked = container_pb2.GetContainerRequest(namespace="legacy", name="agent", include_events=True)
    shown = await operator.containers.get.send(asked)
    assert TAKEN in shown.events_unavailable
    await operator.namespaces.delete(name="legacy", cascade=True)

    async def gone() -> bool:
        return [item.name async for item in server.admin.namespaces.list()] == []

    await poll_until(gone)
    for path in (f"{SECRETS}/db", f"{CONFIG_MAPS}/db", f"{DEPLOYMENTS}/agent"):
        assert (await kubectl.ask("GET", path))["metadata"].get("deletionTimestamp") is None


@pytest.mark.full
async def test_without_asking_the_cluster_an_import_would_read_their_objects(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: without the check, an operator takes over the Deployment, and the Secret with it."""

    async def nobody_asks(_client: object, _home: object) -> bool:
        return False

    monkeypatch.setattr(Rule, "acts_in_namespace", False)
    monkeypatch.setattr(namespace_ownership, "is_foreign", nobody_asks)
    _, operator = await theirs(server)
    (result,) = (await operator.containers.import_(namespace="legacy")).results
    assert result.container.name == "agent"
    revealed = await server.admin.config.reveal_secret(namespace="legacy", name="db")
    assert revealed.data["password"] == b"hunter2"


async def test_an_import_succeeds_as_soon_as_the_namespace_is_adopted(server: Server) -> None:
    kubectl = Kubectl(server)
    await kubectl.ask(
        "POST",
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "legacy"}},
    )
    await kubectl.ask("POST", DEPLOYMENTS, deployment("agent", replicas=1))
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="legacy"))
    await known(server)
    await server.admin.namespaces.update(name="legacy", adopt=True)

    async def taken_over() -> bool:
        # The namespace is read-only until the reconciler has set our label.
        try:
            (result,) = (await server.admin.containers.import_(namespace="legacy")).results
        except PilothouseError as error:
            if error.reason != "NAMESPACE_NOT_OURS":
                raise
            return False
        return bool(result.container.name == "agent")

    await poll_until(taken_over)
    assert server.cluster is not None
    assert server.cluster.store.get(resources.NAMESPACES, None, "legacy") is not None
