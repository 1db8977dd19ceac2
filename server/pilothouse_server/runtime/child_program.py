"""Starts a program that ends with this process, however this process ends.

The kernel sends the program a signal when its launcher dies (PDEATHSIG), even by SIGKILL. The launcher is the thread
that started the program: if that thread ends early, the program is signalled early. So only the main thread starts one.

The program has a session of its own. Ctrl-C in a terminal reaches only the launcher, which ends its own work first.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pilothouse_server.runtime.account import ProcessAccount

Stream = int | IO[bytes] | None


class EmbeddedProgramError(Exception):
    """An embedded program cannot be started or stopped. The message gives the reason."""


def require_main_thread() -> None:
    """Raises RuntimeError unless this is the main thread.

    No other thread lives as long as the process.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "an embedded program dies with the thread that starts it: start it from the main thread"
        )


def launch(
    command: Sequence[str | Path],
    *,
    account: ProcessAccount,
    dies_by: str,
    environment: dict[str, str] | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    directory: Path = Path("/"),
) -> subprocess.Popen[bytes]:
    """Starts a program as `account`.

    The program gets the signal `dies_by` (as in "INT") when this process dies. `directory` is its working directory.

    Raises:
        RuntimeError: not called from the main thread.
        FileNotFoundError: the program, or `setpriv`, is missing.
    """
    require_main_thread()
    return subprocess.Popen(
        [*account.command(dies_with_parent_by=dies_by), *command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=directory,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals], seconds: float) -> None:
    """Sends the signals, `seconds` apart, until the program has ended.

    It blocks, so it must not be called on the event loop.
    """
    for number in signals:
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return
