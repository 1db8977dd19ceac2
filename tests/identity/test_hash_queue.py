"""Turns for a hash: nobody who sends many stands before one who sends one."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.identity.failure_budgets import SECONDS_EACH, FailureBudgets
from pilothouse_server.identity.hash_queue import HashQueue
from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.waiting import within


class Line:
    """Those who wait before one place that somebody holds, in the order in which they have had it."""

    def __init__(self, **bounds: int) -> None:
        self.queue = HashQueue(1, **{"longest": 100, "longest_of_one": 100} | bounds)
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._holds = asyncio.Event()

    async def come(self, *who: str, known: bool = False) -> None:
        """One after the other begins to wait."""
        for each in who:
            self.tasks.append(asyncio.create_task(self._one(each, known)))
            await asyncio.sleep(0)

    def refused(self) -> list[int]:
        """Which of them, by number, are refused so far."""
        return [number for number, task in enumerate(self.tasks) if task.done() and task.exception()]

    async def all_served(self) -> list[str]:
        """The holder goes; the order of the others, those refused as an exception."""
        self._holds.set()
        outcomes = await asyncio.gather(*self.tasks, return_exceptions=True)
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert all(isinstance(each, ResourceExhausted | asyncio.CancelledError) for each in refused)
        return self.served[1:]

    async def _one(self, who: str, known: bool) -> None:
        async with self.queue.place(who, known=known):
            self.served.append(who)
            if len(self.served) == 1:
                await self._holds.wait()


async def test_each_has_its_turn_whoever_sends_most() -> None:
    line = Line()
    await line.come("holder", *["flood"] * 6, "anna", "ben", "anna")
    assert await line.all_served() == ["flood", "anna", "ben", "flood", "anna", *["flood"] * 4]


async def test_who_is_known_has_every_other_place() -> None:
    line = Line()
    await line.come("holder", "s1", "s2", "s3", "s4", "s5")
    await line.come("k1", "k2", known=True)
    assert await line.all_served() == ["k1", "s1", "k2", "s2", "s3", "s4", "s5"]


async def test_strangers_never_have_the_last_place() -> None:
    queue = HashQueue(2, longest=100, longest_of_one=100)
    async with queue.place("stranger"):
        other = asyncio.create_task(_once(queue, "another stranger"))
        await asyncio.sleep(0)
        assert not other.done()
        async with within(5.0), queue.place("anna", known=True):
            pass
        assert not other.done()
    async with within(5.0):
        await other
        async with queue.place("anna", known=True), queue.place("ben", known=True):
            third = asyncio.create_task(_once(queue, "stranger"))
            await asyncio.sleep(0)
        await third


async def _once(queue: HashQueue, who: str) -> None:
    async with queue.place(who):
        pass


async def test_a_full_queue_has_room_for_who_waits_less_often() -> None:
    line = Line(longest=4)
    await line.come("holder", *["flood"] * 4)
    await line.come("anna", "ben", "flood")
    assert await line.all_served() == ["flood", "anna", "ben", "flood"]
    assert [task.exception() is not None for task in line.tasks] == [
        *[False] * 3,
        True,
        True,
        False,
        False,
        True,
    ]


async def test_strangers_from_everywhere_leave_half_of_it_to_those_who_are_known() -> None:
    line = Line(longest=4)
    await line.come("holder", "s1", "s2", "s3", "s4")
    await line.come("k1", "k1", known=True)
    await line.come("s5")
    # Half of it is theirs, also of one who waits more often than each stranger.
    assert line.refused() == [3, 4, 7]
    # What is beyond half is shared by who waits less often.
    await line.come("k2", known=True)
    assert await line.all_served() == ["k1", "s1", "k2", "s2"]
    assert line.refused() == [3, 4, 6, 7]


async def test_one_may_not_fill_it_alone() -> None:
    line = Line(longest_of_one=2)
    await line.come("holder", *["flood"] * 5)
    assert await line.all_served() == ["flood"] * 2


async def test_places_are_not_lost_with_those_who_go_away() -> None:
    line = Line()
    await line.come("holder", "anna", "ben", "cleo")
    await cancel_and_wait(line.tasks[2])
    # And one that is given a place in the moment in which it goes.
    line._holds.set()
    await cancel_and_wait(line.tasks[0], line.tasks[1])
    assert "cleo" in await line.all_served()
    async with within(5.0), line.queue.place("dora"):
        pass


def test_failures_of_an_address_are_bounded_and_come_back() -> None:
    now = [100.0]
    budgets = FailureBudgets(3, clock=lambda: now[0])
    for _ in range(3):
        budgets.take("there")
    with pytest.raises(ResourceExhausted) as caught:
        budgets.take("there")
    assert caught.value.reason == "LOGIN_LIMITED"
    assert caught.value.retry_after_seconds is not None
    budgets.take("elsewhere")
    now[0] += SECONDS_EACH
    budgets.take("there")
    with pytest.raises(ResourceExhausted):
        budgets.take("there")


def test_right_passwords_use_nothing_up() -> None:
    budgets = FailureBudgets(2, clock=lambda: 100.0)
    for _ in range(10):
        budgets.take("there")
        budgets.succeeded("there")
    assert budgets.is_known("there")
    assert not budgets.is_known("elsewhere")


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:0:0:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_whom_an_address_stands_for(address: str, group: str) -> None:
    assert address_group(address) == group
