"""A cluster whose clock is wrong by an hour, either way: everything works, nothing is negative and nothing loops."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import poll_until

HOUR = 3600.0
BEHAVIOR = "simulate.pilothouse.dev/behavior"


async def settled_as(server: Server, name: str, status: pb.ContainerStatus.ValueType) -> pb.Container:
    async def look() -> pb.Container | None:
        found = await server.admin.containers.get(namespace="demo", name=name)
        return found if found.status == status and not found.reconciling else None

    found = await poll_until(look, what=f"{name} {pb.ContainerStatus.Name(status)}")
    assert found is not None
    return found


def since(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) - timedelta(seconds=seconds))
    return stamp


async def lines(server: Server, **query: Any) -> int:
    answers = server.admin.containers.stream_logs(namespace="demo", name="web", **query)
    return sum([len(answer.entries) async for answer in answers])


@pytest.mark.full
@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_clock_that_is_wrong_by_an_hour_disturbs_nothing(
    database: Database, tmp_path: Path, ahead: float
) -> None:
    # At real speed, so that the clocks differ only by the hour.
    async with (
        SimulatedCluster(ahead_seconds=ahead) as cluster,
        running_server(database, tmp_path, cluster=cluster) as server,
    ):
        asked: Counter[str] = Counter()
        cluster.faults.on_request = lambda method, path: asked.update([f"{method} {path}"])
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        await server.admin.containers.create(
            namespace="demo", container=pb.Container(name="web", image="nginx:1.27")
        )
        web = await settled_as(server, "web", pb.CONTAINER_STATUS_RUNNING)
        wrong = web.started_at.ToDatetime(UTC) - datetime.now(UTC)
        assert abs(wrong - timedelta(seconds=ahead)) < timedelta(minutes=1)
        assert web.uptime.ToTimedelta() >= timedelta(0)
        details = await server.admin.metrics.get_container_details(namespace="demo", name="web")
        assert details.uptime.ToTimedelta() >= timedelta(0)
        # A `since_time` relative to now selects the same lines with either clock.
        assert await lines(server, since_time=since(60)) == await lines(server) > 0
        await server.admin.containers.restart(namespace="demo", name="web")

        async def restarted() -> bool:
            found = await server.admin.containers.get(namespace="demo", name="web")
            return found.pod_name not in ("", web.pod_name) and found.status == pb.CONTAINER_STATUS_RUNNING

        await poll_until(restarted)

        async def used() -> bool:
            async with server.database.system() as connection:
                ages = await connection.fetch(
                    "SELECT abs(extract(epoch FROM now() - timestamp)) AS age FROM container_resource_usage"
                )
            return bool(ages) and all(row["age"] < 120 for row in ages)

        await poll_until(used)
        await server.admin.containers.stop(namespace="demo", name="web")
        await settled_as(server, "web", pb.CONTAINER_STATUS_STOPPED)
        await server.admin.containers.delete(namespace="demo", name="web")

        async def gone() -> bool:
            return not [each async for each in server.admin.containers.list(namespace="demo")]

        await poll_until(gone)
        # A life of some seconds causes a handful of each write; a loop would cause hundreds.
        writes = {what: count for what, count in asked.items() if not what.startswith("GET")}
        assert sum(writes.values()) < 60, writes
