"""Tokens and password hashes: their form, and the durations callers can measure."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.identity import tokens
from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.identity.model import NO_PASSWORD
from tests.conftest import Database
from tests.identity.server import IdentityServer, Refused, running

# OWASP's parameters: 19 MiB, two passes, one lane.
PROMISED = "$argon2id$v=19$m=19456,t=2,p=1$"


@given(st.sampled_from([tokens.ACCESS_PREFIX, tokens.REFRESH_PREFIX]), st.integers(0, 52), st.data())
def test_a_token_with_a_changed_character_is_malformed(prefix: str, place: int, data: st.DataObject) -> None:
    token = tokens.new_token(prefix)
    assert re.fullmatch(r"ph[tr]_[0-9A-Za-z]{49}", token)
    assert tokens.is_well_formed(token, prefix)
    other = data.draw(st.characters().filter(lambda character: character != token[place]))
    changed = token[:place] + other + token[place + 1 :]
    assert not tokens.is_well_formed(changed, prefix)
    assert tokens.token_hash(token) != tokens.token_hash(tokens.new_token(prefix))


@pytest.mark.usefixtures("promised_hashes")
async def test_passwords_are_hashed_as_promised() -> None:
    passwords = Passwords()
    stored = await passwords.hash("a long enough password")
    assert stored.startswith(PROMISED)
    assert not passwords.needs_rehash(stored)
    async with passwords.turn():
        assert await passwords.verify(stored, "a long enough password")
        assert not await passwords.verify(stored, "A long enough password")
        assert not await passwords.verify(None, "a long enough password")
        assert not await passwords.verify(NO_PASSWORD, NO_PASSWORD)
        assert not await passwords.verify("garbled", "garbled")
    passwords.close()


@pytest.mark.usefixtures("promised_hashes")
async def test_a_server_stores_only_such_hashes(database: Database) -> None:
    async with running(database) as server:
        await server.user(await server.admin(), "anna")
        assert all(each.startswith(PROMISED) for each in await _kept(server))


async def test_cheaper_hashes_are_detected(database: Database) -> None:
    """The control: the hashes of the other tests are valid but cheaper."""
    async with running(database) as server:
        await server.user(await server.admin(), "anna")
        assert not any(each.startswith(PROMISED) for each in await _kept(server))


async def _kept(server: IdentityServer) -> list[str]:
    """Returns the password hashes of the administrator and of the other user."""
    async with server.database.system() as connection:
        kept = [each["password_hash"] for each in await connection.fetch("SELECT password_hash FROM users")]
    assert len(kept) == 2
    return kept


async def test_a_full_queue_refuses_immediately() -> None:
    passwords = Passwords(threads=1, longest_queue=2)
    async with passwords.turn():
        # Two hashes wait for the next free thread, and one waits in the queue.
        waiting = [asyncio.create_task(passwords.hash("x")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted) as caught:
            await passwords.hash("x")
    assert caught.value.reason == "LOGIN_BUSY"
    assert len(await asyncio.gather(*waiting)) == 3
    passwords.close()


def _auc(one: list[float], other: list[float]) -> float:
    """Returns how often a value of `one` is greater than one of `other`.

    0.5 means that the two cannot be distinguished.
    """
    wins = sum((left > right) + (left == right) / 2 for left in one for right in other)
    return wins / (len(one) * len(other))


def test_the_measure_distinguishes_different_samples() -> None:
    assert _auc([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 0.5
    assert _auc([2.0, 3.0], [0.0, 1.0]) == 1.0


@pytest_asyncio.fixture(loop_scope="session")
async def unlimited(database: Database, promised_hashes: None) -> AsyncIterator[IdentityServer]:
    """Yields a server with practically no limit on the failures of an address."""
    async with running(database, login_failures_per_address=100_000) as started:
        yield started


@pytest.mark.soak(part="hostile")
@pytest.mark.parametrize("without_dummy_hash", [False, True], ids=["as it is", "without the dummy hash"])
async def test_unknown_and_known_users_take_the_same_time(
    unlimited: IdentityServer, monkeypatch: pytest.MonkeyPatch, without_dummy_hash: bool
) -> None:
    """The attempts are interleaved, so that other work affects all kinds alike."""
    server, admin = unlimited, await unlimited.admin()
    if without_dummy_hash:
        verify = server.passwords.verify

        async def verify_known(password_hash: str | None, password: str) -> bool:
            return password_hash is not None and await verify(password_hash, password)

        monkeypatch.setattr(server.passwords, "verify", verify_known)
    # With this many rounds, chance alone reaches 0.6 for equal durations once in five thousand runs.
    rounds = 60 if without_dummy_hash else 240
    for number in range(rounds // 3):
        await server.user(admin, f"known{number}", log_in=False)
        await server.user(admin, f"enrolled{number}", log_in=False)
    async with server.database.system() as connection:
        await connection.execute("UPDATE users SET totp_since = now() WHERE username LIKE 'enrolled%'")
        await connection.execute(
            "UPDATE users SET password_expires_at = now() WHERE username LIKE 'enrolled%' AND id % 3 = 0"
        )
    spent: dict[str, list[float]] = {"known": [], "enrolled": [], "unknown": []}
    for number in range(rounds):
        # At most three attempts for each account, which is below the lock.
        for kind in spent if number % 2 else reversed(spent):
            began = time.perf_counter()
            with pytest.raises(Refused):
                await server.stranger.Login(
                    pb.LoginRequest(username=f"{kind}{number % (rounds // 3)}", password="wrong")
                )
            spent[kind].append(time.perf_counter() - began)
    for kind in ("known", "enrolled"):
        auc = _auc(spent[kind], spent["unknown"])
        if without_dummy_hash:
            assert max(auc, 1 - auc) > 0.9
        else:
            assert max(auc, 1 - auc) <= 0.6, kind
