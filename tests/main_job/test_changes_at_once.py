"""Concurrent changes of one container: each waits for the one before and builds on its result."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from tests.conftest import Database
from tests.harness import Server, running_server

MANY = 12


async def place(server: Server) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
    container = container_pb2.Container(name="web", image="nginx:1.27")
    await server.admin.containers.create(namespace="shop", container=container)


async def test_concurrent_changes_of_image_and_replicas_all_succeed(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await place(server)

        async def update(paths: list[str], **fields: object) -> None:
            await server.admin.containers.update(
                namespace="shop",
                name="web",
                container=container_pb2.Container(**fields),  # type: ignore[arg-type]
                update_mask=FieldMask(paths=paths),
            )

        await asyncio.gather(
            *(update(["image"], image=f"nginx:2.{number}") for number in range(MANY)),
            *(update(["replicas"], replicas=number + 2) for number in range(MANY)),
        )
        found = await server.admin.containers.get(namespace="shop", name="web")
        assert found.generation == 2 * MANY + 1


@pytest.mark.full
async def test_concurrently_added_parts_are_kept(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await place(server)
        for number in range(MANY):
            volume = storage_pb2.Volume(name=f"v{number}", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR)
            await server.admin.storage.create_volume(namespace="shop", volume=volume)

        async def attach(number: int) -> None:
            await server.admin.storage.attach_volume(
                namespace="shop", name=f"v{number}", container="web", mount_path=f"/mnt/{number}"
            )

        async def name_env() -> None:
            env = [container_pb2.EnvVar(name="A", value="1")]
            await server.admin.containers.update(
                namespace="shop",
                name="web",
                container=container_pb2.Container(env=env),
                update_mask=FieldMask(paths=["env"]),
            )

        await asyncio.gather(
            *(attach(number) for number in range(MANY // 2)),
            name_env(),
            *(attach(number) for number in range(MANY // 2, MANY)),
        )
        found = await server.admin.containers.get(namespace="shop", name="web")
        assert {mount.volume for mount in found.volume_mounts} == {f"v{number}" for number in range(MANY)}
        assert [(each.name, each.value) for each in found.env] == [("A", "1")]
        for number in range(MANY):
            volume = await server.admin.storage.get_volume(namespace="shop", name=f"v{number}")
            assert list(volume.mounted_by) == ["web"]
