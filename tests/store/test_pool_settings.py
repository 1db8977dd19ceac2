"""The defaults of the pools, as the seed's § 6.2 requires.

The seed has "SetMaxIdleConns(10)", "SetMaxOpenConns(100)", "SetConnMaxLifetime(time.Hour)",
"SetConnMaxIdleTime(time.Minute * 30)".
"""

from __future__ import annotations

from datetime import timedelta

from pilothouse_server.settings.model import Settings
from pilothouse_server.store.engine import Database as Engines
from tests.conftest import Database

_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)


def test_the_pool_defaults_are_those_of_the_seed() -> None:
    settings = Settings()
    max_idle_connections, max_open_connections = 10, 100
    connection_max_lifetime, connection_max_idle_time = _HOUR, 30 * _MINUTE
    assert settings.pool_idle_connections == max_idle_connections
    assert settings.pool_open_connections == max_open_connections
    assert timedelta(seconds=settings.pool_max_lifetime_seconds) == connection_max_lifetime
    assert timedelta(seconds=settings.pool_max_idle_seconds) == connection_max_idle_time


async def test_the_pools_have_these_defaults(database: Database) -> None:
    engines = Engines.connect(Settings(database_url=database.app_dsn, replica_database_url=database.app_dsn))
    try:
        assert engines.replica is not None
        for pool in (engines.app, engines.system, engines.replica):
            assert pool.limits.idle == 10
            assert pool.limits.open == 100
            assert timedelta(seconds=pool.limits.lifetime_seconds) == _HOUR
            assert timedelta(seconds=pool.limits.idle_seconds) == 30 * _MINUTE
    finally:
        await engines.close()
