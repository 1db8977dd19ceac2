"""Periodic jobs stand alone: one that fails is counted and tried again, and the others go on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from prometheus_client import REGISTRY

from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.periodic import Periodic, PeriodicWork
from pilothouse_server.store.unit_of_work import Store
from pilothouse_server.tasks import cancel_and_wait
from tests.conftest import Database
from tests.identity.server import settings_of
from tests.waiting import poll_until


async def test_a_job_that_fails_keeps_no_other_from_its_work(database: Database) -> None:
    runs: Counter[str] = Counter()

    async def failing() -> None:
        runs["failing"] += 1
        raise ValueError("not foreseen")

    async def working() -> None:
        runs["working"] += 1

    async def seen() -> Counter[str]:
        return runs

    pools = Pools.connect(settings_of(database))
    jobs = [Periodic("failing", 0.01, failing), Periodic("working", 0.01, working)]
    work = asyncio.create_task(PeriodicWork(Store(pools), jobs).run())
    try:
        await poll_until(seen, lambda runs: min(runs["failing"], runs["working"]) >= 3)
        assert not work.done()
    finally:
        await cancel_and_wait(work)
        await pools.close()
    assert (counted("failing"), counted("working")) == (runs["failing"], 0)


async def test_a_job_with_a_delay_waits_unless_it_is_wanted(database: Database) -> None:
    runs: Counter[str] = Counter()

    def job(name: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            runs[name] += 1

        return run

    async def seen() -> Counter[str]:
        return runs

    pools = Pools.connect(settings_of(database))
    periodic = PeriodicWork(
        Store(pools), [Periodic("at once", 0.01, job("at once")), Periodic("later", 3600, job("later"), 3600)]
    )
    work = asyncio.create_task(periodic.run())
    try:
        await poll_until(seen, lambda runs: runs["at once"] >= 5)
        assert runs["later"] == 0
        periodic.run_now("later")
        await poll_until(seen, lambda runs: runs["later"] == 1)
    finally:
        await cancel_and_wait(work)
        await pools.close()


def counted(job: str) -> float:
    """What the metric says of a job."""
    return REGISTRY.get_sample_value("pilothouse_periodic_failures_total", {"job": job}) or 0.0
