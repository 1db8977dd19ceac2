"""The seats of one call, the shared limit of an address, and how a drain waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from pilothouse_server.errors import ResourceExhausted, Unavailable
from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.flowcontrol.classes import (
    CLUSTER_CALLS,
    CLUSTER_STREAMS,
    REFUSALS,
    CallLimits,
    is_wide,
    seats_for,
)
from pilothouse_server.flowcontrol.reservation import RESERVATION, Reservation, before_cluster
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import SettingsError, load
from pilothouse_server.store.paging import PageRequest
from tests.virtual_time import pass_time, virtual_time
from tests.waiting import Stopwatch, poll_until, within


@pytest.mark.parametrize(
    ("rows", "size", "seats"),
    [
        (0, 0, 1),
        (50, 10, 1),
        (100, 10, 1),
        (101, 10, 2),
        (1000, 10, 10),
        (5000, 10, 10),
        (-1, 10, 1),
        (0, 1_048_576, 17),
    ],
)
def test_wide_calls_take_more_seats(rows: int, size: int, seats: int) -> None:
    assert seats_for(rows, size) == seats


@pytest.mark.parametrize(("rows", "wide"), [(-1, False), (0, False), (100, False), (101, True), (5000, True)])
def test_a_page_that_takes_more_than_one_seat_is_wide(rows: int, wide: bool) -> None:
    assert is_wide(rows) is wide
    assert PageRequest(key=b"", page_size=rows).is_wide is wide
    assert (seats_for(rows, 10) > 1) is wide


def few(**more: Any) -> CallAdmission:
    return CallAdmission(
        CallLimits(
            max_concurrent_calls=4,
            max_calls_per_user=2,
            max_streams=4,
            max_streams_per_user=2,
            max_cluster_calls=3,
            max_cluster_calls_per_user=1,
            max_cluster_streams=3,
            max_cluster_streams_per_user=1,
            **more,
        )
    )


def held(admission: CallAdmission, cluster: str = "local") -> tuple[int, int, int, int]:
    """Returns the seats in use: calls, streams, and calls and streams at the cluster."""
    at = [admission.of_cluster(each, cluster).in_use for each in (CLUSTER_CALLS, CLUSTER_STREAMS)]
    return admission.calls.in_use, admission.streams.in_use, at[0], at[1]


@virtual_time
async def test_a_call_exchanges_its_seat_for_one_at_the_cluster() -> None:
    admission = few()
    reservation = Reservation(admission, streams=False)
    await reservation.acquire(admission.calls, "ada")
    RESERVATION.set(reservation)
    await before_cluster("local")
    await before_cluster("local")
    assert held(admission) == (0, 0, 1, 0)
    # The call also takes a seat at another cluster; a second call at the first cluster waits.
    await before_cluster("far")
    assert held(admission, "far") == (0, 0, 1, 0)
    second = Reservation(admission, streams=False)
    await second.acquire(admission.calls, "ada")
    with pytest.raises(ResourceExhausted) as refused:
        await second.acquire_cluster("local")
    assert refused.value.metadata == {"class": "cluster_calls", "limit_of": "caller"}
    second.release()
    reservation.release()
    assert held(admission) == held(admission, "far") == (0, 0, 0, 0)


@virtual_time
async def test_a_repeated_dry_run_takes_its_cluster_seat_before_it_begins() -> None:
    admission = few()
    what = ("CreateContainer", "shop")
    first = Reservation(admission, streams=False)
    await first.acquire(admission.calls, "ada")
    await first.acquire_dry_run(what)
    # The cluster of this dry run is not known yet.
    assert held(admission) == (1, 0, 0, 0)
    await first.acquire_cluster("local")
    again = Reservation(admission, streams=False)
    await again.acquire(admission.calls, "ada")
    with pytest.raises(ResourceExhausted):
        await again.acquire_dry_run(what)
    again.release()
    # In another namespace, the dry run keeps its first seat as before.
    await again.acquire_dry_run(("CreateContainer", "other"))
    first.release()
    other = Reservation(admission, streams=False)
    await other.acquire(admission.calls, "ada")
    await other.acquire_dry_run(what)
    assert held(admission) == (0, 0, 1, 0)
    await other.acquire_cluster("local")
    assert held(admission) == (0, 0, 1, 0)
    other.release()
    assert held(admission) == (0, 0, 0, 0)


@virtual_time
async def test_a_dry_run_at_a_cluster_known_to_be_unreachable_is_refused() -> None:
    admission = few()
    admission.note_dry_run("what", "local")
    admission.known_away = lambda cluster: Unavailable("away", reason="CLUSTER_UNAVAILABLE")
    reservation = Reservation(admission, streams=False)
    await reservation.acquire(admission.calls, "ada")
    with pytest.raises(Unavailable):
        await reservation.acquire_dry_run("what")
    reservation.release()
    assert held(admission) == (0, 0, 0, 0)


@pytest.mark.parametrize("why", ["away", "no seat"])
@virtual_time
async def test_dry_runs_refused_for_a_cluster_are_paced_and_hold_no_seat(why: str) -> None:
    many = CallLimits(
        max_concurrent_calls=200, max_calls_per_user=200, max_cluster_calls=1, max_cluster_calls_per_user=1
    )
    admission = CallAdmission(many)
    admission.note_dry_run("what", "local")
    if why == "away":
        admission.known_away = lambda cluster: Unavailable("away", reason="CLUSTER_UNAVAILABLE")
    full = admission.of_cluster(CLUSTER_CALLS, "local")
    await full.acquire("ada")
    waiting = [asyncio.create_task(full.acquire("ada")) for _ in range(full.bounds.waiting_per_flow)]
    per_second, burst, _ = REFUSALS

    async def refused() -> None:
        reservation = Reservation(admission, streams=False)
        await reservation.acquire(admission.calls, "ada")
        with pytest.raises((Unavailable, ResourceExhausted)):
            await reservation.acquire_dry_run("what")

    calls = [asyncio.create_task(refused()) for _ in range(120)]
    await pass_time(0.6)
    assert sum(call.done() for call in calls) <= burst + 0.6 * per_second + 1
    assert admission.calls.in_use == 0
    await pass_time(2.4)
    assert all(call.done() for call in calls)
    await asyncio.gather(*calls)
    await cancel_and_wait(*waiting)


@virtual_time
async def test_a_stream_keeps_its_first_seat_next_to_its_cluster_seat() -> None:
    admission = few()
    reservation = Reservation(admission, streams=True)
    await reservation.acquire(admission.streams, "ada")
    await reservation.acquire_cluster("local")
    assert held(admission) == (0, 1, 0, 1)
    reservation.release()
    assert held(admission) == (0, 0, 0, 0)


@virtual_time
async def test_a_seat_given_after_the_end_of_its_call_is_released() -> None:
    admission = few()
    first, late = Reservation(admission, streams=True), Reservation(admission, streams=True)
    for reservation in (first, late):
        await reservation.acquire(admission.streams, "ada")
    await first.acquire_cluster("local")
    going = asyncio.create_task(late.acquire_cluster("local"))
    await pass_time(0.1)
    late.release()
    first.release()
    await going
    assert held(admission) == (0, 0, 0, 0)
    await late.acquire_cluster("local")
    assert held(admission) == (0, 0, 0, 0)


async def test_work_without_a_caller_needs_no_seat() -> None:
    RESERVATION.set(None)
    await before_cluster("local")
    assert RESERVATION.get() is None


@virtual_time
async def test_clusters_without_calls_are_forgotten() -> None:
    admission = few()
    await admission.of_cluster(CLUSTER_CALLS, "in use").acquire("ada")
    for number in range(3000):
        admission.of_cluster(CLUSTER_CALLS, f"made up {number}")
    assert len(admission._of_clusters) <= 1001
    assert admission.of_cluster(CLUSTER_CALLS, "in use").in_use == 1


async def _refusing(admission: CallAdmission) -> None:
    """Returns when a drain refuses calls."""

    async def draining() -> bool:
        return admission.draining

    await poll_until(draining, seconds=60.0)


async def _drains(happens: Callable[[CallAdmission], Any]) -> tuple[float, float]:
    """Returns when a drain with a grace of three seconds begins to refuse calls, and when it is over."""
    admission = few()
    watch = Stopwatch()
    happening = asyncio.create_task(happens(admission))
    draining = asyncio.create_task(admission.drain(3.0))
    await _refusing(admission)
    refuses = watch.passed()
    with pytest.raises(Unavailable):
        admission.refuse_if_draining()
    async with within(3.0):
        await draining
    await cancel_and_wait(happening)
    return refuses, watch.passed()


async def _one_stays(admission: CallAdmission) -> None:
    admission.call_began()
    await pass_time(60.0)


async def _others_come(admission: CallAdmission, seconds: float = 60.0, *, streams: bool = False) -> None:
    for _ in range(round(seconds / 0.02)):
        admission.call_began(streams=streams)
        admission.call_ended()
        await pass_time(0.02)


@virtual_time
async def test_a_drain_serves_and_then_refuses_until_no_call_arrives() -> None:
    for happens in (_one_stays, partial(_others_come, streams=True)):
        refuses, over = await _drains(happens)
        # The first check has nothing to compare with.
        assert refuses <= 0.12
        assert over - refuses <= 0.12
    refuses, over = await _drains(partial(_others_come, seconds=0.5))
    assert 0.5 <= refuses <= 0.7
    assert over - refuses <= 0.12


@virtual_time
async def test_a_drain_under_steady_calls_ends_within_its_grace() -> None:
    refuses, over = await _drains(_others_come)
    assert 0.9 <= refuses <= 1.1
    assert 0.6 <= over - refuses <= 0.9


@virtual_time
async def test_a_drain_refuses_no_call_of_an_earlier_burst() -> None:
    admission = CallAdmission(CallLimits())

    async def call() -> None:
        reservation = Reservation(admission, streams=False)
        admission.call_began()
        try:
            if not admission.burst_gate.passes(7):
                await reservation.pass_burst(7)
            # Serving takes as long as on a busy machine.
            await pass_time(0.1)
        finally:
            reservation.release()
            admission.call_ended()

    calls = [asyncio.create_task(call()) for _ in range(100)]
    await pass_time(0.01)
    assert admission.burst_gate.waiting > 50
    await admission.drain(3.0)
    await asyncio.gather(*calls)


def test_an_address_has_ten_times_the_calls_of_a_user() -> None:
    assert CallAdmission(CallLimits(max_calls_per_user=64)).anonymous_calls.bounds.seats_per_flow == 640
    with pytest.raises(SettingsError, match="MAX_STREAMS must be greater than 0"):
        load({"PILOTHOUSE_MAX_STREAMS": "0"})


async def _trying(
    admission: CallAdmission, user: str, count: int, what: Any
) -> tuple[list[Reservation], list[Any]]:
    """Returns calls of one user that begin the same dry run together."""
    reservations = [Reservation(admission, streams=False) for _ in range(count)]
    for reservation in reservations:
        await reservation.acquire(admission.calls, user)
    tasks = [asyncio.create_task(reservation.acquire_dry_run(what)) for reservation in reservations]
    await pass_time(0.1)
    return reservations, tasks


@virtual_time
async def test_one_of_equal_dry_runs_finds_the_cluster_while_the_others_wait() -> None:
    admission = CallAdmission(CallLimits(max_cluster_calls_per_user=8))
    what = ("CreateContainer", "shop")
    reservations, tasks = await _trying(admission, "ada", 8, what)
    others, of_others = await _trying(admission, "grace", 1, what)
    # A dry run does not wait for another user's.
    assert [each.done() for each in (*tasks, *of_others)] == [True, *7 * [False], True]
    await reservations[0].acquire_cluster("local")
    await pass_time(0.1)
    # All have a cluster seat now, and one of them has its turn at the database.
    assert held(admission) == (1, 0, 8, 0)
    assert [each.done() for each in tasks] == [True, True, *6 * [False]]
    for reservation in (*reservations, *others):
        reservation.release()
    await asyncio.gather(*tasks)
    assert held(admission) == (0, 0, 0, 0)
    assert admission.dry_runs.in_use == admission.dry_runs.flows == 0


@virtual_time
async def test_dry_runs_of_a_user_use_the_database_one_after_the_other() -> None:
    admission = CallAdmission(CallLimits(max_cluster_calls_per_user=8))
    what = ("CreateContainer", "shop")
    admission.note_dry_run(what, "local")
    reservations, tasks = await _trying(admission, "ada", 5, what)
    for number, reservation in enumerate(reservations):
        assert [each.done() for each in tasks] == [n <= number for n in range(5)]
        # It calls the cluster, or fails before that.
        await reservation.acquire_cluster("local") if number % 2 else reservation.release()
        await pass_time(0.1)
    assert admission.dry_runs.in_use == 0
    for reservation in reservations:
        reservation.release()
    assert held(admission) == (0, 0, 0, 0)


@virtual_time
async def test_waiting_for_a_dry_run_that_does_not_end_is_limited() -> None:
    admission = few(wait_seconds=3.0)
    what = ("CreateContainer", "shop")
    (first, second), tasks = await _trying(admission, "ada", 2, what)
    # A tenth of the three seconds has passed.
    await pass_time(2.8)
    assert not tasks[1].done()
    await pass_time(0.2)
    with pytest.raises(ResourceExhausted) as refused:
        await tasks[1]
    assert refused.value.metadata == {"class": "trials", "limit_of": "caller"}
    second.release()
    # A call that gives up while it waits leaves nothing behind.
    third = Reservation(admission, streams=False)
    await third.acquire(admission.calls, "ada")
    waiting = asyncio.create_task(third.acquire_dry_run(what))
    await pass_time(0.1)
    assert not waiting.done()
    await cancel_and_wait(waiting)
    third.release()
    first.release()
    assert admission.dry_runs.in_use == admission.dry_runs.flows == 0


@virtual_time
async def test_a_call_retried_after_the_suggested_delay_comes_after_the_stop() -> None:
    """When the server stops, gRPC cancels the calls that it has and the server has not accepted."""
    admission = few()
    # The calls keep coming, so the drain takes all its time.
    coming = asyncio.create_task(_others_come(admission))
    draining = asyncio.create_task(admission.drain(12.0))
    await _refusing(admission)
    with pytest.raises(Unavailable) as refused:
        admission.refuse_if_draining()
    watch = Stopwatch()
    await draining
    assert watch.passed() >= 0.9
    assert (refused.value.retry_after_seconds or 0.0) > watch.passed() + 0.5
    await cancel_and_wait(coming)


@virtual_time
@pytest.mark.parametrize("deadline", [0.05, 1.0, 3.0])
async def test_short_deadlines_are_no_way_around_the_pace_of_refusals(deadline: float) -> None:
    admission, told, rounds = few(), list[float](), round(6 / deadline)
    # With the longest deadline there are eight hundred refusals, and with the shortest two thousand a second.
    callers = 100 if deadline < 1.0 else 400

    async def hold() -> None:
        for _ in range(rounds):
            with suppress(TimeoutError):
                async with asyncio.timeout(deadline):
                    await admission.refusal("eve", deadline)
                    told.append(asyncio.get_running_loop().time())

    await asyncio.gather(*(hold() for _ in range(callers)))
    # The first ones are refused immediately; then fifty a second in their turn, and twenty-five whose deadline comes
    # earlier.
    assert len(told) <= 20 + 10 + 75 * (told[-1] - told[0]) + 1
    assert len(told) >= 40 * (told[-1] - told[0])


@virtual_time
async def test_an_occasional_refusal_is_sent_before_its_deadline() -> None:
    admission = few()
    flood = [asyncio.create_task(admission.refusal("eve", None)) for _ in range(500)]
    await pass_time(0.001)
    # The refusal is sent a second before the deadline.
    async with within(3.1):
        await admission.refusal("eve", 4.0)
    # The turn of the calls that came before has not come yet.
    assert not flood[-1].done()
    await cancel_and_wait(*flood)
