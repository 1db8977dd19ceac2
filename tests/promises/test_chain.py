"""Promise 2: the chain holds after a busy time, and no record can be altered unnoticed."""

from __future__ import annotations

import asyncio

from tests.promises.chain import broken_links
from tests.promises.requests import OWN
from tests.promises.test_recorded_calls import GARBAGE
from tests.promises.test_watches import write
from tests.promises.world import World

# One thing done to one stored record, as the superuser.
ALTERATIONS = {
    "a character of a name": "SET username = 'admit' WHERE sequence = {n}",
    "a number in a body": "SET request_body = '{{\"a\": 1}}' WHERE sequence = {n}",
    "a microsecond": "SET started_at = started_at + interval '1 microsecond' WHERE sequence = {n}",
    "a bit of a hash": "SET record_hash = set_bit(record_hash, 0, 1 - get_bit(record_hash, 0)) WHERE sequence = {n}",
    "two that changed places": "SET sequence = 2 * {n} + 1 - sequence WHERE sequence IN ({n}, {n} + 1)",
    "one that left its place": "SET sequence = sequence + 100000 WHERE sequence = {n}",
}


async def test_the_chain_holds_and_every_alteration_is_found(world: World) -> None:
    rule = world.rule("GetContainer")
    odd = {"name": "odd", "image": "nginx", "annotations": {"a": "é\u2028\U0001f600", "b": "\\u0000"}}
    await world.must("CreateContainer", {"namespace": OWN, "container": odd})
    await asyncio.gather(
        *(write(world, [world.admin], number, 12) for number in range(4)),
        *(world.stranger.invoke(rule, GARBAGE) for _ in range(20)),
        *(world.admin.invoke(rule, GARBAGE) for _ in range(20)),
        *(world.admin.invoke(rule, world.request(rule)) for _ in range(20)),
    )
    async with world.sql() as sql:
        assert await broken_links(sql) == []
        assert await sql.fetchval("SELECT count(*) FROM operation_logs") >= 100
        altered = [f"UPDATE operation_logs {change}" for change in ALTERATIONS.values()]
        newest = "(SELECT max(sequence) FROM operation_logs)"
        for statement in (
            *altered,
            "DELETE FROM operation_logs WHERE sequence = {n}",
            f"DELETE FROM operation_logs WHERE sequence = {newest}",
        ):
            undone = sql.transaction()
            await undone.start()
            await sql.execute(statement.format(n=40))
            assert await broken_links(sql) != [], statement
            await undone.rollback()
        assert await broken_links(sql) == []
