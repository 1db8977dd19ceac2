"""Everything that a cluster sends is limited, after decompression.

This covers bodies, pages, lines, messages, heads and the texts of refusals. The tests measure the peak of
Python's allocations. The control reads a response without a limit.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import AnswerTooLarge, ClusterError, Invalid, Unreachable
from pilothouse_server.kubernetes.exec import program
from pilothouse_server.kubernetes.logs import LONGEST_LINE, LogOptions, pod_log
from pilothouse_server.kubernetes.objects import PODS
from pilothouse_server.kubernetes.transport import TransportLimits
from pilothouse_server.outbound import destinations
from tests.clusters import hostile
from tests.clusters.given import QUICK
from tests.clusters.hostile import MEGABYTE, Answer, Asked, hostile_server
from tests.conftest import Database
from tests.harness import running_server
from tests.waiting import poll_until, within

PACKED_MEGABYTES = 100
MOST = 64 * MEGABYTE
PATIENT = TransportLimits(request_seconds=30.0)
Ask = Callable[[ClusterClient], Awaitable[Any]]


async def _watch(client: ClusterClient) -> None:
    async with aclosing(client.watch(PODS, resource_version="1")) as events:
        async for _ in events:
            continue


async def _log(client: ClusterClient) -> int:
    count = 0
    async with aclosing(pod_log(client, "n", "p", container="c", options=LogOptions())) as lines:
        async for line in lines:
            assert len(line.text) <= LONGEST_LINE
            count += 1
    return count


async def _run(client: ClusterClient) -> None:
    async with program(client, "n", "p", container="c", command=["a"], stdin=False, tty=False):
        pass


ASKED: dict[str, Ask] = {
    "version": lambda client: client.version(),
    "object": lambda client: client.get(PODS, "n", "p"),
    "whole object": lambda client: client.read(PODS, "n", "p"),
    "list": lambda client: client.list(PODS),
    "newest version": lambda client: client.newest_version(PODS),
    "usage": lambda client: client.node_stats("n"),
    "right": lambda client: client.may("get", "", "pods"),
    "dry run": lambda client: client.dry_run(PODS, {"metadata": {"namespace": "n", "name": "p"}}),
    "watch": _watch,
}


@asynccontextmanager
async def _client(answer: Answer, limits: TransportLimits = PATIENT) -> AsyncIterator[ClusterClient]:
    async with hostile_server(answer) as server:
        client = await ClusterClient.from_kubeconfig(server.kubeconfig(), name="hostile", limits=limits)
        try:
            yield client
        finally:
            await client.close()


@contextmanager
def _at_most(most: int) -> Iterator[None]:
    """Fails if more than `most` bytes were allocated at any moment."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most


@pytest.mark.parametrize("what", ASKED)
async def test_a_small_response_that_decompresses_to_a_large_one_is_refused(what: str) -> None:
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as client:
        with _at_most(MOST), pytest.raises(AnswerTooLarge, match="sends too much") as refused:
            async with within(30.0):
                await ASKED[what](client)
        with pytest.raises(AnswerTooLarge):
            client.check_answers()
    assert "127.0.0.1" in refused.value.message


async def test_an_unlimited_read_exceeds_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unbounded(response: aiohttp.ClientResponse, *_bounds: Any) -> bytes:
        return await response.read()

    monkeypatch.setattr(destinations, "read", unbounded)
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as client:
        with pytest.raises(AssertionError, match="<"), _at_most(MOST), pytest.raises(ClusterError):
            await client.version()


@pytest.mark.parametrize("what", ASKED)
async def test_an_endless_response_is_refused(what: str) -> None:
    async with _client(hostile.endless(b" " * 65536)) as client:
        with _at_most(MOST), pytest.raises(AnswerTooLarge):
            async with within(30.0):
                await ASKED[what](client)


async def test_the_endless_text_of_a_refusal_is_left_out() -> None:
    for answer in (
        hostile.endless(b"w" * 65536, 500),
        hostile.exploding(hostile.bomb(PACKED_MEGABYTES), 503),
    ):
        async with _client(answer) as client:
            with _at_most(MOST), pytest.raises(Unreachable) as refused:
                await client.version()
            assert "the cluster responded with 50" in refused.value.message


async def test_a_log_without_line_breaks_is_truncated() -> None:
    limits = TransportLimits(request_seconds=2.0)
    long = b"l" * 65536

    async def answer(asked: Asked) -> None:
        await asked.begin(Content_Length=str(64 * len(long)))
        for _ in range(64):
            await asked.send(long)

    async with _client(answer, limits) as client:
        with _at_most(MOST):
            assert await _log(client) == 1


@pytest.mark.parametrize(
    "answer",
    [
        hostile.endless_headers,
        hostile.endless_header,
        pytest.param(hostile.endless_interim_answers, marks=pytest.mark.full),
        hostile.dripping,
        hostile.silent,
        hostile.rubbish,
        hostile.cut_off,
        hostile.reset,
        hostile.leading_to("http://127.0.0.1:1/elsewhere"),
        hostile.saying(b'{"gitVersion": {"a": 1}}'),
        hostile.saying(b'{"other": ' + b'{"a":' * 100_000),
        hostile.saying(b'{"gitVersion": "\xff"}'),
        hostile.saying(b"<html>", 502),
    ],
    ids=lambda answer: getattr(answer, "__qualname__", "").partition(".")[0],
)
async def test_an_invalid_response_ends_within_the_time_limit(answer: Answer) -> None:
    async with _client(answer, TransportLimits(request_seconds=0.5, list_seconds=0.5)) as client:
        for ask in (ASKED["version"], ASKED["list"]):
            with _at_most(MOST), pytest.raises(Unreachable):
                async with within(10.0):
                    await ask(client)


@pytest.mark.parametrize("answer", [hostile.endless_headers, hostile.silent, hostile.rubbish])
async def test_a_stream_that_does_not_begin_ends_within_the_time_limit(answer: Answer) -> None:
    async with _client(answer, TransportLimits(request_seconds=0.5)) as client:
        for open_stream in (_watch, _log, _run):
            with _at_most(MOST), pytest.raises(Unreachable):
                async with within(10.0):
                    await open_stream(client)


async def test_a_redirect_is_not_followed() -> None:
    async with hostile_server(hostile.saying(b'{"gitVersion": "v1.36.2"}')) as elsewhere:
        async with _client(hostile.leading_to(elsewhere.url + "/version")) as client:
            with pytest.raises(Unreachable, match="is a redirect"):
                await client.version()
            with pytest.raises(Unreachable, match="is a redirect"):
                await _run(client)
        assert elsewhere.requests == 0


async def test_pages_of_large_objects_contain_fewer_objects() -> None:
    asked: list[int] = []

    async def answer(request: Asked) -> None:
        query = dict(each.split("=") for each in request.target.partition("?")[2].split("&"))
        limit, first = int(query["limit"]), int(query.get("continue", 0))
        asked.append(limit)
        names = range(first, min(first + limit, 12))
        items = [{"metadata": {"name": f"p{n}", "annotations": {"a": "x" * 100_000}}} for n in names]
        more = {"continue": str(first + limit)} if first + limit < 12 else {}
        await request.whole(
            json.dumps({"metadata": {"resourceVersion": "1", **more}, "items": items}).encode()
        )

    async with _client(answer, TransportLimits(page_size=64, page_bytes=500_000)) as client:
        found = await client.list(PODS)
        client.check_answers()
    assert [each.metadata.name for each in found.items] == [f"p{n}" for n in range(12)]
    assert set(asked) == {64, 2}


async def test_an_endless_sequence_of_pages_is_refused() -> None:
    items = [{"metadata": {"name": f"p{n}"}} for n in range(100)]
    body = json.dumps({"metadata": {"continue": "more"}, "items": items}).encode()
    async with _client(hostile.saying(body), TransportLimits(objects=1000)) as client:
        with pytest.raises(AnswerTooLarge, match="more than 1000 objects of kind Pod"):
            await client.list(PODS)


async def test_the_text_of_a_refusal_is_limited() -> None:
    causes = [{"field": f"f{n}", "message": "m"} for n in range(5000)]
    status = {"status": "Failure", "message": "a\0b" + "w" * 9000, "code": 422, "details": {"causes": causes}}
    async with _client(hostile.saying(json.dumps(status).encode(), 422)) as client:
        with pytest.raises(Invalid) as refused:
            await client.version()
    assert len(refused.value.message) <= 4096
    assert refused.value.message.startswith("abw")
    assert len(refused.value.causes) == 100


async def test_a_cluster_that_sends_too_much_is_unreachable_with_a_reason(
    database: Database, tmp_path: Path
) -> None:
    answer = hostile.alive_but(hostile.exploding(hostile.bomb(PACKED_MEGABYTES)))
    async with hostile_server(answer) as server:
        cluster: Any = server
        async with running_server(database, tmp_path, cluster=cluster, reconciler=QUICK) as running:

            async def told() -> pb.Cluster:
                return await running.admin.namespaces.get_cluster(name="local")

            found = await poll_until(told, lambda found: found.reason == "AnswerTooLarge", seconds=30.0)
            assert found.status == pb.CLUSTER_STATUS_UNREACHABLE
            assert "sends too much" in found.message
