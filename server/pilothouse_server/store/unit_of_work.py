"""One transaction for a change, its audit record, its events and its new work.

`UnitOfWork` opens a transaction as the app role (under row-level security, as the caller) or as the system
role. Before the commit it calls the database function `put_changes` once, which writes the idempotency row and the
operation, and as its very last statement one pending row with the record and the events. Commits run concurrently;
the feed makes PostgreSQL number the pending rows, in the order of their ids (see `feed` and the migration that
creates `pending_changes`). A change without its record, or a record without its change, cannot be written: no other
code commits.

    unit = UnitOfWork(store, pool, actor, operation_id)
    transaction = await unit.begin()        # on first use
    ... repositories use transaction.connection, operations call transaction.emit(...)
    await unit.commit(audit=[record])       # or await unit.rollback()

Identity is set with `set_config(…, true)` as the first statement of each transaction, so that it ends with
the transaction, also behind a pooler.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import orjson
from sqlalchemy import Executable, text

from pilothouse_server.errors import Unavailable
from pilothouse_server.flowcontrol.fair_queue import FairQueue, QueueBounds
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.store import append, opening
from pilothouse_server.store.append import Idempotency, Operation
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.clock import RecordClock
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.engine import Database
from pilothouse_server.store.errors import connecting, fitting, translated
from pilothouse_server.store.pool import Pool
from pilothouse_server.store.rendered import Rendered
from pilothouse_server.values.actors import SYSTEM

Kind = Literal["added", "modified", "deleted"]
Renderer = Callable[[Any], Rendered]

_ENQUEUE = text(
    "INSERT INTO reconcile_work AS work (resource_type, resource_id, cluster_name, namespace_id, going, due_at) "
    "VALUES (:resource_type, :resource_id, :cluster_name, :namespace_id, :going, "
    "clock_timestamp() + make_interval(secs => :due_in_seconds)) "
    "ON CONFLICT (resource_type, resource_id) DO UPDATE SET due_at = LEAST(work.due_at, EXCLUDED.due_at), "
    "going = EXCLUDED.going, attempts = 0, updated_at = clock_timestamp()"
)

_ENQUEUE_ALL = text(
    "INSERT INTO reconcile_work AS work (resource_type, resource_id, cluster_name, namespace_id, going, due_at) "
    "SELECT r.resource_type, r.resource_id, r.cluster_name, r.namespace_id, r.going, "
    "clock_timestamp() + make_interval(secs => r.due_in_seconds) "
    "FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(resource_type text, resource_id bigint, "
    "cluster_name text, namespace_id bigint, going boolean, due_in_seconds double precision) "
    "ORDER BY r.resource_type, r.resource_id "
    "ON CONFLICT (resource_type, resource_id) DO UPDATE SET due_at = LEAST(work.due_at, EXCLUDED.due_at), "
    "going = EXCLUDED.going, attempts = 0, updated_at = clock_timestamp()"
)

# One draft at a time for each key. The longest wait is shorter than the time limit of a statement.
_DRAFT_BOUNDS = QueueBounds(1_000_000, 1, 1_000, 1_000, 20.0)


@dataclass(frozen=True, slots=True)
class Actor:
    """The actor: a user, or a part of the server if `user_id` is None."""

    user_id: int | None
    username: str


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a watched resource.

    `entity` is its model value; filters need the labels and the status before the change.
    """

    resource_type: str
    resource_id: int
    namespace_id: int | None
    name: str
    kind: Kind
    entity: Any
    labels: Mapping[str, str]
    status: str
    labels_before: Mapping[str, str] | None = None
    status_before: str | None = None


def described(
    events: Sequence[Event], renderers: Mapping[str, Renderer], operation_id: UUID | None
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Returns the events and their messages as `put_changes` takes them.

    `operation_id` is the operation of the caller that caused them; None if the server did.
    """
    found = [_described(each, renderers, operation_id) for each in events]
    return [document for document, _ in found], [message for _, message in found]


def _described(
    event: Event, renderers: Mapping[str, Renderer], operation_id: UUID | None
) -> tuple[dict[str, Any], bytes]:
    rendered = renderers[event.resource_type](event.entity)
    document = {
        "resource_type": event.resource_type,
        "resource_id": event.resource_id,
        "namespace_id": event.namespace_id,
        "resource_name": event.name,
        "kind": event.kind,
        "labels": dict(event.labels),
        "status": event.status,
        "labels_before": None if event.labels_before is None else dict(event.labels_before),
        "status_before": event.status_before,
        "operation_id": operation_id,
    }
    return document | rendered.place(event.entity) if rendered.kept_bytes else document, rendered.message


@dataclass(slots=True)
class ReadTransaction:
    """An open transaction that only reads. Repositories alone touch `connection`."""

    connection: Connection
    _began: datetime | None = None

    @property
    def now(self) -> datetime:
        """When the transaction began, by the database's clock.

        Short reads and calls use `moment` instead.
        """
        assert self._began is not None, "only snapshots and the server's own transactions have the time"
        return self._began

    async def moment(self) -> datetime:
        """Returns when the transaction began; reads it if it is not known."""
        if self._began is None:
            self._began = await opening.began(self.connection)
        return self._began


@dataclass(slots=True)
class Transaction(ReadTransaction):
    """An open transaction of one actor. Emitted events are written when it commits."""

    actor: Actor = Actor(None, SYSTEM)
    operation_id: UUID = field(default_factory=uuid4)
    # The full method of the call, for the row of `operations` that status history refers to; empty for
    # the server itself.
    method: str = ""
    # The caller's id of its request, for the same row.
    request_id: UUID | None = None
    events: list[Event] = field(default_factory=list)
    # The records of changes that the call's own record does not cover.
    records: list[AuditRecord] = field(default_factory=list)
    # Whether the commit leaves rows for another short transaction of this server.
    follow_up: bool = False
    # Namespaces whose rows this transaction has locked exclusively, by name: calls that write many objects read each
    # row once.
    namespaces: dict[str, Any] = field(default_factory=dict)
    # Work for the reconciler that the commit writes by one statement; with None, `enqueue` writes it immediately.
    batched_work: list[dict[str, Any]] | None = None

    async def read(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Returns the rows of one statement, which also gets the parameter `user_id`."""
        return await self.connection.rows(statement, {"user_id": self.actor.user_id, **parameters})

    def emit(self, event: Event) -> None:
        """Adds an event; it gets its revision at commit, in the order of emission."""
        self.events.append(event)

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """Runs the block in a savepoint.

        If it raises, nothing of it remains, and the transaction can continue.
        """
        emitted, recorded = len(self.events), len(self.records)
        queued = len(self.batched_work or ())
        try:
            with translated(), fitting():
                async with self.connection.savepoint():
                    yield
        except BaseException:
            del self.events[emitted:]
            del self.records[recorded:]
            if self.batched_work is not None:
                del self.batched_work[queued:]
            raise

    async def enqueue(
        self,
        resource_type: str,
        resource_id: int,
        cluster_name: str,
        namespace_id: int | None,
        *,
        going: bool = False,
        due_in_seconds: float = 0.0,
    ) -> None:
        """Adds work for the reconciler, which is due after `due_in_seconds`.

        There is one row for each resource. `going` means that the resource is to be deleted. Such work has a lower
        priority than new or changed resources.
        """
        work = {
            "resource_type": resource_type,
            "resource_id": resource_id,
            "cluster_name": cluster_name,
            "namespace_id": namespace_id,
            "going": going,
            "due_in_seconds": due_in_seconds,
        }
        if self.batched_work is None:
            await self.connection.execute(_ENQUEUE, work)
        else:
            self.batched_work.append(work)

    async def write_batched_work(self) -> None:
        """Writes the work that was collected."""
        if self.batched_work:
            # Of several changes of one resource, the last one determines `going`.
            last = {(each["resource_type"], each["resource_id"]): each for each in self.batched_work}
            rows = orjson.dumps([last[key] for key in sorted(last)]).decode()
            await self.connection.execute(_ENQUEUE_ALL, {"rows": rows})
            self.batched_work = []


class UnitOfWork:
    """A transaction that is opened on first use and ends exactly once."""

    def __init__(
        self,
        pool: Pool,
        actor: Actor,
        operation_id: UUID,
        renderers: Mapping[str, Renderer],
        method: str = "",
        on_committed: Callable[[bool], None] = lambda _: None,
        *,
        timed: bool = True,
    ) -> None:
        self._pool = pool
        # Whether `begin` reads the time at which the transaction began.
        self._timed = timed
        self._on_committed = on_committed
        self._method = method
        self._actor = actor
        self._operation_id = operation_id
        self._renderers = renderers
        self._connection: Connection | None = None
        self.transaction: Transaction | None = None
        self.committed = False

    async def begin(self) -> Transaction:
        """Opens the transaction, or returns the open one."""
        if self.transaction is None:
            with connecting():
                self._connection = self._pool.take_now() or await self._pool.take()
            with translated():
                await opening.begin(self._connection, self._actor.user_id, self._operation_id)
                now = await opening.began(self._connection) if self._timed else None
            self.transaction = Transaction(
                self._connection, now, self._actor, self._operation_id, self._method
            )
        return self.transaction

    async def commit(
        self,
        *,
        audit: Sequence[AuditRecord] = (),
        operation: Operation | None = None,
        idempotency: Idempotency | None = None,
    ) -> None:
        """Writes events, records and the idempotency row, and commits.

        Raises:
            Unavailable: the connection was lost; nothing was written, unless it was lost during the commit itself.
            PilothouseError: the registered error of a violated constraint.
        """
        transaction = await self.begin()
        try:
            with translated():
                await transaction.write_batched_work()
                pending = await self._put(transaction, audit, operation, idempotency)
                await uncancelled(self._commit())
        except BaseException:
            await self.rollback()
            raise
        if pending:
            self._on_committed(transaction.follow_up)
        connection = self._forget()
        if connection is not None:
            self._pool.give(connection)

    async def _commit(self) -> None:
        assert self._connection is not None
        await self._connection.command("COMMIT")
        self.committed = True

    async def rollback(self) -> None:
        """Rolls the transaction back, if one is open."""
        connection = self._forget()
        if connection is not None and (ending := self._pool.give(connection)) is not None:
            await asyncio.shield(ending)

    async def _put(
        self,
        transaction: Transaction,
        audit: Sequence[AuditRecord],
        operation: Operation | None,
        idempotency: Idempotency | None,
    ) -> bool:
        """Writes the pending row, if it has any content; returns whether it did.

        Nothing may be written after it.
        """
        audit = [*audit, *transaction.records] if transaction.records else audit
        if not (audit or transaction.events or idempotency):
            return False
        caused_by = transaction.operation_id if self._actor.user_id is not None else None
        rows = [append.audit_row(each) async for each in cooperatively(audit)]
        found = [
            _described(each, self._renderers, caused_by) async for each in cooperatively(transaction.events)
        ]
        documents, messages = [document for document, _ in found], [message for _, message in found]
        await transaction.connection.execute(
            append.STATEMENT,
            append.parameters(rows, documents, messages, operation, idempotency, self._operation_id),
        )
        return True

    def _forget(self) -> Connection | None:
        connection, self._connection, self.transaction = self._connection, None, None
        return connection


def _database_timeout() -> Unavailable:
    return Unavailable(
        "the database did not respond in time", reason="DATABASE_TIMEOUT", retry_after_seconds=1.0
    )


class Store:
    """All access to the database.

    The composition root fills `renderers`: resource type → the function that renders its protobuf bytes and the part
    of them that is stored.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.renderers: dict[str, Renderer] = {}
        # Called after each commit that left something to be numbered.
        self.on_committed: Callable[[], None] = lambda: None
        # Set after a commit that left rows for another transaction.
        self.follow_ups = asyncio.Event()
        # Drafts that would wait for each other in the database wait here instead, holding no connection; one at a time
        # for each key.
        self.drafts = FairQueue("drafts", _DRAFT_BOUNDS, refusal=lambda _of_caller: _database_timeout())
        # The clock for the times of records.
        self.clock = RecordClock()

    def committed(self, follow_up: bool) -> None:
        """Notifies the feed of a commit and, with `follow_up`, the follow-up task."""
        self.on_committed()
        if follow_up:
            self.follow_ups.set()

    def unit_of_work(self, actor: Actor, operation_id: UUID, method: str) -> UnitOfWork:
        """Returns a unit of work for a change requested by a user, as the app role."""
        return UnitOfWork(
            self.database.app,
            actor,
            operation_id,
            self.renderers,
            method,
            self.committed,
            timed=False,
        )

    def system_unit(
        self, actor: Actor | None = None, operation_id: UUID | None = None, method: str = ""
    ) -> UnitOfWork:
        """Returns a unit of work as the system role.

        It is for a change by the server itself, or for a caller whose identity is not known yet (log-in).
        """
        return UnitOfWork(
            self.database.system,
            actor or Actor(None, SYSTEM),
            operation_id or uuid4(),
            self.renderers,
            method,
            self.committed,
        )

    @asynccontextmanager
    async def read(
        self, user_id: int, *, snapshot: bool = False, replica: bool = False, timed: bool = True
    ) -> AsyncIterator[ReadTransaction]:
        """Opens a read as the app role, under the user's row-level security.

        With `snapshot`, all statements see the same moment. Its time is also read unless `timed` is False.
        """
        pool = (self.database.replica or self.database.app) if replica else self.database.app
        if snapshot:
            async with opening.reading(pool, user_id, snapshot=True, timed=timed) as (connection, began):
                yield ReadTransaction(connection, began)
        else:
            async with opening.Looking(pool, user_id) as connection:
                yield ReadTransaction(connection)

    async def call(
        self, user_id: int, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Any]:
        """Returns the rows of one statement, run as the app role.

        It runs in its own transaction, in one round trip. The statement itself must set the caller's identity: it first
        calls a function that does so, with its parameter `user_id`.
        """
        # This is `opening.Connected` inlined: most calls of a server are one such statement.
        pool = self.database.app
        with connecting():
            connection = pool.take_now() or await pool.take()
        with translated():
            try:
                return await connection.rows(statement, {"user_id": user_id, **(parameters or {})})
            finally:
                pool.give(connection)

    @asynccontextmanager
    async def system_read(
        self, *, snapshot: bool = False, timed: bool = True
    ) -> AsyncIterator[ReadTransaction]:
        """Opens a read of the server itself, which sees every row.

        Unless `timed` is False, one more statement reads the time.
        """
        reading = opening.reading(self.database.system, None, snapshot=snapshot, timed=timed)
        async with reading as (connection, began):
            yield ReadTransaction(connection, began)

    @asynccontextmanager
    async def system_look(self) -> AsyncIterator[ReadTransaction]:
        """Opens a read of the server itself in which each statement is a transaction.

        Each statement is one round trip.
        """
        async with self.system_call() as connection:
            yield ReadTransaction(connection)

    @asynccontextmanager
    async def system_call(self) -> AsyncIterator[Connection]:
        """Lends a connection of the server itself; each statement is a transaction."""
        async with opening.Connected(self.database.system) as connection:
            yield connection

    @asynccontextmanager
    async def system_write(self, actor_name: str = SYSTEM) -> AsyncIterator[Transaction]:
        """Opens a change by the server itself.

        Its events are written and committed if the block raises nothing.
        """
        unit = self.system_unit(Actor(None, actor_name))
        try:
            transaction = await unit.begin()
            with translated():
                yield transaction
        except BaseException:
            await unit.rollback()
            raise
        await unit.commit()
