"""The cache of callers: duration, size, shared queries, the effect of a hint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from pilothouse_server.errors import Unauthenticated
from pilothouse_server.identity import tokens
from pilothouse_server.identity.authenticator.token_authenticator import TokenAuthenticator
from pilothouse_server.store.engine import Database as Engines
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database
from tests.identity.server import settings_of
from tests.waiting import poll_until


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Harness:
    """An authenticator on a database, with a count of its queries for principals."""

    def __init__(self, database: Database, store: Store, largest_cache: int = 10) -> None:
        self.database = database
        self.clock = Clock()
        self.queries = 0
        self.authenticator = TokenAuthenticator(
            store, cache_seconds=1.0, largest_cache=largest_cache, clock=self.clock
        )
        self._open = store.database.system._open_session
        store.database.system._open_session = self._open_counted

    async def _open_counted(self) -> asyncpg.Connection:
        driver = await self._open()
        driver.add_query_logger(self._count)
        return driver

    def _count(self, logged: asyncpg.connection.LoggedQuery) -> None:
        looks = "access_token_hash = " in logged.query or "key_hash = " in logged.query
        self.queries += looks and logged.query.startswith("SELECT")

    async def token(self, *, lives: str = "1 hour") -> str:
        """Returns an access token of a new session of a new user."""
        token = tokens.new_token(tokens.ACCESS_PREFIX)
        async with self.database.system() as connection:
            user_id = await connection.fetchval(
                "INSERT INTO users (username, username_normalized, email, email_normalized, password_hash) "
                "SELECT n, n, n, n, '!' FROM (SELECT substr(gen_random_uuid()::text, 1, 20) AS n) AS names "
                "RETURNING id"
            )
            await connection.execute(
                "INSERT INTO sessions (user_id, family_id, access_token_hash, refresh_token_hash, access_expires_at, "
                "refresh_expires_at, last_used_at) VALUES ($1, gen_random_uuid(), $2, $3, now() + $4::text::interval, "
                "now() + interval '1 day', now())",
                user_id,
                tokens.token_hash(token),
                tokens.token_hash("refresh of " + token),
                lives,
            )
        return token

    async def key(self, *, lives: str = "1 hour") -> str:
        """Returns a new API key of a new user."""
        key = tokens.new_token(tokens.KEY_PREFIX)
        async with self.database.system() as connection:
            await connection.execute(
                "WITH made AS (INSERT INTO users (username, username_normalized, email, email_normalized, "
                "password_hash) SELECT n, n, n, n, '!' FROM "
                "(SELECT substr(gen_random_uuid()::text, 1, 20) AS n) AS names RETURNING id) "
                "INSERT INTO api_keys (user_id, name, key_hash, prefix, expires_at) "
                "SELECT id, 'ci', $1, 'phk_', now() + $2::text::interval FROM made",
                tokens.token_hash(key),
                lives,
            )
        return key

    async def revoke_all(self) -> None:
        """Revokes all sessions and keys without a hint."""
        async with self.database.system() as connection:
            await connection.execute("UPDATE sessions SET revoked_at = now()")
            await connection.execute("UPDATE api_keys SET revoked_at = now()")


@pytest_asyncio.fixture(loop_scope="session")
async def harness(database: Database) -> AsyncIterator[Harness]:
    engines = Engines.connect(settings_of(database))
    made = Harness(database, Store(engines))
    try:
        yield made
    finally:
        await made.authenticator.close()
        await engines.close()


async def test_a_cached_token_is_forgotten_after_a_second_or_a_hint(harness: Harness) -> None:
    authenticator = harness.authenticator
    token = await harness.token()
    principal = await authenticator.authenticate(token)
    assert authenticator.known(token) is principal
    assert token in authenticator._calling
    # The token is cached no longer than its caller.
    harness.clock.now += 1.0
    assert authenticator.known(token) is None
    harness.clock.now -= 0.5
    assert authenticator.known(token) is principal
    authenticator.invalidate()
    assert authenticator.known(token) is None
    await authenticator.authenticate(token)
    assert authenticator.known(token) is not None

    async def forgotten() -> bool:
        return not authenticator._calling

    await poll_until(forgotten)


async def test_a_recently_seen_token_causes_no_query(harness: Harness) -> None:
    token = await harness.token()
    first = await harness.authenticator.authenticate(token)
    harness.clock.now += 0.99
    assert await harness.authenticator.authenticate(token) is first
    assert harness.queries == 1
    harness.clock.now += 0.02
    assert await harness.authenticator.authenticate(token) == first
    assert harness.queries == 2


@pytest.mark.parametrize("kind", ["token", "key"])
async def test_a_credential_revoked_without_a_hint_is_refused_after_a_second(
    harness: Harness, kind: str
) -> None:
    token = await getattr(harness, kind)()
    await harness.authenticator.authenticate(token)
    await harness.revoke_all()
    await harness.authenticator.authenticate(token)
    harness.clock.now += 1.01
    with pytest.raises(Unauthenticated) as caught:
        await harness.authenticator.authenticate(token)
    assert caught.value.reason == "INVALID_TOKEN"


@pytest.mark.parametrize("kind", ["token", "key"])
async def test_a_hint_empties_the_cache_immediately(harness: Harness, kind: str) -> None:
    token = await getattr(harness, kind)()
    await harness.authenticator.authenticate(token)
    await harness.revoke_all()
    harness.authenticator.invalidate()
    with pytest.raises(Unauthenticated):
        await harness.authenticator.authenticate(token)


async def test_a_caller_being_loaded_during_a_hint_is_not_cached(harness: Harness) -> None:
    token = await harness.token()
    asking = asyncio.create_task(harness.authenticator.authenticate(token))
    await asyncio.sleep(0)
    harness.authenticator.invalidate()
    await asking
    await harness.revoke_all()
    with pytest.raises(Unauthenticated):
        await harness.authenticator.authenticate(token)


async def test_concurrent_calls_share_one_query(harness: Harness) -> None:
    token = await harness.token()
    principals = await asyncio.gather(*(harness.authenticator.authenticate(token) for _ in range(20)))
    assert len({id(principal) for principal in principals}) == 1
    assert harness.queries == 1


async def test_a_cancelled_call_does_not_cancel_others(harness: Harness) -> None:
    token = await harness.token()
    calls = [asyncio.create_task(harness.authenticator.authenticate(token)) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1] == outcomes[2]
    assert harness.queries == 1


async def test_the_size_of_the_cache_is_limited(harness: Harness) -> None:
    made = [await harness.token() for _ in range(12)]
    for token in made:
        await harness.authenticator.authenticate(token)
    await harness.authenticator.authenticate(made[-1])
    assert harness.queries == 12
    await harness.authenticator.authenticate(made[0])
    assert harness.queries == 13


@pytest.mark.parametrize("kind", ["token", "key"])
async def test_a_token_is_not_cached_beyond_its_expiry(harness: Harness, kind: str) -> None:
    token = ""

    async def is_taken() -> bool:
        """Returns whether the token was still valid at its first use.

        A slow machine may need longer.
        """
        nonlocal token
        token = await getattr(harness, kind)(lives="300 milliseconds")
        try:
            await harness.authenticator.authenticate(token)
        except Unauthenticated:
            return False
        return True

    await poll_until(is_taken)
    harness.clock.now += 0.31
    queries = harness.queries
    try:
        await harness.authenticator.authenticate(token)
    except Unauthenticated as error:
        reason = error.reason
    else:
        # The database's clock has not reached the expiry yet. The server queried it again, which is what
        # counts.
        reason = "INVALID_TOKEN"
    assert reason == "INVALID_TOKEN"
    assert harness.queries == queries + 1


async def test_the_use_of_a_key_is_recorded_once_a_minute_with_its_address(harness: Harness) -> None:
    key = await harness.key()

    async def noted() -> tuple[Any, Any]:
        async with harness.database.system() as connection:
            row = await connection.fetchrow("SELECT last_used_at, last_used_ip FROM api_keys")
            return row["last_used_at"], row["last_used_ip"]

    # A check of open streams does not count as a use.
    await harness.authenticator.authenticate(key)
    harness.clock.now += 2
    await harness.authenticator.authenticate(key, "10.0.0.1")
    first = await poll_until(noted, lambda found: found[0] is not None)
    assert first[1] == "10.0.0.1"
    harness.clock.now += 2
    await harness.authenticator.authenticate(key, "10.0.0.2")
    await harness.authenticator.close()
    assert await noted() == first
    async with harness.database.system() as connection:
        await connection.execute("UPDATE api_keys SET last_used_at = now() - interval '61 seconds'")
    harness.clock.now += 2
    await harness.authenticator.authenticate(key, "10.0.0.3")
    await poll_until(noted, lambda found: found[1] == "10.0.0.3")


async def test_recording_a_use_does_not_wait_for_other_changes_of_the_key(harness: Harness) -> None:
    """The recording of uses skips keys that another transaction has locked.

    Otherwise two servers that record uses of the same keys would each wait for a key that the other has
    locked.
    """
    keys = [await harness.key() for _ in range(2)]
    used = "SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL"
    async with harness.database.system() as connection, connection.transaction():
        await connection.fetch("SELECT FROM api_keys ORDER BY id LIMIT 1 FOR UPDATE")
        for key in keys:
            await harness.authenticator.authenticate(key, "10.0.0.1")
        await poll_until(lambda: connection.fetchval(used), lambda count: count == 1)


@pytest.mark.parametrize(
    "token",
    ["", "x", "phk_" + "0" * 49, "pht_" + "0" * 49, "phr_" + "0" * 49, "pht_" + "é" * 49, "x" * 10_000],
)
async def test_a_malformed_token_causes_no_query(harness: Harness, token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await harness.authenticator.authenticate(token)
    assert caught.value.reason == ("INVALID_TOKEN" if token else "NO_TOKEN")
    assert harness.queries == 0
