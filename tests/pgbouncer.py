"""A transaction pooler in front of the tests' PostgreSQL: pgbouncer, over Unix sockets, with few connections."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from pilothouse_migrations import roles
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.runtime.account import ProcessAccount
from pilothouse_server.runtime.child_program import end, launch
from tests.conftest import Database, connection
from tests.waiting import poll_until

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")
_PORT = 6432  # part of the socket's name
# Few enough that callers share connections from one transaction to the next.
_CONNECTIONS = 3


@asynccontextmanager
async def pooled(
    postgres: EmbeddedPostgres, database: Database, *, prepared_statements: int
) -> AsyncIterator[dict[str, str | bool]]:
    """Yields the settings of a server behind a pooler.

    The pooler keeps up to `prepared_statements` prepared statements per connection; 0 turns support for them off.
    """
    assert PROGRAM is not None
    account = ProcessAccount.choose(postgres.data_directory)
    # pytest's folders are closed to other accounts, and their names are too long for a socket.
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder = Path(name)
        users = folder / "users.txt"
        users.write_text("".join(f'"{role}" ""\n' for role in roles.LOGINS.values()))
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            "[databases]\n"
            f"* = host={postgres.socket_directory} port={postgres.port}\n"
            "[pgbouncer]\n"
            f"unix_socket_dir = {folder}\nlisten_port = {_PORT}\nauth_type = trust\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {_CONNECTIONS}\n"
            f"max_prepared_statements = {prepared_statements}\nlogfile = {folder}/log\n"
        )
        for path in (folder, users, settings):
            account.own(path)
        process = launch([PROGRAM, "--quiet", settings], account=account, dies_by="KILL")
        where = urlencode({"host": name, "port": _PORT})
        try:

            async def answers() -> bool:
                try:
                    async with connection(f"postgresql://{roles.SYSTEM}@/{database.name}?{where}"):
                        return True
                except OSError:
                    return False

            await poll_until(answers, bool, what="pgbouncer takes connections")
            yield {
                "database_url": f"postgresql://{roles.APP}@/{database.name}?{where}",
                "system_database_url": f"postgresql://{roles.SYSTEM}@/{database.name}?{where}",
                "direct_database_url": database.system_dsn,
                "pool_prepared_statements": prepared_statements > 0,
            }
        finally:
            await asyncio.to_thread(end, process, (signal.SIGINT, signal.SIGKILL), 10.0)
