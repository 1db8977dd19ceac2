"""Promise 3: watches lose nothing.

Writers race on two servers while watchers are cut and resume at either server. The campaign with kills, frozen
servers and cut connections is in `tests/promises/watches/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2 as container
from pilothouse_server.rpc import watch
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.feed import FeedEvent
from tests.conftest import number_changes
from tests.harness import running_server
from tests.promises.calling import Caller, token_of
from tests.promises.environment import Environment
from tests.promises.following import Follower, faults
from tests.promises.requests import OWN
from tests.waiting import patient, poll_until, within

_LISTENERS = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE application_name = 'pilothouse-listener' AND datname = current_database()"
)


@asynccontextmanager
async def second_server(environment: Environment, directory: Path) -> AsyncIterator[Caller]:
    """Yields the administrator's session at another server on the same database."""
    async with running_server(environment.server.database, directory, with_cluster=False) as other:
        yield Caller(other.channel(), token_of(environment.admin))


async def write(environment: Environment, callers: Sequence[Caller], number: int, mutations: int) -> None:
    """Runs one writer, which creates, relabels, stops and starts containers in turn."""
    for step in range(mutations):
        caller = callers[(number + step) % len(callers)]
        name = f"w{number}-{step // 4}"
        target = {"namespace": OWN, "name": name}
        match step % 4:
            case 0:
                made = {"name": name, "image": "nginx:1.27", "labels": {"writer": str(number)}}
                await environment.must("CreateContainer", {"namespace": OWN, "container": made}, caller)
            case 1:
                relabelled = {"container": {"labels": {"step": str(step)}}, "updateMask": "labels"}
                await environment.must("UpdateContainer", {**target, **relabelled}, caller)
            case 2:
                await environment.must("StopContainer", target, caller)
            case 3:
                await environment.must("StartContainer", target, caller)


async def race(
    environment: Environment,
    callers: Sequence[Caller],
    *,
    writers: int,
    each: int,
    watchers: int,
    faulty: bool = True,
) -> list[str]:
    """Runs writers and watchers concurrently; returns the watchers' wrong views."""
    rule = environment.rule("WatchContainers")
    request = container.WatchContainersRequest(namespace=OWN, bookmark_period_seconds=1)
    followers = [
        Follower(rule, [*callers[index % 2 :], *callers[: index % 2]], request, index)
        for index in range(watchers)
    ]
    tasks = [asyncio.create_task(follower.run()) for follower in followers]
    try:
        async with within(20):
            # A first state that is read under load may hold changes that are not numbered yet; they are not sent again.
            await asyncio.gather(*(follower.synced.wait() for follower in followers))
        writing = asyncio.gather(*(write(environment, callers, number, each) for number in range(writers)))
        async with environment.sql() as sql:
            if faulty:
                for _ in range(3):
                    await kill_listeners(environment)
            await writing
            await number_changes(sql)
            head = await sql.fetchval("SELECT revision FROM stream_head")

            async def there() -> bool:
                broken = [task for task in tasks if task.done()]
                for task in broken:
                    task.result()
                return all(follower.newest >= head for follower in followers)

            await poll_until(there, seconds=20)
            found = await faults(sql, followers)
            deadlocks = await sql.fetchval(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
            return found + ([f"{deadlocks} deadlocks"] if deadlocks else [])
    finally:
        await cancel_and_wait(*tasks)


async def kill_listeners(environment: Environment) -> None:
    """Terminates the listening backends, once each server has one."""
    async with environment.sql() as sql:
        pids = await poll_until(lambda: _pids(sql))
        for pid in pids:
            await sql.fetchval("SELECT pg_terminate_backend($1)", pid)

        async def gone() -> bool:
            return not set(pids) & set(await _pids(sql))

        await poll_until(gone)


async def _pids(sql: object) -> list[int]:
    rows = await sql.fetch(_LISTENERS)  # type: ignore[attr-defined]
    return [row["pid"] for row in rows]


async def test_no_event_is_lost_or_sent_twice_or_out_of_order(
    environment: Environment, tmp_path: Path
) -> None:
    async with second_server(environment, tmp_path) as other:
        assert await race(environment, [environment.admin, other], writers=8, each=40, watchers=6) == []


@pytest.mark.full
async def test_a_watch_that_loses_events_is_found(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = watch._change

    def forgetful(event: FeedEvent, *arguments: Any) -> int | None:
        return change(event, *arguments) if event.revision % 7 else None

    monkeypatch.setattr(watch, "_change", forgetful)
    found = await race(
        environment, [environment.admin, environment.admin], writers=2, each=20, watchers=2, faulty=False
    )
    assert any("missed" in fault for fault in found)


async def test_no_event_is_lost_when_the_listener_ends(environment: Environment) -> None:
    await environment.must(
        "CreateContainer", {"namespace": OWN, "container": {"name": "a", "image": "nginx"}}
    )
    async with environment.sql() as sql:
        newest = await sql.fetchval("SELECT max(revision) FROM events")
    # The first state of a watch also contains changes without an event so far, which the checker would report
    # as lost events.
    assert await environment.server.application.hub.beyond(newest - 1, patient(10.0))
    follower = Follower(
        environment.rule("WatchContainers"),
        [environment.admin],
        container.WatchContainersRequest(),
        cut_after=(9, 9),
    )
    task = asyncio.create_task(follower.run())
    await follower.synced.wait()
    for name in ("b", "c"):
        await kill_listeners(environment)
        await environment.must(
            "CreateContainer", {"namespace": OWN, "container": {"name": name, "image": "nginx"}}
        )

        async def seen(wanted: str = name) -> bool:
            return any(change[2] == wanted for change in follower.changes)

        # Polling finds the change long before the listener is connected again.
        await poll_until(seen, seconds=2.0)
    await cancel_and_wait(task)
    async with environment.sql() as sql:
        assert await faults(sql, [follower]) == []
