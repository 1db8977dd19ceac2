"""Attacks by anonymous callers.

They make invented logins, calls without a token with the largest permitted headers, and calls with wrong tokens
and short deadlines. Each attack runs until it is over, and reports how many calls it made. `attacker.attacking`
starts it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

from pilothouse.identity.v1 import identity_pb2
from pilothouse_server.identity import tokens
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.promises.hostile import wire
from tests.promises.hostile.attacker import Order, Report, run
from tests.promises.hostile.wire import Connection, frame
from tests.waiting import Stopwatch, runs_out

LOGIN = "/pilothouse.identity.v1.IdentityService/Login"
WHO_AM_I = "/pilothouse.identity.v1.IdentityService/WhoAmI"
_CALLS_OF_A_CONNECTION = 18
_HURRIED_CONNECTIONS = 10
# Headers that a record would contain if there were no bounded allow-list.
_FILLERS = [(f"grpc-filler-{number}", "x" * 900) for number in range(12)]


async def logins(order: Order) -> Report:
    """Makes `count` concurrent logins with invented users and passwords."""
    numbers = count()

    async def guess(connection: Connection) -> None:
        request = identity_pb2.LoginRequest(username=f"invented{next(numbers)}", password="x" * 40)
        await connection.call(LOGIN, request.SerializeToString())

    return await _over_and_over(order, guess, order.count // _CALLS_OF_A_CONNECTION, _CALLS_OF_A_CONNECTION)


async def refused(order: Order) -> Report:
    """Opens `count` connections, each with calls without a token in sequence."""
    block = wire.header_block(WHO_AM_I, extra=_FILLERS)

    async def call(connection: Connection) -> None:
        stream = connection.stream()
        ended = connection.ended(stream)
        connection.write(
            frame(wire.HEADERS, wire.END_HEADERS, stream, block)
            + frame(wire.DATA, wire.END_STREAM, stream, wire.message(b""))
        )
        await ended.wait()

    return await _over_and_over(order, call, order.count, 1)


async def hurried(order: Order) -> Report:
    """Makes `count` concurrent calls with unknown tokens and short deadlines.

    The deadline is `options["seconds"]`. Half of the calls are cancelled by the caller at the deadline, as
    clients do; the server ends the others. Each call is followed by another.
    """
    seconds = order.options["seconds"]
    deadline = ("grpc-timeout", f"{round(seconds * 1000)}m")
    made = 0

    async def call(connection: Connection) -> None:
        nonlocal made
        made += 1
        stream = connection.stream()
        ended = connection.ended(stream)
        block = wire.header_block(WHO_AM_I, tokens.new_token(tokens.ACCESS_PREFIX), [deadline])
        connection.write(
            frame(wire.HEADERS, wire.END_HEADERS, stream, block)
            + frame(wire.DATA, wire.END_STREAM, stream, wire.message(b""))
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(runs_out(seconds) if made % 2 else None):
                await ended.wait()
        if not ended.is_set():
            connection.write(frame(wire.RST_STREAM, 0, stream, wire.CANCEL))

    watch = Stopwatch()
    connections: list[Connection] = []
    report = await _over_and_over(
        order, call, _HURRIED_CONNECTIONS, order.count // _HURRIED_CONNECTIONS, connections
    )
    return {**report, "told": sum(each.refusals for each in connections), "seconds": watch.passed()}


async def _over_and_over(
    order: Order,
    act: Callable[[Connection], Awaitable[None]],
    connections: int,
    at_once: int,
    made: list[Connection] | None = None,
) -> Report:
    """Opens connections with `at_once` concurrent acts each, until the end.

    `made` collects the connections.
    """
    done: Counter[str] = Counter()
    made = [] if made is None else made
    made += (Connection(order.address, order.source) for _ in range(connections))

    async def one(connection: Connection) -> None:
        with suppress(OSError):
            while not order.over.is_set() and not connection.closed.is_set():
                done["begun"] += 1
                await act(connection)
                done["calls"] += 1

    try:
        order.begins()
        await asyncio.gather(*(each.open() for each in made))
        work = [asyncio.create_task(one(each)) for each in made for _ in range(at_once)]
        await order.over.wait()
        await cancel_and_wait(*work)
    finally:
        for each in made:
            each.close()
    return dict(done)


if __name__ == "__main__":
    run({"hurried": hurried, "logins": logins, "refused": refused})
