"""The server processes of a campaign.

Each is behind its own proxy, and can be killed, frozen and started again.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from pilothouse_server.encryption.keys import KeyRing
from tests.conftest import Database
from tests.harness import PASSWORD
from tests.main_job import loaded
from tests.promises.watches.proxy import Proxy, proxy
from tests.readme.served import BIN, ROOT, server_variables
from tests.waiting import within

_LISTENING = re.compile(r"serves gRPC on \S+:(\d+)")
# Small limits, so that a reader that pauses is too slow and must be ended and resumed.
RING_EVENTS, LAG_EVENTS = 64, 150


class ServerProcess:
    """A process that runs `pilothouse serve`, with injected faults if requested.

    `injected_fault` names functions of `injected_fault.py`, or of the module that is named before them: "package.module
    name". A `forked` process gets its modules from a process that has loaded them.
    """

    def __init__(
        self,
        front: Proxy,
        variables: Mapping[str, str],
        output: Path,
        injected_fault: str,
        *,
        forked: bool = False,
    ) -> None:
        self.front = front
        self.starts = 0
        self._variables = variables
        self._output = output
        module, _, name = injected_fault.rpartition(" ")
        self._module = (module or "tests.promises.watches.fault_injection") if injected_fault else ""
        self._words = (*([name] if injected_fault else []), "serve")
        self._forked = forked
        self._process: asyncio.subprocess.Process | loaded.StartedCommand | None = None
        self._draining: asyncio.Task[None] | None = None

    @property
    def process_id(self) -> int:
        """Returns the id of the running process."""
        assert self._process is not None
        return self._process.pid

    async def start(self, **variables: str) -> None:
        """Starts the process; returns when it listens and the proxy leads to it.

        `variables` apply only to this start.
        """
        server_variables = {**self._variables, **variables}
        # A preloaded library must be loaded when the process starts.
        if self._forked and "LD_PRELOAD" not in server_variables:
            self._process = await loaded.start(self._words, server_variables, self._module)
        else:
            program = (sys.executable, "-m", self._module) if self._module else (str(BIN / "pilothouse"),)
            self._process = await asyncio.create_subprocess_exec(
                *program,
                *self._words,
                cwd=ROOT,
                env=server_variables,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        self.starts += 1
        stdout = self._process.stdout
        assert stdout is not None
        said = b""
        async with within(60):
            while not (found := _LISTENING.search(said.decode(errors="replace"))):
                line = await stdout.readline()
                assert line, f"the server ended:\n{said.decode()[-4000:]}"
                said += line
        self.front.target = int(found[1])
        self._draining = asyncio.create_task(self._drain(stdout, said))

    async def _drain(self, stdout: asyncio.StreamReader, said: bytes) -> None:
        with self._output.open("ab") as file:
            file.write(said)
            while chunk := await stdout.read(65536):
                file.write(chunk)
                file.flush()

    def freeze(self) -> None:
        """Freezes the process with SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process continue."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Ends the process properly, with SIGTERM."""
        self._signal(signal.SIGTERM)
        await self.ended()

    async def kill(self) -> None:
        """Kills the process with SIGKILL."""
        self._signal(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> None:
        """Returns when the process has ended and its output is written."""
        assert self._process is not None
        await self._process.wait()
        if self._draining is not None:
            await self._draining

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


@asynccontextmanager
async def servers(
    database: Database, directory: Path, kubeconfig: Path, count: int, injected_fault: str
) -> AsyncIterator[list[ServerProcess]]:
    """Yields `count` servers on one database, and kills them at the end."""
    key_file = directory / "master.key"
    KeyRing.load(key_file, create=True)
    async with AsyncExitStack() as stack:
        made = []
        for number in range(count):
            variables = {
                **server_variables(directory),
                "PILOTHOUSE_DATABASE_URL": database.app_dsn,
                "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
                "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
                "PILOTHOUSE_DATA_DIR": str(directory / f"server-{number}"),
                "PILOTHOUSE_SECRET_KEY_FILE": str(key_file),
                "PILOTHOUSE_KUBECONFIG": str(kubeconfig),
                "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
                "PILOTHOUSE_LISTEN": "127.0.0.1:0",
                "PILOTHOUSE_POOL_OPEN_CONNECTIONS": "8",
                # The campaign lasts longer than the default lifetime of an access token.
                "PILOTHOUSE_SESSION_ACCESS_SECONDS": "86400",
                "PILOTHOUSE_EVENT_RING_SIZE": str(RING_EVENTS),
                "PILOTHOUSE_WATCH_MAX_LAG_EVENTS": str(LAG_EVENTS),
            }
            front = await stack.enter_async_context(proxy())
            log = directory / f"server-{number}.log"
            server = ServerProcess(front, variables, log, injected_fault, forked=True)
            await server.start()
            stack.push_async_callback(server.kill)
            made.append(server)
        yield made
