"""A watch of all nouns shows a tenant nothing of other namespaces.

The positive control leaks, and the test detects it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse_server.rpc import watch
from tests.conftest import Database
from tests.dashboard.watching import caller_of, following, scope
from tests.harness import Server, running_server
from tests.waiting import within

_NOUNS = (
    "namespace",
    "application",
    "container",
    "service",
    "object",
    "volume",
    "config",
    "run",
    "grant",
    "image",
)
_OWN, _OTHER = "ours", "theirs"


async def _write(server: Server, namespace: str) -> None:
    """Creates resources of several nouns, with the namespace's name in their names."""
    name, admin = f"{namespace}-one", server.admin
    wanted = container_pb2.Container(name=name, image=f"registry.example/{namespace}:1", replicas=0)
    await admin.containers.create(namespace=namespace, container=wanted)
    service = network_pb2.Service(
        name=name, selector={"app": "web"}, ports=[network_pb2.ServicePort(port=80)]
    )
    await admin.network.create_service(namespace=namespace, service=service)
    await admin.config.create_config_map(
        namespace=namespace, config_map=config_pb2.ConfigMap(name=name, data={"a": "b"})
    )
    await server.user(name, {namespace: "viewer"})
    await admin.containers.delete(namespace=namespace, name=name)


async def _leaked(database: Database, directory: Path) -> list[str]:
    """Returns the resources of the other namespace that a tenant's watch shows.

    The watch covers all nouns, and both namespaces change.
    """
    async with running_server(database, directory) as server:
        for name in (_OWN, _OTHER):
            await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
        await server.user("tenant", {_OWN: "admin"})
        tenant = await caller_of(server, "tenant")
        async with following(tenant, *map(scope, _NOUNS)) as follower:
            await follower.synced()
            await _write(server, _OTHER)
            await _write(server, _OWN)
            for noun, wanted in (
                ("config", f"{_OWN}-one"),
                ("service", f"{_OWN}-one"),
                ("grant", f"{_OWN}-one viewer {_OWN}"),
                ("image", f"registry.example/{_OWN}:1"),
            ):
                number = _NOUNS.index(noun)
                async with within(20.0):
                    while not any(each[1:] == (number, wanted) for each in follower.answers):
                        await follower.take()
    return [f"{_NOUNS[number]} {name}" for _, number, name in follower.answers if _OTHER in name]


@pytest.mark.full
async def test_a_tenant_sees_no_noun_of_another_namespace(database: Database, tmp_path: Path) -> None:
    assert await _leaked(database, tmp_path) == []


@pytest.mark.full
async def test_a_server_that_shows_all_namespaces_is_detected(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_is_seen", lambda *_: True)
    found = {each.partition(" ")[0] for each in await _leaked(database, tmp_path)}
    assert {"container", "service", "config", "grant", "image"} <= found
