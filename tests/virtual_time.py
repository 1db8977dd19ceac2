"""Tests in virtual time: waiting costs nothing, and the load of the machine changes nothing.

The loop of such a test has its own clock. The clock stands still while the loop has anything to do, and jumps to the
next timer when it has nothing. A recording of half a minute is replayed at its own pace in a fraction of a second,
and a step of a controller never comes too late for the request that was sent after it.

Virtual time requires that everything happens in this process: a cluster and its clients on one loop. If another
process takes part (kubectl), the test must use real time.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec

Parameters = ParamSpec("Parameters")

# It may take a moment until bytes that were written to a socket make its other end readable.
_SETTLE_SECONDS = 0.001
# A loaded machine gets more time before a long jump, because the jump would put everything past its deadline.
_LONG_JUMP_SECONDS = 0.5
_LONG_SETTLE_SECONDS = 0.025
_STUCK_SECONDS = 60.0


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the loop's time to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._moved = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = super().select(_STUCK_SECONDS)
            if not ready:
                raise RuntimeError("nothing is due and nothing comes: this test waits for ever")
            return ready
        ready = super().select(0)
        if ready or timeout <= 0:
            if time.monotonic() - self._moved > _STUCK_SECONDS:
                raise RuntimeError(
                    "time stands still: this test polls without a pause, or works for too long"
                )
            return ready
        ready = super().select(_LONG_SETTLE_SECONDS if timeout > _LONG_JUMP_SECONDS else _SETTLE_SECONDS)
        if not ready:
            self.now += timeout
            self._moved = time.monotonic()
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while it has nothing to do."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def pass_at_once(self, seconds: float) -> None:
        """Advances the clock in one step (see `hold_up`)."""
        self._jumping.now += seconds


async def pass_time(seconds: float) -> None:
    """Lets virtual time pass. Fails on a loop of real time: there, a test must wait for a condition."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "time is real here: wait for a condition, with a deadline"
    passed = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    await passed


def hold_up(seconds: float) -> None:
    """Lets virtual time pass in one step, as if a callback had blocked the loop: due timers run late."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "time is real here"
    loop.pass_at_once(seconds)


def virtual_time(test: Callable[Parameters, Awaitable[None]]) -> Callable[Parameters, None]:
    """Decorates a coroutine function so that it runs as a test in virtual time."""

    @functools.wraps(test)
    def run(*arguments: Parameters.args, **named: Parameters.kwargs) -> None:
        async def whole() -> None:
            await test(*arguments, **named)

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(whole())

    return run
