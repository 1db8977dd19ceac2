"""The functions that admit creates and changes: consecutive callers on one connection each see only their own rows."""

from __future__ import annotations

import random

import pytest

from tests.conftest import Database, connection
from tests.migrations.filling import ADMINISTRATOR, TENANTS, user_of

_USERS = (*(user_of(tenant) for tenant in TENANTS), ADMINISTRATOR, 999)


@pytest.mark.parametrize("plans", ["auto", "force_generic_plan", "force_custom_plan"])
async def test_users_on_one_connection_each_see_their_own_rows(apart: Database, plans: str) -> None:
    """The function and the statement are prepared once, but their result depends on the caller of each call."""
    assert await wrongly_admitted(apart, plans) == []


async def wrongly_admitted(database: Database, plans: str) -> list[tuple[int, int]]:
    """Returns user and namespace of each call that returned a foreign namespace, or missed the user's own."""
    source = random.Random(11)
    wrong = []
    async with connection(database.admin_dsn) as sql:
        namespaces = {row["id"]: row["name"] for row in await sql.fetch("SELECT id, name FROM namespaces")}
    async with connection(database.app_dsn) as app:
        await app.execute(f"SET plan_cache_mode = {plans}")
        admits = [
            await app.prepare(f"SELECT namespace_id FROM {function}")
            for function in (
                "admit_container($1, NULL, $2, 'new', '{}', '{}', '{}', '{}')",
                "admit_container_change($1, NULL, $2, 'web', false)",
            )
        ]
        for _ in range(300):
            user_id, tenant = source.choice(_USERS), source.choice(TENANTS)
            found = await source.choice(admits).fetchval(user_id, namespaces[tenant])
            reached = user_id in (ADMINISTRATOR, user_of(tenant))
            if found != (tenant if reached else None):
                wrong.append((user_id, tenant))
    return wrong


@pytest.mark.full
async def test_a_reach_kept_by_the_connection_is_detected(apart: Database) -> None:
    """The positive control: the reach is set once for the database session, and not compared with the user."""
    async with connection(apart.admin_dsn) as sql:
        admit = await sql.fetchval("SELECT pg_get_functiondef('begin_request'::regproc)")
        known = await sql.fetchval("SELECT pg_get_functiondef('app_known_reach'::regproc)")
        kept = "set_config('app.reach', public.app_reach(), true)"
        assert kept in admit
        try:
            await sql.execute(
                admit.replace(
                    kept,
                    "set_config('app.reach', coalesce(nullif(current_setting('app.reach', true), ''),"
                    " public.app_reach()), false)",
                )
            )
            await sql.execute(known.partition("RETURN CASE")[0] + "RETURN current_setting('app.reach', true)")
            assert await wrongly_admitted(apart, "auto")
        finally:
            await sql.execute(admit)
            await sql.execute(known)
