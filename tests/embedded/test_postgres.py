"""The embedded PostgreSQL: started, stopped, killed, refused.

PostgreSQL servers that must end with their launcher are started by a separate process (`python -c`), which the test
can kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from pilothouse_server.launch.embedded.postgres import (
    DataDirectoryInUseError,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    program,
)
from pilothouse_server.runtime.account import ProcessAccount
from tests.waiting import poll_until, within

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
DEADLINE_SECONDS = 20.0

LAUNCHER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres

    async def main():
        postgres = EmbeddedPostgres(Path(sys.argv[1]))
        await postgres.start()
        print(postgres.process_id, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
    """
)


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgres", settings=FAST)
    await server.start()
    yield server
    await server.stop()


async def value(server: EmbeddedPostgres, query: str) -> object:
    connection = await asyncpg.connect(server.dsn())
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def all_gone(folder: Path) -> None:
    """Returns when no process of the server with this data folder is left."""

    async def left() -> list[int]:
        return processes_in(folder)

    await poll_until(left, lambda found: found == [], what="the end of all processes")


async def closed(connection: asyncpg.Connection) -> None:
    """Returns when the connection has noticed that it is closed."""

    async def is_closed() -> bool:
        return bool(connection.is_closed())

    await poll_until(is_closed, what="the end of the connection")


def processes_in(folder: Path) -> list[int]:
    """Returns every process whose working directory is `folder`. PostgreSQL's processes work in its data folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def launch(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """Starts a process that starts PostgreSQL in `folder`. Returns it, and the process id of the server."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    return launcher, int(launcher.stdout.readline())


def end(launcher: subprocess.Popen[str]) -> None:
    launcher.kill()
    launcher.wait()
    assert launcher.stdout is not None
    launcher.stdout.close()


async def test_the_default_is_utf8_in_utc_with_durable_commits(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    try:
        for setting, expected in {
            "server_encoding": "UTF8",
            "timezone": "UTC",
            "fsync": "on",
            "synchronous_commit": "on",
            "listen_addresses": "",
        }.items():
            assert await value(server, f"SELECT current_setting('{setting}')") == expected
        assert await value(server, "SELECT datlocale FROM pg_database LIMIT 1") == "C.UTF-8"
    finally:
        await server.stop()


async def test_settings_with_special_characters_reach_the_server(tmp_path: Path) -> None:
    odd = r"it's C:\new # one"
    server = EmbeddedPostgres(tmp_path / "postgres", settings={**FAST, "test.odd": odd})
    await server.start()
    try:
        assert await value(server, "SHOW fsync") == "off"
        assert await value(server, "SHOW test.odd") == odd
    finally:
        await server.stop()


async def test_data_outlives_a_stop(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", settings=FAST)
    await server.start()
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await connection.close()
    await server.stop()
    assert server.process_id is None

    async with within(DEADLINE_SECONDS):
        await server.start()
    try:
        assert await value(server, "SELECT answer FROM kept") == 42
    finally:
        await server.stop()


async def test_a_stop_ends_open_transactions_and_may_be_repeated(postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute("BEGIN")
    await postgres.stop()
    await postgres.stop()
    assert processes_in(postgres.data_directory) == []
    await closed(connection)


async def test_the_next_start_works_after_a_kill_of_the_launcher(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    launcher, server_id = launch(folder)
    assert server_id in processes_in(folder / "data")
    end(launcher)

    # Starts immediately, while the old server may still be shutting down.
    server = EmbeddedPostgres(folder, settings=FAST)
    await server.start()
    try:
        assert server.process_id != server_id
        assert await value(server, "SELECT 1") == 1
    finally:
        await server.stop()
    await all_gone(folder / "data")


async def test_a_kill_of_the_launcher_ends_the_server(tmp_path: Path) -> None:
    launcher, server_id = launch(tmp_path / "postgres")
    assert server_id in processes_in(tmp_path / "postgres" / "data")
    end(launcher)
    await all_gone(tmp_path / "postgres" / "data")


async def test_a_killed_server_recovers(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    await server.start()
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.process_id is not None
    os.kill(server.process_id, signal.SIGKILL)
    await server.stop()
    await closed(connection)

    again = EmbeddedPostgres(tmp_path / "postgres")
    await again.start()
    try:
        assert await value(again, "SELECT answer FROM kept") == 42
    finally:
        await again.stop()


async def test_a_second_start_is_refused_with_the_running_process(tmp_path: Path) -> None:
    launcher, _ = launch(tmp_path / "postgres")
    try:
        second = EmbeddedPostgres(tmp_path / "postgres")
        with pytest.raises(DataDirectoryInUseError, match=f"started by process {launcher.pid}:"):
            await second.start()
        assert second.process_id is None
        assert processes_in(tmp_path / "postgres" / "data") != []
    finally:
        end(launcher)


async def test_a_second_start_of_the_same_object_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(DataDirectoryInUseError):
        await postgres.start()
    assert await value(postgres, "SELECT 1") == 1


async def test_a_stale_pid_file_with_a_reused_process_id_is_ignored(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", settings=FAST)
    await server.start()
    await server.stop()
    # The process id has been reused, by this test's own process.
    (server.data_directory / "postmaster.pid").write_text(
        f"{os.getpid()}\n{server.data_directory}\n1\n5432\n"
    )
    await server.start()
    try:
        assert await value(server, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_a_refused_setting_is_reported_with_postgresqls_message(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", settings={"shared_buffers": "much"})
    with pytest.raises(EmbeddedPostgresError, match="shared_buffers"):
        await server.start()
    good = EmbeddedPostgres(tmp_path / "postgres", settings=FAST)
    await good.start()
    await good.stop()
    assert processes_in(good.data_directory) == []


async def test_an_unfinished_initialisation_is_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    (folder / "data.unfinished" / "base").mkdir(parents=True)
    server = EmbeddedPostgres(folder, settings=FAST)
    await server.start()
    try:
        assert await value(server, "SELECT 1") == 1
        assert not (folder / "data.unfinished").exists()
    finally:
        await server.stop()


async def test_the_socket_of_a_long_path_is_in_another_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / "postgres"
    server = EmbeddedPostgres(folder, settings=FAST)
    assert len(str(server.socket_directory)) < 100
    await server.start()
    try:
        assert server.socket_directory.stat().st_mode & 0o777 == 0o700
        assert await value(server, "SELECT 1") == 1
    finally:
        await server.stop()
    assert not server.socket_directory.exists()


async def test_a_socket_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", settings=FAST)
    server.directory.mkdir()
    server.socket_directory.mkdir()
    server.socket_directory.chmod(0o777)
    with pytest.raises(EmbeddedPostgresError, match="open to others"):
        await server.start()


async def test_tcp_requires_a_password(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", settings=FAST, tcp=True)
    await server.start()
    try:
        await value(server, "CREATE ROLE someone LOGIN PASSWORD 'right p@ss'")
        connection = await asyncpg.connect(server.tcp_dsn("postgres", "someone", "right p@ss"))
        assert await connection.fetchval("SELECT current_user") == "someone"
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.tcp_dsn("postgres", "someone", "wrong"))
    finally:
        await server.stop()


def test_tcp_dsn_needs_tcp(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tcp=True"):
        EmbeddedPostgres(tmp_path).tcp_dsn("postgres", "someone", "word")


async def test_only_the_main_thread_may_start(tmp_path: Path) -> None:
    def elsewhere() -> None:
        asyncio.run(EmbeddedPostgres(tmp_path / "postgres").start())

    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(elsewhere)


async def test_the_server_runs_in_its_own_session(postgres: EmbeddedPostgres) -> None:
    assert postgres.process_id is not None
    assert os.getsid(postgres.process_id) == postgres.process_id != os.getsid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the account")
def test_programs_below_a_closed_folder_are_found(tmp_path: Path) -> None:
    """A clone in root's home: PostgreSQL checks with `access` whether it may read and run its own programs."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = closed / "program"
    program.touch(mode=0o755)
    account = ProcessAccount.choose(tmp_path / "absent")
    asks = "import os, sys; sys.exit(os.geteuid() == 0 or not os.access(sys.argv[1], os.R_OK | os.X_OK))"
    asked = subprocess.run([*account.command(), sys.executable, "-c", asks, str(program)], check=False)
    assert asked.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the account")
async def test_root_keeps_folders_closed_and_runs_it_as_another_user(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres", settings=FAST)
    await server.start()
    try:
        assert server.process_id is not None
        assert Path(f"/proc/{server.process_id}").stat().st_uid != 0
        assert await value(server, "SELECT 1") == 1
        for folder in (closed, server.directory, server.data_directory, server.socket_directory):
            assert folder.stat().st_mode & 0o777 == 0o700
        assert closed.stat().st_uid == 0
        assert ProcessAccount.choose(server.data_directory).user_id == server.data_directory.stat().st_uid
    finally:
        await server.stop()


def test_the_programs_for_backups_exist() -> None:
    for name in ("pg_dump", "pg_restore", "psql"):
        told = subprocess.run([program(name), "--version"], capture_output=True, text=True, check=True).stdout
        assert told.startswith(f"{name} (PostgreSQL)")
    with pytest.raises(EmbeddedPostgresError, match="pg_nothing is missing"):
        program("pg_nothing")
