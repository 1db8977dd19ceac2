"""A Kubernetes namespace that is somebody's: told to who validates and to who waits, and taken over later."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.waiting import poll_until

TAKEN = "exists and is not managed by Pilothouse"
WHERE = ("--namespace", "theirs")


@pytest.mark.full
async def test_it_is_told_and_taken_over_later(server: Server, tmp_path: Path) -> None:
    assert server.cluster is not None
    server.cluster.store.create(resources.NAMESPACES, {"metadata": {"name": "theirs"}})
    shell = await logged_in(server, tmp_path)
    tried = await shell.run("namespaces", "create", "theirs", "--validate-only")
    assert (tried.code, TAKEN in tried.errors) == (7, True), tried
    made = await shell.run("namespaces", "create", "theirs", "--wait")
    assert (made.code, TAKEN in made.errors) == (10, True), made
    web = ("containers", "create", "web", *WHERE, "--image", "nginx:1.27")
    tried = await shell.run(*web, "--validate-only")
    assert (tried.code, TAKEN in tried.errors) == (7, True), tried
    made = await shell.run(*web, "--wait")
    assert (made.code, TAKEN in made.errors) == (10, True), made
    rest: list[tuple[str, ...]] = [
        ("configs", "create", "settings", *WHERE, "--from-literal", "a=1"),
        ("volumes", "create", "data", *WHERE, "--size", "1Gi", "--storage-class", "standard"),
    ]
    for command in rest:
        tried = await shell.run(*command, "--validate-only")
        assert (tried.code, TAKEN in tried.errors) == (7, True), tried
        await shell.succeed(*command)
    # What does not run for that is not said to be stopped well.
    await server.admin.containers.stop(namespace="theirs", name="web")

    async def stopped() -> container_pb2.Container | None:
        found = await server.admin.containers.get(namespace="theirs", name="web")
        shown = found.status == container_pb2.CONTAINER_STATUS_STOPPED and found.reason == "NameTaken"
        return found if shown else None

    assert TAKEN in getattr(await poll_until(stopped), "message", "")

    async def refused_too() -> bool:
        config_map = await server.admin.config.get_config_map(namespace="theirs", name="settings")
        volume = await server.admin.storage.get_volume(namespace="theirs", name="data")
        return all(
            any(condition.reason == "NameTaken" for condition in each.conditions)
            for each in (config_map, volume)
        )

    await poll_until(refused_too)
    await server.admin.containers.start(namespace="theirs", name="web")

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

    async def running() -> bool:
        found = await server.admin.containers.get(namespace="theirs", name="web")
        return found.status == container_pb2.CONTAINER_STATUS_RUNNING

    await poll_until(running)
    # Of one that is ours nothing changes.
    before = await server.admin.namespaces.get(name="theirs")
    assert await server.admin.namespaces.update(name="theirs", adopt=True) == before
    # The delete waits, too; what was there before us stays.
    await shell.succeed("namespaces", "delete", "theirs", "--cascade", "--yes", "--wait")
    with pytest.raises(PilothouseError) as refused:
        await server.admin.namespaces.get(name="theirs")
    assert refused.value.code.name == "NOT_FOUND"
    assert server.cluster.store.get(resources.NAMESPACES, None, "theirs") is not None
