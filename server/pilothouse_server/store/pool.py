"""The connections of one database role, of which only a few are in use at a time.

PostgreSQL completes more work with eight connections in use than with thirty, so a call beyond `working` waits
here, in the order of arrival, and not in the database. A call that has had its connection for longer than a
short call needs is itself waiting for something (a lock, a cluster, a long read). From then on it no longer
counts, and the next call gets a connection, up to the number that may be open. So slow work does not block fast
work. A task that needs a second connection while it has one does not wait for other tasks to return theirs.

Returning a connection takes no time of the caller and cannot be cancelled: a task of the pool ends an open
transaction or an unfinished statement. A session is lent again only after the pool has checked that it is outside
a transaction and has no statement in progress. A session that cannot be brought into that state is closed.

The connection that was used last is lent first. A connection that is too old, was unused for too long or was
closed by the server is replaced when its turn comes. Connections that were not needed for a whole period are
closed, down to the number that the limits keep idle.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.store.connection import Connection, Driver, Loan, Session

# A call that has had its connection for this long no longer counts as working.
SHORT_SECONDS: Final = 0.25
# How long a call waits for a connection.
WAIT_SECONDS: Final = 5.0
# How long it may take to close a session, or to end the transaction or statement that it was left in.
_END_SECONDS: Final = 5.0


class PoolBusyError(Exception):
    """No connection became free within the time, or too many calls wait for one."""


class PoolClosedError(Exception):
    """The pool is closed, because the server is shutting down."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a pool.

    They are the most open and working connections, the connections that stay idle even if they are not needed, and the
    most waiting calls. A connection is replaced at the age of `lifetime_seconds`, and after `idle_seconds` without use.
    """

    open: int
    working: int
    idle: int
    waiting: int
    lifetime_seconds: float
    idle_seconds: float


@dataclass(slots=True, eq=False)
class _Waiting:
    """A call that waits for its turn."""

    task: asyncio.Task[Any] | None
    since: float
    turn: asyncio.Future[Loan]


class Pool:
    """Lends connections.

    `open_session` opens one; the pool opens none before the first request.
    """

    def __init__(
        self,
        open_session: Callable[[], Awaitable[Driver]],
        limits: Limits,
        *,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.limits = limits
        self._open_session = open_session
        self._wait_seconds = wait_seconds
        self._idle: list[Session] = []
        # All loans; the loans that count as working, oldest first; and the number of loans of each task.
        self._loans: set[Loan] = set()
        self._working: dict[Loan, None] = {}
        self._held: dict[asyncio.Task[Any] | None, int] = {}
        self._waiting: deque[_Waiting] = deque()
        self._ageing: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        # The number of connections that were ever opened. When it changes, another database may be answering.
        self.opened = 0
        # The smallest number of idle connections since the period began: this many were not needed.
        self._fewest = 0

    @property
    def lent(self) -> int:
        """The number of connections in use."""
        return len(self._loans)

    async def take(self) -> Connection:
        """Returns a connection, which the caller must return by `give`.

        Raises:
            PoolBusyError: no connection became free within the time.
            PoolClosedError: the pool is closed.
            asyncpg's errors, OSError: no connection can be opened.
        """
        task = asyncio.current_task()
        try:
            loan = self._lend(task, _now()) if self._may_lend(task) else await self._turn(task)
        finally:
            # The traceback of an error refers to this frame. If the frame referred to the task, which refers to the
            # error, this cycle would keep all of them in memory.
            del task
        try:
            session = self._idle_session(_now()) or await self._new_session()
        except BaseException:
            self._end(loan)
            del loan
            raise
        return _lent(session, loan)

    def take_now(self) -> Connection | None:
        """Returns a connection as `take` does, or None if `take` would wait or open one.

        Raises:
            PoolClosedError: the pool is closed.
        """
        if not self._idle:
            return None
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if not self._may_lend(task):
            return None
        now = loop.time()
        session = self._idle_session(now)
        return None if session is None else _lent(session, self._lend(task, now))

    def give(self, connection: Connection) -> asyncio.Task[None] | None:
        """Takes a connection back in any state; ignores one that was already returned.

        Returns the task that cleans the session, if that is needed; the caller need not wait for it.
        """
        session = self._take_back(connection)
        if session is None:
            return None
        driver = session.driver
        if driver.is_closed():
            self._put_back(session)
        elif connection.unfinished or driver.is_in_transaction():
            return self._spawn(self._clean(session))
        elif self._closed:
            self._put_back(session)
        else:
            self._idle_again(session)
        return None

    async def discard(self, connection: Connection) -> None:
        """Takes a connection back and closes it: its session must not be used again."""
        session = self._take_back(connection)
        if session is not None:
            session.driver.terminate()
            self._put_back(session)

    def _take_back(self, connection: Connection) -> Session | None:
        session = connection.detach()
        if session is not None and session.loan is not None:
            # No call waits for the session any more, so `waiting_for_answers` must not show it.
            session.loan.connection = None
        return session

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Lends a connection for the block.

        Each statement is a transaction unless one is begun. Raises as `take`.
        """
        connection = await self.take()
        try:
            yield connection
        finally:
            self.give(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lends a connection in a transaction, which commits if the block raises nothing.

        Raises as `take`.
        """
        async with self.connect() as connection:
            await connection.command("BEGIN ISOLATION LEVEL READ COMMITTED")
            yield connection
            await uncancelled(connection.command("COMMIT"))

    @property
    def waiting_for_answers(self) -> Iterator[Connection]:
        """The connections in use whose statement has no response yet."""
        return (
            loan.connection
            for loan in self._loans
            if loan.connection is not None and loan.connection.unfinished
        )

    def sessions(self) -> dict[int, Driver]:
        """Returns the open sessions by the pid of their backend process.

        These are the sessions that are idle or wait for a response.
        """
        waiting = (connection.driver for connection in self.waiting_for_answers)
        idle = (session.driver for session in self._idle)
        return {driver.get_server_pid(): driver for driver in (*waiting, *idle) if not driver.is_closed()}

    async def open_session(self) -> Driver:
        """Opens a session that does not belong to the pool; the caller must close it.

        Raises asyncpg's errors, and OSError.
        """
        return await self._open_session()

    def begin_period(self) -> None:
        """Begins the period after which `close_unneeded` closes unneeded connections."""
        self._fewest = len(self._idle)

    def close_unneeded(self) -> int:
        """Ends the period and closes connections that were not needed; returns the number."""
        surplus = max(0, min(self._fewest, len(self._idle)) - self.limits.idle)
        # The connections that were unused for the longest time come first.
        unneeded, self._idle = self._idle[:surplus], self._idle[surplus:]
        for session in unneeded:
            self._retire(session)
        return surplus

    async def close(self) -> None:
        """Stops lending and closes idle connections.

        Connections in use are closed when they are returned.
        """
        self._closed = True
        for timer in (self._ageing, self._expiry):
            if timer is not None:
                timer.cancel()
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.turn.done():
                waiting.turn.set_exception(PoolClosedError())
        if self._closing:
            await asyncio.wait(self._closing, timeout=_END_SECONDS)
        while self._idle:
            self._retire(self._idle.pop())
        if self._closing:
            await asyncio.wait(self._closing, timeout=_END_SECONDS)

    def _may_lend(self, task: asyncio.Task[Any] | None) -> bool:
        if self._closed:
            raise PoolClosedError
        if len(self._loans) >= self.limits.open:
            return False
        return task in self._held or (len(self._working) < self.limits.working and not self._waiting)

    def _lend(self, task: asyncio.Task[Any] | None, now: float) -> Loan:
        loan = Loan(task, now)
        self._loans.add(loan)
        self._working[loan] = None
        self._held[task] = self._held.get(task, 0) + 1
        return loan

    async def _turn(self, task: asyncio.Task[Any] | None) -> Loan:
        if len(self._waiting) >= self.limits.waiting:
            raise PoolBusyError
        loop = asyncio.get_running_loop()
        waiting = _Waiting(task, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        self._watch_ages()
        if self._expiry is None:
            self._expiry = loop.call_at(waiting.since + self._wait_seconds, self._expire)
        try:
            return await waiting.turn
        except BaseException:
            self._leave(waiting)
            del task, waiting
            raise

    def _leave(self, waiting: _Waiting) -> None:
        """Ends the wait of a cancelled or refused call, even if it was just given a turn."""
        turn = waiting.turn
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._end(turn.result())
        with contextlib.suppress(ValueError):
            self._waiting.remove(waiting)

    def _end(self, loan: Loan) -> None:
        loan.connection = None
        self._loans.discard(loan)
        self._working.pop(loan, None)
        held = self._held.pop(loan.task, 0)
        if held > 1:
            self._held[loan.task] = held - 1
        if self._waiting:
            self._give_turns()

    def _give_turns(self) -> None:
        while (
            self._waiting and len(self._working) < self.limits.working and len(self._loans) < self.limits.open
        ):
            waiting = self._waiting.popleft()
            if not waiting.turn.done():
                waiting.turn.set_result(self._lend(waiting.task, _now()))

    def _expire(self) -> None:
        """Ends waits that have lasted too long, and sets the timer for the next one."""
        loop = asyncio.get_running_loop()
        self._expiry = None
        while self._waiting and self._waiting[0].since + self._wait_seconds <= loop.time():
            turn = self._waiting.popleft().turn
            if not turn.done():
                turn.set_exception(PoolBusyError())
        if self._waiting:
            self._expiry = loop.call_at(self._waiting[0].since + self._wait_seconds, self._expire)

    def _watch_ages(self) -> None:
        """While a call waits, sets the timer at which the oldest loan stops being working."""
        if self._ageing is None and self._waiting and self._working:
            oldest = next(iter(self._working))
            loop = asyncio.get_running_loop()
            self._ageing = loop.call_at(oldest.began + SHORT_SECONDS, self._age)

    def _age(self) -> None:
        self._ageing = None
        latest = asyncio.get_running_loop().time() - SHORT_SECONDS
        for loan in [loan for loan in self._working if loan.began <= latest]:
            del self._working[loan]
        self._give_turns()
        self._watch_ages()

    def _idle_session(self, now: float) -> Session | None:
        while self._idle:
            session = self._idle.pop()
            if len(self._idle) < self._fewest:
                self._fewest = len(self._idle)
            if (
                not session.driver.is_closed()
                and now - session.born <= self.limits.lifetime_seconds
                and now - session.idle_since <= self.limits.idle_seconds
            ):
                return session
            self._retire(session)
        return None

    async def _new_session(self) -> Session:
        driver = await self._open_session()
        self.opened += 1
        return Session(driver, asyncio.get_running_loop().time())

    async def _clean(self, session: Session) -> None:
        """Ends the session's transaction or statement; closes the session if that fails."""
        try:
            # asyncpg first waits until a cancelled statement has ended.
            await session.driver.execute("ROLLBACK", timeout=_END_SECONDS)
        except (
            OSError,
            TimeoutError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ):
            session.driver.terminate()
        except BaseException:
            session.driver.terminate()
            raise
        finally:
            self._put_back(session)

    def _put_back(self, session: Session) -> None:
        if not (session.driver.is_closed() or self._closed or session.driver.is_in_transaction()):
            self._idle_again(session)
            return
        if not session.driver.is_closed():
            session.driver.terminate()
        self._end_of(session)

    def _idle_again(self, session: Session) -> None:
        session.idle_since = _now()
        self._idle.append(session)
        self._end_of(session)

    def _end_of(self, session: Session) -> None:
        loan, session.loan = session.loan, None
        if loan is not None:
            self._end(loan)

    def _retire(self, session: Session) -> None:
        if not session.driver.is_closed():
            self._spawn(_close(session.driver))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name="end of a database session")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task


def _now() -> float:
    return asyncio.get_running_loop().time()


def _lent(session: Session, loan: Loan) -> Connection:
    session.loan = loan
    loan.connection = connection = Connection(session)
    return connection


async def _close(driver: Driver) -> None:
    try:
        await driver.close(timeout=_END_SECONDS)
    except (
        OSError,
        TimeoutError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ):
        driver.terminate()
