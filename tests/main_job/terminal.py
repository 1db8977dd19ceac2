"""A command at a terminal of its own: a pseudo terminal whose keyboard, screen and size the test has."""

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

# Opened by the leader of a new session, a terminal becomes the one that controls it.
_TAKE_TERMINAL = (
    "import os, sys\n"
    "terminal = os.open(sys.argv[1], os.O_RDWR)\n"
    "for descriptor in range(3): os.dup2(terminal, descriptor)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Terminal:
    """The side of a person. `screen` is the shown text that was not waited for, `shown` the text that the last wait
    took.
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
        """Another size; the system tells the program in front by SIGWINCH."""
        fcntl.ioctl(self._program, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Presses keys."""
        os.write(self._person, keys)

    async def shows(self, text: bytes) -> None:
        """Waits until this is shown, and takes away all up to its end."""

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
        """Whether keys are handed on as they are pressed, ^C with the others."""
        return not termios.tcgetattr(self._program)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def is_restored(self) -> bool:
        """Whether it is as it was before the command."""
        return termios.tcgetattr(self._program) == self.before

    @asynccontextmanager
    async def running(self, *command: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
        """The command in a session of its own, with this as its terminal."""
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
        """Ends both sides."""
        asyncio.get_running_loop().remove_reader(self._person)
        for descriptor in (self._person, self._program):
            os.close(descriptor)
