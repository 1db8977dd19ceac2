"""A database with namespaces and containers to store usage for, and the tests' ways to read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from pilothouse_server.metrics.model import UsageSample
from pilothouse_server.metrics.operations import UsageStore
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.engine import Database as Engines
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database, number_changes

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Box:
    """A container, with the fields that usage needs."""

    id: int
    namespace_id: int
    namespace: str
    name: str

    def sample(self, timestamp: datetime, **fields: Any) -> UsageSample:
        """Returns a sample of the container; a quarter of a core and a mebibyte unless given otherwise."""
        return msgspec.structs.replace(
            UsageSample(self.id, self.namespace_id, timestamp, 1, 0.25, 1 << 20), **fields
        )


class Environment:
    """The environment: the database, and the tested parts."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store
        self.usage = UsageStore(store)

    async def box(self, namespace: str = "shop", name: str = "web", **columns: Any) -> Box:
        """Creates a container, and its namespace if it is missing."""
        async with self.database.system() as connection:
            return await make_box(connection, namespace, name, **columns)

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Returns the rows of a query, seen by the system role."""
        async with self.database.system() as connection:
            await number_changes(connection)
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def partitions_since(self, day: datetime) -> None:
        """Creates the daily partitions that are missing since then."""
        async with self.database.owner() as owner:
            await owner.execute(
                "SELECT create_daily_partitions('container_resource_usage', $1, 30)", day.date()
            )

    async def empty(self) -> None:
        """Removes all usage."""
        async with self.database.owner() as owner:
            await owner.execute(
                "TRUNCATE container_resource_usage, container_usage_hourly, container_usage_daily, container_usage_days"
            )


async def make_box(connection: asyncpg.Connection, namespace: str, name: str, **columns: Any) -> Box:
    """Inserts a container, and the rows that it refers to if they are missing."""
    await connection.execute(
        "INSERT INTO clusters (name, api_server) VALUES ('local', 'https://127.0.0.1') ON CONFLICT DO NOTHING"
    )
    home = await connection.fetchval("SELECT id FROM namespaces WHERE name = $1", namespace)
    if home is None:
        home = await connection.fetchval(
            "INSERT INTO namespaces (name, kubernetes_name, cluster_name) VALUES ($1, $1, 'local') RETURNING id",
            namespace,
        )
    image = await connection.fetchval("SELECT register_image(NULL, 'nginx', '1.27', NULL)")
    given = {
        "name": name,
        "kubernetes_name": name,
        "namespace_id": home,
        "image_id": image,
        "spec": '{"image": "nginx:1.27"}',
    } | columns
    places = ", ".join(f"${index}" for index in range(1, len(given) + 1))
    made = await connection.fetchval(
        f"INSERT INTO containers ({', '.join(given)}) VALUES ({places}) RETURNING id", *given.values()
    )
    return Box(made, home, namespace, name)


def hours_ago(hours: float) -> datetime:
    """Returns a time before now, in UTC."""
    return datetime.now(UTC) - timedelta(hours=hours)


def midnight(days_ago: int) -> datetime:
    """Returns the start of a day in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - days_ago * DAY


@asynccontextmanager
async def environment_of(database: Database) -> AsyncIterator[Environment]:
    """Yields the environment of a database until the end of the block."""
    engines = Engines.connect(
        Settings(
            database_url=database.app_dsn,
            system_database_url=database.system_dsn,
            maintenance_database_url=database.maintenance_dsn,
            pool_idle_connections=2,
            pool_open_connections=8,
        )
    )
    try:
        yield Environment(database, Store(engines))
    finally:
        await engines.close()


def stamps(samples: Sequence[UsageSample]) -> list[datetime]:
    """Returns the times of samples."""
    return [sample.timestamp for sample in samples]
