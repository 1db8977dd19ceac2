"""Reads in one message: each caller sees only their own rows, even if another caller used the connection before."""

from __future__ import annotations

import asyncio
from itertools import cycle, islice, product

import asyncpg
import pytest

from tests.conftest import Database, connection
from tests.migrations.filling import ADMINISTRATOR, NAMES, TENANTS, user_of
from tests.waiting import poll_until

_NOBODY = 999
_FORMAT = 1
_CALLS = 1000
# Each read: a function with its key, and the tenant that owns the row.
_READS = [
    *((f"read_container($1, '{NAMES[tenant]}', 'web', {_FORMAT})", tenant) for tenant in TENANTS),
    *((f"read_volume($1, '{NAMES[tenant]}', 'data', {_FORMAT})", tenant) for tenant in TENANTS),
    *((f"read_config_map($1, '{NAMES[tenant]}', 'settings', {_FORMAT})", tenant) for tenant in TENANTS),
    *(
        (f"read_secret($1, '{NAMES[tenant]}', 'password-{NAMES[tenant]}', {_FORMAT})", tenant)
        for tenant in TENANTS
    ),
    *((f"read_namespace($1, '{NAMES[tenant]}', {_FORMAT})", tenant) for tenant in TENANTS),
]
_CALLERS = (user_of(1), user_of(2), ADMINISTRATOR, _NOBODY)


def _reaches(caller: int, tenant: int) -> bool:
    return caller in (ADMINISTRATOR, user_of(tenant))


async def _wrong(app: asyncpg.Connection, calls: int = _CALLS) -> list[str]:
    """Calls every function as every caller, and every caller after every other one. Returns the wrong results."""
    statements = {read: await app.prepare(f"SELECT namespace_id FROM {read}") for read, _ in _READS}
    found = []
    # The two cycles have lengths without a common divisor, so every caller follows every other one.
    for caller, (read, tenant) in islice(
        zip(cycle(_CALLERS), cycle([*_READS, _READS[0]]), strict=False), calls
    ):
        rows = [row[0] for row in await statements[read].fetch(caller)]
        if rows != ([tenant] if _reaches(caller, tenant) else []):
            found.append(f"{read} as {caller}: {rows}")
    return found


@pytest.mark.parametrize("plans", ["auto", "force_generic_plan", "force_custom_plan"])
async def test_a_caller_sees_only_their_own_rows_on_a_shared_connection(apart: Database, plans: str) -> None:
    async with connection(apart.app_dsn) as app:
        await app.execute(f"SET plan_cache_mode = {plans}")
        assert await _wrong(app) == []


async def test_no_identity_and_no_reach_stay_after_a_read(apart: Database) -> None:
    async with connection(apart.app_dsn) as app:
        for read, _ in _READS:
            await app.fetch(f"SELECT * FROM {read}", ADMINISTRATOR)
            left = await app.fetchrow(
                "SELECT coalesce(current_setting('app.current_user_id', true), ''),"
                " coalesce(current_setting('app.reach', true), '')"
            )
            assert left is not None
            assert tuple(left) == ("", "")
            assert await app.fetchval("SELECT count(*) FROM containers") == 0


async def test_a_cancelled_read_leaves_no_identity_for_the_next_read(tenants: Database) -> None:
    """The cancelled read waited for a lock on behalf of the administrator."""
    read = f"SELECT * FROM read_container($1, 'alpha', 'web', {_FORMAT})"
    async with connection(tenants.app_dsn) as app, connection(tenants.admin_dsn) as admin:
        for _ in range(3):
            async with admin.transaction():
                await admin.execute("LOCK TABLE containers IN ACCESS EXCLUSIVE MODE")
                waiting = asyncio.create_task(app.fetch(read, ADMINISTRATOR))
                await poll_until(
                    lambda: admin.fetchval(
                        "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)",
                        app.get_server_pid(),
                    )
                )
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            assert await app.fetch(read, user_of(2)) == []
            assert await app.fetchval("SELECT count(*) FROM containers") == 0
        assert await _wrong(app, 200) == []


async def test_a_stored_reach_counts_only_for_its_own_user(apart: Database) -> None:
    async with apart.app(ADMINISTRATOR) as app:
        await app.execute("SELECT set_config('app.reach', app_reach(), true)")
        assert await app.fetchval("SELECT count(*) FROM containers") == 2
        for other, seen in ((user_of(1), 1), (_NOBODY, 0), ("", 0), (1, 0)):
            await app.execute("SELECT set_config('app.current_user_id', $1, true)", str(other))
            assert await app.fetchval("SELECT count(*) FROM containers") == seen


_UNBOUND = """
CREATE OR REPLACE FUNCTION app_known_reach() RETURNS text LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('app.reach', true), ''), app_reach())
"""
_IDENTITY = "PERFORM set_config('app.current_user_id', p_user_id::text, true);"
_REACH = "PERFORM set_config('app.reach', public.app_reach(), true);"


async def _body(owner: asyncpg.Connection) -> str:
    return str(
        await owner.fetchval(
            "SELECT pg_get_functiondef('read_container(bigint, text, text, integer)'::regprocedure)"
        )
    )


@pytest.mark.full
@pytest.mark.parametrize("fault", ["no identity", "reach before identity"])
async def test_reads_that_mix_up_their_callers_are_detected(tenants: Database, fault: str) -> None:
    async with tenants.owner() as owner:
        body = await _body(owner)
        assert _IDENTITY in body
        assert _REACH in body
        if fault == "no identity":
            # The identity that was set first is never replaced.
            kept = _IDENTITY.replace("p_user_id::text, true", f"'{user_of(1)}', false")
            await owner.execute(body.replace(_IDENTITY, kept))
        else:
            await owner.execute(_UNBOUND)
            await owner.execute(body.replace(_REACH, "").replace(_IDENTITY, f"{_REACH}\n{_IDENTITY}"))
    async with connection(tenants.app_dsn) as app:
        assert await _wrong(app, 200)


async def test_only_the_app_role_may_use_the_read_functions(apart: Database) -> None:
    async with apart.system() as system:
        for read, _ in _READS:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await system.fetch(f"SELECT * FROM {read}", ADMINISTRATOR)


async def test_a_message_of_another_version_or_format_is_not_returned(tenants: Database) -> None:
    async with connection(tenants.app_dsn) as app, tenants.owner() as owner:

        async def message(message_format: int = _FORMAT) -> bytes | None:
            row = await app.fetchrow(
                "SELECT * FROM read_container($1, 'alpha', 'web', $2)", user_of(1), message_format
            )
            assert row is not None
            assert (row["id"], row["creator"]) == (1, "alpha")
            kept: bytes | None = row["message"]
            return kept

        assert await message() == b"\x01"
        for other in (_FORMAT - 1, _FORMAT + 1):
            assert await message(other) is None
        await owner.execute("UPDATE containers SET phase = 'Running' WHERE id = 1")
        assert await message() is None
        await owner.execute("UPDATE rendered_messages SET row_version = 2 WHERE resource_id = 1")
        assert await message() == b"\x01"


def test_every_caller_calls_every_read() -> None:
    turns = list(islice(zip(cycle(_CALLERS), cycle([*_READS, _READS[0]]), strict=False), _CALLS))
    assert {(caller, read) for caller, (read, _) in turns} == set(product(_CALLERS, dict(_READS)))
