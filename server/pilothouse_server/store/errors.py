"""From what the driver says to what the caller may hear.

`translated()` stands around every use of the database. A broken constraint becomes the domain error that
its name stands for: nouns register their constraints with `register_constraint`, so that a race that a
check before could not see ends as the same ALREADY_EXISTS. A database that is away becomes UNAVAILABLE.
Everything else stays as it is and leaves the server as INTERNAL without its words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg

from pilothouse_server.errors import Aborted, PilothouseError, Unavailable
from pilothouse_server.store.pool import PoolBusyError, PoolClosedError

_constraints: dict[str, Callable[[], PilothouseError]] = {}

_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.exceptions.InternalClientError,
    asyncpg.exceptions.InterfaceError,
    asyncpg.InvalidAuthorizationSpecificationError,
    ConnectionError,
    OSError,
)
# How the loss of a connection that is used directly shows. The last is what asyncpg says where it ends within a
# statement.
CONNECTION_LOST = (
    OSError,
    TimeoutError,
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


def register_constraint(name: str, error: Callable[[], PilothouseError]) -> None:
    """Says what a violation of the constraint or unique index `name` means to a caller."""
    _constraints[name] = error


def violated_constraint(error: asyncpg.IntegrityConstraintViolationError) -> str:
    """The name of the constraint or unique index that a statement broke."""
    return error.constraint_name or ""


def database_unavailable() -> Unavailable:
    """The error for a database that cannot be reached."""
    return Unavailable(
        "the database is not available, try again", reason="DATABASE_UNAVAILABLE", retry_after_seconds=1.0
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raises domain errors in place of the driver's, with no trace of the driver's words."""
    try:
        yield
    except PilothouseError:
        raise
    except PoolBusyError:
        raise Unavailable(
            "all database connections are in use, try again", reason="DATABASE_BUSY", retry_after_seconds=1.0
        ) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        translation = _meaning(error)
        if translation is None:
            raise
        raise translation from None
    except (PoolClosedError, ConnectionError, TimeoutError):
        raise database_unavailable() from None


@contextmanager
def connecting() -> Iterator[None]:
    """The same around the taking of a connection, where the system's own errors mean the database too: a socket
    that is not there, a name that is not known.
    """
    try:
        with translated():
            yield
    except OSError:
        raise database_unavailable() from None


def _meaning(cause: Exception) -> PilothouseError | None:
    if isinstance(cause, asyncpg.IntegrityConstraintViolationError):
        factory = _constraints.get(cause.constraint_name or "")
        return factory() if factory else None
    if isinstance(cause, _RETRY):
        return Aborted(
            "the change met another one, try again", reason="CONCURRENT_CHANGE", retry_after_seconds=0.1
        )
    if isinstance(cause, _SLOW):
        return Unavailable(
            "the database did not answer in time", reason="DATABASE_TIMEOUT", retry_after_seconds=1.0
        )
    if isinstance(cause, asyncpg.ConfigurationLimitExceededError):
        return Unavailable(
            "a partition of the database is missing, so nothing can be numbered until it is made",
            reason="PARTITION_MISSING",
            retry_after_seconds=5.0,
        )
    return database_unavailable() if isinstance(cause, _AWAY) else None
