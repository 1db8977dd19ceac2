"""The first pass of an observer over the rows of its cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from pilothouse_server.errors import Unavailable
from pilothouse_server.reconcile.observe import cluster_observer
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster, StatusObserver
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.unit_of_work import ReadTransaction
from tests.reconcile.environment import Environment
from tests.waiting import poll_until


class _Cluster:
    name = "local"

    def __init__(self, here: Environment) -> None:
        self.store = here.store


class _FailingObserver(StatusObserver):
    """Writes nothing; the first `failures` writes fail as if the database were away."""

    subject = "rows"

    def __init__(self, here: Environment, failures: int) -> None:
        super().__init__(cast("LeasedCluster", _Cluster(here)), gather_seconds=0.01)
        self.failures = failures
        # Whether `synced` was set at the beginning of each write.
        self.writes: list[bool] = []

    def start(self, group: asyncio.TaskGroup) -> None:
        group.create_task(self._write_loop())

    def informers(self) -> Sequence[Informer[Any]]:
        return ()

    async def uids(self, transaction: ReadTransaction) -> Iterable[str]:
        return ()

    def mark(self, uid: str, *, in_seconds: float = 0.0) -> None: ...

    def seconds_to_next(self) -> float | None:
        return 0.05

    async def write_due(self) -> None:
        self.writes.append(self.synced.is_set())
        if len(self.writes) <= self.failures:
            raise Unavailable("the database is away", reason="DATABASE_UNAVAILABLE")

    async def write_batch(self, uids: list[str]) -> None: ...


async def test_an_observer_is_synced_only_after_a_complete_pass(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_observer, "_DATABASE_SECONDS", 0.01)
    observer = _FailingObserver(here, failures=2)
    running = asyncio.create_task(observer.run())

    async def writes() -> int:
        return len(observer.writes)

    await poll_until(writes, lambda count: count > 3)
    await cancel_and_wait(running)
    assert observer.writes[:4] == [False, False, False, True]
