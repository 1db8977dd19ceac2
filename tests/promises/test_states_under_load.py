"""Promise 3: a watch that begins under load ends with the server's state.

The revision of SYNCED is a lower bound. The first state may contain later changes, which are not sent again, so
a watcher that adds up its messages must have the final state whenever it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2 as container
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import number_changes
from tests.promises.calling import Caller, token_of
from tests.promises.environment import Environment
from tests.promises.requests import OWN, request_for
from tests.promises.test_watches import write
from tests.waiting import poll_until

WATCHES, WRITERS, MUTATIONS = 168, 8, 60
# A connection may have 100 concurrent calls.
PER_CONNECTION = 60
# The number of watches that begin concurrently. All of them together would be a burst of one user, whose calls
# wait for each other.
BEGINNING = 8


@dataclass
class Sum:
    """The state of one watcher as the sum of its messages.

    For the control, it `ignores` the changes of one container.
    """

    ignores: str = ""
    state: dict[str, bytes] = field(default_factory=dict)
    synced: int = 0
    newest: int = 0
    faults: list[str] = field(default_factory=list)

    async def run(self, environment: Environment, caller: Caller, beginning: asyncio.Semaphore) -> None:
        """Watches until cancelled.

        It holds the semaphore until its first state has arrived.
        """
        rule = environment.rule("WatchContainers")
        request = request_for(rule, {"namespace": OWN, "bookmarkPeriodSeconds": 1})
        await beginning.acquire()
        async with caller.watching(rule, request) as stream:
            async for answer in stream:
                self._take(answer)
                if answer.change_type == resource.CHANGE_TYPE_SYNCED:
                    beginning.release()

    def _take(self, answer: Any) -> None:
        kind, name = answer.change_type, answer.container.name
        if kind == resource.CHANGE_TYPE_SYNCED:
            self.synced = self.newest = answer.revision
        elif self.synced:
            if answer.revision < self.newest or (name and answer.revision == self.newest):
                self.faults.append(f"revision {answer.revision} came after {self.newest}")
            self.newest = answer.revision
        if name and not (self.synced and name == self.ignores):
            self.state[name] = plain(answer.container)
            if kind == resource.CHANGE_TYPE_DELETED:
                del self.state[name]


def plain(message: Any) -> bytes:
    """Returns a container without the field that changes with time alone, serialized."""
    copy = container.Container()
    copy.CopyFrom(message)
    copy.ClearField("uptime")
    return copy.SerializeToString(deterministic=True)


async def final_state(environment: Environment) -> Mapping[str, bytes]:
    """Returns the containers as the server lists them."""
    listed = (await environment.must("ListContainers", {"namespace": OWN, "pageSize": 1000})).containers
    return {each.name: plain(each) for each in listed}


@asynccontextmanager
async def watching(
    environment: Environment, sums: Sequence[Sum]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Begins the watches.

    Yields a function that returns when all watches have seen every change committed so far.
    """
    callers = [
        Caller(environment.server.channel(own_connection=True), token_of(environment.admin))
        for _ in range(-(-len(sums) // PER_CONNECTION))
    ]
    beginning = asyncio.Semaphore(BEGINNING)
    tasks = [
        asyncio.create_task(each.run(environment, callers[number // PER_CONNECTION], beginning))
        for number, each in enumerate(sums)
    ]

    async def seen() -> None:
        async with environment.sql() as sql:
            await number_changes(sql)
            head = await sql.fetchval("SELECT revision FROM stream_head")

        async def all_seen() -> bool:
            for task in tasks:
                if task.done():
                    task.result()
            return all(each.synced and each.newest >= head for each in sums)

        await poll_until(all_seen, seconds=60)

    try:
        yield seen
    finally:
        await cancel_and_wait(*tasks)


@pytest.mark.full
async def test_state_and_events_of_watches_begun_under_load_equal_the_final_state(
    environment: Environment,
) -> None:
    sums = [Sum() for _ in range(WATCHES)]
    async with watching(environment, sums) as seen:
        await asyncio.gather(
            *(write(environment, [environment.admin], number, MUTATIONS) for number in range(WRITERS))
        )
        await seen()
    final = await final_state(environment)
    assert len(final) == WRITERS * MUTATIONS // 4
    assert [number for number, each in enumerate(sums) if each.state != final] == []
    assert [fault for each in sums for fault in each.faults] == []
    # One revision for all would mean that no watch began under load.
    assert len({each.synced for each in sums}) > 1


@pytest.mark.full
async def test_a_watcher_that_misses_the_changes_of_one_container_is_found(environment: Environment) -> None:
    """Control of the test above."""
    await write(environment, [environment.admin], 0, 4)
    deaf = Sum(ignores="w0-0")
    async with watching(environment, [deaf]) as seen:
        await seen()
        assert deaf.state == await final_state(environment)
        fields = {
            "namespace": OWN,
            "name": "w0-0",
            "container": {"labels": {"a": "b"}},
            "updateMask": "labels",
        }
        await environment.must("UpdateContainer", fields)
        await seen()
    assert deaf.state != await final_state(environment)
