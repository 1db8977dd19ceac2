"""Promise 13: no caller can occupy the seats of the others.

Health checks are always served.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import prometheus_client
import pytest
from google.rpc import error_details_pb2

from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.flowcontrol.classes import CLUSTER_CALLS
from pilothouse_server.flowcontrol.fair_queue import FairQueue
from pilothouse_server.flowcontrol.pending_requests import PendingRequests
from pilothouse_server.flowcontrol.reservation import Reservation
from pilothouse_server.rpc import pipeline
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import Database, connection
from tests.promises.environment import FOREIGN, Environment, quiet_environment
from tests.promises.holding import LOGIN, connections, health_watch, held, holding, is_healthy, never_sent
from tests.promises.requests import OWN, request_for, workload
from tests.waiting import patient, poll_until, runs_out, within

# Low limits, so that a few calls exceed them.
NARROW: dict[str, Any] = {
    "max_concurrent_calls": 12,
    "max_calls_per_user": 3,
    "max_pending_requests": 20,
    "max_streams": 40,
    "max_streams_per_user": 5,
    "max_health_watches_per_address": 4,
    "max_cluster_calls": 4,
    "max_cluster_calls_per_user": 2,
    "wait_seconds": 1.0,
    "request_seconds": 600.0,
}
FLOOD, CONNECTIONS, HONEST = 40, 3, 12
# The maximum of concurrent calls that gRPC itself can enforce, before any handler.
_OF_GRPC = 60
# Methods of infrastructure services.
_OUTSIDE = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


def admission_of(environment: Environment) -> CallAdmission:
    server = environment.server.application._server
    assert server is not None
    return server._admission


async def faults_beside_a_flood(environment: Environment, *refusing: str) -> list[str]:
    """Returns the faults of other calls while two callers occupy all they can.

    The two are a user and an anonymous caller. The flood lasts until each class in `refusing` has refused a
    call, which takes as long as calls may wait.
    """
    eve = await environment.make_user("eve", {OWN: "operator"})
    watch, update = environment.rule("WatchContainers"), environment.rule("UpdateNamespace")
    change = {"name": OWN, "namespace": {"description": "held"}, "updateMask": "description"}
    holds = [
        health_watch,
        never_sent(LOGIN),
        never_sent(environment.rule("GetNamespace").method, eve.metadata),
        held(watch, request_for(watch, {"namespace": OWN}), eve.metadata),
        held(update, request_for(update, change), eve.metadata),
    ]
    async with AsyncExitStack() as stack:
        sql = await stack.enter_async_context(connection(environment.server.database.admin_dsn))
        await stack.enter_async_context(sql.transaction())
        await sql.execute("SELECT FROM namespaces WHERE name = $1 FOR UPDATE", OWN)
        channels = await stack.enter_async_context(connections(environment.server.address, CONNECTIONS))
        tasks = await stack.enter_async_context(holding(channels, holds, FLOOD))
        in_full = (len(holds) - 1) * FLOOD

        async def has_come() -> bool:
            taken = sum(task.get_name() == "rpc_task" for task in asyncio.all_tasks())
            return admission_of(environment)._came >= in_full or taken >= _OF_GRPC

        await poll_until(has_come, what="the flood")
        found = await faults_met(environment)

        async def not_refused_yet() -> list[str]:
            return [name for name in refusing if not refused(name)]

        await poll_until(not_refused_yet, lambda names: not names, what="a refusal by each class")
        ended = Counter((task.result().code, task.result().reason) for task in tasks if task.done())
    wrong = {
        f"{count} of the flood ended {end}"
        for end, count in ended.items()
        if end != ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")
    }
    return [*found, *wrong]


def refused(name: str) -> float:
    """Returns how many calls of a class this process has refused."""
    labels = {"class": name}
    return prometheus_client.REGISTRY.get_sample_value("pilothouse_admission_refused_total", labels) or 0.0


async def faults_met(environment: Environment) -> list[str]:
    """Returns the faults of an administrator's calls, logins and health checks."""
    found: list[str] = []
    for _ in range(HONEST):
        got = await environment.call("GetNamespace", {"name": FOREIGN})
        listed = await environment.call("ListContainers", {"namespace": OWN, "pageSize": 1000})
        login = await environment.call(
            "Login", {"username": "admin", "password": "correct horse battery staple"}, environment.stranger
        )
        found += [f"{each.code} {each.message}" for each in (got, listed, login) if each.code != "OK"]
        health = await is_healthy(environment.admin.channel, patient(5.0))
        found += [f"health: {health}"] * (health != "SERVING")
    return found


async def test_a_flood_takes_no_seats_of_other_callers(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(
        database, tmp_path, monkeypatch, **NARROW | {"wait_seconds": 3.0}
    ) as environment:
        assert (
            await faults_beside_a_flood(environment, "streams", "requests", "health_watches", "calls") == []
        )
        admission = admission_of(environment)

        async def left() -> list[int]:
            classes = (
                admission.calls,
                admission.streams,
                admission.anonymous_calls,
                admission.health_watches,
            )
            waiting = admission.pending_requests.waiting + admission.pending_health_requests.waiting
            return [waiting, *(each.in_use + each.waiting + each.flows for each in classes)]

        await poll_until(left, lambda counts: not any(counts), what="the return of all seats")


@pytest.mark.full
async def test_one_limit_for_all_calls_is_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: no admission, only gRPC's own limit, as in the past."""
    monkeypatch.setattr(FairQueue, "try_acquire", lambda *_: True)
    monkeypatch.setattr(FairQueue, "release", lambda *_: None)
    monkeypatch.setattr(PendingRequests, "receive", lambda _self, body, _key: body)
    monkeypatch.setattr(grpc.aio, "server", partial(grpc.aio.server, maximum_concurrent_rpcs=_OF_GRPC))
    async with quiet_environment(database, tmp_path, monkeypatch, **NARROW) as environment:
        found = await faults_beside_a_flood(environment)
    assert any("RESOURCE_EXHAUSTED" in each for each in found)
    assert "health: RESOURCE_EXHAUSTED" in found


async def test_a_missing_request_ends_its_call_for_every_method(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        quiet_environment(database, tmp_path, monkeypatch, request_seconds=0.5) as environment,
        # A connection may have a hundred concurrent calls.
        connections(environment.server.address, 3) as channels,
    ):
        rules = environment.rules.values()
        assert {rule.shape for rule in rules} == {
            "unary_unary",
            "unary_stream",
            "stream_unary",
            "stream_stream",
        }
        methods = [rule.method for rule in rules]
        holds = [never_sent(method, environment.admin.metadata) for method in (*methods, *_OUTSIDE)]
        async with holding(channels, holds, 1) as tasks, within(20.0):
            ended = dict(zip((*methods, *_OUTSIDE), await asyncio.gather(*tasks), strict=True))
        assert {method for method, end in ended.items() if end.reason != "REQUEST_TIMEOUT"} == set()
        assert {end.code for end in ended.values()} == {"INVALID_ARGUMENT"}
        async with environment.sql() as sql:
            kept = await sql.fetchval(
                "SELECT count(*) FROM operation_logs WHERE metadata ->> 'reason' = 'REQUEST_TIMEOUT'"
                " AND metadata ->> 'stream_event' IS DISTINCT FROM 'opened'"
            )
        assert kept == len(methods)


async def test_the_request_timeout_of_a_stream_covers_only_its_first_request(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch, request_seconds=0.5) as environment:
        rule = environment.rule("RecordUsage")
        call: Any = environment.admin.channel.stream_unary(rule.method)(metadata=environment.admin.metadata)
        await call.write(request_for(rule).SerializeToString())
        ended, _ = await asyncio.wait([asyncio.ensure_future(call.code())], timeout=runs_out(1.5))
        assert not ended
        await call.write(request_for(rule).SerializeToString())
        await call.done_writing()
        answer: Any = rule.response_class.FromString(await call)
    assert answer.accepted_count + answer.rejected_count == 2


@pytest.mark.full
async def test_an_endless_wait_for_a_request_is_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        quiet_environment(database, tmp_path, monkeypatch, request_seconds=600.0) as environment,
        connections(environment.server.address, 1) as channels,
        holding(channels, [never_sent(LOGIN)], 2) as tasks,
    ):
        ended, _ = await asyncio.wait(tasks, timeout=runs_out(2.0))
    assert not ended


async def wide_pages_beside_one_that_hangs(environment: Environment) -> list[str]:
    """Returns the results of other calls while a wide page of a user hangs.

    The calls are a wide page and a narrow page of the user, and a wide page of another user.
    """
    eve = await environment.make_user("eve", {OWN: "operator"})
    admission = admission_of(environment)

    async def in_use() -> tuple[int, int]:
        return admission.wide_pages.in_use, admission.calls.in_use

    async with environment.sql() as sql, sql.transaction():
        await sql.execute("LOCK TABLE config_maps IN ACCESS EXCLUSIVE MODE")
        page = {"namespace": OWN, "pageSize": 1000}
        hangs = asyncio.create_task(environment.call("ListConfigMaps", page, eve))
        try:
            await poll_until(in_use, lambda found: found[1] >= 10, what="the page that hangs")
            calls = [
                await environment.call("ListContainers", page, eve),
                await environment.call("ListContainers", {"namespace": OWN, "pageSize": 100}, eve),
                await environment.call("ListContainers", page),
            ]
        finally:
            await cancel_and_wait(hangs)
    await poll_until(in_use, lambda found: found == (0, 0), what="the return of all seats")
    return [each.reason or each.code for each in calls]


async def test_a_wide_page_that_hangs_delays_only_wide_pages_of_its_user(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch, wait_seconds=1.0) as environment:
        assert await wide_pages_beside_one_that_hangs(environment) == ["TOO_MANY_CALLS", "OK", "OK"]


@pytest.mark.full
async def test_concurrent_wide_pages_of_a_user_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "is_wide", lambda _page_size: False)
    async with quiet_environment(database, tmp_path, monkeypatch, wait_seconds=1.0) as environment:
        assert await wide_pages_beside_one_that_hangs(environment) == ["OK", "OK", "OK"]


async def large_requests_beside_one_that_hangs(environment: Environment) -> list[str]:
    """Returns the results of other calls while a large request of a user hangs.

    The calls are a large and a small request of the user, and a large request of another user.
    """
    eve = await environment.make_user("eve", {OWN: "operator"})
    admission = admission_of(environment)

    async def in_use() -> tuple[int, int]:
        return admission.large_requests.in_use, admission.calls.in_use

    large = {**workload("large"), "args": ["x" * 4000] * 20}
    async with environment.sql() as sql, sql.transaction():
        # The request waits for the end of this transaction, because both insert the same name.
        await sql.execute(
            "INSERT INTO config_maps (name, namespace_id, kubernetes_name) "
            "SELECT 'large', id, 'large' FROM namespaces WHERE name = $1",
            OWN,
        )
        given = {"namespace": OWN, "configMap": {"name": "large", "data": {"a": "x" * 100_000}}}
        hangs = asyncio.create_task(environment.call("CreateConfigMap", given, eve))
        try:
            await poll_until(in_use, lambda found: found[1] >= 2, what="the request that hangs")
            calls = [
                await environment.call("CreateContainer", {"namespace": OWN, "container": large}, eve),
                await environment.call(
                    "CreateContainer", {"namespace": OWN, "container": workload("small")}, eve
                ),
                await environment.call(
                    "CreateContainer", {"namespace": OWN, "container": large | {"name": "other"}}
                ),
            ]
        finally:
            await cancel_and_wait(hangs)
    await poll_until(in_use, lambda found: found == (0, 0), what="the return of all seats")
    return [each.reason or each.code for each in calls]


async def test_a_large_request_that_hangs_delays_only_large_requests_of_its_user(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch, wait_seconds=1.0) as environment:
        assert await large_requests_beside_one_that_hangs(environment) == ["TOO_MANY_CALLS", "OK", "OK"]


@pytest.mark.full
async def test_concurrent_large_requests_of_a_user_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "is_large", lambda _request_bytes: False)
    async with quiet_environment(database, tmp_path, monkeypatch, wait_seconds=1.0) as environment:
        assert await large_requests_beside_one_that_hangs(environment) == ["OK", "OK", "OK"]


@pytest.mark.full
async def test_calls_that_keep_seats_while_waiting_for_a_cluster_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stays(reservation: Reservation, _cluster: str) -> None:
        # The user's next dry run starts: it does not wait for its turn.
        reservation._end_dry_run_turn()

    monkeypatch.setattr(Reservation, "acquire_cluster", stays)
    async with quiet_environment(database, tmp_path, monkeypatch, **NARROW) as environment:
        eve = await environment.make_user("eve", {OWN: "operator"})
        cluster, admission = environment.server.cluster, admission_of(environment)
        assert cluster is not None
        cluster.faults.latency_seconds = 30.0
        create = {"namespace": OWN, "container": workload("tried"), "validateOnly": True}
        tasks = [asyncio.create_task(environment.call("CreateContainer", create, eve)) for _ in range(5)]

        async def in_use() -> int:
            return admission.calls.in_use

        try:
            await poll_until(in_use, lambda seats: seats == NARROW["max_calls_per_user"])
            mine = await environment.call("GetNamespace", {"name": OWN}, eve)
        finally:
            cluster.faults.clear()
            await cancel_and_wait(*tasks)
    assert (mine.code, mine.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")


async def test_calls_that_wait_for_a_cluster_have_seats_of_their_own(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch, **NARROW) as environment:
        eve = await environment.make_user("eve", {OWN: "operator"})
        cluster, admission = environment.server.cluster, admission_of(environment)
        assert cluster is not None
        create = {"namespace": OWN, "container": workload("tried"), "validateOnly": True}
        # Afterwards the cluster is known and the statements are planned, so no call waits long for a seat before it.
        await environment.must("CreateContainer", create, eve)
        cluster.faults.latency_seconds = 5.0
        tasks = [asyncio.create_task(environment.call("CreateContainer", create, eve)) for _ in range(5)]

        async def seats() -> tuple[int, int, int]:
            queue = admission.of_cluster(CLUSTER_CALLS, "local")
            return queue.in_use, queue.waiting, admission.calls.in_use

        try:
            # At most three calls at a time get to this point, because a user has three seats for calls. Calls
            # that wait for a cluster release them.
            await poll_until(seats, lambda found: found == (2, 3, 0), what="calls that wait for the cluster")
            mine = await environment.call("GetNamespace", {"name": OWN}, eve)
            others = await environment.call("CreateContainer", {**create, "validateOnly": False})
            assert (mine.code, others.code) == ("OK", "OK")
            refused = [
                task.result() for task in (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]
            ]
        finally:
            cluster.faults.clear()
            await cancel_and_wait(*tasks)
        assert {(each.code, each.reason) for each in refused} == {("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS")}
        assert refused[0].detail(error_details_pb2.RetryInfo) is not None
        await poll_until(seats, lambda found: found == (0, 0, 0), what="the return of all seats")


async def closed(address: str, words: bytes, limit: float) -> bool:
    """Returns whether the server closes a silent connection before the limit.

    The connection sends `words` and nothing more.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(words)
        async with asyncio.timeout(limit):
            while await reader.read(65536):
                pass
        return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    finally:
        writer.close()


# https://www.rfc-editor.org/rfc/rfc9113#name-http-2-connection-preface, then empty SETTINGS.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
SILENT = {
    "nothing": b"",
    "half a preface": _PREFACE[:9],
    "no settings": _PREFACE,
    "no call": _PREFACE + _SETTINGS,
}


async def left_open(environment: Environment, limit: float) -> set[str]:
    """Returns the silent connections that the server does not close in time."""
    ends = await asyncio.gather(
        *(closed(environment.server.address, words, limit) for words in SILENT.values())
    )
    return {name for name, end in zip(SILENT, ends, strict=True) if not end}


async def test_silent_connections_are_closed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = {"handshake_seconds": 1.0, "max_connection_idle_seconds": 1.0}
    async with quiet_environment(database, tmp_path, monkeypatch, **brief) as environment:
        assert await left_open(environment, patient(5.0)) == set()
        # A caller whose connection was closed between two calls is not affected.
        assert (await environment.call("WhoAmI", {})).code == "OK"


@pytest.mark.full
async def test_silent_connections_that_stay_open_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = {"handshake_seconds": 120.0, "max_connection_idle_seconds": 120.0}
    async with quiet_environment(database, tmp_path, monkeypatch, **long) as environment:
        assert await left_open(environment, runs_out(2.0)) == set(SILENT)


Calls = Callable[[], list[tuple[str, str]]]


def _from_threads(address: str, token: str, count: int) -> Calls:
    """Sends `count` calls from threads, once all are connected; blocks the event loop until then.

    Returns a function that waits for their ends.
    """
    pool = ThreadPoolExecutor(count)
    connected = threading.Semaphore(0)

    def call() -> tuple[str, str]:
        with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            try:
                grpc.channel_ready_future(channel).result(patient(30.0))
            finally:
                connected.release()
            method: Any = channel.unary_unary("/pilothouse.identity.v1.IdentityService/WhoAmI")
            try:
                method(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=patient(30.0))
            except grpc.RpcError as error:
                return error.code().name, error.details() or ""
        return "OK", ""

    sent = [pool.submit(call) for _ in range(count)]
    for _ in range(count):
        connected.acquire()

    def ended() -> list[tuple[str, str]]:
        pool.shutdown()
        return [each.result() for each in sent]

    return ended


async def ends_in_a_drain(environment: Environment) -> Counter[str]:
    """Returns how calls end that gRPC has accepted before a drain begins.

    No handler has received them yet.
    """
    token = dict(environment.admin.metadata)["authorization"].removeprefix("Bearer ")
    ended = _from_threads(environment.server.address, token, 12)
    # Blocks the event loop, so that gRPC accepts all calls and no handler receives one.
    threading.Event().wait(runs_out(1.0))
    await environment.server.application.stop()
    return Counter(code for code, _ in await asyncio.to_thread(ended))


async def test_a_drain_serves_or_refuses_calls_that_have_arrived(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        ends = await ends_in_a_drain(environment)
    assert set(ends) <= {"OK", "UNAVAILABLE"}


@pytest.mark.full
async def test_a_drain_that_cancels_arrived_calls_is_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_self: CallAdmission, _seconds: float) -> None:
        return

    monkeypatch.setattr(CallAdmission, "drain", at_once)
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        ends = await ends_in_a_drain(environment)
    assert ends["CANCELLED"]


async def test_new_calls_of_a_draining_server_are_sent_elsewhere(environment: Environment) -> None:
    admission_of(environment).draining = True
    refused = await environment.call("GetNamespace", {"name": OWN})
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert refused.detail(error_details_pb2.RetryInfo) is not None
    assert await is_healthy(environment.admin.channel, patient(5.0)) == "SERVING"
