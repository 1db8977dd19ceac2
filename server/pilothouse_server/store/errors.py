"""Translates the driver's errors into errors that the caller may see.

`translated()` surrounds every use of the database. A violated constraint becomes the domain error that is registered
for its name: nouns register their constraints with `register_constraint`, so that a race that an earlier check could
not detect ends with the same ALREADY_EXISTS. An unreachable database becomes UNAVAILABLE. So does a database whose
disk is full, that lacks another resource (SQLSTATE class 53), or that takes no writes (a standby). A metric counts
these, and the log has one line a minute (`log_lines`). All other errors stay as they are, and reach the caller as
INTERNAL without their text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import asyncpg
import structlog
from prometheus_client import Counter

from pilothouse_server.errors import Aborted, InvalidArgument, PilothouseError, Unavailable
from pilothouse_server.store.pool import PoolBusyError, PoolClosedError

log = structlog.get_logger(__name__)

# No change can be numbered until the missing partition is made.
PARTITION_MISSING = "PARTITION_MISSING"
# The beginning of the sequencer's error, whose SQLSTATE PostgreSQL also uses for its own limits.
_NO_PARTITION = "no partition of "
# The end of the error by which `put_changes` refuses a record or an event of a namespace that the caller may not see.
# The call was authorised before, so the caller's grants have changed since.
_NOT_REACHED = "of reachable namespaces only"
REFUSED = Counter(
    "pilothouse_database_refused_total",
    "Statements that PostgreSQL refused because its disk is full, it lacks another resource or takes no writes.",
    ("reason", "sqlstate"),
)

_constraints: dict[str, Callable[[], PilothouseError]] = {}

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.exceptions.InternalClientError,
    asyncpg.exceptions.InterfaceError,
    asyncpg.InvalidAuthorizationSpecificationError,
    ConnectionError,
    OSError,
)
# The errors of a lost connection that is used directly. The last is asyncpg's error for a loss within a statement.
CONNECTION_LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_OF_THE_DATABASE = (
    PoolBusyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
# The last: the schema changed under a statement that the connection had prepared.
_RETRY = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.exceptions.InvalidCachedStatementError,
)
_SLOW = (asyncpg.QueryCanceledError, asyncio.TimeoutError)
# SQLSTATE class 53; and 25006, of a standby that was not promoted, or of a server that is set to read-only.
_REFUSING = (asyncpg.InsufficientResourcesError, asyncpg.ReadOnlySQLTransactionError)


def register_constraint(name: str, error: Callable[[], PilothouseError]) -> None:
    """Registers the domain error for violations of the constraint or index `name`."""
    _constraints[name] = error


def database_unavailable() -> Unavailable:
    """Returns the error for a database that cannot be reached."""
    return Unavailable(
        "the database is not available, try again", reason="DATABASE_UNAVAILABLE", retry_after_seconds=1.0
    )


class _Translated:
    """Raises domain errors in place of the driver's, and of errors in `also`."""

    __slots__ = ("_also",)

    def __init__(self, *also: type[BaseException]) -> None:
        self._also = also

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, self._also):
            raise database_unavailable() from None
        if isinstance(error, _OF_THE_DATABASE):
            translation = _meaning(error)
            if translation is not None:
                raise translation from None


_translated = _Translated(PoolClosedError, ConnectionError, TimeoutError)
_connecting = _Translated(PoolClosedError, OSError)
_of_the_driver = _Translated(PoolClosedError)


def translated() -> AbstractContextManager[None]:
    """Returns the context that raises domain errors in place of the driver's.

    They do not contain the driver's text.
    """
    return _translated


def connecting() -> AbstractContextManager[None]:
    """Returns the same context for taking a connection.

    There, OSErrors also come from the database. Examples are a missing socket and an unknown host name.
    """
    return _connecting


def of_the_driver() -> AbstractContextManager[None]:
    """Returns the context that translates the driver's errors only.

    It is for work that also uses files or other connections. Their OSErrors stay as they are.
    """
    return _of_the_driver


@contextmanager
def fitting() -> Iterator[None]:
    """Raises InvalidArgument if a value is too large or too long for the database.

    Callers' values are checked before; values from other sources, such as a cluster, are not.
    """
    try:
        yield
    except asyncpg.DataError:
        raise InvalidArgument(
            "a number is too large, or a text is too long, to be stored",
            reason="VALUE_TOO_LARGE",
        ) from None


def _meaning(cause: BaseException) -> PilothouseError | None:
    if isinstance(cause, PoolBusyError):
        return _busy("all database connections are in use, try again")
    if isinstance(cause, asyncpg.IntegrityConstraintViolationError):
        factory = _constraints.get(cause.constraint_name or "")
        return factory() if factory else None
    if isinstance(cause, _RETRY):
        return Aborted(
            "a concurrent change conflicts with this one, try again",
            reason="CONCURRENT_CHANGE",
            retry_after_seconds=0.1,
        )
    if isinstance(cause, asyncpg.InsufficientPrivilegeError) and str(cause).endswith(_NOT_REACHED):
        return Aborted(
            "your grants changed during the call; retry",
            reason="CONCURRENT_CHANGE",
            retry_after_seconds=0.1,
        )
    if isinstance(cause, _SLOW):
        return Unavailable(
            "the database did not respond in time", reason="DATABASE_TIMEOUT", retry_after_seconds=1.0
        )
    if isinstance(cause, _REFUSING):
        return _refused(cause)
    return database_unavailable() if isinstance(cause, _AWAY) else None


def _refused(cause: asyncpg.PostgresError) -> Unavailable:
    """Returns the error for a database that refuses statements; counts and logs it."""
    if isinstance(cause, asyncpg.ConfigurationLimitExceededError) and str(cause).startswith(_NO_PARTITION):
        return Unavailable(
            "a partition of the database is missing, so no change can be numbered until it is created",
            reason=PARTITION_MISSING,
            retry_after_seconds=5.0,
        )
    if isinstance(cause, asyncpg.DiskFullError):
        error = Unavailable(
            "the disk of the database is full, try again later",
            reason="DATABASE_FULL",
            retry_after_seconds=5.0,
        )
    elif isinstance(cause, asyncpg.ReadOnlySQLTransactionError):
        error = database_unavailable()
    else:
        error = _busy("the database lacks memory, connections or another resource, try again")
    code = cause.sqlstate or ""
    REFUSED.labels(error.reason, code).inc()
    log.error("the database refuses statements", reason=error.reason, sqlstate=code)
    return error


def _busy(message: str) -> Unavailable:
    return Unavailable(message, reason="DATABASE_BUSY", retry_after_seconds=1.0)
