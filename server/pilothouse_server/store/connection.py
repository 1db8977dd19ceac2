"""A connection on loan from the pool, on which repositories run their statements.

It is valid until it is returned; a later use raises an error instead of running in the next borrower's
transaction. It records whether a statement was left unfinished (a cancelled call, a time-out), so that the pool
does not lend the session again before it is clean (see `pool`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, TypeVar

import asyncpg
from asyncpg.protocol import NO_TIMEOUT
from sqlalchemy import Executable

from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.store import array_types, statements
from pilothouse_server.store.results import Result, Row, row_class
from pilothouse_server.store.statements import Form, Parameters, StatementError

T = TypeVar("T")
_NOTHING: Final[Parameters] = {}
# The number of rows in a slice: making them takes a millisecond.
SLICE_ROWS: Final = 64
_PROCESS: Final = secrets.token_hex(8)
_numbers = count(1)


class Driver(asyncpg.Connection):  # type: ignore[misc]
    """asyncpg's connection with unique statement names and faster prepared statements.

    The faster path has one timer for the connection. One for each statement would cost a tenth of a short
    statement. When the timer fires and the running statement is late, it closes the connection: PostgreSQL itself
    ends a long statement, so a late response means that the server is lost.
    """

    _since: float | None = None
    _timer: asyncio.TimerHandle | None = None

    def _get_unique_id(self, prefix: str) -> str:
        # asyncpg numbers prepared statements from 1 in each process. A pooler in transaction mode shares its
        # connections between processes, so names must not repeat.
        return f"__pilothouse_{prefix}_{_PROCESS}_{os.getpid():x}_{next(_numbers):x}__"

    async def _introspect_types(self, typeoids: Collection[int], timeout: float | None) -> Any:
        return array_types.known(typeoids) or await super()._introspect_types(typeoids, timeout)

    async def run(self, sql: str, arguments: Sequence[Any], record_class: type[Row]) -> list[Any]:
        """Returns the same as `fetch`.

        If the statement is prepared, it calls asyncpg's protocol directly.
        """
        prepared = self._stmt_cache.get((sql, record_class, False))
        if prepared is not None and not self._query_loggers:
            self._check_open()
            self._begin()
            try:
                found: list[Any] = await self._protocol.bind_execute(
                    prepared, arguments, "", 0, False, NO_TIMEOUT
                )
            except (
                asyncpg.exceptions.InvalidCachedStatementError,
                asyncpg.exceptions.OutdatedSchemaCacheError,
            ):
                # The schema changed. Within a transaction the statement cannot be repeated.
                await self.reload_schema_state()
                if self.is_in_transaction():
                    raise
            else:
                return found
            finally:
                self._since = None
        rows: list[Any] = await self.fetch(sql, *arguments, record_class=record_class)
        return rows

    async def open_cursor(self, sql: str, arguments: Sequence[Any], record_class: type[Row]) -> Any:
        """Returns a cursor for a query whose rows are fetched later, some at a time.

        Returns None if prepared statements are off, as behind a pooler that does not support them.
        """
        if not self._stmt_cache_enabled:
            return None
        return await self.cursor(sql, *arguments, record_class=record_class)

    def _begin(self) -> None:
        limit = self._config.command_timeout
        if limit is None:
            return
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(limit, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._since is None or self.is_closed():
            return
        late = self._since + self._config.command_timeout
        if self._loop.time() < late:
            self._timer = self._loop.call_at(late, self._look)
        else:
            self.terminate()


@dataclass(slots=True, eq=False)
class Loan:
    """One use of a connection: its task, and its beginning by the event loop's clock."""

    task: asyncio.Task[Any] | None
    began: float
    connection: Connection | None = None


@dataclass(slots=True, eq=False)
class Session:
    """One open connection to PostgreSQL. Times are by the event loop's clock."""

    driver: Driver
    born: float
    idle_since: float = 0.0
    loan: Loan | None = None


class Connection:
    """One loan of a PostgreSQL session.

    PostgreSQL's errors are raised as asyncpg's, without the texts that may contain a value; see `errors`.
    """

    __slots__ = ("_savepoints", "_session", "unfinished")

    def __init__(self, session: Session) -> None:
        self._session: Session | None = session
        self._savepoints = 0
        # Whether a statement was sent whose end was not received.
        self.unfinished = False

    @property
    def driver(self) -> Driver:
        """asyncpg's connection. Raises StatementError after it was returned to the pool."""
        if self._session is None:
            raise StatementError("the connection was already returned to the pool")
        return self._session.driver

    def detach(self) -> Session | None:
        """Ends the use of the connection and returns its session.

        Returns None if the use has already ended.
        """
        session, self._session = self._session, None
        return session

    async def execute(
        self, statement: Executable, parameters: Parameters | Sequence[Parameters] = _NOTHING
    ) -> Result:
        """Runs a statement.

        With a list of parameters it runs once for each of them, and returns no rows.

        Raises:
            asyncpg.PostgresError: PostgreSQL refused the statement.
            StatementError: the parameters do not fit the statement.
        """
        if isinstance(parameters, Mapping):
            ready = statements.ready(statement, parameters)
            return Result(await self._fetch(ready.form, ready.arguments(parameters)))
        if parameters:
            await self._execute_many(statement, parameters)
        return Result([])

    def rows(self, statement: Executable, parameters: Parameters) -> Awaitable[list[Any]]:
        """Runs a statement and returns its rows. Raises as `execute`."""
        ready = statements.ready(statement, parameters)
        return self._fetch(ready.form, ready.arguments(parameters))

    async def slices(
        self, statement: Executable, parameters: Parameters = _NOTHING
    ) -> AsyncGenerator[Sequence[Any], None]:
        """Yields the rows of a query in slices of 64, each of which is fetched on demand.

        So a thousand rows, or large ones, block the event loop no longer than a few do, and a caller that has
        enough can stop. It must be called in a transaction. Raises as `execute`.
        """
        ready = statements.ready(statement, parameters)
        arguments, form = ready.arguments(parameters), ready.form
        cursor = await self._driven(self.driver.open_cursor(form.sql, arguments, form.record_class))
        if cursor is None:
            yield await self._fetch(form, arguments)
            return
        while rows := await self._driven(cursor.fetch(SLICE_ROWS)):
            if form.record_class is Row:
                form.record_class = row_class(tuple(rows[0].keys()))
            yield rows
            if len(rows) < SLICE_ROWS:
                return

    async def execute_in_slices(self, statement: Executable, parameters: Parameters = _NOTHING) -> Result:
        """Runs a statement as `execute` does, but by `slices`.

        Other tasks run between the slices.
        """
        rows: list[Any] = []
        share = Share()
        async for found in self.slices(statement, parameters):
            rows += found
            await share.used()
        return Result(rows)

    async def command(self, sql: str) -> str:
        """Runs constant commands; returns the tag of the last one.

        They take no values and return no rows.
        """
        self.unfinished = True
        try:
            tag: str = await self.driver.execute(sql)
        except asyncpg.PostgresError as error:
            self._failed(error)
            raise
        self.unfinished = False
        return tag

    async def copy(
        self, table: str, *, schema: str, columns: Sequence[str], records: Iterable[Sequence[Any]]
    ) -> None:
        """Adds rows to a table by COPY. Raises as `execute`."""
        self.unfinished = True
        try:
            await self.driver.copy_records_to_table(
                table, schema_name=schema, columns=columns, records=records
            )
        except asyncpg.PostgresError as error:
            self._failed(error)
            raise
        self.unfinished = False

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Runs the block in a savepoint.

        If the block raises, only its statements are rolled back.
        """
        self._savepoints += 1
        name = f"part_{self._savepoints}"
        await self.command(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            # If the connection is closed, the whole transaction is lost.
            if not self.driver.is_closed():
                await self.command(f"ROLLBACK TO SAVEPOINT {name}")
            raise
        await self.command(f"RELEASE SAVEPOINT {name}")

    def _failed(self, error: asyncpg.PostgresError) -> None:
        """Handles the error with which PostgreSQL has refused a statement."""
        self.unfinished = False
        _make_discreet(error)
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError) and self._session is not None:
            # The session is replaced when it is next requested. A new one may reach a server that takes writes: a proxy
            # may lead elsewhere by now, or a setting may have changed.
            self._session.born = float("-inf")

    async def _fetch(self, form: Form, arguments: list[Any]) -> list[Any]:
        # `_driven` inlined, because each call runs this many times.
        self.unfinished = True
        try:
            rows: list[Any] = await self.driver.run(form.sql, arguments, form.record_class)
        except asyncpg.PostgresError as error:
            self._failed(error)
            raise
        except asyncpg.DataError:
            raise _misfit() from None
        self.unfinished = False
        if rows and form.record_class is Row:
            form.record_class = row_class(tuple(rows[0].keys()))
        return rows

    async def _driven(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits the driver's work and returns its result. Raises as `execute`."""
        self.unfinished = True
        try:
            found = await work
        except asyncpg.PostgresError as error:
            self._failed(error)
            raise
        except asyncpg.DataError:
            raise _misfit() from None
        self.unfinished = False
        return found

    async def _execute_many(self, statement: Executable, parameters: Sequence[Parameters]) -> None:
        ready = statements.ready(statement, parameters[0], many=True)
        self.unfinished = True
        try:
            await self.driver.executemany(ready.sql, [ready.arguments(each) for each in parameters])
        except asyncpg.PostgresError as error:
            self._failed(error)
            raise
        except asyncpg.DataError:
            raise _misfit() from None
        self.unfinished = False


def _make_discreet(error: asyncpg.PostgresError) -> None:
    """Removes texts that may contain a value from an error.

    Examples are a refused row, and a text that is no number.
    """
    error.detail = error.hint = None
    if (error.sqlstate or "").startswith("22"):
        error.args = ("a value was refused",)


def _misfit() -> StatementError:
    return StatementError("a value does not have the type that the statement needs")
