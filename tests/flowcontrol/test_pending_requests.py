"""Requests that do not arrive: their calls end, and the caller with the most of them loses its oldest."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse_server.errors import InvalidArgument, ResourceExhausted
from pilothouse_server.flowcontrol.pending_requests import PendingRequests
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.virtual_time import pass_time, virtual_time
from tests.waiting import Stopwatch, within


async def _never() -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def _soon() -> bytes:
    await pass_time(1.0)
    return b"body"


@virtual_time
async def test_a_request_has_a_limited_time_to_arrive() -> None:
    refused: list[None] = []
    pending = PendingRequests(10, 5.0, lambda: refused.append(None))
    watch = Stopwatch()
    first = asyncio.create_task(pending.receive(_never(), "ada"))
    await pass_time(3.0)
    second = asyncio.create_task(pending.receive(_never(), "ada"))
    assert await pending.receive(_soon(), "ada") == b"body"
    # Of the two seconds that the first request had left, and of the five of the second, one has passed.
    async with within(1.1):
        with pytest.raises(InvalidArgument) as late:
            await first
    assert late.value.reason == "REQUEST_TIMEOUT"
    assert not second.done()
    async with within(3.1):
        with pytest.raises(InvalidArgument):
            await second
    assert watch.passed() >= 8.0
    assert (pending.waiting, len(refused)) == (0, 2)


@virtual_time
async def test_the_caller_with_the_most_requests_loses_its_oldest() -> None:
    pending = PendingRequests(6, 60.0)
    lost: list[int] = []

    async def hold(number: int, user: str) -> None:
        with pytest.raises(ResourceExhausted):
            await pending.receive(_never(), user)
        lost.append(number)

    tasks = [asyncio.create_task(hold(number, "eve")) for number in range(5)]
    tasks.append(asyncio.create_task(hold(5, "bob")))
    await pass_time(0.001)
    # Ada's three requests arrive in time although all places are taken.
    assert await asyncio.gather(*(pending.receive(_soon(), "ada") for _ in range(3))) == [b"body"] * 3
    assert lost == [0, 1, 2]
    assert pending.waiting == 3
    await cancel_and_wait(*tasks)
    assert pending.waiting == 0


@virtual_time
async def test_anonymous_requests_from_everywhere_keep_no_user_out() -> None:
    pending = PendingRequests(6, 60.0)
    strangers = [asyncio.create_task(pending.receive(_never(), f"192.0.2.{number}")) for number in range(6)]
    await pass_time(0.001)
    # Each of two users has three concurrent requests, and each request needs a moment: all of them arrive.
    for user in (7, 8):
        assert await asyncio.gather(*(pending.receive(_soon(), user) for _ in range(3))) == [b"body"] * 3
    slow = asyncio.create_task(pending.receive(_never(), 7))
    other = asyncio.create_task(pending.receive(_never(), 7))
    more = [asyncio.create_task(pending.receive(_never(), f"198.51.100.{number}")) for number in range(9)]
    await pass_time(0.001)
    assert not slow.done()
    assert not other.done()
    assert pending.waiting == 6
    await cancel_and_wait(slow, other, *strangers, *more)
    assert pending.waiting == 0


@virtual_time
async def test_few_anonymous_requests_are_not_removed_for_a_user_with_most() -> None:
    pending = PendingRequests(6, 60.0)
    of_a_user = [asyncio.create_task(pending.receive(_never(), 7)) for _ in range(4)]
    strangers = [asyncio.create_task(pending.receive(_never(), f"192.0.2.{number}")) for number in range(3)]
    await pass_time(0.001)
    assert [task.done() for task in (*of_a_user, *strangers)] == [True, *[False] * 6]
    await cancel_and_wait(*of_a_user, *strangers)


@virtual_time
async def test_many_simultaneous_requests_time_out_a_few_at_a_time() -> None:
    pending = PendingRequests(500, 5.0)
    tasks = [asyncio.create_task(pending.receive(_never(), number % 7)) for number in range(200)]
    await pass_time(5.001)
    assert 0 < sum(task.done() for task in tasks) <= 10
    await pass_time(0.5)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {getattr(outcome, "reason", "") for outcome in outcomes} == {"REQUEST_TIMEOUT"}
    assert pending.waiting == 0
