"""The PostgreSQL servers that are refused, and the reasons in the refusal."""

from __future__ import annotations

import pytest

from pilothouse_migrations import runner
from pilothouse_migrations.versions_gate import UnsupportedServerError, check_server_version, refusal
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, connection


@pytest.mark.parametrize("number", [150014, 150099, 160010, 160011, 170006, 180000, 180006])
def test_supported_servers_are_accepted(number: int) -> None:
    assert refusal(number) is None


@pytest.mark.parametrize(
    ("number", "found", "reason"),
    [
        (90624, "PostgreSQL 9.6", "security_invoker"),
        (100023, "PostgreSQL 10.23", "security_invoker"),
        (140023, "PostgreSQL 14.23", "end of life"),
        (150013, "PostgreSQL 15.13", "CVE-2025-8713"),
        (150000, "PostgreSQL 15.0", "CVE-2024-10976"),
        (160009, "PostgreSQL 16.9", "Upgrade to PostgreSQL 16.10"),
        (170005, "PostgreSQL 17.5", "Upgrade to PostgreSQL 17.6"),
        (190000, "PostgreSQL 19.0", "15 to 18"),
    ],
)
def test_other_servers_are_refused_with_the_reason(number: int, found: str, reason: str) -> None:
    message = refusal(number)
    assert message is not None
    assert message.startswith(found)
    assert reason in message


async def test_the_server_in_use_is_accepted(database: Database) -> None:
    async with connection(database.system_dsn) as opened:
        # This raises if the server is refused.
        await check_server_version(opened.fetch)
        assert refusal(int(await opened.fetchval("SHOW server_version_num"))) is None


async def test_a_database_in_another_encoding_is_refused(postgres: EmbeddedPostgres) -> None:
    async with connection(postgres.dsn()) as admin:
        await admin.execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        )
        try:
            with pytest.raises(UnsupportedServerError, match="LATIN1"):
                await runner.upgrade(postgres.dsn("latin"))
        finally:
            await admin.execute("DROP DATABASE latin WITH (FORCE)")
