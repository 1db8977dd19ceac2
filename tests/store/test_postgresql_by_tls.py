"""A PostgreSQL with its own TLS: migrations, a server, a backup and its restore, and no plain connection."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse.namespace.v1.namespace_pb2 import Namespace
from pilothouse_migrations import roles, runner
from pilothouse_migrations.databases import ensure_database
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.backup import making, restoring
from pilothouse_server.errors import PilothouseError
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.runtime.account import ProcessAccount
from tests.client.certificates import made
from tests.conftest import Database, connection
from tests.harness import running_server

_PROGRAMS = Path("/usr/lib/postgresql/17/bin")
_PASSWORD = "a password of the roles"
_PLAIN = """
SELECT usename, application_name FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
WHERE client_addr IS NOT NULL AND NOT ssl
"""
_BY_TLS = "SELECT count(DISTINCT usename) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE ssl"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not _PROGRAMS.exists(), reason="PostgreSQL 17 of Debian is not installed"),
]
AUTHORITY = made("databases", authority=True)


@asynccontextmanager
async def by_tls(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[EmbeddedPostgres, str]]:
    """Yields Debian's PostgreSQL with a certificate for `localhost`, and the URL options that verify it."""
    monkeypatch.setattr("pilothouse_server.launch.embedded.postgres.program", lambda name: _PROGRAMS / name)
    certificate = made("localhost", by=AUTHORITY)
    with tempfile.TemporaryDirectory(prefix="pilothouse-tls-") as name:
        folder = Path(name)
        (folder / "ca.pem").write_bytes(AUTHORITY.pem)
        first = EmbeddedPostgres(folder / "server", settings={"shared_preload_libraries": ""})
        await first.start()
        await first.stop()
        account = ProcessAccount.choose(first.data_directory)
        for file, content in (("server.crt", certificate.pem), ("server.key", certificate.key_pem)):
            path = first.data_directory / file
            path.write_bytes(content)
            path.chmod(0o600)
            account.own(path)
        server = EmbeddedPostgres(
            folder / "server", settings={"ssl": "on", "shared_preload_libraries": ""}, tcp=True
        )
        await server.start()
        try:
            yield server, f"sslmode=verify-full&sslrootcert={folder / 'ca.pem'}"
        finally:
            await server.stop()


def reached(server: EmbeddedPostgres, name: str, how: str, host: str = "localhost") -> Database:
    """Returns a database at its network address; the administrator uses the test's own socket."""

    def through(user: str) -> str:
        return server.tcp_dsn(name, user, _PASSWORD).replace("@127.0.0.1:", f"@{host}:") + f"?{how}"

    return Database(
        name, through(roles.APP), through(roles.SYSTEM), through(roles.MAINTENANCE), server.dsn(name)
    )


async def test_every_connection_uses_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with by_tls(monkeypatch) as (server, how):
        passwords = dict.fromkeys(("app", "system", "maintenance"), _PASSWORD)
        for name in ("product", "restored"):
            await ensure_database(server.dsn(), name)
            await ensure_roles(server.dsn(name), passwords)
        database = reached(server, "product", how)
        assert await runner.upgrade(database.maintenance_dsn)
        async with running_server(database, tmp_path, with_cluster=False) as running:
            await running.admin.namespaces.create(namespace=Namespace(name="by-tls"))
            async with connection(server.dsn("product")) as sql:
                assert await sql.fetch(_PLAIN) == []
                assert await sql.fetchval(_BY_TLS) == len(passwords)
        # Backups use Debian's programs, because the embedded ones support no TLS.
        plan = making.Plan(dsn=database.maintenance_dsn, folder=tmp_path / "backups")
        backup = await making.make(plan)
        target = reached(server, "restored", how)
        await restoring.restore(restoring.Order(path=backup.path, dsn=target.maintenance_dsn))
        async with connection(server.dsn("restored")) as sql:
            assert await sql.fetchval("SELECT count(*) FROM namespaces WHERE name = 'by-tls'") == 1
        # Every program also verifies the host name.
        elsewhere = reached(server, "product", how, host="127.0.0.1")
        with pytest.raises(PilothouseError) as error:
            await making.make(making.Plan(dsn=elsewhere.maintenance_dsn, folder=tmp_path / "none"))
        assert error.value.reason == "BACKUP_DATABASE_TLS"
