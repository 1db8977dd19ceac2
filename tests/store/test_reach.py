"""A read-only transaction computes its caller's scope once.

A writing transaction computes it for each statement.
"""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy import text

from pilothouse_server.store.engine import Database as Engines
from pilothouse_server.store.unit_of_work import Actor, ReadTransaction, Store
from tests.conftest import Database
from tests.identity.server import settings_of
from tests.migrations.filling import ADMINISTRATOR, user_of

_KEPT = text("SELECT coalesce(current_setting('app.reach', true), '')")
_SEEN = text("SELECT namespace_id FROM containers ORDER BY namespace_id")


async def _look(transaction: ReadTransaction) -> tuple[str, list[int]]:
    kept: str = (await transaction.connection.execute(_KEPT)).scalar_one()
    return kept, [row.namespace_id for row in await transaction.connection.execute(_SEEN)]


async def test_each_read_keeps_the_scope_of_its_own_caller(tenants: Database) -> None:
    engines = Engines.connect(settings_of(tenants))
    store = Store(engines)
    try:
        for user_id, kept, seen in (
            (user_of(1), "11/0{1}", [1]),
            (ADMINISTRATOR, "10/1{}", [1, 2]),
            (user_of(2), "12/0{2}", [2]),
            (999, "999/0{}", []),
        ):
            for snapshot in (False, True):
                async with store.read(user_id, snapshot=snapshot) as transaction:
                    assert await _look(transaction) == (kept, seen)
        async with store.system_read() as transaction:
            assert await _look(transaction) == ("", [1, 2])
    finally:
        await engines.close()


async def test_a_write_sees_grants_that_change_during_its_transaction(tenants: Database) -> None:
    engines = Engines.connect(settings_of(tenants))
    unit = Store(engines).unit_of_work(Actor(ADMINISTRATOR, "root"), uuid4(), "")
    try:
        transaction = await unit.begin()
        assert await _look(transaction) == ("", [1, 2])
        await transaction.connection.execute(
            text("UPDATE user_roles SET namespace_id = 2 WHERE user_id = 10 AND namespace_id IS NULL")
        )
        assert await _look(transaction) == ("", [2])
        await unit.rollback()
    finally:
        await engines.close()
