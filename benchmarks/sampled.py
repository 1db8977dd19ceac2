"""`pilothouse serve` with a sample of its main thread every few milliseconds of the thread's CPU time.

    python -m benchmarks.sampled FILE serve ...

runs the command with a kernel timer that counts the main thread's own CPU time. SIGUSR1 starts sampling; SIGUSR2
stops it and writes FILE: JSON with each observed stack and its count. A stack is a list of [file, function],
innermost frame first. The kernel checks such timers at each of its ticks, so at most 250 times a second.

C code (gRPC's core, asyncpg's protocol, msgspec) has no frames of its own: it counts for the Python function that
called it. The product has no such option.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from pilothouse_client.cli import main as command

_INTERVAL_NANOSECONDS = 1_000_000
_SIGEV_SIGNAL = 0
_DEEPEST = 200


class _Event(ctypes.Structure):
    """`struct sigevent` of Linux: value, signal, kind of notification; the rest is not used."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _Timer(ctypes.Structure):
    """`struct itimerspec`: interval and first, each in seconds and nanoseconds."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("first_seconds", ctypes.c_long),
        ("first_nanoseconds", ctypes.c_long),
    )


class Sampler:
    """The samples of the main thread; `begin`, `look` and `end` are signal handlers."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stacks: Counter[tuple[CodeType, ...]] = Counter()
        self._began = 0.0
        self._library = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Event(signal=signal.SIGPROF, notify=_SIGEV_SIGNAL)
        # The clock is that of the thread that creates the timer: the main thread.
        if self._library.timer_create(
            time.CLOCK_THREAD_CPUTIME_ID, ctypes.byref(event), ctypes.byref(self._timer)
        ):
            raise OSError(ctypes.get_errno(), "timer_create")

    def begin(self, _signal: int, _frame: FrameType | None) -> None:
        """Discards the samples, and starts sampling."""
        self._stacks.clear()
        self._began = time.thread_time()
        self._set(_INTERVAL_NANOSECONDS)

    def look(self, _signal: int, frame: FrameType | None) -> None:
        """Records the current stack of the thread."""
        stack: list[CodeType] = []
        while frame is not None and len(stack) < _DEEPEST:
            stack.append(frame.f_code)
            frame = frame.f_back
        self._stacks[tuple(stack)] += 1

    def end(self, _signal: int, _frame: FrameType | None) -> None:
        """Stops sampling, and writes the file."""
        self._set(0)
        used = time.thread_time() - self._began
        stacks: list[Any] = [
            {"count": count, "stack": [[code.co_filename, code.co_qualname] for code in stack]}
            for stack, count in self._stacks.items()
        ]
        written = self._file.with_suffix(".part")
        written.write_text(json.dumps({"seconds": used, "stacks": stacks}))
        os.replace(written, self._file)

    def _set(self, nanoseconds: int) -> None:
        timer = _Timer(0, nanoseconds, 0, nanoseconds)
        if self._library.timer_settime(self._timer, 0, ctypes.byref(timer), None):
            raise OSError(ctypes.get_errno(), "timer_settime")


def main() -> None:
    """Runs the command, with the handlers set."""
    sampler = Sampler(Path(sys.argv.pop(1)))
    signal.signal(signal.SIGPROF, sampler.look)
    signal.signal(signal.SIGUSR1, sampler.begin)
    signal.signal(signal.SIGUSR2, sampler.end)
    command()


if __name__ == "__main__":
    main()
