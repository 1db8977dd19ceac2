"""`server_time` of a response: all earlier commits have been sent, even if more responses are pending."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.rpc.watch import Scope, _Changes
from pilothouse_server.rpc.watched import Watched, WatchFilter
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.watch.hub import Hub
from pilothouse_server.watch.resume_token import Position
from tests.virtual_time import virtual_time
from tests.waiting import within

BEGIN = datetime(2026, 11, 24, 14, 30, tzinfo=UTC)
HISTORY = "00000000-0000-4000-8000-000000000001"


def event(revision: int) -> FeedEvent:
    message = pb.Container(name="web").SerializeToString()
    return FeedEvent(revision, "container", 1, "web", "modified", message, {}, "running", {}, "running")


@virtual_time
async def test_server_time_advances_when_all_published_events_are_sent() -> None:
    hub = Hub(16)
    hub.begin(0, 0, HISTORY)
    feed = SimpleNamespace(complete_until=BEGIN)
    tokens: Any = SimpleNamespace(token_at=lambda *_: "token")
    caller = SimpleNamespace(namespaces_with=lambda _: None)
    call: Any = SimpleNamespace(caller=caller, resume_token="", complete=False)
    server: Any = SimpleNamespace(hub=hub, feed=feed, limits=SimpleNamespace(lag_events=100))
    head: Any = SimpleNamespace(history=HISTORY, oldest_revision=1)
    nothing: Any = None
    scope = Scope(
        watched=Watched("container", nothing, pb.Container),
        wanted=WatchFilter("container"),
        permission="container.watch",
        method="",
    )
    changes = _Changes(server, call, (scope,), tokens, head, Position(0, bytes(8), ()), BEGIN)
    seen = []
    async with within(20):
        # The second event is pending when the first one is sent: changes committed in between are not sent yet.
        feed.complete_until = BEGIN + timedelta(seconds=5)
        hub.publish([event(1), event(2)], 2)
        async for answer in changes.answers(1.0):
            read = pb.WatchContainersResponse.FromString(answer)
            seen.append((read.change_type, (read.server_time.ToDatetime(UTC) - BEGIN).total_seconds()))
            if len(seen) == 3:
                feed.complete_until = BEGIN + timedelta(seconds=9)
                hub.publish([event(3)], 3)
            if len(seen) == 5:
                break
    modified, bookmark = resource.CHANGE_TYPE_MODIFIED, resource.CHANGE_TYPE_BOOKMARK
    assert seen == [(modified, 0), (modified, 0), (bookmark, 5), (modified, 5), (bookmark, 9)]
