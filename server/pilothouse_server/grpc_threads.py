"""What comes in gives way to what is being served: gRPC's threads, by which it reads, have less of a busy processor.

A burst of thousands of calls keeps several of them busy for a tenth of a second. The main thread, which serves all,
then had a third of the time that it wanted, and everybody's calls waited. A thread begins with the niceness of the one
that starts it, and `lifeguard` starts those that are wanted later.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_NAMES = frozenset({"event_engine", "lifeguard"})
# A third of the weight of others (sched(7): each step is about 1.25 times). Who waits for nothing but a moment of the
# processor, as they do but in a burst, has it as soon as before.
NICENESS = 5


def served_calls_go_first() -> None:
    """To be called once a process serves. Where the system has no such threads to be found, nothing happens."""
    for thread in Path("/proc/self/task").glob("*"):
        # It may have ended meanwhile; what is nicer already stays so.
        with suppress(OSError):
            number = int(thread.name)
            if (thread / "comm").read_text().strip() in _NAMES:
                os.setpriority(
                    os.PRIO_PROCESS, number, max(NICENESS, os.getpriority(os.PRIO_PROCESS, number))
                )
