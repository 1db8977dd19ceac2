"""Tokens: fetched, renewed early, renewed once after a rejection, shared, and deleted by a logout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from pilothouse_client import (
    AsyncClient,
    Client,
    MemoryTokenStore,
    Tokens,
    UnauthenticatedError,
    UnavailableError,
)
from tests.client.conftest import PASSWORD, QUICK
from tests.client.fake_server import FakeServer


async def _tokens(fake: FakeServer) -> Tokens:
    store = MemoryTokenStore()
    async with AsyncClient(fake.address, tokens=store) as client:
        await client.login("admin", PASSWORD)
    tokens = store.load()
    assert tokens is not None
    return tokens


def _methods(fake: FakeServer) -> list[str]:
    return [call.method for call in fake.calls]


async def test_the_first_call_logs_in(fake: FakeServer, client: AsyncClient) -> None:
    await client.identity.who_am_i()
    await client.identity.who_am_i()
    assert _methods(fake) == ["Login", "WhoAmI", "WhoAmI"]


async def test_many_first_calls_log_in_once(fake: FakeServer, client: AsyncClient) -> None:
    await asyncio.gather(*(client.identity.who_am_i() for _ in range(20)))
    assert _methods(fake).count("Login") == 1


async def test_a_client_exposes_the_device_token_of_its_last_login(fake: FakeServer) -> None:
    def sent() -> list[str]:
        return [call.request.device_token for call in fake.calls_of("Login")]

    async with AsyncClient(fake.address, username="admin", password=PASSWORD) as client:
        assert client.device_token == ""
        await client.identity.who_am_i()
        device = client.device_token
        await client.logout()
        assert client.device_token == device
        await client.login("admin", PASSWORD)
        assert sent() == ["", device]
        device = client.device_token
        fake.passwords["ann"] = PASSWORD
        await client.login("ann", PASSWORD)
        assert sent()[-1] == ""
    async with AsyncClient(fake.address, username="admin", password=PASSWORD, device_token=device) as client:
        await client.identity.who_am_i()
    assert sent()[-1] == device


async def test_an_api_key_is_sent_unchanged(fake: FakeServer) -> None:
    fake.api_keys["key-1"] = "robot"
    async with AsyncClient(fake.address, token="key-1") as client:
        assert (await client.identity.who_am_i()).user.username == "robot"
    async with AsyncClient(fake.address, token="key-2") as client:
        with pytest.raises(UnauthenticatedError):
            await client.identity.who_am_i()
    assert _methods(fake) == ["WhoAmI", "WhoAmI"]


async def test_without_credentials_no_authorization_is_sent(fake: FakeServer) -> None:
    async with AsyncClient(fake.address) as client:
        with pytest.raises(UnauthenticatedError):
            await client.identity.who_am_i()
    assert "authorization" not in fake.calls[0].metadata


async def test_tokens_are_renewed_before_they_expire(fake: FakeServer) -> None:
    tokens = await _tokens(fake)
    store = MemoryTokenStore(
        Tokens(tokens.access_token, time.time() + 10, tokens.refresh_token, received=time.time() - 3600)
    )
    async with AsyncClient(fake.address, tokens=store) as client:
        await asyncio.gather(*(client.identity.who_am_i() for _ in range(10)))
    assert _methods(fake).count("RefreshSession") == 1
    renewed = store.load()
    assert renewed is not None
    assert renewed.access_token != tokens.access_token


async def test_a_failed_early_renewal_does_not_fail_the_call(fake: FakeServer) -> None:
    tokens = await _tokens(fake)
    store = MemoryTokenStore(
        Tokens(tokens.access_token, time.time() + 60, tokens.refresh_token, received=time.time() - 3600)
    )
    fake.fail("RefreshSession", grpc.StatusCode.UNAVAILABLE, reason="DATABASE_AWAY")
    async with AsyncClient(fake.address, tokens=store, retry=QUICK) as client:
        assert (await client.identity.who_am_i()).user.username == "admin"
    # A refresh that may have taken effect must not be retried: reuse of a refresh token ends the session.
    assert _methods(fake).count("RefreshSession") == 1


async def test_a_rejected_token_is_renewed_once(fake: FakeServer, client: AsyncClient) -> None:
    await client.identity.who_am_i()
    fake.expire_access_tokens()
    await asyncio.gather(*(client.identity.who_am_i() for _ in range(10)))
    assert _methods(fake).count("RefreshSession") == 1
    assert _methods(fake).count("Login") == 1


async def test_a_rejected_call_is_not_retried_forever(fake: FakeServer, client: AsyncClient) -> None:
    await client.identity.who_am_i()
    fake.fail("WhoAmI", grpc.StatusCode.UNAUTHENTICATED, times=5, reason="SESSION_REVOKED")
    with pytest.raises(UnauthenticatedError):
        await client.identity.who_am_i()
    assert _methods(fake).count("WhoAmI") == 3


async def test_an_ended_session_is_replaced_only_with_a_password(
    fake: FakeServer, client: AsyncClient
) -> None:
    await client.identity.who_am_i()
    store = MemoryTokenStore(await _tokens(fake))
    fake.expire_access_tokens()
    fake.refresh_tokens.clear()
    assert (await client.identity.who_am_i()).user.username == "admin"
    async with AsyncClient(fake.address, tokens=store) as other:
        with pytest.raises(UnauthenticatedError) as caught:
            await other.identity.who_am_i()
    assert caught.value.reason == "REFRESH_TOKEN_REPLAYED"


class _SharedStore(MemoryTokenStore):
    """A store shared with another process, which renews the tokens just before this client gets the lock."""

    def __init__(self, tokens: Tokens, renewed_by_other: Tokens) -> None:
        super().__init__(tokens)
        self.renewed_by_other = renewed_by_other
        self.held = 0

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        self.held += 1
        self.save(self.renewed_by_other)
        yield


async def test_tokens_renewed_by_another_process_are_used(fake: FakeServer) -> None:
    old, new = await _tokens(fake), await _tokens(fake)
    fake.access_tokens[old.access_token] = ("admin", 0.0)
    store = _SharedStore(old, new)
    async with AsyncClient(fake.address, tokens=store) as client:
        assert (await client.identity.who_am_i()).user.username == "admin"
    assert store.held == 1
    assert "RefreshSession" not in _methods(fake)


async def test_a_logout_deletes_all_tokens(fake: FakeServer) -> None:
    def use() -> None:
        store = MemoryTokenStore()
        with Client(fake.address, tokens=store) as client:
            assert client.login("admin", PASSWORD).user.username == "admin"
            assert client.identity.who_am_i().permissions == ["*"]
            client.logout()
            assert store.load() is None
            with pytest.raises(UnauthenticatedError):
                client.identity.who_am_i()
            client.logout()  # nothing to end

    await asyncio.to_thread(use)
    assert _methods(fake) == ["Login", "WhoAmI", "Logout", "WhoAmI"]


async def test_a_wrong_password_is_an_error_and_not_retried(fake: FakeServer) -> None:
    async with AsyncClient(fake.address, username="admin", password="wrong") as client:
        with pytest.raises(UnauthenticatedError):
            await client.identity.who_am_i()
    assert _methods(fake) == ["Login"]


async def test_a_login_is_retried_while_the_server_is_unavailable(fake: FakeServer) -> None:
    fake.fail("Login", grpc.StatusCode.UNAVAILABLE, times=2)
    async with AsyncClient(fake.address, username="admin", password=PASSWORD, retry=QUICK) as client:
        await client.identity.who_am_i()
    await fake.stop()
    async with AsyncClient(fake.address, username="admin", password=PASSWORD, retry=QUICK) as client:
        with pytest.raises(UnavailableError):
            await client.identity.who_am_i()


@pytest.mark.parametrize(
    ("access_expire", "received", "now", "due"),
    [
        (100.0, 0.0, 79.0, False),
        (100.0, 0.0, 81.0, True),
        (100.0, 0.0, 200.0, True),
        (0.0, 0.0, 50.0, False),  # the expiry time is unknown
        (100.0, 150.0, 160.0, False),  # this machine's clock is ahead, so its time is not used
    ],
)
def test_renewal_is_due_near_the_end_of_the_lifetime(
    access_expire: float, received: float, now: float, due: bool
) -> None:
    assert Tokens("access", access_expire, "refresh", received=received).renewal_due(now) is due
    assert not Tokens("access", access_expire, "", received=received).renewal_due(now)


def test_the_repr_of_tokens_contains_no_secret() -> None:
    assert "secret" not in repr(Tokens("secret-1", 0.0, "secret-2"))
