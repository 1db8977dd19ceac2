"""The buffer between the reader and the sender of a first state.

The buffer is bounded, and so is its wait for a slow client.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from pilothouse_server.errors import ResourceExhausted, Unavailable
from pilothouse_server.flowcontrol.fair_queue import FairQueue
from pilothouse_server.rpc.first_state import AheadLimits, BufferMemory, ReadAhead, first_states
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.garbage import without_looks
from tests.virtual_time import pass_time, virtual_time

LIMITS = AheadLimits(answers=4, size_bytes=1_000, stalled_seconds=5.0, waiting_seconds=12.0)


class Source:
    """Puts numbered responses, and records how many it has put and the most that the buffer contained."""

    def __init__(self, count: int, size_bytes: int = 1) -> None:
        self.count = count
        self.size_bytes = size_bytes
        self.put = 0
        self.most = 0
        self.most_bytes = 0
        # Non-empty while the reading lasts, as a connection would be occupied.
        self.open: list[bool] = []

    async def read(self, ahead: ReadAhead[str]) -> str:
        self.open.append(True)
        try:
            for number in range(self.count):
                await ahead.put(bytes([number]) * self.size_bytes)
                self.put += 1
                self.most = max(self.most, ahead.buffered)
                self.most_bytes = max(self.most_bytes, ahead.buffered * self.size_bytes)
            return "read"
        finally:
            self.open.clear()


def ahead_of(read: Callable[[ReadAhead[str]], Coroutine[Any, Any, str]]) -> ReadAhead[str]:
    return ReadAhead(LIMITS, read)


async def take(ahead: ReadAhead[str], seconds_each: float = 0.0) -> list[int]:
    """Returns the first byte of each response, each taken after a pause."""
    taken: list[int] = []
    async for answer in ahead.answers():
        taken.append(answer[0])
        if seconds_each:
            await pass_time(seconds_each)
    return taken


async def test_responses_arrive_in_order_before_the_result() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead:
        assert await take(ahead) == list(range(50))
        assert ahead.result == "read"
    assert source.most == LIMITS.answers


async def test_an_empty_first_state_ends() -> None:
    async with ahead_of(Source(0).read) as ahead:
        assert await take(ahead) == []
        assert ahead.result == "read"


async def test_the_first_response_does_not_wait_for_the_last() -> None:
    goes_on = asyncio.Event()

    async def read(ahead: ReadAhead[str]) -> str:
        await ahead.put(b"first")
        await goes_on.wait()
        await ahead.put(b"last")
        return ""

    async with ahead_of(read) as ahead:
        taken = []
        async for answer in ahead.answers():
            taken.append(answer)
            goes_on.set()
    assert taken == [b"first", b"last"]


@virtual_time
async def test_reading_stops_when_the_buffer_is_full() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead:
        await pass_time(1)
        assert (source.put, ahead.buffered) == (4, 4)


@virtual_time
async def test_large_responses_fill_the_buffer_sooner() -> None:
    source = Source(50, size_bytes=400)
    async with ahead_of(source.read) as ahead:
        await pass_time(1)
        assert source.put == 3
        assert await take(ahead) == list(range(50))
    assert source.most_bytes <= LIMITS.size_bytes + source.size_bytes


@virtual_time
async def test_stalled_readers_share_bounded_memory_and_active_readers_get_all() -> None:
    together = BufferMemory(most_bytes=10_000, least_bytes=100)
    limits = AheadLimits(answers=1_000, size_bytes=4_000, memory=together)
    async with AsyncExitStack() as stack:
        stalled = [
            await stack.enter_async_context(ReadAhead(limits, Source(200, size_bytes=50).read))
            for _ in range(40)
        ]
        await pass_time(1)
        assert stalled[0].buffered > 10 * stalled[-1].buffered > 0
        # Each buffer contains its minimum, and the response that exceeds it.
        assert 8_000 < together.held_bytes <= 10_000 + 40 * 150
        taker = await stack.enter_async_context(ReadAhead(limits, Source(200, size_bytes=50).read))
        assert await take(taker) == list(range(200))
        # The stalled readers have lost the responses that they did not take.
        await pass_time(6)
        assert together.held_bytes == 0
        await stack.enter_async_context(ReadAhead(limits, Source(10, size_bytes=50).read))
        await pass_time(1)
        assert together.held_bytes == 500
    # A buffer that ends frees the responses that its reader has left.
    assert together.held_bytes == 0


@virtual_time
async def test_a_stalled_reader_loses_the_state_and_frees_the_connection() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead, aclosing(ahead.answers()) as answers:
        assert (await anext(answers))[0] == 0
        await pass_time(4.9)
        assert source.open == [True]
        await pass_time(0.2)
        assert source.open == []
        assert ahead.buffered == 0
        with pytest.raises(ResourceExhausted) as refused:
            await anext(answers)
    assert refused.value.reason == "SLOW_CONSUMER"
    assert refused.value.metadata == {}


@virtual_time
async def test_a_slower_reader_that_keeps_reading_gets_everything() -> None:
    # The reader takes half of the buffer in two seconds, and its waits add up to less than the limit.
    source = Source(14)
    async with ahead_of(source.read) as ahead:
        assert await take(ahead, seconds_each=1.0) == list(range(14))


@virtual_time
async def test_the_wait_for_a_slow_reader_is_limited() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead:
        with pytest.raises(ResourceExhausted):
            await take(ahead, seconds_each=1.0)
    assert source.open == []
    assert 14 <= source.put < 20


@virtual_time
async def test_a_reader_that_leaves_ends_the_reading() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead:
        await pass_time(1)
        assert source.open == [True]
        assert ahead.buffered == 4
    assert source.open == []


async def test_a_failure_follows_the_responses_read_before_it() -> None:
    async def read(ahead: ReadAhead[str]) -> str:
        await ahead.put(b"\x01")
        raise Unavailable("the database went away", reason="DATABASE_UNAVAILABLE")

    async with ahead_of(read) as ahead, aclosing(ahead.answers()) as answers:
        assert await anext(answers) == b"\x01"
        with pytest.raises(Unavailable):
            await anext(answers)


class Reading:
    """First states that are read until they are ended."""

    def __init__(self, readers: FairQueue) -> None:
        self._readers = readers
        self._tasks: list[asyncio.Task[None]] = []
        self.reading: list[str] = []

    async def begin(self, *names: str) -> None:
        """Begins a first state for each name; the caller is the number that the name begins with."""
        self._tasks += [asyncio.create_task(self._read(name), name=name) for name in names]
        await pass_time(0.1)

    async def end(self, *names: str) -> None:
        """Ends these first states, whether they are read or wait."""
        await cancel_and_wait(*(task for task in self._tasks if task.get_name() in names))
        await pass_time(0.1)

    async def _read(self, name: str) -> None:
        async with self._readers.seat(int(name[0])):
            self.reading.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.reading.remove(name)


@virtual_time
async def test_few_states_are_read_in_parallel_and_callers_take_turns() -> None:
    turns = Reading(first_states(3, 2))
    await turns.begin("1a", "1b", "1c", "1d", "2a", "3a")
    assert turns.reading == ["1a", "1b", "2a"]
    # A caller's next turn does not depend on its present ones.
    await turns.end("1a")
    assert turns.reading == ["1b", "2a", "3a"]
    await turns.end("1c", "2a")
    assert turns.reading == ["1b", "3a", "1d"]
    await turns.end("1b", "3a", "1d")
    await turns.begin("1e", "1f", "2b")
    assert turns.reading == ["1e", "1f", "2b"]
    await turns.end("1e", "1f", "2b")


@virtual_time
async def test_a_caller_that_waits_too_long_for_a_turn_is_refused() -> None:
    readers = first_states(1, 1)
    turns = Reading(readers)
    await turns.begin("1a")
    for caller in (1, 2):
        with pytest.raises(Unavailable) as refused:
            async with readers.seat(caller):
                raise AssertionError("there was a turn")
        assert refused.value.reason == "TOO_MANY_FIRST_STATES"
    await turns.end("1a")
    async with readers.seat(2):
        pass
    # The queue forgets callers that have waited.
    assert readers.flows == 0


async def test_a_cancelled_first_state_is_not_kept_in_memory() -> None:
    """The error of the reading task refers to the task's frames, and these refer to the first state."""
    made: list[weakref.ref[ReadAhead[str]]] = []
    reads = asyncio.Event()

    async def read(ahead: ReadAhead[str]) -> str:
        made.append(weakref.ref(ahead))
        reads.set()
        await asyncio.Event().wait()
        return ""

    async def watch() -> None:
        async with ahead_of(read) as ahead:
            await take(ahead)

    with without_looks():
        watching = asyncio.create_task(watch())
        await reads.wait()
        await cancel_and_wait(watching)
        del watching
        # The loop refers to tasks that have just ended until its next iteration.
        await asyncio.sleep(0)
        assert made[0]() is None
