"""Brings committed events into this server's hub, in commit order, and reads older ones for watchers that
are behind.

Revisions are given under a lock that is held until the commit, so a revision that can be seen has no unseen
one before it: reading `revision > last` in order loses nothing. NOTIFY is only a hint to look at once; the
table is looked at several times a second anyway, on another connection, so a listener that died silently
costs a quarter of a second and no event. The same notification tells of changed grants
(`pilothouse_grants`), by which cached principals are dropped early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pilothouse_server.errors import PilothouseError
from pilothouse_server.store.unit_of_work import ReadTransaction, Store

log = structlog.get_logger(__name__)

CHANGES_CHANNEL = "pilothouse_changes"
GRANTS_CHANNEL = "pilothouse_grants"
POLL_SECONDS = 0.25
_PAGE = 1000
_LISTENER_CHECK_SECONDS = 5.0

_HEAD = text(
    "SELECT revision, oldest_revision, history_id::text AS history, audit_sequence FROM stream_head WHERE id = 1"
)
_EVENTS = text(
    "SELECT revision, resource_type, namespace_id, resource_name, kind, message, labels, status, labels_before, "
    "status_before FROM events WHERE revision > :after AND revision <= :upto ORDER BY revision LIMIT :page"
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


@dataclass(frozen=True, slots=True)
class StreamHead:
    """Where events and the audit log stand.

    Newest and oldest kept revision, identifier of this line, newest record.
    """

    revision: int
    oldest_revision: int
    history: str
    audit_sequence: int


class EventSink(Protocol):
    """What the feed publishes to (see `watch.hub`)."""

    @property
    def newest(self) -> int:
        """Revision up to which everything was published."""

    @property
    def history(self) -> str:
        """Identifier of the line of events."""

    def begin(self, revision: int, sequence: int, history: str) -> None:
        """Starts (again) at a revision."""

    def audited(self, sequence: int) -> None:
        """Learns how far the audit log goes."""

    def publish(self, events: Sequence[FeedEvent], newest: int) -> None:
        """Takes the events that follow on what was published."""


class Feed:
    """The feed of one server.

    `run` is its task; `on_grants_changed` and `on_changes` are told of what they say.
    """

    def __init__(self, store: Store, hub: EventSink) -> None:
        self._store = store
        self.hub = hub
        self.on_grants_changed: Callable[[], None] = lambda: None
        # Told whenever something was committed that others may have to act on.
        self.on_changes: Callable[[], None] = lambda: None
        self._hint = asyncio.Event()
        self._started = asyncio.Event()

    async def run(self) -> None:
        """Publishes until cancelled; a database that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="feed listener")
            group.create_task(self._poll(), name="feed poll")

    async def started(self) -> None:
        """Returns once the hub stands at the head of the events."""
        await self._started.wait()

    async def read(self, after: int, page: int = _PAGE) -> list[FeedEvent]:
        """Events after a revision, oldest first, from the database.

        For a watcher whose place left the ring.
        """
        async with self._store.system_read() as transaction:
            return await _page(transaction.connection, after, self.hub.newest, page)

    async def horizon(self) -> int:
        """The oldest revision that is kept."""
        async with self._store.system_read() as transaction:
            return (await stream_head(transaction)).oldest_revision

    async def _poll(self) -> None:
        while True:
            try:
                await self._catch_up()
                self._started.set()
            except PilothouseError as error:
                log.warning("events cannot be read", reason=error.reason)
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._hint.wait()
            except TimeoutError:
                pass
            self._hint.clear()

    async def _catch_up(self) -> None:
        async with self._store.system_read() as transaction:
            head = await stream_head(transaction)
            if head.history != self.hub.history:
                self.hub.begin(head.revision, head.audit_sequence, head.history)
                return
            self.hub.audited(head.audit_sequence)
            while self.hub.newest < head.revision:
                events = await _page(transaction.connection, self.hub.newest, head.revision, _PAGE)
                newest = events[-1].revision if len(events) == _PAGE else head.revision
                self.hub.publish(events, newest)
                self.on_changes()

    async def _listen(self) -> None:
        delay = 0.1
        while True:
            try:
                await self._listen_once()
                delay = 0.1
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("listener lost", error=type(error).__name__)
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
            self._hint.set()
            while not gone.is_set():
                try:
                    async with asyncio.timeout(_LISTENER_CHECK_SECONDS):
                        await gone.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _changed(self, *_arguments: Any) -> None:
        self._hint.set()

    def _granted(self, *_arguments: Any) -> None:
        self.on_grants_changed()


async def stream_head(transaction: ReadTransaction) -> StreamHead:
    """The head as this transaction sees it."""
    row = (await transaction.connection.execute(_HEAD)).one()
    return StreamHead(row.revision, row.oldest_revision, row.history, row.audit_sequence)


async def _page(connection: AsyncConnection, after: int, upto: int, page: int) -> list[FeedEvent]:
    rows: Sequence[Any] = (
        await connection.execute(_EVENTS, {"after": after, "upto": upto, "page": page})
    ).all()
    return [FeedEvent(*row) for row in rows]
