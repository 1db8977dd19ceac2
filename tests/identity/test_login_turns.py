"""Turns within one address: by name, limited in number, and removed when they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.identity.credentials.login_turns import LoginTurns, Whose
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.virtual_time import pass_time, virtual_time

WAIT_SECONDS = 5.0


class Hashes:
    """Replaces `Passwords`: a hash takes a tenth of a second, or never ends."""

    def __init__(self, *, hang: bool = False) -> None:
        self.hang = hang
        self.at_once = self.most_at_once = 0

    @asynccontextmanager
    async def turn(self, _who: str, *, known: bool) -> AsyncIterator[None]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hang and not known:
                await asyncio.Event().wait()
            await pass_time(0.1)
            yield
        finally:
            self.at_once -= 1


class Line:
    """Login attempts at one address, and their outcomes in the order of completion."""

    def __init__(self, *, failures: int = 1000, hang: bool = False) -> None:
        self.hashes = Hashes(hang=hang)
        clock = asyncio.get_running_loop().time
        self.turns = LoginTurns(
            cast("Any", self.hashes), FailureBudgets(failures, clock=clock), wait_seconds=WAIT_SECONDS
        )
        self.ended: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, *names: str, known: bool = False) -> None:
        for name in names:
            self.tasks.append(asyncio.create_task(self._one(name, known)))
            await asyncio.sleep(0)

    async def all(self) -> list[str]:
        await asyncio.gather(*self.tasks)
        return self.ended

    async def _one(self, name: str, known: bool) -> None:
        try:
            async with self.turns.turn(Whose("192.0.2.1", name, known)):
                self.ended.append(name)
        except ResourceExhausted as refusal:
            self.ended.append(f"{name} {refusal.reason}")


@virtual_time
async def test_names_take_turns_regardless_of_their_attempts() -> None:
    line = Line()
    await line.come(*["victim"] * 20, "anna", "ben")
    assert set((await line.all())[:4]) == {"victim", "anna", "ben"}
    assert line.hashes.most_at_once == 2
    assert line.turns._of_addresses == {}


@virtual_time
async def test_names_take_turns_when_an_empty_budget_refills() -> None:
    line = Line(failures=2)
    await line.come(*["victim"] * 30, "anna")
    ended = await line.all()
    assert "anna" in ended[:5]
    # The other attempts wait in vain, and get the reason.
    assert ended.count("victim LOGIN_LIMITED") >= 15


@virtual_time
async def test_known_names_do_not_wait_for_others_of_their_address() -> None:
    line = Line(failures=1, hang=True)
    await line.come(*(f"invented{number}" for number in range(100)))
    await line.come("anna", "ben", known=True)
    await pass_time(0.2)
    assert [ended for ended in line.ended if "invented" not in ended] == ["anna", "ben"]
    await cancel_and_wait(*line.tasks)
    assert line.turns._of_addresses == {}


@virtual_time
async def test_waiting_names_are_limited_and_the_most_frequent_is_refused() -> None:
    line = Line(hang=True)
    await line.come(*["victim"] * 80)
    assert line.ended == ["victim LOGIN_BUSY"] * 15
    await line.come("anna")
    await asyncio.sleep(0)
    assert line.ended == ["victim LOGIN_BUSY"] * 15
    await line.come(*(f"invented{number}" for number in range(100)))
    await asyncio.sleep(0)
    # Two attempts are verified, and 64 wait.
    assert len(line.ended) == 80 + 1 + 100 - 2 - 64
    assert "anna LOGIN_BUSY" not in line.ended
    await cancel_and_wait(*line.tasks)


@pytest.mark.parametrize("known", [True, False])
@virtual_time
async def test_concurrent_lookups_of_an_address_are_limited(known: bool) -> None:
    line = Line()
    hung = asyncio.Event()

    async def look() -> bool:
        await hung.wait()
        return known

    looks = [asyncio.create_task(line.turns.look("192.0.2.1", look)) for _ in range(600)]
    await pass_time(0.1)
    refused = [task.exception() for task in looks if task.done()]
    assert len(refused) == 600 - 2 - 500
    assert {cast("ResourceExhausted", each).reason for each in refused} == {"LOGIN_BUSY"}
    # Another address has its own limit.
    other = asyncio.create_task(line.turns.look("192.0.2.2", look))
    await pass_time(0.1)
    hung.set()
    assert await other is known
    assert await looks[0] is known
    await cancel_and_wait(*looks)
