"""The buffer between the reader and the sender of a first state: bounded, and patient for a while only."""

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
    """Puts numbered answers, and remembers how far it came and how much was in the buffer at most."""

    def __init__(self, count: int, size_bytes: int = 1) -> None:
        self.count = count
        self.size_bytes = size_bytes
        self.put = 0
        self.most = 0
        self.most_bytes = 0
        # Holds something while the reading lasts, as a connection would be held.
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
    """The first bytes of all answers, each taken after a pause."""
    taken: list[int] = []
    async for answer in ahead.answers():
        taken.append(answer[0])
        if seconds_each:
            await pass_time(seconds_each)
    return taken


async def test_answers_come_in_order_and_the_result_after_them() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead:
        assert await take(ahead) == list(range(50))
        assert ahead.result == "read"
    assert source.most == LIMITS.answers


async def test_nothing_to_read_is_an_end() -> None:
    async with ahead_of(Source(0).read) as ahead:
        assert await take(ahead) == []
        assert ahead.result == "read"


async def test_the_first_answer_does_not_wait_for_the_last() -> None:
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
async def test_no_more_is_read_than_the_buffer_holds() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead:
        await pass_time(1)
        assert (source.put, ahead.buffered) == (4, 4)


@virtual_time
async def test_large_answers_fill_the_buffer_sooner() -> None:
    source = Source(50, size_bytes=400)
    async with ahead_of(source.read) as ahead:
        await pass_time(1)
        assert source.put == 3
        assert await take(ahead) == list(range(50))
    assert source.most_bytes <= LIMITS.size_bytes + source.size_bytes


@virtual_time
async def test_many_who_stall_hold_little_together_and_who_takes_gets_everything() -> None:
    together = BufferMemory(most_bytes=10_000, least_bytes=100)
    limits = AheadLimits(answers=1_000, size_bytes=4_000, memory=together)
    async with AsyncExitStack() as stack:
        stalled = [
            await stack.enter_async_context(ReadAhead(limits, Source(200, size_bytes=50).read))
            for _ in range(40)
        ]
        await pass_time(1)
        assert stalled[0].buffered > 10 * stalled[-1].buffered > 0
        # The minimum of each, and the answer that exceeds it.
        assert 8_000 < together.held_bytes <= 10_000 + 40 * 150
        taker = await stack.enter_async_context(ReadAhead(limits, Source(200, size_bytes=50).read))
        assert await take(taker) == list(range(200))
        # Those who stall have lost what they did not take.
        await pass_time(6)
        assert together.held_bytes == 0
        await stack.enter_async_context(ReadAhead(limits, Source(10, size_bytes=50).read))
        await pass_time(1)
        assert together.held_bytes == 500
    # Nor does one that ends hold what its reader has left.
    assert together.held_bytes == 0


@virtual_time
async def test_a_reader_that_stalls_loses_the_state_and_the_connection_is_free() -> None:
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
async def test_a_reader_that_is_slower_and_takes_on_gets_everything() -> None:
    # Half of the buffer is taken each two seconds, and the waits add up to less than is granted.
    source = Source(14)
    async with ahead_of(source.read) as ahead:
        assert await take(ahead, seconds_each=1.0) == list(range(14))


@virtual_time
async def test_a_reader_that_trickles_is_not_waited_for_without_end() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead:
        with pytest.raises(ResourceExhausted):
            await take(ahead, seconds_each=1.0)
    assert source.open == []
    assert 14 <= source.put < 20


@virtual_time
async def test_who_leaves_ends_the_reading() -> None:
    source = Source(50)
    async with ahead_of(source.read) as ahead:
        await pass_time(1)
        assert source.open == [True]
        assert ahead.buffered == 4
    assert source.open == []


async def test_a_failure_comes_after_what_was_read_before() -> None:
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
        """One each; the caller is the number that its name begins with."""
        self._tasks += [asyncio.create_task(self._read(name), name=name) for name in names]
        await pass_time(0.1)

    async def end(self, *names: str) -> None:
        """Ends those, wherever they are."""
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
async def test_few_are_read_at_once_and_no_caller_takes_every_turn() -> None:
    turns = Reading(first_states(3, 2))
    await turns.begin("1a", "1b", "1c", "1d", "2a", "3a")
    assert turns.reading == ["1a", "1b", "2a"]
    # The next turn does not depend on present turns.
    await turns.end("1a")
    assert turns.reading == ["1b", "2a", "3a"]
    await turns.end("1c", "2a")
    assert turns.reading == ["1b", "3a", "1d"]
    await turns.end("1b", "3a", "1d")
    await turns.begin("1e", "1f", "2b")
    assert turns.reading == ["1e", "1f", "2b"]
    await turns.end("1e", "1f", "2b")


@virtual_time
async def test_who_waits_too_long_for_a_turn_is_told_to_come_again() -> None:
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
    # Nobody is remembered for having waited.
    assert readers.flows == 0


async def test_one_that_is_cut_off_is_not_kept() -> None:
    """Its task's error knows the task's frames, and these know it."""
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
        # The loop knows those that have just ended until its next turn.
        await asyncio.sleep(0)
        assert made[0]() is None
