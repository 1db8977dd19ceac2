"""Connections to PostgreSQL: one pool for each database role.

The settings are those of the seed's § 6.2.

`app` serves requests under row-level security, `system` the feed, the reconciler and log-in, `maintenance`
the periodic work. A `replica` may serve two heavy reads. All use asyncpg, in UTC, with a statement timeout.
SQLAlchemy's engine is not used; `statements` describes the parts that are.

A commit is always awaited to its end: `grpc.aio` cancels a handler whenever its client disconnects, and after a
cancelled commit neither the caller nor the pool would know its result. So `uncancelled` finishes it first.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from sqlalchemy.engine import make_url

from pilothouse_server.settings.model import Settings
from pilothouse_server.store.connection import Driver
from pilothouse_server.store.dead_connections import DeadConnectionReaper, watch_over
from pilothouse_server.store.pool import Limits, Pool
from pilothouse_server.store.results import Row
from pilothouse_server.values.database_address import tls_problem

PERIOD_SECONDS: Final = 30.0
# The longest time that our client waits for a call (`Deadlines.mutation`).
STATEMENT_TIMEOUT_SECONDS: Final = 30.0
_decode = msgspec.json.Decoder().decode
# How long a request waits for a lock that another transaction holds.
_LOCK_MILLISECONDS = 20_000
_TELL_AGAIN_SECONDS = 60.0

log = structlog.get_logger(__name__)


def plain_dsn(dsn: str) -> str:
    """Returns the DSN as asyncpg takes it, without the driver's name."""
    return make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass
class Database:
    """The pools of a server.

    `direct_dsn` bypasses a transaction pooler, as LISTEN and session locks require. `pooled` is True behind a pooler.
    """

    app: Pool
    system: Pool
    maintenance: Pool
    direct_dsn: str
    replica: Pool | None = None
    pooled: bool = False

    @classmethod
    def connect(cls, settings: Settings) -> Database:
        """Makes the pools; they open no connection yet.

        A role without a DSN of its own uses `database_url`. Each login sets its role when it connects, and must be
        allowed to: `put_changes` checks the current role, and inherited rights do not change that. Behind a transaction
        pooler no role can be set, so there the logins are the roles themselves.
        """
        shared = settings.database_url
        system_dsn = settings.system_database_url or shared
        app_role = "pilothouse_app"
        limits = Limits(
            open=settings.pool_open_connections,
            working=settings.pool_working_connections,
            idle=settings.pool_idle_connections,
            # A stream also needs a connection before its first response. With this bound, many streams that open
            # concurrently wait instead of being refused.
            waiting=settings.max_concurrent_calls + settings.max_streams,
            lifetime_seconds=settings.pool_max_lifetime_seconds,
            idle_seconds=settings.pool_max_idle_seconds,
        )
        # Each periodic job holds one connection for its lock while it works on another.
        few = dataclasses.replace(limits, open=16, working=16)
        timeout = STATEMENT_TIMEOUT_SECONDS
        return cls(
            app=Pool(_opener(shared, settings, "app", timeout, app_role), limits),
            system=Pool(
                _opener(system_dsn, settings, "system", timeout, "pilothouse_system"),
                limits,
            ),
            maintenance=Pool(
                _opener(
                    settings.maintenance_database_url or shared,
                    settings,
                    "maintenance",
                    0.0,
                    "" if settings.maintenance_database_url else "pilothouse_maintenance",
                ),
                few,
            ),
            direct_dsn=plain_dsn(settings.direct_database_url or system_dsn),
            pooled=bool(settings.direct_database_url),
            replica=(
                Pool(_opener(settings.replica_database_url, settings, "replica", timeout, app_role), limits)
                if settings.replica_database_url
                else None
            ),
        )

    async def close_unneeded(self) -> None:
        """Closes connections that were not needed for a period, until cancelled."""
        while True:
            for pool in self._pools():
                pool.begin_period()
            await asyncio.sleep(PERIOD_SECONDS)
            for pool in self._pools():
                pool.close_unneeded()

    async def close_dead_connections(self) -> None:
        """Terminates dead connections, until cancelled."""
        pools = (pool for pool in self._pools() if pool is not self.maintenance)
        await watch_over(*(DeadConnectionReaper(pool, direct=not self.pooled) for pool in pools))

    async def close(self) -> None:
        """Closes every pool."""
        await asyncio.gather(*(pool.close() for pool in self._pools()))

    def _pools(self) -> Iterator[Pool]:
        return (pool for pool in (self.app, self.system, self.maintenance, self.replica) if pool is not None)


def _opener(
    dsn: str, settings: Settings, name: str, statement_timeout: float, role: str
) -> Callable[[], Awaitable[Driver]]:
    """Returns the function that opens a connection of a role.

    `statement_timeout` is in seconds, 0 for none.
    """
    options: dict[str, Any] = {
        "dsn": plain_dsn(dsn),
        "timeout": 5.0,
        "command_timeout": (statement_timeout + 5.0) if statement_timeout else None,
        "connection_class": Driver,
        "record_class": Row,
        "statement_cache_size": 200 if settings.pool_prepared_statements else 0,
        "max_cached_statement_lifetime": 0,
        "max_cacheable_statement_size": 0,
        "server_settings": _session_settings(settings, name, statement_timeout, role),
    }

    told = -_TELL_AGAIN_SECONDS

    async def open_session() -> Driver:
        nonlocal told
        try:
            driver: Driver = await asyncpg.connect(**options)
        except OSError as error:
            # The caller's error only shows that the database is unreachable; the log shows a wrong certificate to the
            # operator.
            if (problem := tls_problem(error)) and time.monotonic() - told >= _TELL_AGAIN_SECONDS:
                told = time.monotonic()
                log.error("the database cannot be connected to by TLS", login=name, why=problem)
            raise
        try:
            await _set_codecs(driver)
        except BaseException:
            driver.terminate()
            raise
        return driver

    return open_session


def _session_settings(settings: Settings, name: str, statement_timeout: float, role: str) -> dict[str, str]:
    """Returns the settings of a new session.

    A transaction pooler refuses most of them, or drops them after the first transaction. Behind a pooler the defaults
    of the roles apply (see `pilothouse_migrations.roles`).
    """
    kept = {"application_name": f"pilothouse-{name}", "timezone": "UTC"}
    if settings.direct_database_url:
        return kept
    return {
        **kept,
        "statement_timeout": str(int(statement_timeout * 1000)),
        "idle_in_transaction_session_timeout": "60000",
        **({"lock_timeout": str(_LOCK_MILLISECONDS)} if name == "app" else {}),
        "jit": "off",
        **({"role": role} if role else {}),
    }


async def _set_codecs(driver: Driver) -> None:
    """Makes the driver decode JSON to Python values, and send JSON text as it is.

    `statements` encodes it.
    """
    await driver.set_type_codec(
        "json", schema="pg_catalog", format="binary", encoder=str.encode, decoder=_decode
    )
    # The binary form of jsonb has a version number before the text.
    await driver.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + value.encode(),
        decoder=lambda value: _decode(value[1:]),
    )
