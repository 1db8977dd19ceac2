"""Runs `pilothouse serve --processes N` as its users do, with clients whose server process is known.

The kernel chooses the process that a client reaches, so the test also reads the owner of the connection from the
kernel.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from pilothouse_client import AsyncClient, Client, RetryPolicy
from pilothouse_client.retry import DEFAULT_RETRY
from tests.conftest import Database
from tests.harness import NOWHERE
from tests.readme.served import BIN, server_variables
from tests.waiting import patient, poll_until, within

PASSWORD = "correct horse battery staple"
PROGRAM = "pilothouse_server.launch.processes.program"
_SERVES = re.compile(r"serves gRPC on (\S+:(\d+))")
_METRICS = re.compile(r"metrics are served +port=(\d+)")
Labels = dict[str, str]


@dataclass
class Group:
    """A supervisor and its children.

    `printed` contains all lines that they wrote.
    """

    supervisor: asyncio.subprocess.Process
    directory: Path
    printed: list[str] = field(default_factory=list)
    token: str = ""
    _clients: AsyncExitStack = field(default_factory=AsyncExitStack)

    def found(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Returns the first match in the printed lines."""
        return next(filter(None, (pattern.search(line) for line in self.printed)))

    @property
    def address(self) -> str:
        return self.found(_SERVES)[1]

    @property
    def port(self) -> int:
        return int(self.found(_SERVES)[2])

    def said(self, words: str) -> int:
        """Returns how many printed lines contain the words."""
        return sum(words in line for line in self.printed)

    def children(self) -> set[int]:
        """Returns the process ids of the server processes."""
        below = psutil.Process(self.supervisor.pid).children()
        return {each.pid for each in below if PROGRAM in each.cmdline()}

    def connections(self) -> dict[int, int]:
        """Returns the process of each connection, by the client's port."""
        return {
            connection.raddr.port: child
            for child in self.children()
            for connection in psutil.Process(child).net_connections("tcp")
            if connection.raddr and connection.laddr.port == self.port
        }

    async def client(self, child: int, *, token: str = "", retry: RetryPolicy = DEFAULT_RETRY) -> AsyncClient:
        """Returns a client of the administrator, or of the token, that is connected to this process."""

        async def made() -> AsyncClient | None:
            before = self.connections()
            client = AsyncClient(self.address, token=token or self.token, retry=retry, timeout=patient(30.0))
            await client.identity.who_am_i()
            now = self.connections()
            if child in {now[port] for port in now.keys() - before.keys()}:
                return client
            await client.close()
            return None

        client = await poll_until(made, what=f"a connection to process {child}")
        assert client is not None
        return await self._clients.enter_async_context(client)

    async def metrics(self) -> list[tuple[str, Labels, float]]:
        """Returns the metrics served to Prometheus."""
        address = f"http://127.0.0.1:{self.found(_METRICS)[1]}/metrics"

        def get() -> str:
            with urllib.request.urlopen(address, timeout=patient(10.0)) as answer:
                return str(answer.read().decode())

        text = await asyncio.to_thread(get)
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    async def counted(self, method: str) -> float:
        """Returns how many calls of the method succeeded, by the metrics of all processes."""
        samples = [
            value
            for name, labels, value in await self.metrics()
            if name == "pilothouse_rpc_calls_total" and (labels["method"], labels["code"]) == (method, "OK")
        ]
        assert len(samples) < 2, "a sum is one sample"
        return sum(samples)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the supervisor and returns its exit code."""
        self.supervisor.send_signal(number)
        return await asyncio.wait_for(self.supervisor.wait(), patient(30.0))

    async def read(self) -> None:
        """Reads the output to its end."""
        assert self.supervisor.stdout is not None
        while line := await self.supervisor.stdout.readline():
            self.printed.append(line.decode())

    async def close(self) -> None:
        await self._clients.aclose()


def variables(database: Database, directory: Path) -> dict[str, str]:
    """Returns the settings of a server on the database, with an unreachable cluster.

    The server must run in `directory`.
    """
    (directory / "kubeconfig.json").write_text(json.dumps(NOWHERE))
    return {
        "PILOTHOUSE_KUBECONFIG": "kubeconfig.json",
        **server_variables(directory),
        "PILOTHOUSE_DATABASE_URL": database.app_dsn,
        "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
        "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
        "PILOTHOUSE_DATA_DIR": str(directory / "data"),
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
        "PILOTHOUSE_LISTEN": "127.0.0.1:0",
        "PILOTHOUSE_METRICS_LISTEN": "127.0.0.1:0",
        "PILOTHOUSE_POOL_OPEN_CONNECTIONS": "20",
        "PILOTHOUSE_POOL_IDLE_CONNECTIONS": "4",
        "PILOTHOUSE_GRACE_SECONDS": "8",
    }


@asynccontextmanager
async def group(directory: Path, of: dict[str, str], *options: str) -> AsyncIterator[Group]:
    """Starts two processes with these variables, and kills the remaining ones at the end."""
    process = await asyncio.create_subprocess_exec(
        BIN / "pilothouse",
        "serve",
        "--processes",
        "2",
        *options,
        cwd=directory,
        env=of,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    made = Group(process, directory)
    reading = asyncio.create_task(made.read())
    try:

        async def serves() -> bool:
            assert not reading.done(), "".join(made.printed)
            return bool(made.said("serves gRPC on"))

        await poll_until(serves, seconds=60.0, what="the start")
        made.token = await asyncio.to_thread(_logged_in, made.address)
        yield made
    finally:
        await made.close()
        if process.returncode is None:
            process.kill()
        await process.wait()
        async with within(20.0):
            await reading


def _logged_in(address: str) -> str:
    with Client(address) as client:
        return str(client.login("admin", PASSWORD).access_token)
