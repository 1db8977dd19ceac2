"""Promise 3: a long first state is sent while it is read.

It shows one moment, and it does not occupy a connection for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
import pytest
from google.rpc import error_details_pb2

from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.repository import containers
from pilothouse_server.rpc import watch
from pilothouse_server.rpc.first_state import AheadLimits, ReadAhead
from pilothouse_server.store import in_namespaces
from pilothouse_server.store.paging import read_in_pages
from pilothouse_server.store.unit_of_work import ReadTransaction
from tests.promises.calling import Caller, Outcome, failed, token_of
from tests.promises.environment import Environment
from tests.promises.requests import OWN, request_for
from tests.waiting import patient, poll_until, within

ADDED, SYNCED = resource.CHANGE_TYPE_ADDED, resource.CHANGE_TYPE_SYNCED
_FILL = """
INSERT INTO containers (name, kubernetes_name, namespace_id, image_id, spec)
SELECT format('web-%s', lpad(i::text, 5, '0')), format('web-%s', i), n.id,
    register_image(NULL, 'nginx', '1.27', NULL), '{"image": "nginx:1.27"}'
FROM generate_series(1, $1::integer) AS i JOIN namespaces AS n ON n.name = $2
"""
# An open transaction that waits for its client occupies its connection.
_HELD = (
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pilothouse_app' AND state = 'idle in transaction'"
)


async def fill(environment: Environment, count: int) -> None:
    """Inserts containers into the namespace `own` by SQL."""
    async with environment.sql() as sql:
        await sql.execute(_FILL, count, OWN)


async def held(environment: Environment) -> int:
    """Returns how many connections of requests are occupied by a transaction."""
    async with environment.sql() as sql:
        return int(await sql.fetchval(_HELD))


# The number of rows in the first page.
FIRST_PAGE = 50


class Held:
    """Blocks the reading of rows after the first page until `goes_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.read = 0

        async def pages(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
            async for rows in read_in_pages(*arguments, **named):
                self.read += len(rows)
                yield rows
                self.reached.set()
                await self.goes_on.wait()

        monkeypatch.setattr(in_namespaces, "read_in_pages", pages)


def stream_of(environment: Environment, caller: Caller | None = None) -> Any:
    """Opens a watch of the containers in the namespace `own`."""
    rule = environment.rule("WatchContainers")
    return (caller or environment.admin).watching(rule, request_for(rule, {"namespace": OWN}))


async def test_first_messages_arrive_before_the_last_rows_are_read(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(environment, 300)
    reading = Held(monkeypatch)
    names = []
    async with within(20), stream_of(environment) as stream:
        async for answer in stream:
            if answer.change_type == SYNCED:
                break
            names.append(answer.container.name)
            if len(names) == FIRST_PAGE:
                assert reading.read == FIRST_PAGE
                reading.goes_on.set()
    assert names == [f"web-{number:05}" for number in range(1, 301)]


async def test_a_first_state_that_is_read_slowly_shows_one_moment(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(environment, 300)
    before = {item.name: item.etag for item in await listed(environment)}
    reading = Held(monkeypatch)
    state: dict[str, str] = {}
    changes: list[tuple[int, str]] = []
    async with within(30), stream_of(environment) as stream:
        writing = asyncio.create_task(write_meanwhile(environment, reading))
        async for answer in stream:
            if answer.change_type == ADDED and not answer.resume_token:
                state[answer.container.name] = answer.container.etag
            elif answer.change_type == SYNCED:
                assert state == before
            else:
                changes.append((answer.change_type, answer.container.name))
                take(state, answer)
                if answer.container.name == "last":
                    break
        await writing
    monkeypatch.undo()
    assert state == {item.name: item.etag for item in await listed(environment)}
    assert changes == [
        (resource.CHANGE_TYPE_MODIFIED, "web-00001"),
        (resource.CHANGE_TYPE_MODIFIED, "web-00300"),
        (resource.CHANGE_TYPE_ADDED, "aaa"),
        (resource.CHANGE_TYPE_ADDED, "zzz"),
        (resource.CHANGE_TYPE_ADDED, "last"),
    ]


async def write_meanwhile(environment: Environment, reading: Held) -> None:
    """Changes read and unread rows once the reading waits, and unblocks it."""
    await reading.reached.wait()
    for name in ("web-00001", "web-00300"):
        fields = {
            "namespace": OWN,
            "name": name,
            "container": {"labels": {"a": "b"}},
            "updateMask": "labels",
        }
        await environment.must("UpdateContainer", fields)
    for name in ("aaa", "zzz", "last"):
        made = {"namespace": OWN, "container": {"name": name, "image": "nginx"}}
        await environment.must("CreateContainer", made)
    reading.goes_on.set()


def take(state: dict[str, str], answer: Any) -> None:
    """Applies a change to a state."""
    if answer.change_type == resource.CHANGE_TYPE_DELETED:
        del state[answer.container.name]
    else:
        state[answer.container.name] = answer.container.etag


async def listed(environment: Environment) -> list[Any]:
    """Returns the containers of the namespace `own`."""
    return list((await environment.must("ListContainers", {"namespace": OWN, "pageSize": 1000})).containers)


async def test_rows_without_a_message_are_read_page_by_page(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates the time after an upgrade, when no row has a stored message."""
    await fill(environment, 300)
    read: list[int] = []
    load = containers.CACHED.load

    async def counted(transaction: ReadTransaction, ids: Sequence[int]) -> Sequence[Container]:
        read.append(len(ids))
        return await load(transaction, ids)

    monkeypatch.setattr(containers.CACHED, "load", counted)
    names = []
    async with within(20), stream_of(environment) as stream:
        async for answer in stream:
            if answer.change_type == SYNCED:
                break
            names.append(answer.container.name)
    assert names == [f"web-{number:05}" for number in range(1, 301)]
    assert read == [FIRST_PAGE, 250]


async def test_a_watch_cancelled_during_its_first_state_returns_the_connection(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(environment, 300)
    reading = Held(monkeypatch)
    async with within(20), stream_of(environment) as stream:
        await anext(aiter(stream))
        await reading.reached.wait()
        # The control: until then the connection is occupied.
        assert await held(environment) == 1

    async def given_back() -> bool:
        return await held(environment) == 0

    await poll_until(given_back, seconds=10)


async def test_a_stalled_first_state_returns_its_connection_and_is_reported(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The held connection must be seen within this time.
    limits = AheadLimits(answers=2, stalled_seconds=patient(0.5))
    monkeypatch.setattr(watch, "ReadAhead", lambda _limits, read: ReadAhead(limits, read))
    for number in range(12):
        annotations = {f"p{part}": "x" * 30_000 for part in range(4)}
        container = {"name": f"big-{number}", "image": "nginx", "annotations": annotations}
        await environment.must("CreateContainer", {"namespace": OWN, "container": container})
    # The flow-control window does not grow, so that little data fills it.
    narrow = grpc.aio.insecure_channel(
        environment.server.address,
        options=(("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)),
    )
    outcome, seen = Outcome("OK"), 0
    async with within(30), stream_of(environment, Caller(narrow, token_of(environment.admin))) as stream:
        answers = aiter(stream)
        assert (await anext(answers)).change_type == ADDED

        async def is_held() -> bool:
            return await held(environment) == 1

        async def given_back() -> bool:
            return await held(environment) == 0

        await poll_until(is_held, seconds=10)
        # The stream is still open, and the client has read no more of it.
        await poll_until(given_back, seconds=10)
        try:
            async for _ in answers:
                seen += 1
        except grpc.aio.AioRpcError as error:
            outcome = failed(error)
    await narrow.close()
    assert (outcome.code, outcome.reason) == ("RESOURCE_EXHAUSTED", "SLOW_CONSUMER")
    info = outcome.detail(error_details_pb2.ErrorInfo)
    assert info is not None
    assert "resume_token" not in info.metadata
    assert seen < 11


@pytest.mark.full
async def test_ten_thousand_containers_are_never_all_in_memory(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(environment, 10_000)
    most = 0
    put = ReadAhead.put

    async def counted(ahead: ReadAhead[Any], answer: bytes) -> None:
        nonlocal most
        await put(ahead, answer)
        most = max(most, ahead.buffered)

    monkeypatch.setattr(ReadAhead, "put", counted)
    narrow = grpc.aio.insecure_channel(
        environment.server.address,
        options=(("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)),
    )
    names = []
    async with within(60), stream_of(environment, Caller(narrow, token_of(environment.admin))) as stream:
        answers = aiter(stream)
        names.append((await anext(answers)).container.name)

        async def is_full() -> bool:
            return most >= AheadLimits().answers

        await poll_until(is_full, seconds=4)
        async for answer in answers:
            if answer.change_type == SYNCED:
                break
            names.append(answer.container.name)
    await narrow.close()
    assert names == [f"web-{number:05}" for number in range(1, 10_001)]
    assert most == AheadLimits().answers
