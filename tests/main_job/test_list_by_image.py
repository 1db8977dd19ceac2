"""Containers are listed by their images, and no other read joins images."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.containers.repository.rows import WHOLE
from pilothouse_server.containers.tables import CONTAINER_IMAGES
from pilothouse_server.reconcile.repository import images
from pilothouse_server.values.image_reference import ImageReference
from tests.conftest import Database
from tests.harness import running_server

# One example for each form of a reference.
_REFERENCES = (
    "busybox",
    "busybox:1",
    "localhost/tool:a.b-c_d",
    "host.example:5000/tool",
    "[::1]:5000/a/b/tool:2",
    "ghcr.io/a/tool@sha256:" + "c" * 64,
    "ghcr.io/a/tool:4",
)
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


def test_a_read_without_an_image_filter_does_not_join_images() -> None:
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

        async def listed(namespace: str, expression: str = "") -> list[tuple[str, str, int]]:
            found = server.admin.containers.list_images(namespace=namespace, page_size=1, filter=expression)
            return [(each.image, each.digest[7:8], each.container_count) async for each in found]

        one = ("acme/web@sha256:" + "a" * 64, "a", 1)
        another = ("acme/web@sha256:" + "b" * 64, "b", 1)
        assert await listed("") == [("nginx:1.27", "3", 3), one, another]
        assert await listed("demo") == [("nginx:1.27", "2", 2), one]
        assert await listed("", 'image = "nginx:1.27"') == [("nginx:1.27", "3", 3)]
        found = await server.admin.containers.get_image(image="nginx:1.27")
        assert (found.digest[7:8], found.container_count) == ("3", 3)
        with pytest.raises(PilothouseError, match="used by 3 containers"):
            await server.admin.containers.delete_image(image="nginx:1.27")


async def test_images_of_sidecars_and_init_containers_are_listed(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        admin = server.admin.containers
        for namespace in ("demo", "other"):
            await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
        container = container_pb2.Container(
            name="web",
            image="nginx:1.27",
            sidecars=[
                container_pb2.Program(name=f"s{number}", image=image)
                for number, image in enumerate(("nginx:1.27", *_REFERENCES))
            ],
            init_containers=[container_pb2.InitContainer(name="init", image="migrate:1")],
        )
        await admin.create(namespace="demo", container=container)
        await admin.create(namespace="other", container=container_pb2.Container(name="e", image="migrate:1"))

        async def listed(namespace: str = "") -> dict[str, int]:
            found = admin.list_images(namespace=namespace, page_size=3)
            return {each.image: each.container_count async for each in found}

        references = {str(ImageReference.parse(image)): 1 for image in _REFERENCES}
        assert await listed("demo") == {"nginx:1.27": 1, "migrate:1": 1} | references
        assert await listed() == {"nginx:1.27": 1, "migrate:1": 2} | references
        assert await listed("other") == {"migrate:1": 1}
        assert (await admin.get_image(image="migrate:1")).container_count == 2
        with pytest.raises(PilothouseError, match="used by 1 containers"):
            await admin.delete_image(image="busybox:1")

        # Two pulls of a tag by one container count as one container.
        async with database.system() as sql:
            container_id = await sql.fetchval("SELECT id FROM containers WHERE name = 'web'")
        async with server.application.store.system_write("test") as transaction:
            digest = "sha256:" + "1" * 64
            seen = images.ImageSeen(container_id, "nginx:1.27", digest, program="s0")
            await images.write_seen(transaction, [seen])
        found = await admin.get_image(image="nginx:1.27")
        assert (found.digest, found.container_count) == (digest, 1)

        init = container_pb2.InitContainer(name="init", image="migrate:2")
        await admin.update(
            namespace="demo",
            name="web",
            container=container_pb2.Container(init_containers=[init]),
            update_mask=FieldMask(paths=["sidecars", "init_containers"]),
        )
        assert await listed("demo") == {"nginx:1.27": 1, "migrate:2": 1}
        await admin.delete_image(image="busybox:1")
        assert "busybox:1" not in await listed()
