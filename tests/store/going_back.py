"""A rewound PostgreSQL server: an earlier snapshot of its files, or a standby that takes its place."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote_plus

import asyncpg
import psutil

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, addresses, connection
from tests.waiting import poll_until

NAME = "pilothouse"
SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", "max_connections": "100"}


class Standby(EmbeddedPostgres):
    """A copy of a server's files that follows it until it is promoted."""

    @classmethod
    def of(cls, primary: EmbeddedPostgres, snapshot: Path, directory: Path) -> Standby:
        """Creates a standby from a snapshot of the primary's files."""
        copy_files(snapshot, directory)
        (directory / "data" / "standby.signal").touch()
        source = f"host={primary.socket_directory} port={primary.port} user=postgres"
        return cls(directory, settings={**SETTINGS, "primary_conninfo": source})

    async def _wait_until_ready(self) -> None:
        async def follows() -> bool:
            try:
                async with connection(self.dsn()) as opened:
                    return bool(await opened.fetchval("SELECT pg_is_in_recovery()"))
            except (OSError, asyncpg.PostgresError):
                return False

        await poll_until(follows, seconds=20, what="the standby answers")

    async def follow_no_longer(self) -> None:
        """Returns once the standby receives nothing more from the primary."""
        async with connection(self.dsn()) as opened:
            await opened.execute("ALTER SYSTEM SET primary_conninfo = ''")
            await opened.execute("SELECT pg_reload_conf()")

            async def alone() -> bool:
                return not await opened.fetchval("SELECT count(*) FROM pg_stat_wal_receiver")

            await poll_until(alone, seconds=20, what="the standby receives nothing")

    async def take_over(self) -> None:
        """Promotes the standby; returns once it accepts writes."""
        async with connection(self.dsn()) as opened:
            assert await opened.fetchval("SELECT pg_promote(true, 120)")


def copy_files(source: Path, target: Path) -> None:
    """Copies the files of a stopped server, with their owners."""
    shutil.copytree(source / "data", target / "data", copy_function=shutil.copy2, symlinks=True)
    for copied in (target / "data", *(target / "data").rglob("*")):
        original = (source / "data" / copied.relative_to(target / "data")).lstat()
        shutil.chown(copied, original.st_uid, original.st_gid)


@contextmanager
def one_address(directory: Path, server: EmbeddedPostgres) -> Iterator[tuple[Database, Path]]:
    """Yields a database under an address that can be moved to another server, and that address.

    It works like a name or a proxy. The address is a link to the folder of a server's socket.
    """
    address = directory / "address"
    point(address, server)
    found = addresses(server, NAME)
    there, here = (quote_plus(str(path)) for path in (server.socket_directory, address))
    yield (
        Database(
            NAME,
            *(
                dsn.replace(there, here)
                for dsn in (found.app_dsn, found.system_dsn, found.maintenance_dsn, found.admin_dsn)
            ),
        ),
        address,
    )


def point(address: Path, server: EmbeddedPostgres) -> None:
    """Moves an address to a server."""
    address.unlink(missing_ok=True)
    address.symlink_to(server.socket_directory)


def send_to_all(server: EmbeddedPostgres, number: signal.Signals) -> None:
    """Sends a signal to all of a server's processes: kills it, freezes it, or lets it continue."""
    assert server.process_id is not None
    postmaster = psutil.Process(server.process_id)
    for process in (postmaster, *postmaster.children(recursive=True)):
        # A process that has already ended needs no signal.
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
