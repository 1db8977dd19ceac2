"""`pilothouse` with a bound taken away, for controls of the campaign: `python -m … NAME serve`.

Each function breaks one thing, in this process alone; the campaign must find each (`test_controls.py`). Another
module with further ones ends with `run(SABOTAGES)` as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

import grpc.aio

from pilothouse_client.cli import main as command
from pilothouse_server.rpc.pipeline import Pipeline

_NEVER = Event()
_kept: list[bytearray] = []
_METHOD = "/pilothouse.identity.v1.IdentityService/WhoAmI"


def strangers_hold_the_loop() -> None:
    """A refused caller costs everybody twenty milliseconds, on a fast machine as well."""
    _before_each(lambda _call: _NEVER.wait(0.02))


def strangers_fill_the_memory() -> None:
    """A refused caller leaves 200 KB."""
    _before_each(lambda _call: _kept.append(bytearray(b"x" * 200_000)))


def strangers_fill_the_output() -> None:
    """A refused caller leaves 10 KB of log."""
    _before_each(lambda _call: sys.stdout.write("x" * 10_000 + "\n"))


def _before_each(act: Callable[[Any], object]) -> None:
    """Acts at each call of `WhoAmI` that has no token, as bystanders' calls have one."""
    intercept = Pipeline.intercept_service

    async def acting(self: Pipeline, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        names = {name for name, _ in details.invocation_metadata or ()}
        if details.method == _METHOD and "authorization" not in names:
            act(details)
        return await intercept(self, continuation, details)

    Pipeline.intercept_service = acting  # type: ignore[assignment, method-assign]


SABOTAGES = {
    made.__name__: made
    for made in (strangers_hold_the_loop, strangers_fill_the_memory, strangers_fill_the_output)
}


def run(sabotages: Mapping[str, Callable[[], None]]) -> None:
    """Breaks the bound that the first word names, and runs the command with the others."""
    sabotages[sys.argv.pop(1)]()
    command()


if __name__ == "__main__":
    run(SABOTAGES)
