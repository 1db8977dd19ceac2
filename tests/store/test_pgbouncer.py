"""Every call works behind pgbouncer in transaction mode, with tracked prepared statements and without any.

The pooler has three connections for each role, so transactions of many callers follow each other on each connection.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, connection
from tests.pgbouncer import needs_pgbouncer, pooled
from tests.promises.environment import FOREIGN, Environment, prepare, quiet_environment
from tests.promises.requests import OWN
from tests.waiting import patient, runs_out

pytestmark = [pytest.mark.full, needs_pgbouncer]
_OURS = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "DATA_LOSS")
_EACH = 12


async def _failures(environment: Environment) -> list[str]:
    """Returns the wrong results of every RPC that would be a pooler's fault."""
    found = []
    # Methods that delete the resources of others come last.
    for rule in sorted(environment.rules.values(), key=lambda rule: rule.name == "DeleteNamespace"):
        # Some streams have nothing to send here.
        seconds = runs_out(3.0) if rule.streams else patient(10.0)
        outcome = await environment.caller_of(rule).invoke(rule, environment.request(rule), timeout=seconds)
        silent = rule.streams and outcome.code == "DEADLINE_EXCEEDED"
        if outcome.code in _OURS and not silent:
            found.append(f"{rule.name}: {outcome.code} {outcome.message}")
    return found


@pytest.mark.parametrize("prepared_statements", [200, 0])
async def test_every_call_works_behind_a_transaction_pooler(
    postgres: EmbeddedPostgres,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepared_statements: int,
) -> None:
    async with (
        pooled(postgres, database, prepared_statements=prepared_statements) as settings,
        quiet_environment(database, tmp_path, monkeypatch, **settings) as environment,
    ):
        await prepare(environment)
        await _tenants_stay_apart(environment)
        assert await _failures(environment) == []


async def _tenants_stay_apart(environment: Environment) -> None:
    """Many concurrent callers of two tenants share connections that the other tenant uses a moment later."""
    callers = {
        namespace: await environment.make_user(f"only-{namespace}", {namespace: "operator"})
        for namespace in (OWN, FOREIGN)
    }
    listing = environment.rule("ListContainers")
    seen: dict[str, set[str]] = {namespace: set() for namespace in callers}
    watch = environment.rule("WatchContainers")

    async def work(namespace: str, number: int) -> None:
        container: dict[str, Any] = {"name": f"pooled-{number}", "image": "nginx:1.27", "replicas": 0}
        caller = callers[namespace]
        await environment.must("CreateContainer", {"namespace": namespace, "container": container}, caller)
        request = listing.request_class(page_size=100)
        answer = (await caller.invoke(listing, request)).answer
        seen[namespace].update(found.namespace for found in answer.containers)

    async with callers[OWN].watching(watch, watch.request_class(namespace=OWN)) as answers:
        work_of_all = asyncio.gather(*(work(name, n) for n in range(_EACH) for name in callers))
        told = set()
        async with asyncio.timeout(patient(20.0)):
            async for answer in answers:
                told.add((answer.container.namespace, answer.container.name))
                if {(OWN, f"pooled-{number}") for number in range(_EACH)} <= told:
                    break
        await work_of_all
    assert seen == {OWN: {OWN}, FOREIGN: {FOREIGN}}
    assert {namespace for namespace, _name in told} <= {OWN, ""}


async def test_a_pooler_without_prepared_statements_is_detected(
    postgres: EmbeddedPostgres, database: Database
) -> None:
    """The control: the pooler changes the server connection from one transaction to the next."""
    async with pooled(postgres, database, prepared_statements=0) as settings:
        with pytest.raises(asyncpg.PostgresError, match="prepared statement"):
            await _taking_turns(str(settings["database_url"]))


async def _taking_turns(address: str) -> None:
    """Makes two clients of one pooler take the server connections that the other left."""
    async with connection(address) as one, connection(address) as other:
        for _ in range(4):
            async with one.transaction():
                await one.fetchval("SELECT 1")
                async with other.transaction():
                    await other.fetchval("SELECT 2")
            async with other.transaction():
                await one.fetchval("SELECT 1")


async def test_time_limits_hold_behind_a_pooler(postgres: EmbeddedPostgres, database: Database) -> None:
    """A pooler does not pass on settings of a client, so the roles have them.

    Clones of a database do not have them.
    """
    await ensure_roles(database.admin_dsn)
    async with pooled(postgres, database, prepared_statements=0) as settings:
        for address, waits in ((settings["database_url"], "20s"), (settings["system_database_url"], "0")):
            async with connection(str(address)) as opened, opened.transaction():
                names = ("statement_timeout", "idle_in_transaction_session_timeout", "jit", "lock_timeout")
                found = [await opened.fetchval(f"SELECT current_setting('{name}')") for name in names]
                assert found == ["30s", "1min", "off", waits]
