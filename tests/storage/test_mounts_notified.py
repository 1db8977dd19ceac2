"""Watchers of a volume are notified of its mounts by the operations of containers, whichever call runs them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.containers import operations
from pilothouse_server.containers.model import Container
from pilothouse_server.guard.model import UNGUARDED
from pilothouse_server.storage import messages
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.operations import create as create_volume
from pilothouse_server.storage.operations import write_mount_events
from pilothouse_server.store.follow_ups import FollowUps
from pilothouse_server.values.resources import ContainerId
from pilothouse_server.values.volumes import VolumeMount
from tests.conftest import Database, connection, number_changes
from tests.harness import running_server
from tests.reconcile.environment import LABELLING, Environment, environment
from tests.waiting import poll_until

MOUNT = VolumeMount("data", "/data")


async def notified(here: Environment) -> list[tuple[str, tuple[str, ...]]]:
    """Writes the pending events; returns their volumes, with the containers that mount them."""
    return [(volume.name, volume.mounted_by) for volume in await write_mount_events(here.store)]


def web(**fields: object) -> Container:
    base = {"id": ContainerId(0), "uid": "", "name": "web", "kubernetes_name": "", "image": "nginx:1"}
    return Container(**(base | fields))  # type: ignore[arg-type]


async def prepared(here: Environment) -> None:
    here.store.renderers["volume"] = messages.CACHE.render
    await here.namespace()
    wanted = Volume(name="data", type="empty_dir")
    await here.change(
        lambda tx: create_volume(tx, "shop", wanted, labelling=LABELLING, may_use_host_paths=False)
    )


@pytest.mark.parametrize("mounts", [(MOUNT,), ()])
async def test_a_new_container_notifies_the_watchers_of_its_volumes(
    database: Database, mounts: tuple[VolumeMount, ...]
) -> None:
    async with environment(database) as here:
        await prepared(here)
        wanted = web(volume_mounts=mounts)
        await here.change(
            lambda tx: operations.create(tx, "shop", wanted, keys=UNGUARDED, may=lambda _: False)
        )
        assert await notified(here) == [("data", ("web",))] * len(mounts)
        assert await notified(here) == []


async def test_a_changed_or_deleted_container_notifies_the_watchers(database: Database) -> None:
    async with environment(database) as here:
        await prepared(here)
        await here.change(
            lambda tx: operations.create(tx, "shop", web(), keys=UNGUARDED, may=lambda _: False)
        )

        def mounting(stored: Container) -> Container:
            return msgspec.structs.replace(stored, volume_mounts=(MOUNT,))

        await here.change(
            lambda tx: operations.change(
                tx, "shop", "web", mounting, lambda _: None, keys=UNGUARDED, may=lambda _: False
            )
        )
        assert await notified(here) == [("data", ("web",))]
        await here.change(lambda tx: operations.restart(tx, "shop", "web"))
        assert await notified(here) == []
        await here.change(lambda tx: operations.delete(tx, "shop", "web", lambda _: None))
        assert await notified(here) == [("data", ())]


async def test_a_volume_deleted_while_its_event_is_written_gets_no_event(database: Database) -> None:
    """The writer of the event waits for the volume before it locks anything that the deletion removes."""
    async with environment(database) as here, connection(database.admin_dsn) as sql:
        await prepared(here)
        wanted = web(volume_mounts=(MOUNT,))
        await here.change(
            lambda tx: operations.create(tx, "shop", wanted, keys=UNGUARDED, may=lambda _: False)
        )
        await here.change(lambda tx: operations.delete(tx, "shop", "web", lambda _: None))
        async with sql.transaction():
            await sql.execute("SELECT FROM volumes FOR NO KEY UPDATE")
            writing = asyncio.ensure_future(notified(here))
            waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
            await poll_until(lambda: sql.fetchval(waits), what="somebody waiting")
            await sql.execute("DELETE FROM container_volumes")
            await sql.execute("DELETE FROM volumes")
        assert await writing == []


async def test_the_event_of_a_server_that_died_is_written_by_another(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first server commits the container and never writes the event; another server writes it."""
    volume = storage_pb2.Volume(name="data", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR)
    mount = container_pb2.VolumeMount(volume="data", mount_path="/data")
    wanted = container_pb2.Container(name="web", image="nginx:1.27", volume_mounts=[mount])
    async with connection(database.admin_dsn) as sql:

        async def events() -> int:
            await number_changes(sql)
            found: int = await sql.fetchval(
                "SELECT count(*) FROM events WHERE resource_type = 'volume' AND kind = 'modified'"
            )
            return found

        with monkeypatch.context() as patched:
            patched.setattr(FollowUps, "run", never)
            async with running_server(database, tmp_path, with_cluster=False) as server:
                await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
                await server.admin.storage.create_volume(namespace="shop", volume=volume)
                await server.admin.containers.create(namespace="shop", container=wanted)
        assert await events() == 0
        assert await sql.fetchval("SELECT count(*) FROM mount_changes") == 1
        async with running_server(database, tmp_path, with_cluster=False):
            await poll_until(events)
        assert await events() == 1
        assert await sql.fetchval("SELECT count(*) FROM mount_changes") == 0


async def test_after_twenty_concurrent_mounts_the_last_event_shows_all(
    database: Database, tmp_path: Path
) -> None:
    """Two servers make the containers; no deadlock occurs, and the last event shows all of them."""
    volume = storage_pb2.Volume(name="data", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR)
    mount = container_pb2.VolumeMount(volume="data", mount_path="/data")
    names = [f"web-{number:02}" for number in range(20)]
    async with (
        running_server(database, tmp_path, with_cluster=False) as one,
        running_server(database, tmp_path, with_cluster=False) as two,
        connection(database.admin_dsn) as sql,
    ):
        await one.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        await one.admin.storage.create_volume(namespace="shop", volume=volume)
        await asyncio.gather(
            *(
                server.admin.containers.create(
                    namespace="shop",
                    container=container_pb2.Container(name=name, image="nginx:1.27", volume_mounts=[mount]),
                )
                for name, server in zip(names, (one, two) * 10, strict=True)
            )
        )

        async def shown() -> list[str]:
            await number_changes(sql)
            message = await sql.fetchval(
                "SELECT message FROM events WHERE resource_type = 'volume' ORDER BY revision DESC LIMIT 1"
            )
            return list(storage_pb2.Volume.FromString(message).mounted_by)

        await poll_until(shown, lambda found: found == names)


async def never(_self: FollowUps) -> None:
    """Waits for ever, in place of a task whose process has died."""
    await asyncio.Event().wait()
