"""One stream for all nouns: the current state, SYNCED, then every change in commit order.

The snapshot is read in one repeatable-read transaction, which also reads the stream head, so the state and
the revision at which changes begin belong to the same moment. After that the watch has a position in the
hub's ring (see `watch.hub`); where the ring no longer holds what comes next, it reads it from the database.
Each event is checked against the caller's present grants and the filter; an object that no longer matches
is told as DELETED. Where a watch covers all namespaces that the caller sees and these become others, it ends:
what it has told is no longer the state that the caller would be shown. The snapshot is held as bytes and sent
after its transaction has ended, so a reader that stalls holds no connection. The resource inside an answer was
serialised once, at commit: an answer is put together from ready bytes.

Errors a watcher may see, and the next move: OUT_OF_RANGE (WATCH_HORIZON, WATCH_CHANGED): watch anew without a
token.
INVALID_ARGUMENT (RESUME_TOKEN): the token is not of this watch. RESOURCE_EXHAUSTED (SLOW_CONSUMER): resume
with the `resume_token` of its metadata. UNAVAILABLE (SHUTTING_DOWN): resume on another replica.
PERMISSION_DENIED (PERMISSION_REVOKED): the right to it is gone; there is nothing to resume.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from google.protobuf.message import Message

from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.rpc.call import Call, too_slow
from pilothouse_server.store.feed import Feed, FeedEvent, stream_head
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.watch import resume_token
from pilothouse_server.watch.hub import Hub

DEFAULT_BOOKMARK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """What a watch is about: one type of resource, or several whose events hold the same message.

    Empty fields match everything; `text` binds resume tokens to it.
    """

    resource_type: str | frozenset[str]
    namespace_id: int | None = None
    name: str = ""
    selector: LabelSelector | None = None
    status: str = ""
    text: str = ""

    def concerns(self, resource_type: str) -> bool:
        """Whether the watch is about this type."""
        if isinstance(self.resource_type, str):
            return resource_type == self.resource_type
        return resource_type in self.resource_type

    def matches(self, event: FeedEvent) -> bool:
        """Whether the object matches after the change."""
        return (not self.status or event.status == self.status) and (
            self.selector is None or self.selector.matches(event.labels)
        )

    def matched_before(self, event: FeedEvent) -> bool:
        """Whether it matched before the change."""
        if event.labels_before is None and event.status_before is None:
            return event.kind != "added"
        return (not self.status or event.status_before == self.status) and (
            self.selector is None or self.selector.matches(event.labels_before or {})
        )


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Bounds of every watch, from the settings."""

    lag_events: int = 10_000


@dataclass(frozen=True, slots=True)
class WatchServer:
    """What every watch of this server shares."""

    feed: Feed
    hub: Hub
    key: bytes
    limits: WatchLimits = field(default_factory=WatchLimits)


Snapshot = Callable[[ReadTransaction], AsyncIterator[Message]]


async def watch(
    server: WatchServer,
    call: Call,
    wanted: WatchFilter,
    *,
    snapshot: Snapshot,
    answer: Callable[..., Message],
    noun: str,
) -> AsyncIterator[bytes]:
    """The answers of a watch as serialised bytes.

    `snapshot` yields the resources that match now, as the caller sees them; `answer` is the response class
    and `noun` its field of the resource, which must be field 2, with `change_type` 1, `revision` 3 and
    `resume_token` 4. The request has `resume_token` and `bookmark_period_seconds`.
    """
    request = call.request
    hub = server.hub
    current: deque[bytes] = deque()
    visible = call.visible_namespaces()
    async with call.read(snapshot=True) as transaction:
        head = await stream_head(transaction)
        tokens = resume_token.issuer(
            server.key,
            user_id=call.user_id,
            method=call.method,
            filter_text=wanted.text,
            history=head.history,
            sight="" if wanted.namespace_id is not None else _sight_text(visible),
        )
        if request.resume_token:
            position = resume_token.read(request.resume_token, tokens, oldest_revision=head.oldest_revision)
            if position < head.oldest_revision - 1 or position > head.revision:
                raise resume_token.horizon(head.oldest_revision)
        else:
            position = head.revision
            async for entity in snapshot(transaction):
                current.append(
                    answer(change_type=resource.CHANGE_TYPE_ADDED, **{noun: entity}).SerializeToString()
                )
    while current:
        yield current.popleft()
    call.resume_token = tokens.token(position)
    if not request.resume_token:
        yield _marker(resource.CHANGE_TYPE_SYNCED, position, call.resume_token)

    period = float(request.bookmark_period_seconds or DEFAULT_BOOKMARK_SECONDS)
    loop = asyncio.get_running_loop()
    last_sent = loop.time()
    caught_up = False
    while True:
        behind = await hub.beyond(position, max(0.0, last_sent + period - loop.time()))
        if hub.history != head.history:
            raise resume_token.changed(await server.feed.horizon())
        if wanted.namespace_id is None and call.visible_namespaces() != visible:
            raise resume_token.changed(head.oldest_revision)
        if not behind:
            if loop.time() - last_sent >= period:
                call.resume_token = tokens.token(position)
                yield _marker(resource.CHANGE_TYPE_BOOKMARK, position, call.resume_token)
                last_sent, caught_up = loop.time(), True
            continue
        events = hub.since(position)
        if events is None:
            if caught_up and hub.newest - position > server.limits.lag_events:
                raise too_slow(tokens.token(position))
            events = await server.feed.read(position)
            if not events or events[0].revision != position + 1:
                raise resume_token.horizon(await server.feed.horizon())
        else:
            caught_up = True
        # Every revision is one event, so the last one read is where the watch stands.
        for event in events:
            sight = call.visible_namespaces()
            if sight != visible and wanted.namespace_id is None:
                raise resume_token.changed(head.oldest_revision)
            change = _change(event, wanted, sight)
            if change is not None:
                call.resume_token = tokens.token(event.revision)
                yield _serialised(change, event, call.resume_token)
                last_sent = loop.time()
            position = event.revision


def _sight_text(visible: frozenset[int] | None) -> str:
    return "all" if visible is None else ",".join(map(str, sorted(visible)))


def _change(event: FeedEvent, wanted: WatchFilter, visible: frozenset[int] | None) -> int | None:
    """What the watcher is told of an event; None if it is none of its business."""
    if not wanted.concerns(event.resource_type):
        return None
    if wanted.namespace_id is not None and event.namespace_id != wanted.namespace_id:
        return None
    if wanted.name and event.name != wanted.name:
        return None
    if visible is not None and event.namespace_id not in visible:
        return None
    now, before = event.kind != "deleted" and wanted.matches(event), wanted.matched_before(event)
    if event.kind == "deleted":
        return resource.CHANGE_TYPE_DELETED if before else None
    if now:
        return (
            resource.CHANGE_TYPE_MODIFIED
            if before and event.kind == "modified"
            else resource.CHANGE_TYPE_ADDED
        )
    return resource.CHANGE_TYPE_DELETED if before and event.kind == "modified" else None


def _serialised(change: int, event: FeedEvent, token: str) -> bytes:
    """An answer from ready bytes: fields 1 (enum), 2 (message), 3 (int64), 4 (string)."""
    return b"".join(
        (
            b"\x08",
            _varint(change),
            b"\x12",
            _varint(len(event.message)),
            event.message,
            b"\x18",
            _varint(event.revision),
            b"\x22",
            _varint(len(token)),
            token.encode(),
        )
    )


def _marker(change: int, revision: int, token: str) -> bytes:
    parts = [b"\x08", _varint(change)]
    if revision:
        parts += [b"\x18", _varint(revision)]
    return b"".join((*parts, b"\x22", _varint(len(token)), token.encode()))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append((value & 0x7F) | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
