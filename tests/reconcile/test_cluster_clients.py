"""Cluster clients are shared: no caller closes another caller's client, and no caller keeps a forgotten one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    AnswerTooLarge,
    ClusterError,
    CredentialsRefused,
    NotTrusted,
    Refused,
    StorageStalled,
    TooManyValues,
    Unauthorized,
    Unreachable,
    Unreadable,
)
from pilothouse_server.reconcile.queue import cluster_clients
from pilothouse_server.reconcile.queue.cluster_clients import FAILURES, ClusterClients, is_out_of_reach
from tests.waiting import poll_until


class FakeClient:
    """A client that only records whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Connections:
    """Makes clients once `allowed` is set; `made` lists them in order."""

    def __init__(self) -> None:
        self.allowed = asyncio.Event()
        self.began = 0
        self.made: list[Any] = []
        self.failures: list[Exception] = []

    async def reached(self, count: int) -> None:
        """Waits until `count` connections were begun."""

        async def begun() -> bool:
            return self.began >= count

        await poll_until(begun)

    async def connect(self, _name: str) -> ClusterClient:
        self.began += 1
        await self.allowed.wait()
        if self.failures:
            raise self.failures.pop()
        self.made.append(FakeClient())
        return cast("ClusterClient", self.made[-1])


async def _asking(
    clients: ClusterClients, connections: Connections, count: int = 1
) -> list[asyncio.Task[Any]]:
    """Returns callers that wait for a client that is being connected."""
    tasks = [asyncio.create_task(clients.client("one")) for _ in range(count)]
    await connections.reached(1)
    return tasks


async def test_a_cancelled_caller_does_not_close_the_client_of_others() -> None:
    connections = Connections()
    clients = ClusterClients(connections.connect)
    first, second = await _asking(clients, connections, 2)
    first.cancel()
    await asyncio.wait([first])
    connections.allowed.set()
    assert await second is connections.made[0]
    assert first.cancelled()
    await clients.close()
    assert connections.made[0].closed


async def test_a_cluster_forgotten_while_connecting_is_connected_to_again() -> None:
    connections = Connections()
    clients = ClusterClients(connections.connect)
    (caller,) = await _asking(clients, connections)
    clients.forget("one")
    await connections.reached(2)
    connections.allowed.set()
    assert await caller is connections.made[0]
    await clients.close()


async def test_a_failed_connection_is_not_remembered() -> None:
    connections = Connections()
    connections.allowed.set()
    connections.failures = [Unreachable("away")]
    clients = ClusterClients(connections.connect)
    with pytest.raises(Unreachable):
        await clients.client("one")
    assert await clients.client("one") is connections.made[0]
    await clients.close()


async def test_a_caller_waiting_while_all_clients_are_closed_is_refused() -> None:
    connections = Connections()
    clients = ClusterClients(connections.connect)
    (caller,) = await _asking(clients, connections)
    await clients.close()
    with pytest.raises(Unreachable):
        await caller


def _unreachable(clients: ClusterClients, times: int) -> None:
    for _ in range(times):
        clients.note("one", Unreachable("the connection is refused"))


def test_a_cluster_counts_as_away_by_its_row_until_it_responds() -> None:
    clients = ClusterClients(Connections().connect)
    assert clients.away("one") is None
    clients.report({"one": "there was no response"})
    away = clients.away("one")
    assert away is not None
    assert away.message == "there was no response"
    assert clients.away("other") is None
    clients.note("one", None)
    assert clients.away("one") is None
    clients.report({})
    _unreachable(clients, FAILURES - 1)
    assert clients.away("one") is None


def test_a_cluster_counts_as_away_after_failures_of_this_server() -> None:
    clients = ClusterClients(Connections().connect)
    _unreachable(clients, FAILURES)
    away = clients.away("one")
    assert away is not None
    assert away.message == "the connection is refused"
    clients.forget("one")
    assert clients.away("one") is None


def test_old_failures_no_longer_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = ClusterClients(Connections().connect)
    _unreachable(clients, FAILURES)
    monkeypatch.setattr(cluster_clients, "KNOWN_SECONDS", 0.0)
    assert clients.away("one") is None
    # A cluster that refuses a request is reachable.
    monkeypatch.undo()
    clients.note("one", Refused("no", code=403))
    assert clients.away("one") is None


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (Unreachable("no"), True),
        (Unreadable("no"), True),
        (NotTrusted("no"), True),
        (Unauthorized("no"), True),
        (CredentialsRefused("no"), True),
        # No other server would do better.
        (StorageStalled("no"), False),
        (AnswerTooLarge("no"), False),
        (TooManyValues("no"), False),
        (Refused("no", code=422), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_cluster_is_out_of_reach_only_if_another_server_may_reach_it(
    error: ClusterError, out: bool
) -> None:
    assert is_out_of_reach(error) is out
