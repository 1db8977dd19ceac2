"""A primary is lost under load.

Acknowledged changes are on the standby, watches resume, and no call hangs. Replication is synchronous, so the
standby has every acknowledged change. The primary is killed, or it stops responding with its connections open,
as a machine does that lost its power or network. In that case the dead-connection reaper
(`store/dead_connections`) ends its sessions within ten seconds.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from pilothouse.container.v1 import container_pb2 as container
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import Database, StartMigrated, connection, number_changes
from tests.promises.environment import Environment, quiet_environment
from tests.promises.following import Follower, faults
from tests.promises.requests import OWN, Fields
from tests.store.going_back import NAME, SETTINGS, Standby, one_address, point, send_to_all
from tests.waiting import poll_until, within

pytestmark = pytest.mark.full(minutes=5)
T = TypeVar("T")
_WRITERS, _FOLLOWERS = 6, 4
# The codes a call may end with while there is no primary. The callers' own deadline is 30 s, and no call may
# wait that long.
_AWAY = ("UNAVAILABLE", "ABORTED")


@dataclass
class Pair:
    """A primary and its synchronous standby, under one address."""

    database: Database
    address: Path
    primary: EmbeddedPostgres
    standby: Standby

    async def fail_over(self, loss: str) -> None:
        """Stops the primary and promotes the standby."""
        send_to_all(self.primary, signal.SIGKILL if loss == "killed" else signal.SIGSTOP)
        await self.standby.take_over()
        point(self.address, self.standby)


@asynccontextmanager
async def replicated(directory: Path, start_migrated: StartMigrated) -> AsyncIterator[Pair]:
    """Yields a primary that acknowledges only changes that its standby has."""
    primary = EmbeddedPostgres(directory / "primary", settings=SETTINGS)
    await start_migrated(primary, NAME)
    await primary.stop()
    standby = Standby.of(primary, primary.directory, directory / "standby")
    primary = EmbeddedPostgres(primary.directory, settings={**SETTINGS, "synchronous_standby_names": "*"})
    async with AsyncExitStack() as stack:
        await primary.start()
        stack.push_async_callback(_end, primary)
        await standby.start()
        stack.push_async_callback(standby.stop)
        with one_address(directory, primary) as (database, address):

            async def synchronous() -> bool:
                async with connection(primary.dsn()) as admin:
                    states = await admin.fetch("SELECT sync_state FROM pg_stat_replication")
                    return [state["sync_state"] for state in states] == ["sync"]

            await poll_until(synchronous, seconds=20, what="the standby is followed")
            yield Pair(database, address, primary, standby)


async def _end(primary: EmbeddedPostgres) -> None:
    """Stops a primary, even if it is frozen."""
    if primary.process_id is not None:
        send_to_all(primary, signal.SIGCONT)
    await primary.stop()


@dataclass
class Writer:
    """Creates containers one after the other, and stores which ones were acknowledged."""

    environment: Environment
    number: int
    acknowledged: list[str] = field(default_factory=list)
    poor: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Writes until cancelled."""
        made = 0
        while True:
            made += 1
            name = f"made-{self.number}-{made}"
            fields: Fields = {
                "namespace": OWN,
                "container": {"name": name, "image": "nginx:1.27"},
                "requestId": str(uuid4()),
            }
            # The same request is repeated until its outcome is definite, as a client does.
            await poll_until(lambda: self._try(name, fields), seconds=60, what=name)  # noqa: B023

    async def _try(self, name: str, fields: Fields) -> bool:
        outcome = await self.environment.call("CreateContainer", fields)
        if outcome.code == "OK":
            self.acknowledged.append(name)
        elif outcome.code not in _AWAY:
            self.poor.append(f"{name}: {outcome.code} {outcome.message}")
        return outcome.code not in _AWAY


async def lost(database: Database, writers: Sequence[Writer]) -> list[str]:
    """Returns the acknowledged changes that are missing."""
    async with connection(database.admin_dsn) as sql:
        there = {row["name"] for row in await sql.fetch("SELECT name FROM containers")}
    return [name for writer in writers for name in writer.acknowledged if name not in there]


async def failed_over(
    environment: Environment, pair: Pair, loss: str, watchers: int = _FOLLOWERS
) -> list[str]:
    """Returns the faults that writers and watchers met while the primary was lost."""
    writers = [Writer(environment, number) for number in range(_WRITERS)]
    rule = environment.rule("WatchContainers")
    request = container.WatchContainersRequest(namespace=OWN, bookmark_period_seconds=1)
    followers = [Follower(rule, [environment.admin], request, number) for number in range(watchers)]
    watching = [asyncio.create_task(follower.run()) for follower in followers]
    writing: list[asyncio.Task[None]] = []
    try:
        async with within(20):
            await asyncio.gather(*(follower.synced.wait() for follower in followers))
        writing.extend(asyncio.create_task(writer.run()) for writer in writers)

        def made(more: int) -> int:
            return min(len(writer.acknowledged) for writer in writers) - more

        await poll_until(lambda: _now(made(5)), lambda left: left >= 0, what="all writers are at work")
        await pair.fail_over(loss)
        before = [len(writer.acknowledged) for writer in writers]
        await poll_until(
            lambda: _now([len(writer.acknowledged) for writer in writers]),
            lambda now: all(one >= other + 5 for one, other in zip(now, before, strict=True)),
            seconds=40,
            what="all writers go on",
        )
        for task in writing:
            await cancel_and_wait(task)
        return [
            *(problem for writer in writers for problem in writer.poor),
            *(f"{name} was acknowledged and is lost" for name in await lost(pair.database, writers)),
            *await _missed(pair.database, followers),
        ]
    finally:
        for task in (*watching, *writing):
            await cancel_and_wait(task)


async def _now(value: T) -> T:
    return value


async def _missed(database: Database, followers: Sequence[Follower]) -> list[str]:
    """Returns the changes that the followers missed."""
    async with connection(database.admin_dsn) as sql:
        await number_changes(sql)
        newest = await sql.fetchval("SELECT max(revision) FROM events WHERE resource_type = 'container'")
        with suppress(AssertionError):
            # The comparison below reports which changes are missing.
            await poll_until(
                lambda: _now(min((follower.newest for follower in followers), default=newest)),
                lambda seen: seen >= newest,
            )
        return await faults(sql, followers)


@pytest.mark.parametrize("loss", ["killed", "frozen"])
async def test_a_synchronous_standby_takes_over_under_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_migrated: StartMigrated, loss: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="ph-failover-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        async with (
            replicated(Path(made), start_migrated) as pair,
            quiet_environment(pair.database, tmp_path, monkeypatch) as environment,
        ):
            assert await failed_over(environment, pair, loss) == []


async def test_acknowledged_changes_that_the_standby_lacks_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_migrated: StartMigrated
) -> None:
    """The control: the standby no longer replicates, and the primary does not wait."""
    with tempfile.TemporaryDirectory(prefix="ph-failover-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        async with (
            replicated(Path(made), start_migrated) as pair,
            quiet_environment(pair.database, tmp_path, monkeypatch) as environment,
        ):
            async with connection(pair.primary.dsn()) as admin:
                await admin.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
                await admin.execute("SELECT pg_reload_conf()")
            await pair.standby.follow_no_longer()
            problems = await failed_over(environment, pair, "killed", watchers=0)
            assert any("was acknowledged and is lost" in problem for problem in problems)
