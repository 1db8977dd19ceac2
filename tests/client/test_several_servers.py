"""A client with several servers: calls go to the servers in turn, and skip unavailable ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from pilothouse_client import AsyncClient, Client, RetryPolicy, UnavailableError
from tests.client.conftest import QUICK
from tests.client.fake_server import FakeServer
from tests.waiting import patient, poll_until

_ONCE = RetryPolicy(attempts=1)


@pytest_asyncio.fixture
async def both(fake: FakeServer) -> AsyncIterator[tuple[FakeServer, FakeServer]]:
    """Yields two servers that accept the same key."""
    second = FakeServer()
    await second.start()
    for server in (fake, second):
        server.api_keys["key"] = "admin"
    yield fake, second
    await second.stop()


def _address(servers: tuple[FakeServer, FakeServer]) -> str:
    return ",".join(server.address for server in servers)


async def _reaches(client: AsyncClient, server: FakeServer) -> None:
    """Makes calls until the server receives one."""
    seen = len(server.calls)

    async def called() -> bool:
        await client.identity.who_am_i()
        return len(server.calls) > seen

    await poll_until(called, what="a call that reaches the server")


async def test_both_servers_get_calls_and_a_stopped_one_is_skipped(
    both: tuple[FakeServer, FakeServer],
) -> None:
    first = both[0]
    again = first.address
    async with AsyncClient(_address(both), token="key", retry=QUICK, timeout=patient(20.0)) as client:
        for server in both:
            await _reaches(client, server)
        await first.stop()
        for _ in range(20):
            assert (await client.identity.who_am_i()).user.username == "admin"
        await first.start(again)
        await _reaches(client, first)


async def test_the_error_names_all_servers_if_none_listens(both: tuple[FakeServer, FakeServer]) -> None:
    address = _address(both)
    for server in both:
        await server.stop()
    async with AsyncClient(address, token="key", retry=_ONCE) as client:
        with pytest.raises(UnavailableError, match=f"no server responds at {address}") as caught:
            await client.identity.who_am_i()
    assert caught.value.never_sent


async def test_the_channel_makes_no_hidden_retries(both: tuple[FakeServer, FakeServer]) -> None:
    async with AsyncClient(_address(both), token="key", retry=_ONCE) as client:
        for server in both:
            server.fail("WhoAmI", grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(UnavailableError):
            await client.identity.who_am_i()
    assert sum(len(server.calls_of("WhoAmI")) for server in both) == 1


async def test_the_blocking_client_calls_both_servers(both: tuple[FakeServer, FakeServer]) -> None:
    def call() -> None:
        with Client(_address(both), token="key", retry=QUICK) as client:
            client.identity.who_am_i()

    async def both_are_called() -> bool:
        await asyncio.to_thread(call)
        return all(server.calls for server in both)

    await poll_until(both_are_called, what="calls at both")
