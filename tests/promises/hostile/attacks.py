"""Attacks on the transport.

These are resets, silent connections, readers that read nothing, and oversized data. Each attack runs until it
is over, and reports its actions. `attacker.attacking` starts it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache

from pilothouse.container.v1 import container_pb2
from tests.promises.hostile import wire
from tests.promises.hostile.attacker import Order, Report, run
from tests.promises.hostile.wire import Connection, frame
from tests.waiting import runs_out

WHO_AM_I = "/pilothouse.identity.v1.IdentityService/WhoAmI"
LOGIN = "/pilothouse.identity.v1.IdentityService/Login"
GET = "/pilothouse.container.v1.ContainerService/GetContainer"
WATCH = "/pilothouse.container.v1.ContainerService/WatchContainers"
_CONNECTIONS = 20
# The number of calls that are begun and reset before the attacker waits for the kernel's buffer.
_BURST = 100
# A call that has not ended after this time counts as one that can occupy its place without limit. The server
# waits for requests for 10 s, and needs some time on top of that.
_UNANSWERED_SECONDS = 20.0


@asynccontextmanager
async def _many(count: int, order: Order, **how: object) -> AsyncIterator[list[Connection]]:
    """Yields connections, which are closed at the end of the block."""
    made = [Connection(order.address, order.source, **how) for _ in range(count)]  # type: ignore[arg-type]
    try:
        yield made
    finally:
        for each in made:
            each.close()


async def resets(order: Order) -> Report:
    """Begins `count` calls on several connections and cancels each immediately.

    Then it waits for the end of the attack.
    """
    method = order.options.get("method", WHO_AM_I)
    block = wire.header_block(method, order.token)
    done: Counter[str] = Counter()

    async def attack(connection: Connection, share: int) -> None:
        await connection.open()
        done["connections"] += 1
        while share > 0 and not order.over.is_set():
            burst = bytearray()
            for _ in range(min(share, _BURST)):
                stream = connection.stream()
                burst += frame(wire.HEADERS, wire.END_HEADERS, stream, block)
                burst += frame(wire.RST_STREAM, 0, stream, wire.CANCEL)
            share -= _BURST
            connection.write(bytes(burst))
            await connection.drain()
            done["resets"] += burst.count(wire.CANCEL)

    async with _many(_CONNECTIONS, order) as connections:
        order.begins()
        share = order.count // _CONNECTIONS
        outcomes = await asyncio.gather(
            *(attack(each, share) for each in connections), return_exceptions=True
        )
        done["cut"] = sum(isinstance(each, OSError) for each in outcomes)
        await order.over.wait()
        done["goaways"] = sum(each.seen[wire.GOAWAY] for each in connections)
    return dict(done)


async def calls(order: Order) -> Report:
    """Makes `count` calls with the concurrency of `resets`.

    It waits for their responses, and then for the end of the attack.
    """
    block = wire.header_block(order.options.get("method", WHO_AM_I), order.token)
    done: Counter[str] = Counter()

    async def make(connection: Connection, share: int) -> None:
        await connection.open()
        while share > 0 and not order.over.is_set():
            streams = [connection.stream() for _ in range(min(share, _BURST))]
            share -= _BURST
            for stream in streams:
                head = frame(wire.HEADERS, wire.END_HEADERS, stream, block)
                connection.write(head + frame(wire.DATA, wire.END_STREAM, stream, wire.message(b"")))
            await connection.all_ended(streams)
            done["calls"] += len(streams)

    async with _many(_CONNECTIONS, order) as connections:
        order.begins()
        share = order.count // _CONNECTIONS
        await asyncio.gather(*(make(each, share) for each in connections), return_exceptions=True)
        await order.over.wait()
    return dict(done)


async def silent(order: Order) -> Report:
    """Opens `count` connections that send nothing, and holds them until the end."""
    done: Counter[str] = Counter()

    async def hold(connection: Connection) -> None:
        await connection.connect()
        done["connections"] += 1

    async with _many(order.count, order) as connections:
        order.begins()
        for some in range(0, order.count, _BURST):
            outcomes = await asyncio.gather(
                *(hold(each) for each in connections[some : some + _BURST]), return_exceptions=True
            )
            done["refused"] += sum(isinstance(each, OSError) for each in outcomes)
        await order.over.wait()
    return dict(done)


async def stalled(order: Order) -> Report:
    """Opens `count` watches of a namespace whose readers read nothing.

    The flow-control windows of the streams do not grow, and neither does the socket's. `options["tokens"]`
    belong to several users, each with a connection and an equal share of the streams.
    """
    done: Counter[str] = Counter()
    body = container_pb2.WatchContainersRequest(namespace=order.namespace).SerializeToString()
    tokens = order.options["tokens"]
    on_each = order.count // len(tokens)

    async def hold(connection: Connection, token: str) -> None:
        await connection.open()
        for _ in range(on_each):
            stream = connection.stream()
            connection.write(
                frame(wire.HEADERS, wire.END_HEADERS, stream, wire.header_block(WATCH, token))
                + frame(wire.DATA, wire.END_STREAM, stream, wire.message(body))
            )
            done["watches"] += 1
        await connection.drain()

    async with _many(len(tokens), order, reads=False, window=0) as connections:
        order.begins()
        await asyncio.gather(*(hold(*pair) for pair in zip(connections, tokens, strict=True)))
        await order.over.wait()
    return dict(done)


async def oversized(order: Order) -> Report:
    """Sends everything that is too large: requests, headers, lengths, frames, floods.

    Also sends each of `options["methods"]` a request above the limit, without a token and with one.
    """
    done: Counter[str] = Counter()
    parts = list(_too_large(order.token))
    for method in order.options["methods"]:
        for token in ("", order.token):
            head = frame(wire.HEADERS, wire.END_HEADERS, 1, wire.header_block(method, token))
            body = wire.message(b"x" * 16_000, length=8 << 20)
            parts.append((f"body above the limit: {method}", head + frame(wire.DATA, 0, 1, body)))
    order.begins()
    at_once = asyncio.Semaphore(_CONNECTIONS)

    async def send(name: str, data: bytes) -> None:
        async with at_once:
            if not order.over.is_set():
                await _send(order, data, done, name)

    await asyncio.gather(*(send(*part) for part in parts))
    order.is_through()
    await order.over.wait()
    return dict(done)


async def _send(order: Order, data: bytes, done: Counter[str], name: str) -> None:
    """Sends the data on a new connection; waits for the end of call or connection."""
    async with _many(1, order) as (connection,):
        with suppress(OSError):
            await connection.open()
            stream = connection.stream()
            assert stream == 1
            connection.write(data)
            await connection.drain()
        done[name] += 1
        done["all"] += 1
        ends = [
            asyncio.ensure_future(each.wait())
            for each in (connection.ended(1), connection.closed, order.over)
        ]
        await asyncio.wait(ends, timeout=runs_out(_UNANSWERED_SECONDS), return_when=asyncio.FIRST_COMPLETED)
        if ends[0].done():
            done[f"ended: {name}"] += 1
        elif ends[1].done():
            done[f"cut: {name}"] += 1
        elif not ends[2].done():
            done[f"unanswered: {name}"] += 1
        for each in ends:
            each.cancel()


@cache
def _too_large(token: str) -> Sequence[tuple[str, bytes]]:
    """Returns the name and the bytes of each oversized thing, on stream 1."""
    own = wire.header_block(GET, token)
    begins = frame(wire.HEADERS, wire.END_HEADERS, 1, own)
    strangers = frame(wire.HEADERS, wire.END_HEADERS, 1, wire.header_block(LOGIN))
    gzipped = frame(
        wire.HEADERS, wire.END_HEADERS, 1, wire.header_block(LOGIN, "", [("grpc-encoding", "gzip")])
    )
    ends = _data(wire.message(b""))
    body = b"\x0a" + _varint(8 << 20) + b"x" * (8 << 20)
    field = wire.literal((b"x", b"y" * 8000))
    headers = wire.header_block(LOGIN, "", [(f"x-{number}", "y" * 1000) for number in range(100)])
    return [
        ("body of a user", begins + _data(wire.message(body))),
        ("body of a stranger", strangers + _data(wire.message(body))),
        ("a length of 4 GB", strangers + frame(wire.DATA, 0, 1, wire.message(b"x", length=0xFFFFFFFF))),
        ("half a megabyte that becomes 512", gzipped + _data(wire.zeros(512 << 20))),
        ("headers of 100 KB", wire.head(1, headers)),
        ("headers of 1 MB", wire.head(1, 10 * headers)),
        (
            "headers without an end",
            frame(wire.HEADERS, 0, 1, own) + 200 * frame(wire.CONTINUATION, 0, 1, field),
        ),
        ("pings", begins + 5000 * frame(wire.PING, 0, 0, b"12345678") + ends),
        ("settings", begins + 5000 * wire.settings([(4, 65535)]) + ends),
        ("empty frames", begins + 20_000 * frame(wire.DATA, 0, 1) + ends),
    ]


def _data(payload: bytes) -> bytes:
    """Returns a request in frames of the permitted size that ends the stream."""
    parts = [payload[at : at + 16384] for at in range(0, len(payload), 16384)]
    return b"".join(
        frame(wire.DATA, wire.END_STREAM * (number == len(parts) - 1), 1, part)
        for number, part in enumerate(parts)
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes((*out, number))


if __name__ == "__main__":
    run(
        {
            "calls": calls,
            "resets": resets,
            "silent": silent,
            "stalled": stalled,
            "oversized": oversized,
        }
    )
