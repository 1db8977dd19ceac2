"""`pilothouse` with injected faults: `python -m … NAME,NAME serve`.

The controls of the watch checker run it. Each function injects one fault, only into this process. The checker
must find each of them (`tests/promises/watches/test_controls.py`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_client.cli import main as command
from pilothouse_server.rpc import watch
from pilothouse_server.rpc.watched import Watched, WatchFilter, WatchServer
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.watch import resume_token
from pilothouse_server.watch.hub import Hub


def hub_drops_an_event() -> None:
    """Hides one event in ten from watchers.

    Its place in the ring has an event that concerns no watch.
    """
    publish = Hub.publish

    def forgetful(self: Hub, events: Sequence[FeedEvent], newest: int) -> None:
        publish(self, [nobodys(event) if event.revision % 10 == 0 else event for event in events], newest)

    Hub.publish = forgetful  # type: ignore[method-assign]


def nobodys(event: FeedEvent) -> FeedEvent:
    """Returns an event for the same place in the ring that concerns no watch."""
    values = {name: getattr(event, name) for name in FeedEvent.__slots__}
    return FeedEvent(**{**values, "resource_type": "nobody's"})


def feed_publishes_out_of_order() -> None:
    """Swaps the last two events of each batch that a watch reads from the ring."""
    since = Hub.since

    def careless(self: Hub, revision: int) -> list[FeedEvent] | None:
        found = since(self, revision)
        return found and [*found[:-2], *reversed(found[-2:])]

    Hub.since = careless  # type: ignore[method-assign]


def synced_comes_before_the_state() -> None:
    """Sends SYNCED before the first state."""
    follow = watch.watch
    # The beginning of a SYNCED message: field 1 of the response.
    synced = bytes((0x08, resource.CHANGE_TYPE_SYNCED))

    async def early(server: WatchServer, call: Any, watched: Watched) -> AsyncIterator[bytes]:
        held: list[bytes] | None = None if call.request.resume_token else []
        async for answer in follow(server, call, watched):
            if held is None:
                yield answer
            elif answer.startswith(synced):
                yield answer
                for each in held:
                    yield each
                held = None
            else:
                held.append(answer)

    for noun in ("containers", "config"):
        service = importlib.import_module(f"pilothouse_server.{noun}.service")
        service.watch = early  # type: ignore[attr-defined]


def a_scope_misses_an_event() -> None:
    """Hides one event in ten from watches of several nouns."""
    shown = watch._Changes._shown

    def forgetful(self: watch._Changes, event: FeedEvent, reloaded: Any) -> list[Any]:
        missed = event.revision % 10 == 0 and self._scopes[0].path
        return [] if missed else shown(self, event, reloaded)

    watch._Changes._shown = forgetful  # type: ignore[method-assign]


def leaving_is_not_told() -> None:
    """Sends nothing when an object no longer matches a filter."""
    change = watch._change

    def silent(event: FeedEvent, wanted: WatchFilter, visible: frozenset[int] | None) -> int | None:
        left = event.kind != "deleted" and not wanted.matches(event)
        return None if left else change(event, wanted, visible)

    watch._change = silent


def who_is_behind_skips() -> None:
    """Lets a watch behind the ring continue with the ring's events."""
    since = Hub.since

    def over(self: Hub, revision: int) -> list[FeedEvent] | None:
        found = since(self, revision)
        return [event for event in self._ring if event.revision > revision] if found is None else found

    Hub.since = over  # type: ignore[method-assign]


def below_the_horizon_goes_on() -> None:
    """Accepts a token at any position, and leaves the removed events out.

    The product has two checks against this.
    """

    async def unchecked(*_arguments: Any) -> None:
        return

    async def over_the_gap(self: watch._Changes) -> Sequence[FeedEvent]:
        found = self._server.hub.since(self._revision)
        return await self._server.feed.read(self._revision) if found is None else found

    watch._check_position = unchecked  # type: ignore[assignment]
    watch._Changes._events = over_the_gap  # type: ignore[method-assign]


def a_namespace_ends_in_silence() -> None:
    """Leaves a watch of a deleted namespace open without further messages."""

    def silent(self: watch._Changes, event: FeedEvent) -> None:
        return

    watch._Changes._end_with_namespace = silent  # type: ignore[method-assign]


def another_history_goes_on() -> None:
    """Accepts tokens of every history. The product has two checks against this."""
    make = resume_token.issuer

    def timeless(key: bytes, **values: Any) -> resume_token.TokenIssuer:
        return make(key, **{**values, "history": ""})

    resume_token.issuer = timeless


INJECTED_FAULTS = {
    made.__name__: made
    for made in (
        hub_drops_an_event,
        feed_publishes_out_of_order,
        synced_comes_before_the_state,
        a_scope_misses_an_event,
        leaving_is_not_told,
        who_is_behind_skips,
        below_the_horizon_goes_on,
        a_namespace_ends_in_silence,
        another_history_goes_on,
    )
}


def main() -> None:
    """Injects the faults that the first argument names.

    Then it runs the command with the remaining arguments.
    """
    for name in sys.argv.pop(1).split(","):
        INJECTED_FAULTS[name]()
    command()


if __name__ == "__main__":
    main()
