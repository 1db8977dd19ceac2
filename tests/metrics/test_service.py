"""Usage as callers query it: the visible containers, the pages, and the errors of a query."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_client import AsyncClient
from pilothouse_client.errors import PilothouseError
from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.metrics import service
from pilothouse_server.metrics.operations import roll_up
from pilothouse_server.runtime.event_loop import Share
from tests.conftest import connection
from tests.harness import Server
from tests.metrics.environment import midnight
from tests.metrics.served import Served, names
from tests.waiting import poll_until


def moment(value: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(value)
    return message


def admission_of(server: Server) -> CallAdmission:
    found = server.application._server
    assert found is not None
    return found._admission


async def queried(client: AsyncClient, **fields: Any) -> list[pb.UsageSeries]:
    return [series async for series in client.metrics.query_usage(**fields)]


async def test_a_query_returns_steps(served: Served) -> None:
    box = await served.box("stepped")
    start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
    await served.store(
        box.sample(start, cpu_cores_used=1.0, memory_bytes_used=10, network_bytes_rx=100),
        box.sample(
            start + timedelta(seconds=30), cpu_cores_used=2.0, memory_bytes_used=20, network_bytes_rx=150
        ),
        box.sample(
            start + timedelta(minutes=2), cpu_cores_used=4.0, memory_bytes_used=40, network_bytes_rx=30
        ),
    )
    (series,) = await queried(
        served.anna,
        namespace="shop",
        container="stepped",
        start_time=moment(start),
        end_time=moment(start + timedelta(minutes=5)),
        step=Duration(seconds=60),
    )
    assert names([series]) == ["shop/stepped"]
    first, second = series.points
    assert first.timestamp.ToDatetime(tzinfo=UTC) == start
    assert second.timestamp.ToDatetime(tzinfo=UTC) == start + timedelta(minutes=2)
    assert (first.samples, first.cpu_cores_avg, first.cpu_cores_max) == (2, 1.5, 2.0)
    assert (first.memory_bytes_avg, first.memory_bytes_max, first.network_bytes_rx) == (15, 20, 50)
    assert (second.samples, second.network_bytes_rx) == (1, 30)


async def test_a_query_of_a_program_returns_only_its_cores_and_memory(served: Served) -> None:
    box = await served.box("several")
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    at = [start + timedelta(seconds=10 * number) for number in range(4)]
    await served.store(
        box.sample(
            at[0], cpu_cores_used=3.0, memory_bytes_used=30, programs='{"main": [1, 10], "log": [2, 20]}'
        ),
        box.sample(
            at[1], cpu_cores_used=7.0, memory_bytes_used=50, programs='{"main": [3, 30], "log": [4, 20]}'
        ),
        # Only the main program ran then.
        box.sample(at[2], cpu_cores_used=5.0, memory_bytes_used=50, network_bytes_rx=9),
    )
    where = {"namespace": "shop", "container": "several"}
    times = {"start_time": moment(start), "end_time": moment(start + timedelta(hours=1))}

    async def points(program: str) -> list[tuple[int, float, float, int, int, int]]:
        found = await queried(served.anna, **where, **times, step=Duration(seconds=3600), program=program)
        return [
            (
                point.samples,
                point.cpu_cores_avg,
                point.cpu_cores_max,
                point.memory_bytes_avg,
                point.memory_bytes_max,
                point.network_bytes_rx,
            )
            for one in found
            for point in one.points
        ]

    assert await points("log") == [(2, 3.0, 4.0, 20, 20, 0)]
    assert await points("main") == [(3, 3.0, 5.0, 30, 50, 0)]
    assert await points("nobody") == []
    assert [point[0] for point in await points("")] == [3]


async def test_days_are_returned_after_their_samples_are_deleted(served: Served) -> None:
    """A query of whole days reads the roll-ups, which stay when retention drops the samples."""
    box = await served.box("rolled")
    start = midnight(1)
    await served.store(*(box.sample(start + timedelta(hours=hour)) for hour in range(24)))
    await roll_up(served.server.application.store, start + timedelta(days=1, minutes=3))
    async with served.server.database.system() as system:
        await system.execute("DELETE FROM container_resource_usage WHERE container_id = $1", box.id)
    for length, points in ((86400, 1), (6 * 3600, 4), (3600, 24), (1800, 0)):
        series = await queried(
            served.anna,
            namespace="shop",
            container="rolled",
            start_time=moment(start),
            end_time=moment(start + timedelta(days=1)),
            step=Duration(seconds=length),
        )
        assert sum(len(item.points) for item in series) == points
        assert sum(point.samples for item in series for point in item.points) == (24 if points else 0)


async def test_only_containers_that_the_caller_may_see_are_returned(served: Served) -> None:
    now = datetime.now(UTC)
    await served.store(
        (await served.box("seen")).sample(now), (await served.box("unseen", "bank")).sample(now)
    )
    assert "shop/seen" in names(await queried(served.anna))
    assert not {name for name in names(await queried(served.anna)) if name.startswith("bank/")}
    assert {"shop/seen", "bank/unseen"} <= set(names(await queried(served.admin)))
    assert {"shop/seen", "bank/unseen"} <= set(names(await queried(served.olga)))


async def test_pages_contain_each_container_once(served: Served) -> None:
    now = datetime.now(UTC)
    boxes = [await served.box(f"page{index}") for index in range(5)]
    await served.store(*(box.sample(now) for box in boxes))
    asked = {"namespace": "shop", "end_time": moment(now + timedelta(minutes=1))}
    found = names(await queried(served.anna, page_size=2, **asked))
    assert [name for name in found if name.startswith("shop/page")] == [
        f"shop/page{index}" for index in range(5)
    ]
    assert len(found) == len(set(found))


async def test_a_page_with_many_steps_contains_fewer_containers(served: Served) -> None:
    now = datetime.now(UTC)
    for index in range(5):
        await served.store((await served.box(f"many{index}")).sample(now))
    stub, metadata = await served.stub("anna")
    request = pb.QueryUsageRequest(
        namespace="shop",
        start_time=moment(now - timedelta(seconds=10_000)),
        end_time=moment(now + timedelta(seconds=1)),
        step=Duration(seconds=1),
        page_size=1000,
    )
    found: list[str] = []
    while True:
        answer = await stub.QueryUsage(request, metadata=metadata)
        assert len(answer.series) <= 4
        found += names(answer.series)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert {f"shop/many{index}" for index in range(5)} <= set(found)


async def test_a_page_that_would_be_too_large_holds_fewer_containers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    for index in range(6):
        box = await served.box(f"large{index}")
        if index != 3:
            await served.store(*(box.sample(now - timedelta(seconds=second)) for second in range(20)))
    stub, metadata = await served.stub("anna")
    request = pb.QueryUsageRequest(
        namespace="shop",
        start_time=moment(now - timedelta(seconds=20)),
        end_time=moment(now + timedelta(seconds=1)),
        step=Duration(seconds=1),
        page_size=1000,
    )
    whole = await stub.QueryUsage(request, metadata=metadata)
    assert not whole.next_page_token
    for most in (1, whole.ByteSize() // 3):
        monkeypatch.setattr("pilothouse_server.metrics.service.LARGEST_PAGE_BYTES", most)
        pages = [await stub.QueryUsage(request, metadata=metadata)]
        while token := pages[-1].next_page_token:
            pages.append(
                await stub.QueryUsage(
                    pb.QueryUsageRequest(**{**_fields(request), "page_token": token}), metadata=metadata
                )
            )
        assert [series for page in pages for series in page.series] == list(whole.series)
        assert len(pages) > 2
        assert all(len(page.series) == 1 or page.ByteSize() < most + 100 for page in pages)


def _fields(request: pb.QueryUsageRequest) -> dict[str, Any]:
    return {field.name: value for field, value in request.ListFields()}


async def test_a_token_of_another_query_is_refused(served: Served) -> None:
    await served.store((await served.box("token")).sample(datetime.now(UTC)))
    stub, metadata = await served.stub("anna")
    answer = await stub.QueryUsage(pb.QueryUsageRequest(namespace="shop", page_size=1), metadata=metadata)
    with pytest.raises(PilothouseError) as refused:
        await queried(
            served.anna,
            namespace="shop",
            page_size=1,
            page_token=answer.next_page_token,
            step=Duration(seconds=60),
        )
    assert [violation.field for violation in refused.value.violations] == ["page_token"]


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"container": "nothing"}, grpc.StatusCode.NOT_FOUND, "nothing"),
        ({"program": "log"}, grpc.StatusCode.INVALID_ARGUMENT, "program"),
        ({"namespace": "bank"}, grpc.StatusCode.NOT_FOUND, "bank"),
        ({"namespace": "nowhere"}, grpc.StatusCode.NOT_FOUND, "nowhere"),
        ({"step": Duration(nanos=5)}, grpc.StatusCode.INVALID_ARGUMENT, "step"),
        ({"step": Duration(seconds=-60)}, grpc.StatusCode.INVALID_ARGUMENT, "step"),
        (
            {"start_time": Timestamp(seconds=0), "step": Duration(seconds=1)},
            grpc.StatusCode.INVALID_ARGUMENT,
            "step",
        ),
        ({"start_time": Timestamp(seconds=1 << 36)}, grpc.StatusCode.INVALID_ARGUMENT, "start_time"),
    ],
)
async def test_the_fault_of_a_query_is_named(
    served: Served, fields: dict[str, Any], code: grpc.StatusCode, named: str
) -> None:
    with pytest.raises(PilothouseError) as refused:
        await queried(served.anna, **({"namespace": "shop"} | fields))
    assert refused.value.code is code
    assert named in (
        refused.value.message,
        refused.value.metadata.get("name"),
        refused.value.metadata.get("field"),
    )


async def test_the_longest_range_can_be_queried(served: Served) -> None:
    await served.store((await served.box("ancient")).sample(datetime.now(UTC)))
    (series,) = await queried(
        served.anna,
        namespace="shop",
        container="ancient",
        start_time=moment(datetime(1, 1, 1, tzinfo=UTC)),
        end_time=moment(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        step=Duration(seconds=366 * 86400),
    )
    assert [point.samples for point in series.points] == [1]


async def test_details_are_those_of_the_named_namespace(served: Served) -> None:
    now = datetime.now(UTC)
    shop = await served.box("twin", cpu_limit="1", status="running", started_at=now - timedelta(hours=1))
    bank = await served.box("twin", "bank")
    await served.store(
        shop.sample(now - timedelta(minutes=1), cpu_cores_used=0.1, cpu_cores_limit=1.0),
        shop.sample(now, cpu_cores_used=0.75, cpu_cores_limit=1.0),
        bank.sample(now, cpu_cores_used=0.5, cpu_cores_limit=1.0),
    )
    details = await served.anna.metrics.get_container_details(namespace="shop", name="twin")
    assert (details.namespace_name, details.name, details.image_name, details.cpu_limit) == (
        "shop",
        "twin",
        "nginx",
        "1",
    )
    assert details.cpu_usage_percent == 75
    assert not details.HasField("memory_usage_percent")
    assert details.last_metric_timestamp.ToDatetime(tzinfo=UTC) == now
    assert 3600 <= details.uptime.ToTimedelta().total_seconds() < 7200
    other = await served.admin.metrics.get_container_details(namespace="bank", name="twin")
    assert (other.namespace_name, other.cpu_usage_percent) == ("bank", 50)
    assert not other.HasField("uptime")


async def test_details_of_hidden_containers_are_not_found(served: Served) -> None:
    await served.box("hidden", "bank")
    refusals = []
    for namespace, name in (
        ("bank", "hidden"),
        ("bank", "nothing"),
        ("nowhere", "hidden"),
        ("shop", "hidden"),
    ):
        with pytest.raises(PilothouseError) as refused:
            await served.anna.metrics.get_container_details(namespace=namespace, name=name)
        refusals.append((refused.value.code, refused.value.message))
    not_found = grpc.StatusCode.NOT_FOUND
    assert refusals == [
        (not_found, 'namespace "bank" not found'),
        (not_found, 'namespace "bank" not found'),
        (not_found, 'namespace "nowhere" not found'),
        (not_found, 'container "hidden" not found'),
    ]


async def test_a_summary_contains_what_its_reader_may_see(served: Served) -> None:
    await served.box("counted", status="running")
    async with connection(served.server.database.maintenance_dsn) as maintenance:
        await maintenance.execute("SET ROLE pilothouse_owner")
        await maintenance.execute("SELECT refresh_container_summary()")
    (counts,) = await served.rows(
        "SELECT count(*) AS all, count(*) FILTER (WHERE c.status = 'running') AS running FROM containers AS c "
        "JOIN namespaces AS n ON n.id = c.namespace_id WHERE n.name = 'shop'"
    )
    (shop,) = [item async for item in served.anna.metrics.get_namespace_summary()]
    assert (shop.namespace_name, shop.total_containers, shop.running_containers) == (
        "shop",
        counts["all"],
        counts["running"],
    )
    everything = [
        item.namespace_name async for item in served.admin.metrics.get_namespace_summary(page_size=1)
    ]
    assert everything == ["bank", "shop"]
    named = [
        item.namespace_name async for item in served.admin.metrics.get_namespace_summary(namespace="bank")
    ]
    assert named == ["bank"]
    with pytest.raises(PilothouseError) as refused:
        _ = [item async for item in served.anna.metrics.get_namespace_summary(namespace="bank")]
    assert refused.value.code is grpc.StatusCode.NOT_FOUND


async def test_the_top_containers_are_those_with_the_most_usage_now(served: Served) -> None:
    now = datetime.now(UTC)
    first, second, third = [await served.box(name) for name in ("top-a", "top-b", "top-c")]
    foreign = await served.box("top-d", "bank")
    await served.store(
        first.sample(now, cpu_cores_used=5000.0, memory_bytes_used=1 << 40),
        second.sample(now - timedelta(minutes=1), cpu_cores_used=9000.0, memory_bytes_used=9 << 40),
        second.sample(now, cpu_cores_used=6000.0, memory_bytes_used=2),
        third.sample(now - timedelta(minutes=6), cpu_cores_used=7000.0, memory_bytes_used=3 << 40),
        foreign.sample(now, cpu_cores_used=8000.0, memory_bytes_used=4 << 40),
    )
    by_cpu = await served.anna.metrics.list_top_containers(page_size=2)
    assert [(item.container, item.cpu_cores_used) for item in by_cpu] == [("top-b", 6000), ("top-a", 5000)]
    by_memory = await served.anna.metrics.list_top_containers(by=pb.TOP_BY_MEMORY, page_size=1)
    assert [item.container for item in by_memory] == ["top-a"]
    of_all = await served.admin.metrics.list_top_containers(page_size=1)
    assert [(item.namespace, item.container) for item in of_all] == [("bank", "top-d")]


async def test_a_query_of_many_points_has_its_users_turn_for_wide_pages(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty such queries of one user together would occupy the database and the event loop."""
    last: list[bool] = []

    def share(**named: bool) -> Share:
        last.append(named.get("last", False))
        return Share(**named)

    monkeypatch.setattr(service, "Share", share)
    admission = admission_of(served.server)
    await served.box("wide")
    now = datetime.now(UTC)
    month = {
        "namespace": "shop",
        "start_time": moment(now - timedelta(days=30)),
        "end_time": moment(now),
        "step": Duration(seconds=3600),
    }

    async def worked_on() -> tuple[int, int, int]:
        return admission.wide_pages.in_use, admission.wide_pages.waiting, admission.calls.in_use

    async with connection(served.server.database.admin_dsn) as sql:
        async with sql.transaction():
            await sql.execute("LOCK TABLE containers IN ACCESS EXCLUSIVE MODE")
            asked = [asyncio.create_task(queried(served.anna, **month)) for _ in range(3)]
            others = asyncio.create_task(queried(served.olga, **month))
            asked.append(asyncio.create_task(queried(served.anna, **month, container="wide")))
            # One wide query of each user is in progress, and one small query of anna; a waiting call has no seat.
            await poll_until(worked_on, lambda found: found == (2, 2, 2 * 10 + 1), what="what is worked on")
        await asyncio.gather(*asked, others)
    # The work for their responses runs after all other work.
    assert sorted(last) == [False, *[True] * 4]
    await poll_until(worked_on, lambda found: found == (0, 0, 0), what="the return of all seats")
