"""One stream for all nouns: the current state, SYNCED, then every change in commit order.

The snapshot is read in one repeatable-read transaction, which also reads the stream head. So the state and the
revision at which changes begin belong to the same moment. The transaction also reads which changes are committed but
not yet numbered. Their effects are already in the snapshot, so the watch skips their events when they follow; a watch
that resumes from its token skips them, too. After the snapshot the watch has a position in the hub's ring (see
`watch.hub`). If the ring no longer contains the next events, the watch reads them from the database. Each event is
checked against the caller's present grants and the filter; an object that no longer matches is reported as DELETED. A
watch over all visible namespaces ends when that set changes, because the state that it has sent is no longer the state
that the caller may see. The snapshot is sent while it is read, through a bounded buffer (see `first_state`); a reader
that stalls occupies its database connection for seconds only. The resource in a response was serialized once, at
commit; each response is assembled from serialized bytes.

A watch of a namespace ends when the namespace is deleted: its resources are reported as DELETED, then the watch fails
with NOT_FOUND. From then on its tokens fail with OUT_OF_RANGE, even if a new namespace has the same name. A caller
whose grant was deleted with the namespace gets NOT_FOUND for the token, as for anything in a namespace that the caller
cannot see.

A watch of several nouns (one `Scope` each) has one position for all of them. When such a watch resumes, some of its
scopes may begin with their current state. That state is newer than the token, so these scopes are not sent events up to
that state. SYNCED, with the first new token, follows when the other scopes have caught up with it. The same happens if
scopes continue lists that were read at different times. If a change concerns several scopes, only the last of its
responses has a token, so that a resume repeats all of these responses or none. Errors of one scope name it
(`scopes[2]`).

Errors that a watcher may get, and the next step: OUT_OF_RANGE (WATCH_HORIZON, WATCH_CHANGED): begin a new watch
without a token. NOT_FOUND: the namespace is deleted; there is nothing to resume. INVALID_ARGUMENT
(RESUME_TOKEN): the token does not belong to this watch. RESOURCE_EXHAUSTED (SLOW_CONSUMER): resume with the
`resume_token` of its metadata; without a token, as before SYNCED, begin a new watch. UNAVAILABLE (SHUTTING_DOWN):
resume on another replica. PERMISSION_DENIED (PERMISSION_REVOKED): the permission was revoked; there is nothing
to resume.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime

from google.protobuf.message import Message

from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.errors import NotFound, PilothouseError, in_field, not_found
from pilothouse_server.rpc import read_mask, watch_answers
from pilothouse_server.rpc.call import Call, too_slow
from pilothouse_server.rpc.encoding import text_field
from pilothouse_server.rpc.first_state import ReadAhead
from pilothouse_server.rpc.read_mask import ReadMask
from pilothouse_server.rpc.watch_answers import Frame, SharedAnswers
from pilothouse_server.rpc.watched import (
    Watched,
    WatchFilter,
    WatchServer,
    filter_of,
    issuer_of,
    sight_text,
)
from pilothouse_server.runtime.event_loop import Share, tick_before
from pilothouse_server.store.feed import MOST_PENDING_IDS, FeedEvent, StreamHead, event_mark, stream_begins
from pilothouse_server.store.unit_of_work import Kind, ReadTransaction
from pilothouse_server.watch import resume_token
from pilothouse_server.watch.resume_token import Position, TokenIssuer

DEFAULT_BOOKMARK_SECONDS = 10.0
# The number of resources whose rest is read in one query. A reader that stalls keeps these in memory.
_COMPLETED_TOGETHER = 16
_ANSWERS = SharedAnswers()
_NO_FRAME = Frame()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A part of a watch: the requested events of one noun that the caller may see by `permission`.

    `method` is the noun's own watch method, or its list method. A scope with `resumes` continues at the position of the
    token. A scope with `list_token` continues at the position of a list whose selection is `list_text`; `place` is that
    position. Any other scope begins with its current state. `path` is the field of the request that the scope comes
    from; '' for a watch of one noun.
    """

    watched: Watched
    wanted: WatchFilter
    permission: str
    method: str
    namespace: str = ""
    mask: ReadMask | None = None
    resumes: bool = False
    path: str = ""
    frame: Frame = _NO_FRAME
    list_token: str = ""
    list_text: str = ""
    place: Position | None = None

    @property
    def begins_with_state(self) -> bool:
        """Whether the first responses for this scope are its current state."""
        return not self.resumes and not self.list_token

    def visible(self, call: Call) -> frozenset[int] | None:
        """Returns the namespaces that the caller may see at present; None: all."""
        return call.caller.namespaces_with(self.permission)

    def masked(self, message: bytes) -> bytes:
        """Returns a resource with the requested fields only."""
        return message if self.mask is None else self.mask.masked(message)

    def error(self, error: PilothouseError) -> PilothouseError:
        """Returns the error of this scope, with the scope's name."""
        return in_field(error, self.path) if self.path else error


# `Issue` returns the issuer of a history's tokens; `Resume` returns the position at which a token continues.
Issue = Callable[[Sequence[Scope], str], TokenIssuer]
Resume = Callable[[TokenIssuer, Sequence[Scope], StreamHead], Position]


@dataclass(frozen=True, slots=True)
class Gate:
    """Withholds events from scopes whose first state, or list, already contains them.

    Those are the events up to the revision of the state or list, and the events with `pending` ids. The state contains
    the changes of the latter, which are numbered up to `until`. After `until` all scopes are at one position.
    """

    after: int
    until: int
    pending: frozenset[int]

    def holds_back(self, scope: Scope, event: FeedEvent) -> bool:
        """Returns whether the scope's state or list already contains this event."""
        if scope.place is not None:
            return event.revision <= scope.place.revision
        return not scope.resumes and (event.revision <= self.after or event.pending_id in self.pending)


# The kind of change of a resource that was read again, and the serialized resource.
_Reloaded = tuple[int, bytes]
_KINDS: Mapping[Kind, int] = {
    "added": resource.CHANGE_TYPE_ADDED,
    "modified": resource.CHANGE_TYPE_MODIFIED,
}
# Where a watch begins: stream head, tokens, position, scopes, and the pending ids that first states contain.
_Begun = tuple[StreamHead, TokenIssuer, Position, Sequence[Scope], tuple[int, ...]]


async def watch(server: WatchServer, call: Call, watched: Watched) -> AsyncIterator[bytes]:
    """Yields the responses of a noun's watch as serialized bytes.

    The request has `name`, `label_selector`, `resume_token` and `bookmark_period_seconds`; `namespace`, `status`,
    `filter` and `read_mask` if the noun has them.
    """
    request = call.request
    fields = request.DESCRIPTOR.fields_by_name
    scope = Scope(
        watched=watched,
        wanted=filter_of(request, watched),
        permission=call.rule.permission,
        method=call.method,
        namespace=request.namespace if "namespace" in fields else "",
        mask=read_mask.of_request(request, watched.message) if "read_mask" in fields else None,
        resumes=bool(request.resume_token),
    )

    def issue(scopes: Sequence[Scope], history: str) -> TokenIssuer:
        (only,) = scopes
        sight = sight_text(only.wanted, only.wanted.visible)
        return issuer_of(server, call, call.method, only.wanted, history, sight)

    def resume(tokens: TokenIssuer, _scopes: Sequence[Scope], head: StreamHead) -> Position:
        return tokens.read(request.resume_token, oldest_revision=head.oldest_revision)

    async with aclosing(follow(server, call, (scope,), issue, resume)) as answers:
        async for answer in answers:
            yield answer


async def follow(
    server: WatchServer, call: Call, scopes: Sequence[Scope], issue: Issue, resume: Resume
) -> AsyncGenerator[bytes, None]:
    """Yields the responses of a watch of `scopes`.

    The call's request has `resume_token` and `bookmark_period_seconds`.
    """
    request = call.request
    # When its caller's permissions change, a waiting watch checks them immediately.
    call.on_renewed = server.hub.wake
    # A watch that resumes reads no state.
    readers = server.readers if any(each.begins_with_state for each in scopes) else server.looks
    # The snapshot is taken after this time is read, so it contains every change committed before the time.
    continues = request.resume_token or any(each.list_token for each in scopes)
    complete_until = None if continues else server.feed.complete_until

    async def read(current: ReadAhead[_Begun]) -> _Begun:
        while True:
            reading = call.read(snapshot=True, timed=False)
            async with readers.seat(call.user_id), reading as transaction:
                begun = await _begin(server, call, scopes, issue, resume, transaction, current)
            if begun is not None:
                return begun
            await server.feed.settled()

    async with ReadAhead(server.limits.first_state, read) as first_state:
        async for answer in first_state.answers():
            yield answer
        head, tokens, position, placed, pending = first_state.result
    # A watch may stay open for long, so it drops the buffer and the task of its first state.
    del first_state
    changes = _Changes(server, call, placed, tokens, head, position, complete_until)
    if not request.resume_token and all(each.begins_with_state for each in placed):
        call.resume_token = tokens.token(position)
        yield watch_answers.marker(
            resource.CHANGE_TYPE_SYNCED, position.revision, call.resume_token, server.feed.complete_until
        )
    elif all(each.resumes for each in placed):
        call.resume_token = tokens.token(position)
    else:
        call.resume_token = request.resume_token
        until = max([each.place.revision for each in placed if each.place is not None], default=0)
        if any(each.begins_with_state for each in placed):
            if pending:
                await server.feed.settled()
            until = max(until, head.revision, server.hub.newest if pending else 0)
        changes.gate = Gate(head.revision, until, frozenset(pending))
    period = float(request.bookmark_period_seconds or DEFAULT_BOOKMARK_SECONDS)
    async with aclosing(changes.answers(period)) as answers:
        async for answer in answers:
            yield answer


async def _begin(
    server: WatchServer,
    call: Call,
    scopes: Sequence[Scope],
    issue: Issue,
    resume: Resume,
    transaction: ReadTransaction,
    current: ReadAhead[_Begun],
) -> _Begun | None:
    """Returns where the watch begins: at its token's position, or at the state that is put into `current`.

    Returns None if too many committed changes are not numbered yet. The caller waits until they are, and begins again.
    """
    head, pending = await stream_begins(transaction)
    placed = [await _placed(server, call, scope, transaction, head) for scope in scopes]
    if len({each.wanted.namespace_id for each in placed}) > 1:
        # The scopes are in different namespaces, so the call's audit record names none.
        call.facts.namespace_id = None
    tokens = issue(placed, head.history)
    if call.request.resume_token:
        position = resume(tokens, placed, head)
        await _check_position(transaction, position, head)
    elif places := [each.place for each in placed if each.place is not None]:
        position = min(places, key=lambda place: place.revision)
    else:
        position = Position(head.revision, head.mark, pending)
        if not tokens.fits(position):
            return None
    fresh = [each for each in placed if each.begins_with_state]
    if fresh and len(pending) > MOST_PENDING_IDS:
        return None
    for scope in fresh:
        await _put_state(call, scope, transaction, current)
    return head, tokens, position, placed, pending


async def _put_state(
    call: Call, scope: Scope, transaction: ReadTransaction, current: ReadAhead[_Begun]
) -> None:
    share, expression = Share(), scope.wanted.expression
    async for entity in scope.watched.resources(transaction, scope.wanted, call):
        message = entity if isinstance(entity, bytes) else entity.SerializeToString()
        if expression is None or expression.matches(message):
            await current.put(watch_answers.added(scope.masked(message), scope.frame))
        await share.used()


async def _check_position(transaction: ReadTransaction, position: Position, head: StreamHead) -> None:
    """Raises OutOfRange if events after the position were removed, or if it belongs to another history."""
    oldest = head.oldest_revision
    if not oldest - 1 <= position.revision <= head.revision:
        raise resume_token.horizon(oldest)
    mark = await event_mark(transaction, position.revision)
    # Revision 0 has no event: it is the position of a watch that began before the first event.
    if mark is None and position.revision >= max(oldest, 1):
        raise resume_token.horizon(oldest)
    if mark is not None and mark != position.mark:
        raise resume_token.changed(oldest)


async def _placed(
    server: WatchServer, call: Call, scope: Scope, transaction: ReadTransaction, head: StreamHead
) -> Scope:
    """Returns the scope with the ids of its namespace and of the namespaces that its caller sees.

    Raises NotFound for a namespace that does not exist; OutOfRange if a token proves that the namespace existed.
    """
    try:
        namespace_id = await server.namespace_id(call, transaction, scope.namespace)
    except NotFound as error:
        if call.request.resume_token and not scope.path:
            # The namespace is deleted, so a token of this watch raises OutOfRange. Other tokens are refused as usual.
            gone = issuer_of(server, call, call.method, scope.wanted, "", "")
            gone.read(call.request.resume_token, oldest_revision=head.oldest_revision)
        raise scope.error(error) from None
    wanted = replace(scope.wanted, namespace_id=namespace_id, visible=scope.visible(call))
    if not scope.list_token:
        return replace(scope, wanted=wanted)
    listed = replace(wanted, text=scope.list_text)
    issuer = issuer_of(server, call, scope.method, listed, head.history, sight_text(wanted, wanted.visible))
    try:
        place = issuer.read(scope.list_token, oldest_revision=head.oldest_revision)
        await _check_position(transaction, place, head)
    except PilothouseError as error:
        raise scope.error(error) from None
    return replace(scope, wanted=wanted, place=place)


class _Changes:
    """The changes after the first state of a watch: its position in the stream, and its scopes.

    A watch of all namespaces that its caller sees ends when that set differs from the set at the first state.
    """

    def __init__(
        self,
        server: WatchServer,
        call: Call,
        scopes: Sequence[Scope],
        tokens: TokenIssuer,
        head: StreamHead,
        position: Position,
        complete_until: datetime | None,
    ) -> None:
        # Set while some scopes have a newer state than the position.
        self.gate: Gate | None = None
        self._server = server
        self._call = call
        self._scopes = scopes
        self._tokens = tokens
        self._head = head
        self._revision = position.revision
        self._mark = position.mark
        # Changes that the first state contained before they were numbered. Each is dropped once all its events
        # are passed.
        self._skipped = position.skipped
        # Every change committed before this time is sent. It advances only when the watch has passed all events.
        self._complete_until = complete_until
        self._passing = 0
        self._caught_up = False
        self._reloads = any(each.watched.reload is not None for each in scopes)
        namespaces = {each.wanted.namespace_id for each in scopes}
        # The hub wakes the watch for events of this namespace, or, with None, for all events.
        self._about = namespaces.pop() if len(namespaces) == 1 else None
        # Types of events that may concern the watch. The deletion of a namespace always does.
        self._types = frozenset({"namespace"}).union(*(each.wanted.types for each in scopes))

    async def answers(self, period_seconds: float) -> AsyncGenerator[bytes, None]:
        """Yields changes, and a bookmark when nothing was sent for a period."""
        loop = asyncio.get_running_loop()
        last_sent = loop.time()
        while True:
            if self._is_level():
                self.gate = None
                yield self._marker(resource.CHANGE_TYPE_SYNCED, self._complete_until)
            due = tick_before(last_sent + period_seconds)
            behind = await self._server.hub.beyond(
                self._revision, max(0.0, due - loop.time()), None if self.gate is not None else self._about
            )
            newest, time = self._server.hub.newest, self._server.feed.complete_until
            await self._check()
            if behind:
                async for answer in self._news():
                    yield answer
                    last_sent = loop.time()
                if self._revision >= newest:
                    self._complete_until = time
            elif loop.time() >= due:
                if self.gate is None:
                    self._complete_until = time
                    yield self._marker(resource.CHANGE_TYPE_BOOKMARK, time)
                last_sent, self._caught_up = loop.time(), True

    async def _check(self) -> None:
        """Raises OutOfRange if the history, or the set of namespaces that the caller sees, has changed."""
        if self._server.hub.history != self._head.history:
            raise resume_token.changed(await self._server.feed.horizon())
        for scope in self._scopes:
            self._sight(scope)

    def _is_level(self) -> bool:
        """Returns whether the other scopes have caught up with those that began with their state or a list."""
        return self.gate is not None and self._revision >= self.gate.until

    async def _news(self) -> AsyncGenerator[bytes, None]:
        """Yields the available changes, up to the one at which all scopes are at one position."""
        async for event, rest in self._completed(self._concerning(await self._events())):
            for answer in self._answers(event, rest, await self._reloaded(event) if self._reloads else {}):
                yield answer
            if self._is_level():
                return

    async def _completed(self, events: Sequence[FeedEvent]) -> AsyncGenerator[tuple[FeedEvent, bytes], None]:
        """Yields events with the rest of their resources, read a few at a time; b"" if the watch sends no rest."""
        scope = self._scopes[0]
        if not scope.wanted.full or scope.watched.rests is None:
            for event in events:
                yield event, b""
            return
        number = scope.watched.number("uid")
        for begin in range(0, len(events), _COMPLETED_TOGETHER):
            part = events[begin : begin + _COMPLETED_TOGETHER]
            uids = {
                event.revision: text_field(event.message, number)
                for event in part
                if event.kind != "deleted" and _change(event, scope.wanted, self._sight(scope)) is not None
            }
            rests: Mapping[str, bytes] = {}
            if uids:
                async with self._call.read() as transaction:
                    rests = await scope.watched.rests(transaction, sorted(set(uids.values())), self._call)
            for event in part:
                yield event, rests.get(uids.get(event.revision, ""), b"")

    async def _events(self) -> Sequence[FeedEvent]:
        """Returns the next events, from the ring or, if the ring no longer contains them, from the database."""
        hub, feed = self._server.hub, self._server.feed
        events = hub.since(self._revision)
        if events is not None:
            self._caught_up = True
            return events
        if self._caught_up and hub.newest - self._revision > self._server.limits.lag_events:
            raise too_slow(self._call.resume_token if self.gate is not None else self._token())
        read = await feed.read(self._revision)
        if not read or read[0].revision != self._revision + 1:
            raise resume_token.horizon(await feed.horizon())
        return read

    def _concerning(self, events: Sequence[FeedEvent]) -> Sequence[FeedEvent]:
        """Returns the events of the watch's namespace and types, and the last event, which advances the position.

        An apply makes hundreds of events at the same moment. If a hundred watches checked each event of another
        tenant, they would occupy the event loop for a tenth of a second.
        """
        if len(events) < 2 or self._skipped or self.gate is not None:
            return events
        about, types = self._about, self._types
        return [
            *(e for e in events[:-1] if about in (None, e.namespace_id) and e.resource_type in types),
            events[-1],
        ]

    def _sight(self, scope: Scope) -> frozenset[int] | None:
        """Returns the namespaces that the caller sees now.

        Raises OutOfRange if they changed in a watch of all.
        """
        sight = scope.visible(self._call)
        if sight != scope.wanted.visible and scope.wanted.namespace_id is None:
            raise scope.error(resume_token.changed(self._head.oldest_revision))
        return sight

    async def _reloaded(self, event: FeedEvent) -> Mapping[int, Sequence[_Reloaded]]:
        """Returns the resources of an event without a message, by the index of each scope that it concerns."""
        concerned = [
            (number, scope)
            for number, scope in enumerate(self._scopes)
            if scope.watched.reload is not None and self._is_about(scope, event)
        ]
        found: dict[int, Sequence[_Reloaded]] = {}
        if concerned:
            async with self._call.read() as transaction:
                for number, scope in concerned:
                    assert scope.watched.reload is not None
                    read = await scope.watched.reload(transaction, event, scope.wanted, self._call)
                    found[number] = [
                        shown for kind, message in read if (shown := _selected(event, scope, kind, message))
                    ]
        return found

    def _answers(
        self, event: FeedEvent, rest: bytes, reloaded: Mapping[int, Sequence[_Reloaded]]
    ) -> Iterator[bytes]:
        shown = self._shown(event, reloaded)
        # Each revision is one event, so the watch's position is the last event that it has read.
        self._revision, self._mark = event.revision, event.mark
        token = ""
        for number, (scope, change, message) in enumerate(shown, start=1):
            if number == len(shown) and self.gate is None:
                self._call.resume_token = token = self._token()
            if not (rest or scope.mask is not None or scope.path):
                yield _ANSWERS.answer(change, event, token, self._complete_until)
                continue
            message = scope.masked(message + rest)
            yield watch_answers.changed(
                change, event.revision, message, scope.frame, token, self._complete_until
            )
        self._end_with_namespace(event)

    def _shown(
        self, event: FeedEvent, reloaded: Mapping[int, Sequence[_Reloaded]]
    ) -> list[tuple[Scope, int, bytes]]:
        """Returns the scopes that are sent the event, with the kind of change for each, and the resource."""
        # The first state contained the change, as the token records. Scopes that begin with their state have it, too.
        if self._skipped and self._shown_already(event):
            return []
        found = []
        for number, scope in enumerate(self._scopes):
            if scope.watched.reload is not None:
                found += [(scope, change, message) for change, message in reloaded.get(number, ())]
            elif self._is_about(scope, event):
                change = _change(event, scope.wanted, self._sight(scope))
                if change is not None:
                    found.append((scope, change, event.message))
        return found

    def _is_about(self, scope: Scope, event: FeedEvent) -> bool:
        """Returns whether the event concerns a scope, and the scope does not have it already."""
        if not scope.wanted.concerns(event.resource_type):
            return False
        if self.gate is not None and self.gate.holds_back(scope, event):
            return False
        return scope.watched.reload is None or _is_seen(event, scope.wanted, self._sight(scope))

    def _end_with_namespace(self, event: FeedEvent) -> None:
        """Raises NotFound if a namespace of the watch is deleted: the deletion of its resources was sent before."""
        if event.kind != "deleted" or event.resource_type != "namespace":
            return
        for scope in self._scopes:
            if event.namespace_id == scope.wanted.namespace_id is not None:
                self._call.complete = True
                raise scope.error(not_found("namespace", scope.namespace))

    def _shown_already(self, event: FeedEvent) -> bool:
        """Returns whether the first state contained the event's change.

        All events of a change are adjacent.
        """
        if self._passing and event.pending_id != self._passing:
            self._skipped = tuple(one for one in self._skipped if one != self._passing)
            self._passing = 0
        if event.pending_id in self._skipped:
            self._passing = event.pending_id or 0
        return bool(self._passing)

    def _token(self) -> str:
        return self._tokens.token_at(self._revision, self._mark, self._skipped)

    def _marker(self, change: int, time: datetime | None) -> bytes:
        self._call.resume_token = self._token()
        return watch_answers.marker(change, self._revision, self._call.resume_token, time)


def _is_seen(event: FeedEvent, wanted: WatchFilter, visible: frozenset[int] | None) -> bool:
    """Returns whether the event has the namespace and the name of the watch, and the caller may see it."""
    if wanted.namespace_id is not None and event.namespace_id != wanted.namespace_id:
        return False
    if wanted.name and event.name != wanted.name:
        return False
    return visible is None or event.namespace_id in visible


def _selected(event: FeedEvent, scope: Scope, kind: Kind, message: Message) -> _Reloaded | None:
    """Returns the change of a resource that was read again.

    A resource that does not match is reported as deleted, unless it is certain that it did not match before either.
    """
    contents, wanted = message.SerializeToString(), scope.wanted
    labels: Mapping[str, str] = getattr(message, "labels", {})
    matches = (wanted.selector is None or wanted.selector.matches(labels)) and (
        wanted.expression is None or wanted.expression.matches(contents)
    )
    if kind != "deleted" and matches:
        return _KINDS[kind], contents
    before = replace(event, message=contents, labels_before=None, status_before=None)
    if kind == "added" or (wanted.expression and wanted.expression.matched_before(before) is False):
        return None
    return resource.CHANGE_TYPE_DELETED, contents


def _change(event: FeedEvent, wanted: WatchFilter, visible: frozenset[int] | None) -> int | None:
    """Returns the kind of change that the watcher is sent; None if it is not sent the event."""
    if not wanted.concerns(event.resource_type):
        return None
    if not _is_seen(event, wanted, visible):
        return None
    if wanted.fields and not wanted.has_fields(event):
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
