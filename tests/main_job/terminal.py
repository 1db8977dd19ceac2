"""A command at its own pseudo terminal; the test controls its keyboard, screen and size."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.waiting import poll_until

# A terminal that the leader of a new session opens becomes its controlling terminal.
_TAKE_TERMINAL = (
    "import os, sys\n"
    "terminal = os.open(sys.argv[1], os.O_RDWR)\n"
    "for descriptor in range(3): os.dup2(terminal, descriptor)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Terminal:
    """The person's side of a terminal.

    `screen` is the shown text for which no call has waited yet; `shown` is the text that the last wait consumed.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._person, self._program = pty.openpty()
        os.set_blocking(self._person, False)
        self.screen = self.shown = b""
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self._program)
        asyncio.get_running_loop().add_reader(self._person, self._show)

    def _show(self) -> None:
        self.screen += os.read(self._person, 65_536)

    def resize(self, rows: int, columns: int) -> None:
        """Changes the size; the kernel notifies the foreground program by SIGWINCH."""
        fcntl.ioctl(self._program, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Presses keys."""
        os.write(self._person, keys)

    async def shows(self, text: bytes) -> None:
        """Waits until the text is shown, and consumes everything up to its end."""

        async def shown() -> bool:
            return text in self.screen

        try:
            await poll_until(shown, seconds=60.0)
        except AssertionError:
            raise AssertionError(f"{text!r} was not shown: {self.screen!r}") from None
        before, found, self.screen = self.screen.partition(text)
        self.shown = before + found

    @property
    def is_raw(self) -> bool:
        """Whether keys are passed on as they are pressed, including ^C."""
        return not termios.tcgetattr(self._program)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as it was before the command."""
        return termios.tcgetattr(self._program) == self.before

    @asynccontextmanager
    async def running(self, *command: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
        """Runs the command in its own session, with this as its terminal."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _TAKE_TERMINAL, os.ttyname(self._program), *command),
            env=env,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def close(self) -> None:
        """Closes both sides."""
        asyncio.get_running_loop().remove_reader(self._person)
        for descriptor in (self._person, self._program):
            os.close(descriptor)
