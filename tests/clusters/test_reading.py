"""Long responses of a cluster do not block other work.

They are read in pieces, one response at a time. After each long response the reader pauses before the next
one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from pilothouse_server.kubernetes import transport
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import AnswerTooLarge
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, PODS, SERVICES
from pilothouse_server.kubernetes.transport import TransportLimits
from pilothouse_server.outbound import destinations
from pilothouse_server.runtime import event_loop
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.clusters import hostile
from tests.clusters.hostile import MEGABYTE, Answer, Asked, HostileServer, hostile_server
from tests.waiting import poll_until

BOUND = 8 * MEGABYTE
LIMITS = TransportLimits(request_seconds=30.0, body_bytes=BOUND, page_bytes=BOUND)
PACKED_MEGABYTES = 32
# The piece of each response that arrives before its reading can be stopped.
_PIECE = MEGABYTE // 2


@asynccontextmanager
async def _client(
    answer: Answer, limits: TransportLimits = LIMITS
) -> AsyncIterator[tuple[ClusterClient, HostileServer]]:
    async with hostile_server(answer) as server:
        client = await ClusterClient.from_kubeconfig(server.kubeconfig(), name="hostile", limits=limits)
        try:
            yield client, server
        finally:
            await client.close()


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns how many bytes of each response were read before its last piece."""
    taken: list[int] = []
    read = destinations.read

    async def counting(response: Any, most: int, more: Any) -> bytes:
        number = len(taken)
        taken.append(0)

        async def noting(size: int) -> None:
            taken[number] = size
            await more(size)

        return await read(response, most, noting)

    monkeypatch.setattr(destinations, "read", counting)
    return taken


@pytest.mark.parametrize("gives_way", [True, False])
async def test_other_tasks_run_while_a_response_is_decompressed(
    monkeypatch: pytest.MonkeyPatch, gives_way: bool
) -> None:
    turns = 0
    after_each_piece: list[int] = []
    read = destinations.read

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def noting(response: Any, most: int, more: Any) -> bytes:
        async def noted(size: int) -> None:
            await more(size)
            after_each_piece.append(turns)

        return await read(response, most, noted)

    async def keeps(_share: event_loop.Share) -> None:
        """Does not pause: the control reads pieces as they arrive."""

    monkeypatch.setattr(destinations, "read", noting)
    # One piece uses up a share, even on a fast machine.
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)
    # The test is about shares, so the pauses after long responses are switched off.
    monkeypatch.setattr(transport, "_LONG_BYTES", BOUND * 2)
    if not gives_way:
        monkeypatch.setattr(event_loop.Share, "used", keeps)
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as (client, _):
        ticking = asyncio.create_task(tick())
        with pytest.raises(AnswerTooLarge):
            await client.version()
        await cancel_and_wait(ticking)
    pieces = len(after_each_piece)
    assert pieces >= 8
    assert (after_each_piece[-1] - after_each_piece[0] >= pieces - 1) is gives_way


async def test_one_oversized_response_stops_all_concurrent_requests(read_bytes: list[int]) -> None:
    kinds: tuple[Any, ...] = (PODS, SERVICES, DEPLOYMENTS) * 3
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as (client, _):
        outcomes = await asyncio.gather(
            *(client.newest_version(each) for each in kinds), return_exceptions=True
        )
    assert all(isinstance(each, AnswerTooLarge) for each in outcomes), outcomes
    assert len(read_bytes) == len(kinds)
    # Reading all nine up to the limit would be 72 MB.
    assert sum(read_bytes) <= BOUND + len(kinds) * _PIECE


async def test_concurrent_oversized_lists_are_detected_by_reading_one(read_bytes: list[int]) -> None:
    kinds: tuple[Any, ...] = (PODS, SERVICES, DEPLOYMENTS)
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as (client, _):
        outcomes = await asyncio.gather(*(client.list(each) for each in kinds), return_exceptions=True)
    assert all(isinstance(each, AnswerTooLarge) for each in outcomes), outcomes
    # One of the lists is read in pages of 500, 15 and 1 objects; the last two have half the limit.
    assert sum(read_bytes) <= 2 * BOUND + len(read_bytes) * _PIECE


async def test_a_list_next_to_one_of_large_objects_is_read_completely() -> None:
    async def answer(request: Asked) -> None:
        query = dict(each.split("=") for each in request.target.partition("?")[2].split("&"))
        limit, first = int(query["limit"]), int(query.get("continue", 0))
        size = 100_000 if request.path.endswith("pods") else 20_000
        items = [
            {"metadata": {"name": f"p{n}", "annotations": {"a": "x" * size}}}
            for n in range(first, min(first + limit, 30))
        ]
        more = {"continue": str(first + limit)} if first + limit < 30 else {}
        await request.whole(
            json.dumps({"metadata": {"resourceVersion": "1", **more}, "items": items}).encode()
        )

    limits = TransportLimits(request_seconds=30.0, page_size=64, page_bytes=1_500_000)
    async with _client(answer, limits) as (client, _):
        lists = await asyncio.gather(client.list(PODS), client.list(SERVICES), client.list(DEPLOYMENTS))
        client.check_answers()
    for found in lists:
        assert [each.metadata.name for each in found.items] == [f"p{n}" for n in range(30)]


async def test_a_cluster_that_sent_too_much_gets_no_requests_for_a_while() -> None:
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as (client, server):
        with pytest.raises(AnswerTooLarge):
            await client.version()
        server.answer = hostile.saying(b'{"gitVersion": "v1.36.2"}')
        for _ in range(3):
            with pytest.raises(AnswerTooLarge, match="sends too much"):
                await client.version()
        assert server.requests == 1


async def test_pauses_after_oversized_responses_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    asked_at: list[float] = []
    monkeypatch.setattr(transport, "_now", lambda: now)
    # The longest pause that the jitter produces.
    monkeypatch.setattr(transport, "uniform", lambda _low, high: high)
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as (client, server):
        while len(asked_at) < 7:
            with pytest.raises(AnswerTooLarge):
                await client.version()
            if server.requests > len(asked_at):
                asked_at.append(now)
            now += 1.0
            assert now < 1200.0
    assert [later - before for before, later in pairwise(asked_at)] == [4.0, 8.0, 16.0, 32.0, 45.0, 45.0]


_BOOKMARK = b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}}\n'


@pytest.mark.parametrize("line", [b"\n", _BOOKMARK], ids=["empty", "bookmarks"])
@pytest.mark.parametrize("paced", [True, False])
async def test_lines_of_watches_are_read_at_a_limited_rate(
    monkeypatch: pytest.MonkeyPatch, line: bytes, paced: bool
) -> None:
    # One piece has many more lines than the burst, so the control exceeds the rate by far even on a busy
    # machine.
    burst, per_second = 100, 200.0
    lines, beyond, began = 0, 0.0, 0.0
    clock = asyncio.get_running_loop().time

    async def control() -> None:
        """Applies no limit: the control occupies the event loop while lines are available."""

    pace = transport.ClusterTransport.pace

    def counting(of: transport.ClusterTransport) -> Any:
        before = pace(of) if paced else control

        async def counted() -> None:
            nonlocal lines, beyond, began
            await before()
            lines += 1
            began = began or clock()
            beyond = max(beyond, lines - burst - per_second * (clock() - began))

        return counted

    monkeypatch.setattr(transport.ClusterTransport, "pace", counting)
    limits = TransportLimits(request_seconds=30.0, lines_per_second=per_second, lines_burst=burst)
    async with _client(hostile.endless(line * (65536 // len(line))), limits) as (client, _):

        async def follow() -> None:
            async with aclosing(client.watch(PODS, resource_version="1")) as events:
                async for _event in events:
                    pass

        watches = [asyncio.create_task(follow()) for _ in range(3)]

        async def so_far() -> int:
            return lines

        await poll_until(so_far, lambda count: count > 2 * burst)
        await cancel_and_wait(*watches)
    # A few lines may exceed the rate: those that arrive while each watch sets its timer.
    assert (beyond < burst / 2) is paced
