"""Each user may have one wide page in progress.

A waiting call holds no seat, and its wait is limited.
"""

from __future__ import annotations

import asyncio

import pytest

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.flowcontrol.classes import CallLimits
from pilothouse_server.flowcontrol.reservation import RESERVATION, Reservation, read_slice
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.virtual_time import pass_time, virtual_time

WIDTH = 10


def begun(
    admission: CallAdmission, user: str, count: int
) -> tuple[list[Reservation], list[asyncio.Task[None]]]:
    """Starts calls of a user that request a wide page at the same moment."""
    reservations = [Reservation(admission, streams=False) for _ in range(count)]
    return reservations, [
        asyncio.create_task(each.acquire(admission.calls, user, WIDTH, turns=admission.wide_pages))
        for each in reservations
    ]


def held(admission: CallAdmission) -> tuple[int, int, int]:
    """Returns the seats of calls, the wide pages in progress, and the waiting wide pages."""
    return admission.calls.in_use, admission.wide_pages.in_use, admission.wide_pages.waiting


@virtual_time
async def test_a_user_s_wide_pages_run_one_by_one_and_hold_no_seat_while_waiting() -> None:
    admission = CallAdmission(CallLimits())
    reservations, tasks = begun(admission, "ada", 3)
    await pass_time(0.1)
    assert [task.done() for task in tasks] == [True, False, False]
    assert held(admission) == (WIDTH, 1, 2)
    # Her small calls overtake the waiting pages: she has 32 seats.
    assert all(
        Reservation(admission, streams=False).try_acquire(admission.calls, "ada") for _ in range(32 - WIDTH)
    )
    for number in range(3):
        reservations[number].release()
        await pass_time(0.1)
        assert [task.done() for task in tasks] == [True] * min(3, number + 2) + [False] * (1 - number)
    await asyncio.gather(*tasks)
    assert held(admission) == (32 - WIDTH, 0, 0)


@virtual_time
async def test_wide_pages_of_other_users_do_not_wait() -> None:
    admission = CallAdmission(CallLimits())
    _, of_ada = begun(admission, "ada", 3)
    _, of_grace = begun(admission, "grace", 2)
    await pass_time(0.1)
    assert [task.done() for task in (*of_ada, *of_grace)] == [True, False, False, True, False]
    assert held(admission) == (2 * WIDTH, 2, 3)
    await cancel_and_wait(*of_ada, *of_grace)


@virtual_time
async def test_a_page_that_waits_too_long_is_refused_with_a_retry_delay() -> None:
    admission = CallAdmission(CallLimits(wait_seconds=3.0))
    (hanging, _), (_, waiting) = begun(admission, "ada", 2)
    await pass_time(2.9)
    assert not waiting.done()
    await pass_time(0.2)
    with pytest.raises(ResourceExhausted, match="wide pages") as refused:
        await waiting
    assert refused.value.metadata == {"class": "wide_pages", "limit_of": "caller"}
    assert refused.value.retry_after_seconds == 1.0
    assert held(admission) == (WIDTH, 1, 0)
    hanging.release()
    assert held(admission) == (0, 0, 0)


@virtual_time
async def test_the_waits_for_turn_and_seats_share_one_limit() -> None:
    admission = CallAdmission(CallLimits(wait_seconds=3.0, max_calls_per_user=WIDTH))
    (first, _, _), (_, second, third) = begun(admission, "ada", 3)
    await pass_time(2.0)
    small = Reservation(admission, streams=False)
    waiting = asyncio.create_task(small.acquire(admission.calls, "ada"))
    await pass_time(0.1)
    # In the queue for seats, the small call is before the second page, and it keeps the seat that it gets.
    first.release()
    await waiting
    await pass_time(0.8)
    assert not second.done()
    await pass_time(0.2)
    for refused in (second, third):
        with pytest.raises(ResourceExhausted):
            await refused
    # The second page gave back its places when it was refused.
    assert held(admission) == (1, 0, 0)
    small.release()
    assert held(admission) == (0, 0, 0)


@virtual_time
async def test_a_page_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    admission = CallAdmission(CallLimits())
    (first, gone, third), tasks = begun(admission, "ada", 3)
    await pass_time(0.1)
    await cancel_and_wait(tasks[1])
    gone.release()
    assert held(admission) == (WIDTH, 1, 1)
    first.release()
    await tasks[2]
    assert held(admission) == (WIDTH, 1, 0)
    third.release()
    assert held(admission) == (0, 0, 0)


@virtual_time
async def test_a_wide_page_that_calls_a_cluster_lets_the_next_one_begin() -> None:
    admission = CallAdmission(CallLimits())
    (first, second), tasks = begun(admission, "ada", 2)
    await pass_time(0.1)
    await first.acquire_cluster("local")
    await tasks[1]
    assert held(admission) == (WIDTH, 1, 0)
    first.release()
    second.release()
    assert held(admission) == (0, 0, 0)


@virtual_time
async def test_as_many_wide_pages_may_wait_as_calls_for_seats() -> None:
    admission = CallAdmission(CallLimits(max_calls_per_user=2))
    reservations, tasks = begun(admission, "ada", 1 + 8 * 2 + 1)
    await pass_time(0.1)
    with pytest.raises(ResourceExhausted):
        await tasks[-1]
    assert held(admission) == (2, 1, 8 * 2)
    await cancel_and_wait(*tasks[1:])
    reservations[0].release()
    assert held(admission) == (0, 0, 0)


@virtual_time
async def test_a_stream_reads_a_slice_in_its_user_s_turn() -> None:
    admission = CallAdmission(CallLimits())
    (page,), _ = begun(admission, "ada", 1)
    await pass_time(0.1)
    stream = Reservation(admission, streams=True)
    await stream.acquire(admission.streams, "ada")
    read: list[str] = []

    async def reads(name: str) -> None:
        RESERVATION.set(stream)
        async with read_slice():
            read.append(name)
            await pass_time(1.0)

    tasks = [asyncio.create_task(reads(name)) for name in ("first", "second")]
    # That is longer than a call would wait.
    await pass_time(20.0)
    assert read == []
    page.release()
    await pass_time(0.1)
    assert read == ["first"]
    await asyncio.gather(*tasks)
    assert read == ["first", "second"]
    assert held(admission) == (0, 0, 0)


@virtual_time
async def test_a_stream_is_refused_if_its_turn_does_not_come() -> None:
    admission = CallAdmission(CallLimits())
    (page,), _ = begun(admission, "ada", 1)
    await pass_time(0.1)
    stream = Reservation(admission, streams=True)
    await stream.acquire(admission.streams, "ada")
    RESERVATION.set(stream)
    with pytest.raises(ResourceExhausted):
        async with read_slice():
            raise AssertionError("it has its turn")
    page.release()
    assert held(admission) == (0, 0, 0)


async def test_a_read_without_a_caller_waits_for_no_turn() -> None:
    RESERVATION.set(None)
    async with read_slice(), read_slice():
        assert RESERVATION.get() is None
