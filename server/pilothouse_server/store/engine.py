"""Connections to PostgreSQL: one engine for each database role, and the pool settings of the seed's § 6.2.

`app` serves requests under row-level security, `system` the feed, the reconciler and log-in, `maintenance`
the periodic work. A `replica` may serve two heavy reads. All speak asyncpg, in UTC, with a statement
timeout, and hide parameters from errors and logs, because parameters may hold what nobody should read.

A commit or rollback is never left half awaited: `grpc.aio` cancels a handler whenever its client goes away,
and a cancelled commit would leave neither the caller nor the pool knowing what happened. `uncancelled`
finishes it first.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pilothouse_server.settings import Settings
from pilothouse_server.store.idle_connections import IdleConnections, ShrinkingPool

T = TypeVar("T")


def asyncpg_url(dsn: str) -> URL:
    """A `postgresql://` DSN as SQLAlchemy takes it, with the driver named (2.1's default is another)."""
    return make_url(dsn).set(drivername="postgresql+asyncpg")


def plain_dsn(dsn: str) -> str:
    """The same DSN for asyncpg itself."""
    return make_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass
class Database:
    """The engines of a server.

    `direct_dsn` bypasses a transaction pooler, as LISTEN and session locks need.
    """

    app: AsyncEngine
    system: AsyncEngine
    maintenance: AsyncEngine
    direct_dsn: str
    replica: AsyncEngine | None = None
    idle_connections: int = 10

    @classmethod
    def connect(cls, settings: Settings) -> Database:
        """Makes the engines; nothing is dialled yet.

        A role without a DSN of its own uses `database_url` and takes its role on when it connects, which
        that login must be allowed to; with separate logins nothing is taken on.
        """
        shared = settings.database_url
        separate = bool(settings.system_database_url)
        system_dsn = settings.system_database_url or shared
        opened = settings.pool_open_connections
        return cls(
            app=_engine(shared, settings, "app", opened, role="" if separate else "pilothouse_app"),
            system=_engine(
                system_dsn, settings, "system", opened, role="" if separate else "pilothouse_system"
            ),
            maintenance=_engine(
                settings.maintenance_database_url or shared,
                settings,
                "maintenance",
                # Each periodic job holds one connection for its lock while it works on another.
                12,
                statement_timeout=0.0,
                role="" if settings.maintenance_database_url else "pilothouse_maintenance",
            ),
            direct_dsn=plain_dsn(settings.direct_database_url or system_dsn),
            replica=(
                _engine(
                    settings.replica_database_url,
                    settings,
                    "replica",
                    opened,
                    role="" if separate else "pilothouse_app",
                )
                if settings.replica_database_url
                else None
            ),
            idle_connections=min(settings.pool_idle_connections, opened),
        )

    async def close_unneeded(self) -> None:
        """Gives up connections that nobody needs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for engine in (self.app, self.system, self.replica):
                if engine is not None:
                    group.create_task(IdleConnections(engine, self.idle_connections).run())

    async def close(self) -> None:
        """Closes every pool."""
        for engine in (self.app, self.system, self.maintenance, self.replica):
            if engine is not None:
                await engine.dispose()


def _engine(
    dsn: str,
    settings: Settings,
    name: str,
    open_connections: int,
    *,
    statement_timeout: float | None = None,
    role: str = "",
) -> AsyncEngine:
    seconds = settings.statement_timeout_seconds if statement_timeout is None else statement_timeout
    engine = create_async_engine(
        asyncpg_url(dsn),
        poolclass=ShrinkingPool,
        pool_size=open_connections,
        max_overflow=0,
        pool_recycle=int(settings.pool_max_lifetime_seconds),
        pool_timeout=5.0,
        pool_use_lifo=True,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": 5.0,
            "command_timeout": (seconds + 5.0) if seconds else None,
            # A pooler in transaction mode shares server connections: names must not repeat.
            "prepared_statement_name_func": lambda: f"__pilothouse_{uuid4().hex}__",
            "server_settings": {
                "application_name": f"pilothouse-{name}",
                "timezone": "UTC",
                "statement_timeout": str(int(seconds * 1000)),
                "idle_in_transaction_session_timeout": "60000",
                "jit": "off",
                **({"role": role} if role else {}),
            },
        },
    )
    _drop_useless(engine, settings.pool_max_idle_seconds)
    return engine


def _drop_useless(engine: AsyncEngine, seconds: float) -> None:
    """SQLAlchemy's pool has no idle time-out, and does not see that the server closed a connection.

    One that was unused for `seconds`, or that the driver knows to be closed, is replaced when next asked for.
    """

    @event.listens_for(engine.sync_engine, "checkin")
    def remember(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def check(connection: Any, record: Any, _proxy: Any) -> None:
        idle_since = record.info.pop("idle_since", None)
        if connection.driver_connection.is_closed():
            raise DisconnectionError
        if idle_since is not None and time.monotonic() - idle_since > seconds:
            raise DisconnectionError
