"""`poll_until` polls until its condition is met, and deadlines grow with the setting."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import hypothesis
import pytest

from tests import waiting
from tests.virtual_time import pass_time, virtual_time
from tests.waiting import patient, poll_until, runs_out, within

pytestmark = pytest.mark.full


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduces deadlines to a hundredth."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.01)


async def test_the_polled_value_is_returned_once_it_meets_the_condition() -> None:
    numbers = iter(range(10))

    async def look() -> int:
        return next(numbers)

    assert await poll_until(look, lambda number: number > 3) == 4
    assert await poll_until(look) == 5


@pytest.mark.usefixtures("hasty")
async def test_a_condition_that_is_never_met_fails_with_the_last_value() -> None:
    async def look() -> str:
        return "not yet"

    with pytest.raises(
        AssertionError, match=r"the end did not come true within 0\.05 s; last seen: 'not yet'"
    ):
        await poll_until(look, lambda seen: seen == "now", seconds=5.0, what="the end")


@pytest.mark.usefixtures("hasty")
async def test_a_poll_that_does_not_return_fails() -> None:
    with pytest.raises(AssertionError, match="no look returned"):
        await poll_until(asyncio.get_running_loop().create_future, seconds=5.0)


async def test_an_error_of_a_poll_is_raised_in_the_test() -> None:
    async def look() -> bool:
        raise TimeoutError("of a call")

    with pytest.raises(TimeoutError, match="of a call"):
        await poll_until(look)

    async def fails() -> bool:
        raise ValueError

    with pytest.raises(ValueError):
        await poll_until(fails)


async def test_a_wake_up_is_followed_by_a_poll() -> None:
    """A state that is shorter than a pause is also seen."""
    states: Iterator[str] = iter(["a", "b", "c"])
    state = next(states)

    async def look() -> str:
        return state

    async def change() -> None:
        nonlocal state
        state = next(states)

    assert await poll_until(look, lambda seen: seen == "b", woken_by=change) == "b"


@virtual_time
async def test_a_slow_poll_is_followed_by_an_equally_long_pause() -> None:
    times: list[float] = []

    async def look() -> int:
        times.append(asyncio.get_running_loop().time())
        await pass_time(0.4)
        return len(times)

    await poll_until(look, lambda looks: looks == 3)
    assert [each - times[0] for each in times] == pytest.approx([0.0, 0.8, 1.6])


async def test_deadlines_grow_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE", 3.0)
    # More than this test may take, so that the test's own limit does not apply.
    monkeypatch.setattr(waiting, "_limit", math.inf)
    assert patient(2.0) == 6.0
    assert runs_out(2.0) == 2.0
    now = asyncio.get_running_loop().time()
    async with within(1000.0) as deadline:
        assert (deadline.when() or 0) >= now + 3000.0


async def test_a_wait_ends_within_the_limit_of_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_limit", waiting._limit)
    monkeypatch.setattr(waiting, "_SHORTEST_DEADLINE_SECONDS", 0.05)
    waiting.set_limit(0.0)
    assert patient(1000.0) == 0.05

    async def look() -> bool:
        return False

    with pytest.raises(AssertionError, match="the end did not come true"):
        await poll_until(look, what="the end", seconds=1000.0)
    waiting.set_limit(math.inf)
    assert patient(1000.0) == 1000.0 * waiting.PATIENCE


def test_no_hypothesis_example_fails_because_of_its_duration() -> None:
    used = hypothesis.settings.default
    assert used is not None
    assert used.deadline is None
    # Only the check that depends on time is suppressed.
    assert used.suppress_health_check == (hypothesis.HealthCheck.too_slow,)
