"""A real Pilothouse for the tests of your own programs: server, simulated cluster and database, in a process.

    @pytest.fixture(scope="session")
    def pilothouse():
        with serving() as server:
            yield server

    def test_my_program(pilothouse):
        with pilothouse.client() as client:
            namespace = pilothouse.new_namespace()
            my_program.deploy(client, namespace)
            client.wait_for(client.containers.get(namespace=namespace, name="web"), stable_for=0)

It needs the extra `server`. A start takes a second or two. The first start of a release takes longer, and stores its
migrated, empty database in the user's cache directory for later starts. Start one server for a session of tests, and
give each test a namespace. Pods of the simulated cluster run on a clock; docs/command.md lists how to make them fail.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from pilothouse_client.client import Client

_LISTENING = re.compile(r"serves gRPC on (\S+)")
_LAST_LINES = 20


@dataclass
class PilothouseUnderTest:
    """A running server. `username` and `password` are its administrator's."""

    address: str
    username: str
    password: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    def client(self) -> Client:
        """Returns a client that is logged in as the administrator; the caller closes it."""
        return Client(self.address, username=self.username, password=self.password)

    def new_namespace(self) -> str:
        """Creates a namespace for one test; returns its name."""
        from pilothouse.namespace.v1 import namespace_pb2

        name = f"test-{next(self._numbers)}"
        with self.client() as client:
            client.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
        return name

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which `Client.from_environment()` and the command reach it, with a token of an hour."""
        with self.client() as client:
            made = client.login(self.username, self.password)
        return {"PILOTHOUSE_SERVER": self.address, "PILOTHOUSE_TOKEN": made.access_token}


@contextmanager
def serving(directory: Path | None = None, *, timeout: float = 120.0) -> Iterator[PilothouseUnderTest]:
    """Starts a server on a free port, and stops it after the block.

    The server's data stay in `directory`; without one they are deleted. Raises RuntimeError, with the last lines of its
    output, if it has not started after `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="pilothouse-test-") as temporary:
        data = directory or Path(temporary)
        password = f"test-{uuid.uuid4()}"
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PILOTHOUSE_")}
        variables = {
            "PILOTHOUSE_DATA_DIR": str(data / "data"),
            "PILOTHOUSE_LISTEN": "127.0.0.1:0",
            "PILOTHOUSE_METRICS_LISTEN": "",
            "PILOTHOUSE_BOOTSTRAP_PASSWORD": password,
        }
        if (cache := _cache()) is not None:
            variables["PILOTHOUSE_DATABASE_TEMPLATE_DIR"] = str(cache)
        process = subprocess.Popen(
            [sys.executable, "-m", "pilothouse_client", "serve", "--dev"],
            env={**kept, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        found: SimpleQueue[str] = SimpleQueue()
        lines: list[str] = []
        # The thread reads all lines, so that the server never blocks on its output.
        reader = threading.Thread(target=_read, args=(process, found, lines), daemon=True)
        reader.start()
        try:
            yield PilothouseUnderTest(_address(found, lines, timeout), "admin", password)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join()
            assert process.stdout is not None
            process.stdout.close()


def _cache() -> Path | None:
    """Returns the user's cache directory for the initial database of new servers.

    None if it is not writable."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pilothouse"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _read(process: subprocess.Popen[str], found: SimpleQueue[str], lines: list[str]) -> None:
    """Puts the server's address into `found` when it serves, and an empty address when it has ended."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        del lines[:-_LAST_LINES]
        if match := _LISTENING.search(line):
            found.put(match[1])
    found.put("")


def _address(found: SimpleQueue[str], lines: list[str], timeout: float) -> str:
    try:
        address = found.get(timeout=timeout)
    except Empty:
        address = ""
    if not address:
        raise RuntimeError(f"pilothouse serve --dev has not started: {''.join(lines)}")
    return address
