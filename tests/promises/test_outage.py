"""The database is unavailable: every call reports it, and the server recovers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from pilothouse_server.errors import Unavailable
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.store import errors, opening, unit_of_work
from tests.conftest import StartMigrated, addresses
from tests.promises.environment import Environment, quiet_environment
from tests.promises.requests import OWN, request_for, workload
from tests.promises.test_errors import lacks
from tests.waiting import poll_until, within


@asynccontextmanager
async def with_its_own_database(
    directory: Path, monkeypatch: pytest.MonkeyPatch, start_migrated: StartMigrated
) -> AsyncIterator[tuple[EmbeddedPostgres, Environment]]:
    """Yields a server, and a database that only this server uses."""
    postgres = EmbeddedPostgres(directory / "postgres", settings={"fsync": "off", "full_page_writes": "off"})
    try:
        await start_migrated(postgres, "outage")
        async with quiet_environment(addresses(postgres, "outage"), directory, monkeypatch) as environment:
            yield postgres, environment
    finally:
        await postgres.stop()


async def poor_answers(environment: Environment) -> list[str]:
    """Returns the wrong outcomes of calls while the database is unavailable."""
    found = []
    # In the second round the callers are no longer cached.
    for _ in range(2):
        for name, fields in (
            ("GetContainer", {"namespace": OWN, "name": "web"}),
            ("CreateContainer", {"namespace": OWN, "container": workload("web")}),
            ("ListContainers", {}),
        ):
            async with within(10):
                outcome = await environment.call(name, fields)
            told = (outcome.code, outcome.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
            if not told or "database is not available" not in outcome.message or lacks(outcome):
                found.append(f"{name}: {outcome.code} {outcome.reason} {outcome.message} {lacks(outcome)}")
        environment.server.application.authenticator.invalidate()
    return found


async def recovers(environment: Environment, seconds: float) -> None:
    """Waits until a change succeeds. Raises AssertionError after `seconds`."""

    async def recovered() -> bool:
        fields = {"namespace": OWN, "container": workload("after")}
        return (await environment.call("CreateContainer", fields)).code in ("OK", "ALREADY_EXISTS")

    await poll_until(recovered, seconds=seconds)


@pytest.mark.full(minutes=5)
async def test_the_server_recovers_when_the_database_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_migrated: StartMigrated
) -> None:
    async with with_its_own_database(tmp_path, monkeypatch, start_migrated) as (postgres, environment):
        rule = environment.rule("WatchContainers")
        request = request_for(rule, {"namespace": OWN, "bookmarkPeriodSeconds": 1})
        async with environment.admin.watching(rule, request) as stream:
            token = (await anext(stream)).resume_token
        await postgres.stop()
        assert await poor_answers(environment) == []
        await postgres.start()
        await recovers(environment, 15)
        request.resume_token = token
        outcome = await environment.admin.invoke(rule, request)
        assert outcome.answer.container.name == "after"


def connect_by(broken: pytest.MonkeyPatch, connecting: Callable[[], object]) -> None:
    for module in (opening, unit_of_work):
        broken.setattr(module, "connecting", connecting)


@pytest.mark.full(minutes=5)
async def test_wrong_outcomes_and_a_missing_recovery_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_migrated: StartMigrated
) -> None:
    async with with_its_own_database(tmp_path, monkeypatch, start_migrated) as (postgres, environment):
        await postgres.stop()
        with monkeypatch.context() as broken:
            # The error does not say when to retry.
            broken.setattr(
                errors,
                "database_unavailable",
                lambda: Unavailable("the database is not available", reason="DATABASE_UNAVAILABLE"),
            )
            assert "no RetryInfo" in (await poor_answers(environment))[0]
        with monkeypatch.context() as broken:
            # The failure of the database is reported as an internal error.
            connect_by(broken, nullcontext)
            assert await poor_answers(environment)
        with monkeypatch.context() as broken:

            def once_away_always_away() -> NoReturn:
                raise errors.database_unavailable()

            connect_by(broken, once_away_always_away)
            await postgres.start()
            with pytest.raises(AssertionError, match="did not come true"):
                await recovers(environment, 0.5)
        # This shows that the fault injection prevented the recovery, and not the machine.
        await recovers(environment, 15)
