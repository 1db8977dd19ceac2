"""The command with issuers, against a real server and an issuer of the test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse_server.embedded.postgres import EmbeddedPostgres
from tests.client.command import Command
from tests.conftest import Database, new_database
from tests.identity.issuer import Issuer, issuer
from tests.identity.server import IdentityServer
from tests.identity.trusting_server import AUDIENCE, accounts, entry, trusting

JOB = {"repository": "example/shop"}


@dataclass
class World:
    """A server, and the issuer that it trusts."""

    server: IdentityServer
    company: Issuer

    def job(self) -> str:
        """The token of a job."""
        return self.company.sign(self.company.claims("repo:example/shop", AUDIENCE, **JOB))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    async with (
        issuer() as company,
        new_database(postgres, template_database.name) as database,
        trusting(
            database,
            tmp_path_factory.mktemp("issuers"),
            entry("company", company, workloads=accounts(("robot", JOB), ("auditor", JOB))),
        ) as server,
    ):
        admin = await server.admin()
        for username in ("robot", "auditor"):
            await server.user(admin, username, log_in=False)
        yield World(server, company)


async def test_a_token_is_exchanged_and_printed(world: World, pilothouse: Command, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(world.job() + "\n")
    address = world.server.address
    printed = await pilothouse(
        "--server", address, "token", "exchange", "--subject-token-file", str(path), "--lifetime", "60"
    )
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.startswith("pht_")
    assert not (tmp_path / "config.json").exists()
    shown = await pilothouse("--server", address, "--token", printed.out.strip(), "whoami")
    assert shown.lines[0].startswith("robot ")


async def test_a_token_is_exchanged_and_kept(world: World, pilothouse: Command, tmp_path: Path) -> None:
    address = world.server.address
    exchange = ("token", "exchange", "--username", "auditor", "--store")
    kept = await pilothouse("--server", address, *exchange, stdin=world.job())
    assert (kept.code, kept.out) == (0, "")
    assert f"acting as auditor at {address}" in kept.err
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o600
    context = json.loads((tmp_path / "config.json").read_text())["contexts"][f"auditor@{address}"]
    assert context["tokens"]["refresh_token"] == ""
    assert (await pilothouse("whoami")).lines[0].startswith("auditor ")
    again = await pilothouse("token", "exchange", stdin=world.job())
    assert again.out.startswith("pht_"), "the server is that of the context"


async def test_what_is_no_token_is_not_sent(world: World, pilothouse: Command, tmp_path: Path) -> None:
    exchange = ("--server", world.server.address, "token", "exchange")
    assert "it is empty" in (await pilothouse(*exchange, stdin="\n")).err
    assert "too long" in (await pilothouse(*exchange, stdin="x" * 20_000)).err
    missing = await pilothouse(*exchange, "--subject-token-file", str(tmp_path / "none"))
    assert (missing.code, "No such file" in missing.err) == (2, True)
    assert "name the server" in (await pilothouse("token", "exchange", stdin=world.job())).err
    refused = await pilothouse(*exchange, stdin="none.of.yours")
    assert (refused.code, "[ISSUER_TOKEN_REFUSED]" in refused.err) == (4, True)
    not_given = await pilothouse(*exchange, "--username", "admin", stdin=world.job())
    assert (not_given.code, "[WORKLOAD_NOT_ALLOWED]" in not_given.err) == (5, True)
