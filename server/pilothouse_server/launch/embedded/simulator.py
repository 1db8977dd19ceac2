"""The simulated cluster of `serve --dev`, in a process of its own.

So it neither slows nor blocks the server's event loop. The launcher writes one line of JSON to the program's standard
input (`SimulatorOrders` of `pilothouse_server.launch.simulation`, which is not imported here). It reads one line from
its standard output: the kubeconfig, written when the cluster responds. The launcher chooses the token and keeps the
port, so that the kubeconfig stays valid when the program is started again.

A simulator that ends by itself is started again from its state file, immediately and then after growing
pauses, for as long as the server runs. Each end and each start is logged. Until the next start the cluster is
unreachable, and calls and watches report that, as for any unreachable cluster.

The kernel kills it with its launcher. Nothing is lost by that: a change is in the state file before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from pilothouse_server.runtime.account import ProcessAccount
from pilothouse_server.runtime.child_program import EmbeddedProgramError, end, launch
from pilothouse_server.runtime.tasks import cancel_and_wait

PROGRAM = "pilothouse_server.launch.simulation"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
# A process that lived longer than this begins with the first pause again.
GOOD_SECONDS = 60.0

log = structlog.get_logger(__name__)


class EmbeddedSimulatorError(EmbeddedProgramError):
    """The simulated cluster cannot be started. Its standard error gives the reason."""


@dataclass(frozen=True)
class _Run:
    """One run of the program, and its output."""

    process: subprocess.Popen[bytes]
    output: asyncio.StreamReader
    pipe: asyncio.ReadTransport

    async def ended(self) -> int:
        """Waits for its end; returns the exit status, or minus the number of the signal that killed it."""
        # Only the program has the other end of the pipe, so the output ends with the program.
        await self.output.read()
        return await asyncio.to_thread(self.process.wait)

    async def end(self) -> None:
        await asyncio.to_thread(end, self.process, (signal.SIGTERM, signal.SIGKILL), STOP_SECONDS)
        self.pipe.close()


class EmbeddedSimulator:
    """One simulated cluster stored in `state_path`, started, restarted and stopped by this process.

    Args:
        log_level: of its own lines on standard error.
        log_format: `text` or `json`.
        definitions_path: file of CustomResourceDefinitions that the cluster serves, next to those of the Gateway API.
        start_seconds: the longest time until it responds.
    """

    def __init__(
        self,
        state_path: Path,
        *,
        log_level: str = "INFO",
        log_format: str = "text",
        definitions_path: Path | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._settings: dict[str, Any] = {
            "state_path": str(state_path.absolute()),
            "token": secrets.token_urlsafe(24),
            "port": 0,
            "log_level": log_level,
            "log_format": log_format,
            "definitions_path": str(definitions_path.absolute()) if definitions_path is not None else "",
            "launcher": os.getpid(),
        }
        self._start_seconds = start_seconds
        self._run: _Run | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def process_id(self) -> int | None:
        """The simulator's process id while it runs, else None."""
        return self._run.process.pid if self._run is not None and self._run.process.poll() is None else None

    async def start(self) -> Mapping[str, Any]:
        """Starts the simulator; returns the kubeconfig of its cluster once the cluster responds.

        Raises:
            EmbeddedSimulatorError: it ended, or did not respond in time. Its standard error has the reason.
            RuntimeError: not called from the main thread.
        """
        self._run, kubeconfig = await self._launch()
        (cluster,) = kubeconfig["clusters"]
        self._settings["port"] = urlsplit(cluster["cluster"]["server"]).port
        self._keeping = asyncio.create_task(self._keep_running(self._run), name="simulator")
        return kubeconfig

    async def stop(self) -> None:
        """Stops the simulator. Does nothing if it does not run."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            await cancel_and_wait(keeping)
        run, self._run = self._run, None
        if run is not None:
            await run.end()

    async def _keep_running(self, run: _Run) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = loop.time()
            status = await run.ended()
            run.pipe.close()
            if loop.time() - began > GOOD_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.error("the simulated cluster has ended", status=status, again_in_seconds=pause)
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                try:
                    self._run, _ = await self._launch()
                except (EmbeddedProgramError, OSError) as error:
                    log.error("the simulated cluster cannot start", why=str(error), again_in_seconds=pause)
                else:
                    run = self._run
                    log.info("the simulated cluster is back")
                    break

    async def _launch(self) -> tuple[_Run, Mapping[str, Any]]:
        # -P: modules are those of this process, not of its working directory.
        process = launch(
            [sys.executable, "-P", "-m", PROGRAM],
            account=ProcessAccount(os.geteuid(), os.getegid(), changed=False),
            dies_by="KILL",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(json.dumps(self._settings).encode())
        reader = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        run = _Run(process, reader, pipe)
        try:
            return run, await self._kubeconfig(run)
        except BaseException:
            await asyncio.shield(run.end())
            raise

    async def _kubeconfig(self, run: _Run) -> Mapping[str, Any]:
        try:
            line = await asyncio.wait_for(run.output.readline(), self._start_seconds)
        except TimeoutError:
            raise EmbeddedSimulatorError(
                f"the simulated cluster does not respond after {self._start_seconds:g} s"
            ) from None
        if not line.endswith(b"\n"):
            raise EmbeddedSimulatorError(f"the simulated cluster did not start: status {await run.ended()}")
        kubeconfig: Mapping[str, Any] = json.loads(line)
        return kubeconfig
