"""The queries that explain a refusal are limited.

The limits hold for every caller and any number of refusals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.authorization.denials import DatabaseFacts, asked
from pilothouse_server.errors import Unavailable
from pilothouse_server.identity.access.refusal_reasons import RefusalReasons
from pilothouse_server.store.unit_of_work import Store
from tests.identity.server import Caller, IdentityServer
from tests.waiting import poll_until


class Watched:
    """The store of a server, which counts the readers and can block them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads = 0
        self.at_once = 0
        self.most_at_once = 0
        self.free = asyncio.Event()
        self.free.set()
        self.away = False

    @asynccontextmanager
    async def read(self, user_id: int) -> AsyncIterator[Any]:
        """Reads from the real store, once the test lets the read continue."""
        self.reads += 1
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self.free.wait()
            if self.away:
                raise Unavailable("the database is away", reason="DATABASE_UNAVAILABLE")
            async with self._store.read(user_id) as transaction:
                yield transaction
        finally:
            self.at_once -= 1


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def _made(
    shared: IdentityServer, root: Caller, name: str
) -> tuple[RefusalReasons, Watched, Clock, Principal]:
    namespace_id = await shared.namespace(name)
    await shared.user(root, f"{name}-chief", ("admin", name), log_in=False)
    await shared.user(root, f"{name}-user", ("viewer", name), log_in=False)
    async with shared.database.system() as connection:
        user_id = await connection.fetchval("SELECT id FROM users WHERE username = $1", f"{name}-user")
    watched, clock = Watched(shared.store), Clock()
    principal = Principal(
        user_id, f"{name}-user", (Grant("viewer", name, namespace_id, frozenset({"container.get"})),)
    )
    return RefusalReasons(cast("Store", watched), clock), watched, clock, principal


async def test_an_explanation_is_cached_for_a_while(shared: IdentityServer, root: Caller) -> None:
    reasons, watched, clock, principal = await _made(shared, root, "reasons-kept")
    question = asked("container.delete", "reasons-kept")
    for _ in range(5):
        found = await reasons.database_facts(principal, question)
        assert [giver.username for giver in found.givers] == ["reasons-kept-chief"]
    assert watched.reads == 1
    await reasons.database_facts(principal, asked("container.stop", "reasons-kept"))
    assert watched.reads == 2
    clock.now += 10.0
    await reasons.database_facts(principal, question)
    assert watched.reads == 3


async def test_concurrent_and_waiting_queries_are_limited(shared: IdentityServer, root: Caller) -> None:
    reasons, watched, clock, principal = await _made(shared, root, "reasons-flood")
    watched.free.clear()
    waiting = [
        asyncio.create_task(
            # Each query is for another user, so that no user reaches its own limit.
            reasons.database_facts(
                replace(principal, user_id=10_000 + number), asked("container.get", "reasons-flood")
            )
        )
        for number in range(32)
    ]

    async def looking() -> bool:
        return watched.at_once == 2

    assert await poll_until(looking)
    # One more refusal gets no explanation, and does not wait.
    assert (
        await reasons.database_facts(principal, asked("container.more", "reasons-flood")) == DatabaseFacts()
    )
    watched.free.set()
    await asyncio.gather(*waiting)
    assert watched.most_at_once == 2
    # Queries are possible again.
    clock.now += 10.0
    found = await reasons.database_facts(principal, asked("container.more", "reasons-flood"))
    assert found.givers


async def test_a_refusal_stays_unexplained_while_the_database_is_away(
    shared: IdentityServer, root: Caller
) -> None:
    reasons, watched, _, principal = await _made(shared, root, "reasons-away")
    question = asked("container.delete", "reasons-away")
    watched.away = True
    assert await reasons.database_facts(principal, question) == DatabaseFacts()
    watched.away = False
    # The missing explanation is not cached.
    assert (await reasons.database_facts(principal, question)).givers


async def test_the_size_of_the_cache_is_limited(shared: IdentityServer, root: Caller) -> None:
    reasons, watched, _, principal = await _made(shared, root, "reasons-many")
    watched.away = True
    for number in range(1100):
        reasons._keep((principal.user_id, "", asked(f"container.a{number}", "")), DatabaseFacts())
    assert len(reasons._kept) == 1000


async def test_queries_are_limited_for_each_user_and_in_total(shared: IdentityServer, root: Caller) -> None:
    reasons, watched, clock, principal = await _made(shared, root, "reasons-many-questions")
    for number in range(40):
        await reasons.database_facts(principal, asked(f"container.a{number}", "reasons-many-questions"))
    assert watched.reads == 10
    # Other users have their own limit, and all users together have another.
    for number in range(150):
        await reasons.database_facts(replace(principal, user_id=20_000 + number), asked("container.get", ""))
    assert watched.reads == 100
    clock.now += 10.0
    question = asked("container.delete", "reasons-many-questions")
    assert (await reasons.database_facts(principal, question)).givers
