"""The terminal of `pilothouse containers exec -it`: its size, and raw while the program has it.

Raw means that keys go to the program as they are pressed, ^C with the others, and that nothing is echoed here. Whoever
is left with such a terminal can hardly type, so it is put back however the command ends: by its end, by an error, and
by the signals that would end a process on the spot. Those end it by SystemExit, which closes the call as any error
does, with 128 + the signal as exit code, as a shell would tell it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pilothouse.container.v1 import container_pb2 as pb

_GREATEST = 10_000


def terminal_size() -> pb.TerminalSize | None:
    """The size of the terminal that is standard input; None where nobody has told it one.

    COLUMNS and LINES, which stay as they were, do not count.
    """
    columns, rows = os.get_terminal_size(sys.stdin.fileno())
    if not columns or not rows:
        return None
    return pb.TerminalSize(width=min(columns, _GREATEST), height=min(rows, _GREATEST))


@contextlib.contextmanager
def raw_terminal(on_resize: Callable[[], None]) -> Iterator[None]:
    """Hands keys on as they are pressed, and tells when the size changes; puts the terminal back at the end."""
    # Here, because other systems have neither them nor these signals.
    import termios
    import tty

    ending = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    ended = False

    def restore() -> None:
        # Now, not once all is written: a terminal that has hung up, or stopped, takes nothing any more.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)

    def end(number: int, _frame: object) -> None:
        nonlocal ended
        restore()
        # A second signal must not break off what the first one has begun.
        if not ended:
            ended = True
            raise SystemExit(128 + number)

    handlers: dict[signal.Signals, Any] = {signal.SIGWINCH: lambda *_: on_resize()}
    # What is ignored stays so: that is how `nohup` works.
    handlers |= {number: end for number in ending if signal.getsignal(number) is not signal.SIG_IGN}
    previous: dict[signal.Signals, Any] = {}
    try:
        for number, handler in handlers.items():
            previous[number] = signal.signal(number, handler)
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        restore()
        for number, handler in previous.items():
            signal.signal(number, handler)
