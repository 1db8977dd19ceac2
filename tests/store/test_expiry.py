"""Expired rows are deleted a few at a time, without waiting for locks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from pilothouse_server.app import NOUN_TABLES
from pilothouse_server.settings.model import Settings
from pilothouse_server.store import expiry, periodic
from pilothouse_server.store.clock import Clocks
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.noun_tables import ExpiringRows
from pilothouse_server.store.periodic import standard_jobs
from pilothouse_server.store.unit_of_work import Store, Transaction
from tests.conftest import Database
from tests.identity.server import settings_of

_OLD = "now() - interval '2 days'"
_OLD_KEY = "now() - interval '91 days'"
_FILL = f"""
INSERT INTO users (id, username, username_normalized, email, email_normalized, password_hash)
VALUES (1, 'anna', 'anna', 'anna', 'anna', '!');
INSERT INTO sessions (user_id, family_id, access_token_hash, refresh_token_hash, access_expires_at, refresh_expires_at)
SELECT 1, gen_random_uuid(), sha256(('a' || i)::bytea), sha256(('r' || i)::bytea), {_OLD},
    CASE WHEN i <= 35 THEN {_OLD} ELSE now() END FROM generate_series(1, 40) AS i;
INSERT INTO api_keys (user_id, name, key_hash, prefix, expires_at, revoked_at)
SELECT 1, 'key-' || i, sha256(('k' || i)::bytea), 'phk_',
    CASE WHEN i <= 12 THEN {_OLD_KEY} WHEN i = 22 THEN now() - interval '89 days' ELSE now() + interval '1 day' END,
    CASE WHEN i BETWEEN 13 AND 20 THEN {_OLD_KEY} WHEN i = 21 THEN now() WHEN i = 23 THEN now() - interval '89 days' END
FROM generate_series(1, 25) AS i;
INSERT INTO login_throttles (account_hash, failures, locked_until, updated_at)
VALUES ('\\x01', 1, NULL, {_OLD}), ('\\x02', 1, now() + interval '1 day', {_OLD}), ('\\x03', 1, NULL, now());
INSERT INTO login_origins (account_hash, origin_hash, password_changed_at, updated_at)
VALUES ('\\x01', '\\x01', now(), now() - interval '91 days'), ('\\x01', '\\x02', now(), now() - interval '89 days');
INSERT INTO idempotency_keys (user_id, request_id, method, request_hmac, expires_at)
VALUES (1, gen_random_uuid(), 'm', '\\x01', {_OLD}), (1, gen_random_uuid(), 'm', '\\x01', now() + interval '1 day');
INSERT INTO users (id, username, username_normalized, email, email_normalized, password_hash, deleted_at)
VALUES (2, 'bert', 'bert', 'bert', 'bert', '!', now());
INSERT INTO recovery_codes (user_id, code_hash) VALUES (1, '\\x01'), (2, '\\x01');
INSERT INTO login_challenges (challenge_hash, user_id, origin_hash, password_changed_at, expires_at)
VALUES ('\\x01', 1, '\\x01', now(), now() - interval '1 second'),
    ('\\x02', 1, '\\x01', now(), now() + interval '5 minutes'), ('\\x03', 1, '\\x01', now(), now() + interval '1 day');
INSERT INTO encryption_keys (key_id) VALUES ('key');
INSERT INTO user_secrets (user_id, secret_type, name, encrypted_value, key_id, updated_at)
VALUES (1, 'totp', '', '\\x01', 'key', {_OLD}), (1, 'totp', 'pending', '\\x01', 'key', {_OLD}),
    (1, 'totp', 'other', '\\x01', 'key', now()), (1, 'token', 'issuer', '\\x01', 'key', {_OLD});
INSERT INTO request_claims (user_id, request_id, owner, expires_at)
VALUES (1, gen_random_uuid(), gen_random_uuid(), {_OLD});
"""
EXPIRING = [*expiry.OWN, *(rows for noun in NOUN_TABLES for rows in noun.expiring)]
_LEFT = {
    "sessions": 5,
    "api_keys": 5,
    "login_throttles": 2,
    "login_origins": 1,
    "idempotency_keys": 1,
    "request_claims": 0,
    # Rows that have waited too long for a code or a log-in; a row of a clock that was ahead; a row of a deleted user.
    "login_challenges": 1,
    "user_secrets": 3,
    "recovery_codes": 1,
}


class Lots(Store):
    """A store that counts its write transactions."""

    written = 0

    @asynccontextmanager
    async def system_write(self, actor_name: str = "system") -> AsyncIterator[Transaction]:
        self.written += 1
        async with super().system_write(actor_name) as transaction:
            yield transaction


@pytest_asyncio.fixture(loop_scope="session")
async def store(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lots]:
    monkeypatch.setattr(expiry, "LOT", 10)
    async with database.owner() as owner:
        await owner.execute(_FILL)
    pools = Pools.connect(settings_of(database))
    try:
        yield Lots(pools)
    finally:
        await pools.close()


async def delete_expired(store: Store, tables: Sequence[ExpiringRows]) -> int:
    """Runs the deletion once, with two correct clocks."""
    now = datetime.now(UTC)
    return await expiry.delete_expired(store, tables, Settings(), Clocks(now, now))


async def counts(database: Database) -> dict[str, int]:
    async with database.owner() as owner:
        return {table: await owner.fetchval(f"SELECT count(*) FROM {table}") for table in _LEFT}


async def test_expired_rows_are_deleted_in_batches_and_others_stay(database: Database, store: Lots) -> None:
    assert await delete_expired(store, EXPIRING) == 35 + 20 + 1 + 1 + 1 + 1 + 2 + 1 + 1
    assert await counts(database) == _LEFT
    # Four batches of sessions and three of keys, the last of each not full, and one batch of each other table.
    assert store.written == 4 + 3 + len(EXPIRING) - 2
    assert await delete_expired(store, EXPIRING) == 0


async def test_a_locked_row_is_left_to_the_next_run(database: Database, store: Lots) -> None:
    async with database.system() as system, system.transaction():
        await system.execute("SELECT FROM sessions WHERE access_token_hash = sha256('a1') FOR UPDATE")
        await delete_expired(store, EXPIRING)
        assert (await counts(database))["sessions"] == _LEFT["sessions"] + 1
    await delete_expired(store, EXPIRING)
    assert await counts(database) == _LEFT


async def test_one_run_is_bounded(database: Database, store: Lots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "MOST_LOTS", 2)
    assert await delete_expired(store, [each for each in EXPIRING if each.table == "sessions"]) == 20
    assert (await counts(database))["sessions"] == 20


async def removed_by_a_server(store: Store, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the periodic job once, on a server whose clock is 100 days behind the database's."""

    class Behind(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(days=100)

    monkeypatch.setattr(periodic, "datetime", Behind)
    jobs = standard_jobs(store, settings_of(database), NOUN_TABLES)
    (job,) = [each for each in jobs if each.name == "remove what has expired"]
    await job.job()


async def test_a_database_clock_ahead_deletes_no_valid_rows(
    database: Database, store: Lots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the database's clock, every row that expires within 100 days has expired.

    These are keys, sessions, responses for replays, claims and log-ins.
    """
    before = await counts(database)
    await removed_by_a_server(store, database, monkeypatch)
    # Rows of a deleted user do not depend on time, and a challenge that lasts for a day comes from a wrong clock.
    assert await counts(database) == before | {"recovery_codes": 1, "login_challenges": 2}
    await delete_expired(store, EXPIRING)
    assert await counts(database) == _LEFT


@pytest.mark.parametrize("each", [each for each in EXPIRING if each.order], ids=lambda each: each.table)
async def test_expired_rows_are_found_by_an_index(database: Database, each: ExpiringRows) -> None:
    """The index must be usable also if there are few rows, and a scan would be as fast."""
    async with database.owner() as owner, owner.transaction():
        await owner.execute("SET LOCAL enable_seqscan = off")
        await owner.execute("SET LOCAL enable_sort = off")
        condition = each.condition.replace(":earlier", "now()").replace(":later", "now()")
        plan = await owner.fetch(
            f"EXPLAIN SELECT ctid FROM {each.table} WHERE {condition} ORDER BY {each.order} LIMIT 10 "
            "FOR UPDATE SKIP LOCKED"
        )
    text = "\n".join(row[0] for row in plan)
    assert "Index Scan" in text, text
    assert "Sort" not in text, text
