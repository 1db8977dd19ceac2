"""Promise 9: readers that take nothing cost the others nothing, and the server little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from tests.promises.hostile.attacker import Attack, attacking
from tests.promises.hostile.ground import Ground

_USERS, _WATCHES, _CHANGES = 20, 500, 40
# Of each change. If the server kept every answer for each of them, it would be 80 MB and what holds them.
_BYTES = 4_000


@asynccontextmanager
async def _changes(ground: Ground) -> AsyncIterator[None]:
    """Containers of the watched namespace change, the same number of times in each window."""

    async def change() -> None:
        for number in range(_CHANGES):
            await ground.admin.containers.update(
                namespace="watched",
                name=f"web-{number % 5}",
                container=container_pb2.Container(annotations={"note": f"{number} " + "x" * _BYTES}),
                update_mask=FieldMask(paths=["annotations"]),
            )

    changing = asyncio.create_task(change())
    try:
        yield
    finally:
        await changing


@pytest.mark.soak(part="hostile")
async def test_five_hundred_stalled_watchers(ground: Ground) -> None:
    await ground.furnish("watched")
    tokens = [await ground.user(f"watcher-{number}", "viewer", "watched") for number in range(_USERS)]

    @asynccontextmanager
    async def watched(name: str) -> AsyncIterator[Attack]:
        order = {"address": ground.address, "count": _WATCHES, "namespace": "watched"}
        async with (
            attacking("tests.promises.hostile.attacks", name, **order, options={"tokens": tokens}) as attack,
            _changes(ground),
        ):
            yield attack

    verdict = await ground.attacked(
        lambda: watched("stalled"), honest=lambda: watched("watches"), standing=True
    )
    # Watches have a record each when they begin and end: these are users, not strangers.
    assert verdict.faults(strangers=False) == []
    assert all(report["watches"] == _WATCHES for report in verdict.reports)
