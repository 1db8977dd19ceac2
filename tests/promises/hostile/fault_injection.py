"""`pilothouse` without one of its bounds: `python -m … NAME serve`.

The campaign's controls run it. Each function injects one fault, only into this process, and the campaign must
find each fault (`test_controls.py`). Other modules with such functions also end with `run(INJECTED_FAULTS)`.
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
    """Blocks the event loop for twenty milliseconds for each refused call.

    A faster machine is blocked as long.
    """
    _before_each(lambda _call: _NEVER.wait(0.02))


def strangers_fill_the_memory() -> None:
    """Leaks 200 KB for each refused call."""
    _before_each(lambda _call: _kept.append(bytearray(b"x" * 200_000)))


def strangers_fill_the_output() -> None:
    """Writes 10 KB of log for each refused call."""
    _before_each(lambda _call: sys.stdout.write("x" * 10_000 + "\n"))


def _before_each(act: Callable[[Any], object]) -> None:
    """Calls `act` at each call of `WhoAmI` without a token.

    The calls of bystanders have a token.
    """
    intercept = Pipeline.intercept_service

    async def acting(self: Pipeline, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        names = {name for name, _ in details.invocation_metadata or ()}
        if details.method == _METHOD and "authorization" not in names:
            act(details)
        return await intercept(self, continuation, details)

    Pipeline.intercept_service = acting  # type: ignore[assignment, method-assign]


INJECTED_FAULTS = {
    made.__name__: made
    for made in (strangers_hold_the_loop, strangers_fill_the_memory, strangers_fill_the_output)
}


def run(injected: Mapping[str, Callable[[], None]]) -> None:
    """Injects the fault that the first argument names.

    Then it runs the command with the remaining arguments.
    """
    injected[sys.argv.pop(1)]()
    command()


if __name__ == "__main__":
    run(INJECTED_FAULTS)
