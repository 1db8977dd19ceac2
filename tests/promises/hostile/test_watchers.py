"""Promise 9: readers that read nothing delay no others.

They also cost the server little memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from tests.promises.hostile.attacker import Attack, attacking
from tests.promises.hostile.environment import CALLS, Environment
from tests.waiting import runs_out

_USERS, _WATCHES = 20, 500
# The bytes of each change, and the least number of changes. If the server stored every message for each
# watcher, forty changes would need 80 MB plus overhead.
_BYTES, _LEAST_CHANGES, _PAUSE_SECONDS = 4_000, 40, 0.1


async def _is_over_before_the_next(over: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(runs_out(_PAUSE_SECONDS)):
            await over.wait()
    return over.is_set()


@asynccontextmanager
async def changes(environment: Environment) -> AsyncIterator[list[int]]:
    """Changes containers of the watched namespace until the end of the block.

    Yields the numbers of the changes.
    """
    over = asyncio.Event()
    made: list[int] = []

    async def change() -> None:
        for number in count():
            await environment.admin.containers.update(
                namespace="watched",
                name=f"web-{number % 5}",
                container=container_pb2.Container(annotations={"note": f"{number} " + "x" * _BYTES}),
                update_mask=FieldMask(paths=["annotations"]),
            )
            made.append(number)
            if await _is_over_before_the_next(over):
                return

    changing = asyncio.create_task(change())
    try:
        yield made
    finally:
        over.set()
        await changing


@pytest.mark.soak(part="hostile")
async def test_500_stalled_watchers_delay_no_others(environment: Environment) -> None:
    """Measures the delays of others while 500 watchers read nothing.

    Opening 500 watches costs the same for any readers. So the delays count once no watch is being read.
    """
    await environment.populate("watched")
    tokens = [await environment.user(f"watcher-{number}", "viewer", "watched") for number in range(_USERS)]
    made: list[int] = []

    @asynccontextmanager
    async def stalled() -> AsyncIterator[Attack]:
        order = {"address": environment.address, "count": _WATCHES, "namespace": "watched"}
        async with (
            attacking(
                "tests.promises.hostile.attacks", "stalled", **order, options={"tokens": tokens}
            ) as attack,
            changes(environment) as numbers,
        ):
            begun = await environment.window(CALLS // 3)
            assert begun.errors == begun.health_errors == []
            yield attack
        made.append(len(numbers))

    @asynccontextmanager
    async def only_changes() -> AsyncIterator[None]:
        async with changes(environment):
            yield

    verdict = await environment.attacked(stalled, without=only_changes)
    # Watches have a record each when they begin and end, because the callers are users and not anonymous.
    assert verdict.faults(strangers=False) == []
    assert all(report["watches"] == _WATCHES for report in verdict.reports)
    assert min(made) >= _LEAST_CHANGES, made
