"""`pilothouse` with something broken in it, for controls of the watch checker: `python -m … NAME,NAME serve`.

Each function breaks one thing, in this process alone. The checker must find each of them
(`tests/promises/watches/test_controls.py`).
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
    """One event in ten does not reach the watchers: its place in the ring holds one that concerns nobody."""
    publish = Hub.publish

    def forgetful(self: Hub, events: Sequence[FeedEvent], newest: int) -> None:
        publish(self, [nobodys(event) if event.revision % 10 == 0 else event for event in events], newest)

    Hub.publish = forgetful  # type: ignore[method-assign]


def nobodys(event: FeedEvent) -> FeedEvent:
    """The same place in the ring, for an event that concerns nobody."""
    values = {name: getattr(event, name) for name in FeedEvent.__slots__}
    return FeedEvent(**{**values, "resource_type": "nobody's"})


def feed_publishes_out_of_order() -> None:
    """Two events that were numbered together change places."""
    since = Hub.since

    def careless(self: Hub, revision: int) -> list[FeedEvent] | None:
        found = since(self, revision)
        return found and [*found[:-2], *reversed(found[-2:])]

    Hub.since = careless  # type: ignore[method-assign]


def synced_comes_before_the_state() -> None:
    """A watch sends SYNCED before it has sent its first state."""
    follow = watch.watch
    # Field 1 of the answer.
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
    """One event in ten is not shown by watches of several nouns."""
    shown = watch._Changes._shown

    def forgetful(self: watch._Changes, event: FeedEvent, reloaded: Any) -> list[Any]:
        missed = event.revision % 10 == 0 and self._scopes[0].path
        return [] if missed else shown(self, event, reloaded)

    watch._Changes._shown = forgetful  # type: ignore[method-assign]


def leaving_is_not_told() -> None:
    """An object that no longer matches a filter is silently skipped."""
    change = watch._change

    def silent(event: FeedEvent, wanted: WatchFilter, visible: frozenset[int] | None) -> int | None:
        left = event.kind != "deleted" and not wanted.matches(event)
        return None if left else change(event, wanted, visible)

    watch._change = silent


def who_is_behind_skips() -> None:
    """A watch behind the ring continues with the ring's events."""
    since = Hub.since

    def over(self: Hub, revision: int) -> list[FeedEvent] | None:
        found = since(self, revision)
        return [event for event in self._ring if event.revision > revision] if found is None else found

    Hub.since = over  # type: ignore[method-assign]


def below_the_horizon_goes_on() -> None:
    """A token is accepted at any position, and the removed events are left out. Two checks forbid it."""

    async def unchecked(*_arguments: Any) -> None:
        return

    async def over_the_gap(self: watch._Changes) -> Sequence[FeedEvent]:
        found = self._server.hub.since(self._revision)
        return await self._server.feed.read(self._revision) if found is None else found

    watch._check_position = unchecked  # type: ignore[assignment]
    watch._Changes._events = over_the_gap  # type: ignore[method-assign]


def a_namespace_ends_in_silence() -> None:
    """A watch whose namespace is gone stays open, and says nothing any more."""

    def silent(self: watch._Changes, event: FeedEvent) -> None:
        return

    watch._Changes._end_with_namespace = silent  # type: ignore[method-assign]


def another_history_goes_on() -> None:
    """Tokens of every history are accepted. Two checks forbid it."""
    make = resume_token.issuer

    def timeless(key: bytes, **values: Any) -> resume_token.TokenIssuer:
        return make(key, **{**values, "history": ""})

    resume_token.issuer = timeless


SABOTAGES = {
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
    """Breaks the functions that the first word names, and runs the command with the other words."""
    for name in sys.argv.pop(1).split(","):
        SABOTAGES[name]()
    command()


if __name__ == "__main__":
    main()
