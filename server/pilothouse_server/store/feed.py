"""Makes PostgreSQL number committed changes, and publishes the events in order.

The events go to this server's hub.

Mutations commit concurrently, each with a pending row (`unit_of_work`). The feed calls `sequence_changes`,
which numbers pending changes and returns the events that it numbered; the feed publishes these without another
read. A process has at most one such call in flight, and repeats it while its own commits have set the flag.
The feed reads events that another server numbered from the table. When a revision is visible, all revisions
before it are visible too, so reading `revision > last` in order loses nothing.

NOTIFY is only a hint to poll immediately; the feed polls several times a second anyway, on another connection.
So a listener that died silently delays events by a quarter of a second (half a second if nothing has happened
for some seconds) and loses none, and the next poll of another server numbers the changes that a killed server
left pending. A poll without a hint usually finds nothing, so it is one plain read, and the sequencer is called
only if there are pending changes. The same read also shows whether work for the reconciler is due. The listener
also receives notifications of changed grants (`pilothouse_grants`), at which cached principals are dropped before
they expire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import asyncpg
import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import text

from pilothouse_server.errors import PilothouseError
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.errors import CONNECTION_LOST, PARTITION_MISSING, database_unavailable
from pilothouse_server.store.rewind_detection import RewindDetector
from pilothouse_server.store.unit_of_work import ReadTransaction, Store

log = structlog.get_logger(__name__)

CHANGES_CHANNEL = "pilothouse_changes"
GRANTS_CHANNEL = "pilothouse_grants"
PARTITIONS_CHANNEL = "pilothouse_partitions"
HISTORY_CHANNEL = "pilothouse_history"
POLL_SECONDS = 0.25
# How long a pass waits for more changes to number together, if the pass before it found several.
GATHER_SECONDS = 0.005
# The poll interval after `_CALM_SECONDS` without a change.
IDLE_POLL_SECONDS = 0.5
_CALM_SECONDS = 5.0
# How often work is reported that stays due because no worker is free.
_DUE_SECONDS = 1.0
_PAGE = 1000
_LISTENER_CHECK_SECONDS = 5.0

_HEAD_COLUMNS = (
    "revision, oldest_revision, history_id::text AS history, audit_sequence, event_mark AS mark, "
    "record_mark(audit_sequence) AS record_mark"
)
_HEAD = text(f"SELECT {_HEAD_COLUMNS} FROM stream_head WHERE id = 1")  # noqa: S608 - our own columns
_BEGINS = text(
    f"SELECT {_HEAD_COLUMNS}, pending_event_ids(:most) AS pending FROM stream_head WHERE id = 1"  # noqa: S608
)
_COLUMNS = (
    "revision, resource_type, namespace_id, resource_name, kind, message, labels, status, labels_before, "
    "status_before, pending_id, coalesce(mark, '\\x0000000000000000') AS mark"
)
_EVENTS = text(
    f"SELECT {_COLUMNS} FROM events WHERE revision > :after AND revision <= :upto "  # noqa: S608 - our columns
    "ORDER BY revision LIMIT :page"
)
_SEQUENCE = text(
    f"SELECT {_COLUMNS}, audit_sequence, history_id::text AS history, more, aside, oldest_seconds "  # noqa: S608
    "FROM sequence_changes()"
)
# Reads, in one snapshot that is not older than `now`: whether changes are pending, the head of the stream, and whether
# work for the reconciler is due (one index descent for each cluster).
_LOOK = text(
    "SELECT revision, audit_sequence, history_id::text AS history, "
    "statement_timestamp() AS now, EXISTS (SELECT FROM pending_changes AS p WHERE p.id > h.pending_floor) AS pending, "
    "work_is_due() AS due "
    "FROM stream_head AS h WHERE id = 1"
)
_OLDEST_SECONDS = text(
    "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::double precision "
    "FROM pending_changes WHERE id > (SELECT pending_floor FROM stream_head WHERE id = 1)"
)
_EVENT_MARK = text("SELECT event_mark(:revision)")
_RECORD_MARK = text("SELECT record_mark(:sequence)")
_NO_MARK = bytes(8)
# If a first state would contain more changes than this that are not numbered yet, they are numbered first.
MOST_PENDING_IDS = 256

PENDING_SECONDS = Gauge(
    "pilothouse_pending_oldest_seconds", "Age of the oldest change that is not numbered yet."
)
SET_ASIDE = Counter(
    "pilothouse_changes_set_aside_total",
    "Committed changes that could not be numbered; see pending_incidents.",
)


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One row of `events`.

    `message` is the resource as protobuf bytes, serialised once for all watchers.
    """

    revision: int
    resource_type: str
    namespace_id: int | None
    name: str
    kind: str
    message: bytes
    labels: Mapping[str, str]
    status: str
    labels_before: Mapping[str, str] | None
    status_before: str | None
    # The id of the change's pending row, if any. A watch uses it to skip a change that its first state already showed.
    pending_id: int | None = None
    # Eight random bytes that identify this event.
    mark: bytes = _NO_MARK


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The head of the events and of the audit log.

    Newest and oldest stored revision, identifier of the history, newest record, and the marks of the newest event and
    record.
    """

    revision: int
    oldest_revision: int
    history: str
    audit_sequence: int
    mark: bytes
    record_mark: bytes


@dataclass(frozen=True, slots=True)
class _Pass:
    """The result of one call of the sequencer: events, and the stream's head after it."""

    events: list[FeedEvent]
    revision: int
    mark: bytes
    audit_sequence: int
    history: str
    more: bool


class EventSink(Protocol):
    """The receiver of the feed's events (see `watch.hub`)."""

    @property
    def newest(self) -> int:
        """Revision up to which everything was published."""

    @property
    def history(self) -> str:
        """Identifier of the history of events."""

    def begin(self, revision: int, sequence: int, history: str) -> None:
        """Starts at a revision, or restarts there."""

    def audited(self, sequence: int) -> None:
        """Sets the newest sequence of the audit log."""

    def publish(self, events: Sequence[FeedEvent], newest: int) -> None:
        """Adds the events that follow the published ones, up to `newest`."""


class Feed:
    """The feed of one server.

    `run` is its task. Its attributes `on_…` are callbacks, which do nothing unless they are set.
    """

    def __init__(self, store: Store, hub: EventSink, rewind_detector: RewindDetector | None = None) -> None:
        self._store = store
        self.hub = hub
        self._rewind_detector = rewind_detector or RewindDetector(store)
        self.on_grants_changed: Callable[[], None] = lambda: None
        # Called after new events, and when work for the reconciler is due.
        self.on_changes: Callable[[], None] = lambda: None
        # Called when the partitions of events are half used up, and when one is missing.
        self.on_partitions_wanted: Callable[[], None] = lambda: None
        # Called when the database's history was replaced while this server ran.
        self.on_new_history: Callable[[], None] = lambda: None
        self._runs = False
        # By the database's clock: everything that was committed before this is in the hub. None before the first poll.
        self.complete_until: datetime | None = None
        self._looked_at: datetime | None = None
        self._hint = asyncio.Event()
        self._started = asyncio.Event()
        self._due_notified_at = 0.0
        self._passes_begun = 0
        self._passes_done = 0
        self._pass_done = asyncio.Event()
        self._failure: PilothouseError | None = None
        # How many changes the last pass numbered, and whether a caller of `settled` waits for the next pass.
        self._numbered = 0
        self._asked = asyncio.Event()

    async def run(self) -> None:
        """Publishes until cancelled; keeps trying while the database is unreachable."""
        self._runs = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="feed listener")
            group.create_task(self._poll(), name="feed poll")
            group.create_task(self._rewind_detector.keep(), name="feed place")

    async def started(self) -> None:
        """Returns once the hub has reached the head of the events."""
        await self._started.wait()

    async def read(self, after: int, page: int = _PAGE) -> list[FeedEvent]:
        """Reads the events after a revision from the database, oldest first.

        A watcher whose position has left the hub's ring continues with these.
        """
        async with self._store.system_read() as transaction:
            return await _page(transaction.connection, after, self.hub.newest, page)

    async def horizon(self) -> int:
        """Returns the oldest revision that is stored."""
        async with self._store.system_read() as transaction:
            return (await stream_head(transaction)).oldest_revision

    async def settled(self) -> None:
        """Returns once everything that was committed before this call is numbered.

        Calls that read the audit log wait for this first.

        Raises:
            Unavailable: the database is unreachable.
        """
        number = self._passes_begun
        self._hint.set()
        self._asked.set()
        while self._passes_done <= number:
            await self._pass_done.wait()
            if self._failure is not None:
                raise self._failure

    async def look_again(self) -> None:
        """Returns once a pass has compared the database with the last known state.

        It returns immediately if no feed runs.

        Raises:
            Unavailable: the database is unreachable.
        """
        if self._runs:
            self._rewind_detector.mark_unverified()
            await self.settled()

    def committed(self) -> None:
        """Starts a pass soon: this server has committed a change that is to be numbered."""
        self._hint.set()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        hinted, looked_at, stirred_at = True, 0.0, loop.time()
        while True:
            self._hint.clear()
            self._asked.clear()
            self._passes_begun += 1
            number, self._failure = self._passes_begun, None
            try:
                if not hinted or loop.time() - looked_at >= IDLE_POLL_SECONDS:
                    hinted, looked_at = await self._finds_some() or hinted, loop.time()
                if hinted:
                    stirred_at = loop.time()
                    while await self._catch_up():
                        pass
                self.complete_until = self._looked_at
                self._started.set()
            except PilothouseError as error:
                log.warning("changes cannot be numbered or read", reason=error.reason)
                self._failure = error
                if error.reason == PARTITION_MISSING:
                    self.on_partitions_wanted()
                self._rewind_detector.mark_unverified()
                await self._measure_pending()
            self._passes_done = number
            done, self._pass_done = self._pass_done, asyncio.Event()
            done.set()
            calm = loop.time() - stirred_at >= _CALM_SECONDS
            try:
                async with asyncio.timeout(IDLE_POLL_SECONDS if calm else POLL_SECONDS):
                    await self._hint.wait()
            except TimeoutError:
                self._numbered = 0
            hinted = self._hint.is_set() or self._failure is not None
            if self._numbered > 1:
                await self._gather()

    async def _gather(self) -> None:
        """Waits a moment for other changes, unless `settled` waits for the current ones.

        A pass costs PostgreSQL as much as numbering a dozen changes, and with many concurrent commits there
        would be a pass for every one or two of them.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._asked.wait()

    async def _finds_some(self) -> bool:
        """Returns whether a pass is needed.

        It is if changes are pending, if the hub is behind the stream, or if the marks must be verified.
        """
        async with self._store.system_call() as connection:
            found: Any = (await connection.execute(_LOOK)).one()
        self._store.clock.note(found.now)
        self._looked_at = found.now
        now = asyncio.get_running_loop().time()
        if found.due and now - self._due_notified_at >= _DUE_SECONDS:
            self._due_notified_at = now
            self.on_changes()
        if (
            found.pending
            or found.history != self.hub.history
            or found.revision != self.hub.newest
            or self._rewind_detector.must_verify(found.revision, found.audit_sequence)
        ):
            return True
        PENDING_SECONDS.set(0)
        self.hub.audited(found.audit_sequence)
        return False

    async def _catch_up(self) -> bool:
        """Does one pass; returns whether another must follow immediately."""
        found = await self._sequence()
        if not await self._rewind_detector.check(
            found.history, found.revision, found.mark, found.audit_sequence
        ):
            return True
        if found.history != self.hub.history:
            known = bool(self.hub.history)
            self.hub.begin(found.revision, found.audit_sequence, found.history)
            if known:
                log.warning("a new history of events began", history=found.history)
                self.on_new_history()
            return found.more
        before = self.hub.newest
        if found.events and found.events[0].revision == before + 1:
            self.hub.publish(found.events, found.revision)
        else:
            # Another server numbered some or all of the new events.
            while self.hub.newest < found.revision:
                async with self._store.system_read() as transaction:
                    events = await _page(transaction.connection, self.hub.newest, found.revision, _PAGE)
                self.hub.publish(events, events[-1].revision if len(events) == _PAGE else found.revision)
        self.hub.audited(found.audit_sequence)
        if self.hub.newest > before:
            self.on_changes()
        return found.more

    async def _sequence(self) -> _Pass:
        async with self._store.system_call() as connection:
            rows: Sequence[Any] = (await connection.execute(_SEQUENCE)).all()
        *numbered, head = rows
        self._numbered = len({row.pending_id for row in numbered})
        PENDING_SECONDS.set(head.oldest_seconds)
        if head.aside:
            SET_ASIDE.inc(head.aside)
            log.error("changes could not be numbered and were set aside", count=head.aside)
        return _Pass(
            [_event(row) for row in numbered],
            head.revision,
            bytes(head.mark),
            head.audit_sequence,
            head.history,
            head.more,
        )

    async def _measure_pending(self) -> None:
        """Sets the metric after a failed pass, which has not set it.

        It ignores an unreachable database.
        """
        with suppress(PilothouseError):
            async with self._store.system_call() as connection:
                PENDING_SECONDS.set((await connection.execute(_OLDEST_SECONDS)).scalar_one())

    async def _listen(self) -> None:
        delay = 0.1
        while True:
            try:
                await self._listen_once()
                delay = 0.1
            except CONNECTION_LOST as error:
                log.warning("listener lost", reason=database_unavailable().reason, error=type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    async def _listen_once(self) -> None:
        connection = await asyncpg.connect(
            self._store.database.direct_dsn,
            timeout=5.0,
            command_timeout=5.0,
            server_settings={"application_name": "pilothouse-listener"},
        )
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _connection: gone.set())
        try:
            await connection.add_listener(CHANGES_CHANNEL, self._changed)
            await connection.add_listener(GRANTS_CHANNEL, self._granted)
            await connection.add_listener(PARTITIONS_CHANNEL, self._partitions_wanted)
            await connection.add_listener(HISTORY_CHANNEL, self._history_began)
            self._rewind_detector.mark_unverified()
            self._hint.set()
            while not gone.is_set():
                try:
                    async with asyncio.timeout(_LISTENER_CHECK_SECONDS):
                        await gone.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _changed(self, *arguments: Any) -> None:
        # No poll for events that this server numbered itself.
        if int(arguments[-1] or 0) > self.hub.newest:
            self._hint.set()

    def _granted(self, *_arguments: Any) -> None:
        self.on_grants_changed()

    def _history_began(self, *_arguments: Any) -> None:
        self._hint.set()

    def _partitions_wanted(self, *_arguments: Any) -> None:
        self.on_partitions_wanted()


async def stream_head(transaction: ReadTransaction) -> StreamHead:
    """Returns the head as this transaction sees it."""
    return _head((await transaction.connection.execute(_HEAD)).one())


async def stream_begins(transaction: ReadTransaction) -> tuple[StreamHead, tuple[int, ...]]:
    """Returns the head, and the ids of changes that are not numbered yet, ascending.

    This snapshot shows these changes. There are at most `MOST_PENDING_IDS + 1` ids.
    """
    row = (await transaction.connection.execute(_BEGINS, {"most": MOST_PENDING_IDS + 1})).one()
    return _head(row), tuple(row.pending)


async def event_mark(transaction: ReadTransaction, revision: int) -> bytes | None:
    """Returns the mark of an event; None if the event is no longer stored."""
    found = (await transaction.connection.execute(_EVENT_MARK, {"revision": revision})).scalar_one()
    return None if found is None else bytes(found)


async def record_mark(transaction: ReadTransaction, sequence: int) -> bytes | None:
    """Returns the mark of the audit record at `sequence`; None if it is not stored."""
    found = (await transaction.connection.execute(_RECORD_MARK, {"sequence": sequence})).scalar_one()
    return None if found is None else bytes(found)


async def _page(connection: Connection, after: int, upto: int, page: int) -> list[FeedEvent]:
    rows: Sequence[Any] = (
        await connection.execute(_EVENTS, {"after": after, "upto": upto, "page": page})
    ).all()
    return [_event(row) for row in rows]


def _event(row: Any) -> FeedEvent:
    return FeedEvent(*row[:12])


def _head(row: Any) -> StreamHead:
    return StreamHead(
        row.revision,
        row.oldest_revision,
        row.history,
        row.audit_sequence,
        bytes(row.mark),
        bytes(row.record_mark or _NO_MARK),
    )
