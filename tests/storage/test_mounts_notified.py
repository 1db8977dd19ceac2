"""Watchers of a volume learn who mounts it from the operations of containers, whichever call runs them."""

from __future__ import annotations

import pytest

from pilothouse_server.containers import operations
from pilothouse_server.containers.model import Container
from pilothouse_server.storage import messages
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.operations import create as create_volume
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.resources import ContainerId
from pilothouse_server.values.volumes import VolumeMount
from tests.conftest import Database
from tests.reconcile.world import LABELLING, World, world

MOUNT = VolumeMount("data", "/data")


def notified(transaction: Transaction) -> list[tuple[str, tuple[str, ...]]]:
    """The volumes of the events so far, with who mounts them."""
    return [
        (event.name, event.entity.mounted_by)
        for event in transaction.events
        if event.resource_type == "volume" and event.kind == "modified"
    ]


def web(**fields: object) -> Container:
    base = {"id": ContainerId(0), "uid": "", "name": "web", "kubernetes_name": "", "image": "nginx:1"}
    return Container(**(base | fields))  # type: ignore[arg-type]


async def prepared(here: World) -> None:
    here.store.renderers["volume"] = messages.CACHE.render
    await here.namespace()
    wanted = Volume(name="data", type="empty_dir")
    await here.change(
        lambda tx: create_volume(tx, "shop", wanted, labelling=LABELLING, may_use_host_paths=False)
    )


@pytest.mark.parametrize("mounts", [(MOUNT,), ()])
async def test_a_container_that_is_made(database: Database, mounts: tuple[VolumeMount, ...]) -> None:
    async with world(database) as here:
        await prepared(here)
        async with here.store.system_write("test") as transaction:
            await operations.create(transaction, "shop", web(volume_mounts=mounts), may=lambda _: False)
            assert notified(transaction) == [("data", ("web",))] * len(mounts)


async def test_a_container_that_changes_and_goes(database: Database) -> None:
    async with world(database) as here:
        await prepared(here)
        await here.change(lambda tx: operations.create(tx, "shop", web(), may=lambda _: False))
        async with here.store.system_write("test") as transaction:
            await operations.change(
                transaction,
                "shop",
                "web",
                lambda stored: web(
                    id=stored.id,
                    uid=stored.uid,
                    namespace_ref=stored.namespace_ref,
                    kubernetes_name=stored.kubernetes_name,
                    volume_mounts=(MOUNT,),
                ),
                lambda _: None,
                may=lambda _: False,
            )
            assert notified(transaction) == [("data", ("web",))]
            transaction.events.clear()
            await operations.restart(transaction, "shop", "web")
            assert notified(transaction) == []
            await operations.delete(transaction, "shop", "web", lambda _: None)
            assert notified(transaction) == [("data", ())]
