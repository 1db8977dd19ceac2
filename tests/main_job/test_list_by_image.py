"""Containers are listed by their images, and no other read looks at images."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.containers.repository.rows import WHOLE
from pilothouse_server.containers.tables import CONTAINER_IMAGES
from pilothouse_server.reconcile.repository import images
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


async def test_an_image_is_listed_once_however_often_its_tag_was_pulled(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        for namespace in ("demo", "other"):
            await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
        made = {}
        for namespace, name, image in (
            ("demo", "old", "nginx:1.27"),
            ("demo", "new", "nginx:1.27"),
            ("other", "else", "nginx:1.27"),
            ("demo", "own", "acme/web@sha256:" + "a" * 64),
            ("other", "own", "acme/web@sha256:" + "b" * 64),
        ):
            container = container_pb2.Container(name=name, image=image)
            await server.admin.containers.create(namespace=namespace, container=container)
            async with database.system() as sql:
                made[name] = await sql.fetchval("SELECT max(id) FROM containers")
        # Each pull of the tag has brought another digest.
        for name, digit in (("old", "1"), ("new", "2"), ("else", "3")):
            async with server.application.store.system_write("test") as transaction:
                await images.write_seen(
                    transaction,
                    [images.ImageSeen(made[name], "nginx:1.27", "sha256:" + digit * 64, int(digit))],
                )

        async def listed(namespace: str, **narrowed: str) -> list[tuple[str, str, int]]:
            found = server.admin.containers.list_images(namespace=namespace, page_size=1, **narrowed)
            return [(each.image, each.digest[7:8], each.container_count) async for each in found]

        one = ("acme/web@sha256:" + "a" * 64, "a", 1)
        another = ("acme/web@sha256:" + "b" * 64, "b", 1)
        assert await listed("") == [("nginx:1.27", "3", 3), one, another]
        assert await listed("demo") == [("nginx:1.27", "2", 2), one]
        assert await listed("", filter='image = "nginx:1.27"') == [("nginx:1.27", "3", 3)]
        found = await server.admin.containers.get_image(image="nginx:1.27")
        assert (found.digest[7:8], found.container_count) == ("3", 3)
        with pytest.raises(PilothouseError, match="used by 3 containers"):
            await server.admin.containers.delete_image(image="nginx:1.27")
