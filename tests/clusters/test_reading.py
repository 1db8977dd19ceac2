"""Long answers of a cluster are read while other work goes on: in pieces, one at a time, and with a pause before the
next.
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
# The one piece of each that is there before anybody can be stopped.
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
    """How much of each answer that had several parts was read before its last one."""
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
async def test_others_have_their_turn_while_it_is_decompressed(
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
        """The control: pieces are taken as they come."""

    monkeypatch.setattr(destinations, "read", noting)
    # A share is used up by one piece, however fast the machine is.
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)
    # Shares are what this is about: without the pauses of what is long.
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


async def test_one_is_found_too_long_for_all(read_bytes: list[int]) -> None:
    kinds: tuple[Any, ...] = (PODS, SERVICES, DEPLOYMENTS) * 3
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as (client, _):
        outcomes = await asyncio.gather(
            *(client.newest_version(each) for each in kinds), return_exceptions=True
        )
    assert all(isinstance(each, AnswerTooLarge) for each in outcomes), outcomes
    assert len(read_bytes) == len(kinds)
    # All of them to their bounds would be 72 MB.
    assert sum(read_bytes) <= BOUND + len(kinds) * _PIECE


async def test_lists_that_are_too_long_together_are_found_so_by_one(read_bytes: list[int]) -> None:
    kinds: tuple[Any, ...] = (PODS, SERVICES, DEPLOYMENTS)
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as (client, _):
        outcomes = await asyncio.gather(*(client.list(each) for each in kinds), return_exceptions=True)
    assert all(isinstance(each, AnswerTooLarge) for each in outcomes), outcomes
    # Pages of 500, 15 and 1, of one of the lists, the last two half as long.
    assert sum(read_bytes) <= 2 * BOUND + len(read_bytes) * _PIECE


async def test_a_list_beside_one_of_large_objects_is_read_to_its_end() -> None:
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


async def test_a_cluster_that_sent_too_much_is_not_asked_for_a_while() -> None:
    async with _client(hostile.exploding(hostile.bomb(PACKED_MEGABYTES))) as (client, server):
        with pytest.raises(AnswerTooLarge):
            await client.version()
        server.answer = hostile.saying(b'{"gitVersion": "v1.36.2"}')
        for _ in range(3):
            with pytest.raises(AnswerTooLarge, match="sends too much"):
                await client.version()
        assert server.requests == 1


async def test_it_is_asked_again_after_a_longer_while_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    asked_at: list[float] = []
    monkeypatch.setattr(transport, "_now", lambda: now)
    # The longest that chance makes of a pause.
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
async def test_lines_of_watches_are_taken_at_a_pace(
    monkeypatch: pytest.MonkeyPatch, line: bytes, paced: bool
) -> None:
    # The lines of one piece are many more, so what takes them as they come is far beyond on a busy machine, too.
    burst, per_second = 100, 200.0
    lines, beyond, began = 0, 0.0, 0.0
    clock = asyncio.get_running_loop().time

    async def control() -> None:
        """Takes each as it comes, and the event loop for as long as there are some."""

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
    # A few may be: those of a moment in which each watch has set its timer.
    assert (beyond < burst / 2) is paced
