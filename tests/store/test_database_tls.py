"""PostgreSQL with TLS: every connection of the product verifies the server.

A failure is reported in the product's own words.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing

from pilothouse.namespace.v1.namespace_pb2 import Namespace
from pilothouse_client import RetryPolicy, UnavailableError
from pilothouse_migrations import roles, runner
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.backup import making, repository
from pilothouse_server.errors import PilothouseError
from pilothouse_server.launch.processes.failures import words_of
from pilothouse_server.settings.model import SettingsError
from tests.client.certificates import made
from tests.conftest import Database
from tests.harness import running_server
from tests.store.tls_proxy import tls_before

AUTHORITY = made("databases", authority=True)
CERTIFICATE = made("localhost", by=AUTHORITY)


async def test_every_connection_of_a_server_uses_tls(database: Database, tmp_path: Path) -> None:
    async with tls_before(database, tmp_path / "proxy", CERTIFICATE, AUTHORITY) as proxy:
        by_tls = proxy.database(database)
        # Roles, migrations and the snapshot for a backup, which open their own connections.
        await ensure_roles(by_tls.admin_dsn)
        assert all(each.applied for each in await runner.status(by_tls.maintenance_dsn))
        async with repository.snapshot(by_tls.maintenance_dsn, ()) as facts:
            assert facts.database == database.name
        before = dict(proxy.connections)
        with structlog.testing.capture_logs() as lines:
            async with running_server(
                by_tls,
                tmp_path / "data",
                with_cluster=False,
                direct_database_url=by_tls.system_dsn,
                replica_database_url=by_tls.app_dsn,
            ) as server:
                await server.admin.namespaces.create(namespace=Namespace(name="by-tls"))
                assert [each.name async for each in server.admin.namespaces.list()] == ["by-tls"]
                assert [each async for each in server.admin.audit.list_operations(filter='action = "create"')]
        for role in roles.LOGINS.values():
            assert proxy.connections[role] > before.get(role, 0), role
        assert not [line for line in lines if "certificate of the database" in line["event"]]


@pytest.mark.parametrize(
    ("host", "strange", "offers", "words"),
    [
        ("localhost", True, True, "the certificate of the database cannot be verified"),
        ("127.0.0.1", False, True, "is not for the host that its URL names"),
        ("localhost", False, False, "the database did not begin TLS"),
    ],
)
async def test_an_unverified_database_is_refused_and_the_setting_is_named(
    database: Database, tmp_path: Path, host: str, strange: bool, offers: bool, words: str
) -> None:
    async with tls_before(database, tmp_path / "proxy", CERTIFICATE, AUTHORITY) as proxy:
        proxy.offers_tls = offers
        (tmp_path / "strange.pem").write_bytes(made("strange", authority=True).pem)
        by_tls = proxy.database(database, host=host, authority=tmp_path / "strange.pem" if strange else None)
        with pytest.raises(SettingsError) as error:
            async with running_server(by_tls, tmp_path / "data", with_cluster=False):
                pass
        assert str(error.value).startswith("PILOTHOUSE_MAINTENANCE_DATABASE_URL: ")
        assert words in str(error.value)
        assert words in str(words_of(await _failure(runner.status(by_tls.maintenance_dsn))))
        assert words in str(words_of(await _failure(ensure_roles(by_tls.admin_dsn))))
        failed = await _failure(
            making.make(making.Plan(dsn=by_tls.maintenance_dsn, folder=tmp_path / "backups"))
        )
        assert isinstance(failed, PilothouseError)
        assert (failed.reason, words in failed.message) == ("BACKUP_DATABASE_TLS", True)
        assert proxy.connections == {}


async def _failure(work: object) -> BaseException:
    try:
        await work  # type: ignore[misc]
    except Exception as error:  # noqa: BLE001 - any error; the test checks its message
        return error
    raise AssertionError("it did not fail")


async def test_an_unverified_replica_is_logged(database: Database, tmp_path: Path) -> None:
    async with tls_before(database, tmp_path / "proxy", CERTIFICATE, AUTHORITY) as proxy:
        (tmp_path / "strange.pem").write_bytes(made("strange", authority=True).pem)
        replica = proxy.database(database, authority=tmp_path / "strange.pem").app_dsn
        with structlog.testing.capture_logs() as lines:
            async with running_server(
                database, tmp_path / "data", with_cluster=False, replica_database_url=replica
            ) as server:
                records = server.admin.with_options(retry=RetryPolicy(attempts=1)).audit.list_operations()
                failed = await _failure(anext(aiter(records)))
        assert isinstance(failed, UnavailableError)
        assert "vouches" not in failed.message
        told = [line for line in lines if "cannot be connected to by TLS" in line["event"]]
        assert [line["login"] for line in told] == ["replica"]
        assert "the certificate of the database cannot be verified" in told[0]["why"]


async def test_backup_programs_without_tls_are_refused(database: Database, tmp_path: Path) -> None:
    """The embedded programs support no TLS: a backup by TLS needs others, and reports that before it begins."""
    async with tls_before(database, tmp_path / "proxy", CERTIFICATE, AUTHORITY) as proxy:
        plan = making.Plan(dsn=proxy.database(database).maintenance_dsn, folder=tmp_path / "backups")
        failed = await _failure(making.make(plan))
        assert isinstance(failed, PilothouseError)
        assert failed.reason == "BACKUP_PROGRAMS_WITHOUT_TLS"
        assert "install postgresql-client-18" in failed.message
        assert not list((tmp_path / "backups").iterdir())


async def test_a_url_without_certificate_checks_is_logged(database: Database, tmp_path: Path) -> None:
    """The server obeys the URL.

    The test checks the log line about it, which is written before any connection.
    """
    elsewhere = "postgresql://u:a-password@db.example:1/db?sslmode=require"
    with structlog.testing.capture_logs() as lines:
        async with running_server(
            database, tmp_path, with_cluster=False, replica_database_url=elsewhere
        ) as server:
            assert (await server.admin.identity.who_am_i()).user.username == "admin"
    told = [
        line for line in lines if "the certificate of the database is not fully verified" in line["event"]
    ]
    assert [(line["setting"], line["sslmode"], line["log_level"]) for line in told] == [
        ("PILOTHOUSE_REPLICA_DATABASE_URL", "require", "warning")
    ]
    assert not any("a-password" in str(line) for line in lines)
