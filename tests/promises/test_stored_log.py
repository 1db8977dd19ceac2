"""Promise 2: after a busy time the log equals its hashes and seals.

No record can be altered unnoticed.
"""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.conftest import connection, number_changes
from tests.promises.environment import Environment
from tests.promises.requests import OWN
from tests.promises.stored_log import log_faults, tree_faults
from tests.promises.test_first_states import create, numbering_held
from tests.promises.test_recorded_calls import GARBAGE
from tests.promises.test_watches import write

# Alterations of one or two stored records by the superuser.
ALTERATIONS = {
    "a character of a name": "SET username = 'admit' WHERE sequence = {n}",
    "a number in a body": "SET request_body = '{{\"a\": 1}}' WHERE sequence = {n}",
    "a microsecond": "SET started_at = started_at + interval '1 microsecond' WHERE sequence = {n}",
    "a bit of a hash": "SET record_hash = set_bit(record_hash, 0, 1 - get_bit(record_hash, 0)) WHERE sequence = {n}",
    "two that changed places": "SET sequence = 2 * {n} + 1 - sequence WHERE sequence IN ({n}, {n} + 1)",
    "one that left its place": "SET sequence = sequence + 100000 WHERE sequence = {n}",
}


async def test_records_are_the_leaves_of_the_tree_and_every_alteration_is_found(
    environment: Environment,
) -> None:
    rule = environment.rule("GetContainer")
    odd = {"name": "odd", "image": "nginx", "annotations": {"a": "é\u2028\U0001f600", "b": "\\u0000"}}
    await environment.must("CreateContainer", {"namespace": OWN, "container": odd})
    await asyncio.gather(
        *(write(environment, [environment.admin], number, 12) for number in range(4)),
        *(environment.stranger.invoke(rule, GARBAGE) for _ in range(20)),
        *(environment.admin.invoke(rule, GARBAGE) for _ in range(20)),
        *(environment.admin.invoke(rule, environment.request(rule)) for _ in range(20)),
    )
    async with environment.sql() as sql:
        size = (await environment.server.application.sealer.seal()).size

        async def faults() -> list[str]:
            return await log_faults(sql) + await tree_faults(sql)

        assert size >= 100
        assert await faults() == []
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
            assert await faults() != [], statement
            await undone.rollback()
        assert await faults() == []


async def test_an_alteration_before_the_numbering_is_found(environment: Environment) -> None:
    """Alters a record before it is numbered.

    The server computes the hash when it makes the record; the database only stores the hash.
    """
    async with connection(environment.server.database.admin_dsn) as sql:
        with numbering_held(environment):
            await create(environment, "web")
            altered = await sql.fetchval(
                "UPDATE pending_changes SET records = ARRAY(SELECT jsonb_populate_record(r::pending_record_row, "
                """'{"username": "admit"}')::pending_record FROM unnest(records) AS r) RETURNING id"""
            )
            assert altered is not None
        await number_changes(sql)
        assert [fault for fault in await log_faults(sql) if "record hash" in fault]


async def test_only_the_owner_may_delete_a_change_before_the_numbering(environment: Environment) -> None:
    """Deletes a record before it is numbered.

    The log cannot show a record that it never contained. Only the owner of the tables may delete one.
    """
    async with connection(environment.server.database.admin_dsn) as sql:
        with numbering_held(environment):
            await create(environment, "web")
            await sql.execute("DELETE FROM pending_changes")
        await number_changes(sql)
        assert await log_faults(sql) == []
    async with environment.server.database.system() as system:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await system.execute("DELETE FROM pending_changes")
