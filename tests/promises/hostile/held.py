"""Calls that are begun and never ended by their caller, many times as many as a server has room for.

Each kind is held by as many connections as its calls need, a hundred on each. Run by `attacker.attacking`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pilothouse.container.v1 import container_pb2
from tests.promises.hostile import wire
from tests.promises.hostile.attacker import Act, Order, Report, run
from tests.promises.hostile.attacks import LOGIN, WATCH
from tests.promises.hostile.wire import Connection, frame
from tests.waiting import poll_until

HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
_ON_EACH = 100
# About a second of looking.
_LOOKS = 30


def _holding(begin: Callable[[Order, int], bytes]) -> Act:
    """The attack that begins `count` calls by those bytes of a stream and waits."""

    async def hold(order: Order) -> Report:
        connections = [
            Connection(order.address, order.source, kept_bytes=0) for _ in range(order.count // _ON_EACH)
        ]
        streams: list[tuple[Connection, int]] = []
        for connection in connections:
            await connection.open()
            for _ in range(_ON_EACH):
                stream = connection.stream()
                streams.append((connection, stream))
                connection.write(begin(order, stream))
            await connection.drain()
        lately: deque[int] = deque(maxlen=_LOOKS)

        def ended() -> int:
            return sum(each.closed.is_set() or each.ended(stream).is_set() for each, stream in streams)

        async def no_more_end() -> bool:
            lately.append(ended())
            return len(lately) == _LOOKS and len(set(lately)) == 1

        # What the server refuses is behind it then, and what it holds stands.
        await poll_until(no_more_end, seconds=10, what="the server has dealt with all that was begun")
        order.stands()
        await order.over.wait()
        report = {"begun": len(streams), "ended": ended()}
        for connection in connections:
            connection.close()
        return report

    return hold


def _health(_order: Order, stream: int) -> bytes:
    head = frame(wire.HEADERS, wire.END_HEADERS, stream, wire.header_block(HEALTH_WATCH))
    return head + frame(wire.DATA, wire.END_STREAM, stream, wire.message(b""))


def _without_body(_order: Order, stream: int) -> bytes:
    return frame(wire.HEADERS, wire.END_HEADERS, stream, wire.header_block(LOGIN))


def _watch(order: Order, stream: int) -> bytes:
    body = container_pb2.WatchContainersRequest(namespace=order.namespace).SerializeToString()
    head = frame(wire.HEADERS, wire.END_HEADERS, stream, wire.header_block(WATCH, order.token))
    return head + frame(wire.DATA, wire.END_STREAM, stream, wire.message(body))


KINDS = {"health": _holding(_health), "without a body": _holding(_without_body), "watches": _holding(_watch)}


if __name__ == "__main__":
    run(KINDS)
