"""Containers are listed by their images, and no other read looks at images."""

from __future__ import annotations

from pathlib import Path

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.containers.repository.rows import WHOLE
from pilothouse_server.containers.tables import CONTAINER_IMAGES
from tests.conftest import Database
from tests.harness import running_server

_IMAGES = {"a": "nginx:1.27", "b": "registry.example/team/nginx:2", "c": "redis:7"}


async def test_a_filter_by_image_finds_its_containers(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        for name, image in _IMAGES.items():
            await server.admin.containers.create(
                namespace="demo", container=container_pb2.Container(name=name, image=image)
            )

        async def listed(condition: str) -> list[str]:
            found = server.admin.containers.list(namespace="demo", filter=condition, page_size=1)
            return [item.name async for item in found]

        assert await listed("") == ["a", "b", "c"]
        assert await listed('image.name = "nginx"') == ["a", "b"]
        assert await listed('name != "a" AND image.name = "nginx"') == ["b"]
        assert await listed('image.name != "nginx"') == ["c"]


def test_a_read_without_that_filter_does_not_join_images() -> None:
    assert CONTAINER_IMAGES.name not in str(WHOLE)
