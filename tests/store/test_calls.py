"""Calls of database functions: one message, one transaction, and the function itself sets the identity."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy import text

from pilothouse_migrations import roles
from pilothouse_server.store.engine import Database as Engines
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database
from tests.identity.server import settings_of

_FUNCTION = f"""
CREATE FUNCTION seen(user_id bigint, more integer) RETURNS TABLE (caller text, role text, sum integer, xid bigint)
LANGUAGE plpgsql AS $$ BEGIN
    PERFORM set_config('app.current_user_id', user_id::text, true);
    RETURN QUERY SELECT current_setting('app.current_user_id'), current_user::text, more + 1, txid_current();
END $$;
GRANT EXECUTE ON FUNCTION seen TO {roles.APP}
"""
_SEEN = text("SELECT caller, role, sum, xid FROM seen(:user_id, :more)")
_LEFT = text(
    "SELECT current_setting('app.current_user_id', true) AS caller, CAST(:user_id AS bigint) AS asked, "
    "txid_current() AS xid"
)


@pytest_asyncio.fixture(loop_scope="session")
async def store(database: Database) -> AsyncIterator[Store]:
    engines = Engines.connect(settings_of(database))
    async with database.owner() as owner:
        await owner.execute(_FUNCTION)
    yield Store(engines)
    await engines.close()


async def test_a_call_is_a_transaction_of_the_app_role_that_leaves_no_identity(store: Store) -> None:
    (row,) = await store.call(7, _SEEN, {"more": 41})
    assert (row.caller, row.role, row.sum) == ("7", roles.APP, 42)
    (left,) = await store.call(8, _LEFT)
    assert (left.caller or "", left.asked) == ("", 8)
    assert left.xid > row.xid
