"""Clients of clusters are shared: no caller takes one away from another, and none keeps one that was forgotten."""

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
    """A client that only knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Connections:
    """Makes clients once `allowed` is set; those that were made, in their order."""

    def __init__(self) -> None:
        self.allowed = asyncio.Event()
        self.began = 0
        self.made: list[Any] = []
        self.failures: list[Exception] = []

    async def reached(self, count: int) -> None:
        """Waits until so many connections were begun."""

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
    """Callers that wait for a client that is being connected."""
    tasks = [asyncio.create_task(clients.client("one")) for _ in range(count)]
    await connections.reached(1)
    return tasks


async def test_a_caller_that_is_cancelled_does_not_take_the_client_away_from_others() -> None:
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


async def test_a_cluster_forgotten_while_it_is_connected_to_is_connected_to_anew() -> None:
    connections = Connections()
    clients = ClusterClients(connections.connect)
    (caller,) = await _asking(clients, connections)
    clients.forget("one")
    await connections.reached(2)
    connections.allowed.set()
    assert await caller is connections.made[0]
    await clients.close()


async def test_a_failure_is_not_remembered() -> None:
    connections = Connections()
    connections.allowed.set()
    connections.failures = [Unreachable("away")]
    clients = ClusterClients(connections.connect)
    with pytest.raises(Unreachable):
        await clients.client("one")
    assert await clients.client("one") is connections.made[0]
    await clients.close()


async def test_who_waits_while_all_are_closed_is_refused() -> None:
    connections = Connections()
    clients = ClusterClients(connections.connect)
    (caller,) = await _asking(clients, connections)
    await clients.close()
    with pytest.raises(Unreachable):
        await caller


def _unreachable(clients: ClusterClients, times: int) -> None:
    for _ in range(times):
        clients.note("one", Unreachable("the connection is refused"))


def test_a_cluster_is_known_to_be_away_by_its_row_until_it_answers() -> None:
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


def test_a_cluster_is_known_to_be_away_by_failures_of_our_own() -> None:
    clients = ClusterClients(Connections().connect)
    _unreachable(clients, FAILURES)
    away = clients.away("one")
    assert away is not None
    assert away.message == "the connection is refused"
    clients.forget("one")
    assert clients.away("one") is None


def test_what_was_found_out_long_ago_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = ClusterClients(Connections().connect)
    _unreachable(clients, FAILURES)
    monkeypatch.setattr(cluster_clients, "KNOWN_SECONDS", 0.0)
    assert clients.away("one") is None
    # One that answers by a refusal answers.
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
        # No other server would fare better.
        (StorageStalled("no"), False),
        (AnswerTooLarge("no"), False),
        (TooManyValues("no"), False),
        (Refused("no", code=422), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_another_server_is_asked_only_where_it_may_reach_more(error: ClusterError, out: bool) -> None:
    assert is_out_of_reach(error) is out
