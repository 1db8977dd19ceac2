"""The turns of password hashes.

An address with many attempts does not delay one with a single attempt.
"""

from __future__ import annotations

import asyncio

import pytest

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.identity.failure_budgets import SECONDS_EACH, FailureBudgets
from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.waiting import within


class Line:
    """Attempts that wait for an occupied thread, in the order in which they get it."""

    def __init__(self, *, threads: int = 1, longest_queue: int = 100) -> None:
        self.passwords = Passwords(threads=threads, longest_queue=longest_queue)
        self.served: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._ends = asyncio.Event()

    async def come(self, *who: str, known: bool = False) -> None:
        """Starts attempts one after the other, so that each begins to wait."""
        for each in who:
            self.tasks.append(asyncio.create_task(self._one(each, known)))
            await asyncio.sleep(0)

    def refused(self) -> list[int]:
        """Returns the numbers of the attempts that were refused so far."""
        return [number for number, task in enumerate(self.tasks) if task.done() and task.exception()]

    async def all_served(self) -> list[str]:
        """Releases the thread; returns the order of the attempts that were not refused."""
        self._ends.set()
        outcomes = await asyncio.gather(*self.tasks, return_exceptions=True)
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert all(isinstance(each, ResourceExhausted | asyncio.CancelledError) for each in refused)
        return self.served[1:]

    async def _one(self, who: str, known: bool) -> None:
        async with self.passwords.turn(who, known=known):
            self.served.append(who)
            if len(self.served) == 1:
                await self._ends.wait()
            # Like a hash, this takes longer than the other attempts need to move up.
            for _ in range(5):
                await asyncio.sleep(0)


async def test_turns_rotate_among_the_waiting_callers() -> None:
    line = Line()
    await line.come("holder", *["flood"] * 6, "anna", "ben", "anna")
    assert await line.all_served() == ["flood", "anna", "ben", "flood", "anna", *["flood"] * 4]


async def test_known_attempts_get_every_other_turn() -> None:
    line = Line()
    await line.come("holder", "s1", "s2", "s3", "s4", "s5")
    await line.come("k1", "k2", "k3", known=True)
    served = await line.all_served()
    assert sorted(served) == ["k1", "k2", "k3", "s1", "s2", "s3", "s4", "s5"]
    assert [each[0] for each in served[:6]] in (["k", "s"] * 3, ["s", "k"] * 3)


async def test_unknown_attempts_never_get_the_last_thread() -> None:
    passwords = Passwords(threads=2)
    async with passwords.turn("stranger"):
        other = asyncio.create_task(_once(passwords, "another stranger"))
        await asyncio.sleep(0)
        assert not other.done()
        async with within(5.0), passwords.turn("anna", known=True):
            pass
        assert not other.done()
    async with within(5.0):
        await other
        async with passwords.turn("anna", known=True), passwords.turn("ben", known=True):
            third = asyncio.create_task(_once(passwords, "stranger"))
            await asyncio.sleep(0)
        await third


async def _once(passwords: Passwords, who: str) -> None:
    async with passwords.turn(who):
        pass


async def test_unknown_attempts_leave_half_of_the_queue_to_known_ones() -> None:
    line = Line(longest_queue=4)
    await line.come("holder", "s1", "s2", "s3")
    # Two attempts wait in the queue; the third one finds it full.
    assert line.refused() == [3]
    await line.come("k1", "k2", known=True)
    assert line.refused() == [3]
    assert sorted(await line.all_served()) == ["k1", "k2", "s1", "s2"]


async def test_cancelled_attempts_do_not_lose_threads() -> None:
    line = Line()
    await line.come("holder", "anna", "ben", "cleo")
    await cancel_and_wait(line.tasks[2])
    # Also an attempt that gets a thread in the moment in which it is cancelled.
    line._ends.set()
    await cancel_and_wait(line.tasks[0], line.tasks[1])
    assert "cleo" in await line.all_served()
    async with within(5.0), line.passwords.turn("dora"):
        pass


def test_failures_of_an_address_are_limited_and_the_budget_refills() -> None:
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


def test_correct_passwords_use_up_no_budget() -> None:
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
def test_addresses_are_grouped(address: str, group: str) -> None:
    assert address_group(address) == group
