"""A whole server without a cluster, with two tenants and users of each.

The tests of a file share it, and create their own containers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse.metrics.v1 import metrics_pb2_grpc
from pilothouse_client import AsyncClient
from pilothouse_server.metrics.model import UsageSample
from tests.conftest import Database, number_changes
from tests.harness import Server, running_server
from tests.metrics.environment import Box, make_box


class Served:
    """The server and its callers.

    `anna` may view shop, `omar` operates shop, and `olga` operates bank and views shop.
    """

    def __init__(self, server: Server, anna: AsyncClient, omar: AsyncClient, olga: AsyncClient) -> None:
        self.server = server
        self.admin = server.admin
        self.anna, self.omar, self.olga = anna, omar, olga

    async def box(self, name: str, namespace: str = "shop", **columns: Any) -> Box:
        """Creates a container."""
        async with self.server.database.system() as connection:
            return await make_box(connection, namespace, name, **columns)

    async def store(self, *samples: UsageSample) -> None:
        """Stores samples as the collector does."""
        await self.server.application.usage.store(samples)

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Returns the rows of a query, seen by the system role."""
        async with self.server.database.system() as connection:
            await number_changes(connection)
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def stub(self, username: str) -> tuple[Any, tuple[tuple[str, str], ...]]:
        """Returns the bare stub, and a user's metadata."""
        token = await self.server.token(username)
        stub = metrics_pb2_grpc.MetricsServiceStub(self.server.channel())
        return stub, (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def serving(database: Database, directory: Path) -> AsyncIterator[Served]:
    """Runs the server until the end of the block."""
    async with running_server(database, directory, with_cluster=False) as server:
        async with database.system() as connection:
            for namespace in ("shop", "bank"):
                await make_box(connection, namespace, "idle")
        anna = await server.user("anna", {"shop": "viewer"})
        omar = await server.user("omar", {"shop": "operator"})
        olga = await server.user("olga", {"bank": "operator", "shop": "viewer"})
        yield Served(server, anna, omar, olga)


def measured(
    container: str, namespace: str = "shop", at: datetime | None = None, **fields: Any
) -> pb.UsageSample:
    """Returns a sample as it is sent, with the present time unless another is given."""
    moment = Timestamp()
    moment.FromDatetime(at or datetime.now(UTC))
    return pb.UsageSample(namespace=namespace, container=container, timestamp=moment, **fields)


def request(*samples: pb.UsageSample) -> pb.RecordUsageRequest:
    """Returns a message of the stream."""
    return pb.RecordUsageRequest(samples=samples)


def reasons(answer: pb.RecordUsageResponse) -> dict[str, int]:
    """Returns how many samples were refused, by reason."""
    return {rejection.reason: rejection.count for rejection in answer.rejections}


def names(series: Sequence[pb.UsageSeries]) -> list[str]:
    """Returns the namespace and name of each series."""
    return [f"{item.namespace}/{item.container}" for item in series]
