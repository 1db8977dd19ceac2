"""One child as its supervisor sees it: the process, and the socket between the two.

The kernel kills it with the supervisor (`runtime.child_program`). It has a session of its own, so Ctrl-C in a terminal
reaches the supervisor alone, which drains all children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from pilothouse_server.launch.processes import link
from pilothouse_server.launch.processes.link import ChildOrders, Failed, Figures, Prepared, Said, ServingState
from pilothouse_server.runtime.account import ProcessAccount
from pilothouse_server.runtime.child_program import EmbeddedProgramError, launch
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import Settings

PROGRAM = "pilothouse_server.launch.processes.program"
# The longest start, on a busy machine with a slow database.
START_SECONDS = 120.0
FIGURES_SECONDS = 2.0
# The time within which the last output of a process is read after its end.
_LAST_WORDS_SECONDS = 5.0

log = structlog.get_logger(__name__)


class ServerProcessError(EmbeddedProgramError):
    """A server process cannot be started. The message gives the reason."""


class ServerProcess:
    """One run of the program, started by `launch`."""

    def __init__(
        self,
        number: int,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.number = number
        # The password of an administrator that this start created.
        self.password: str | None = None
        self._process = process
        self._reader, self._writer = reader, writer
        loop = asyncio.get_running_loop()
        self._prepared: asyncio.Future[None] = loop.create_future()
        self._answer: asyncio.Future[ServingState | Failed] = loop.create_future()
        self._figures: asyncio.Future[Figures] | None = None
        self._exit: asyncio.Future[int] = loop.create_future()
        # Readable when the process ends: no thread waits for it.
        self._handle = os.pidfd_open(process.pid)
        loop.add_reader(self._handle, self._has_ended)
        self._reading = asyncio.create_task(self._read(), name=f"process {number}")

    @classmethod
    async def launch(
        cls, number: int, settings: Settings, kubeconfigs: Mapping[str, Mapping[str, Any]]
    ) -> ServerProcess:
        """Starts the program as child `number`, from the main thread.

        Raises:
            FileNotFoundError: `setpriv` is missing.
            OSError: the machine cannot run another process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = launch(
                    # -P: modules are those of this process, not of its working directory.
                    [sys.executable, "-P", "-m", PROGRAM, settings.event_loop],
                    account=ProcessAccount(os.geteuid(), os.getegid(), changed=False),
                    dies_by="KILL",
                    stdin=theirs.fileno(),
                    # Paths in the settings may be relative.
                    directory=Path.cwd(),
                )
            except BaseException:
                ours.close()
                raise
        orders = ChildOrders(
            os.getpid(), number, settings, {name: dict(each) for name, each in kubeconfigs.items()}
        )
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=link.LINE_BYTES)
            writer.write(link.encode(orders))
            return cls(number, process, reader, writer)
        except BaseException:
            process.kill()
            process.wait()
            ours.close()
            raise

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def serving(self, listening: asyncio.Lock) -> None:
        """Returns once the process serves. The process starts to listen and to serve while this holds `listening`.

        Raises:
            ServerProcessError: it reported a failure, ended silently, or took too long.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                either: list[asyncio.Future[Any]] = [self._prepared, self._answer]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                async with listening:
                    self._writer.write(link.LISTEN)
                    answer = await asyncio.shield(self._answer)
        except TimeoutError:
            raise ServerProcessError(
                f"server process {self.number} does not serve after {START_SECONDS:g} s"
            ) from None
        if isinstance(answer, Failed):
            raise ServerProcessError(answer.why)

    async def figures(self) -> Figures | None:
        """Returns the metrics of the process; None if it does not respond in time."""
        if self._reading.done():
            return None
        if self._figures is None or self._figures.done():
            self._figures = asyncio.get_running_loop().create_future()
            # Without `drain`, because a process that does not read must not block this call.
            self._writer.write(link.ASK_FOR_FIGURES)
        try:
            async with asyncio.timeout(FIGURES_SECONDS):
                return await asyncio.shield(self._figures)
        except (TimeoutError, ConnectionError):
            return None

    def drain(self) -> None:
        """Asks the process to drain and end."""
        if not self._exit.done():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if not self._exit.done():
            self._process.kill()

    async def ended(self) -> int:
        """Waits for the end of the process. Returns its exit status, or minus the number of a signal."""
        status = await asyncio.shield(self._exit)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await asyncio.wait([self._reading])
        await cancel_and_wait(self._reading)
        self._writer.close()
        return status

    def _has_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        # The process has ended, so this does not wait.
        self._exit.set_result(self._process.wait())

    async def _read(self) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while line := await self._reader.readline():
                    self._take(link.said_by(line))
        finally:
            if not self._answer.done():
                self._answer.set_result(
                    Failed(f"server process {self.number} ended before it served: see the log")
                )
            if self._figures is not None and not self._figures.done():
                self._figures.set_exception(ConnectionError())
                # Marks the error as retrieved, because nobody may wait for it any more.
                self._figures.exception()

    def _take(self, said: Said) -> None:
        if isinstance(said, Figures):
            if self._figures is not None and not self._figures.done():
                self._figures.set_result(said)
            return
        if isinstance(said, Prepared):
            self._prepared.set_result(None)
            return
        self.password = said.password
        if not self._answer.done():
            self._answer.set_result(said)
