"""Settings of one process: open files, memory allocator, collector, priorities.

Each function is called once while a process starts, and does nothing if the system does not support the setting.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# From malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1024 * 1024

# The names of gRPC's threads: those that read connections, and the one that starts new ones.
_READING_THREADS = frozenset({"event_engine", "lifeguard"})
# This gives them a third of the weight of other threads (sched(7): each step is a factor of about 1.25). An idle core
# runs them immediately at any niceness.
READING_NICENESS = 5


def allow_many_open_files() -> None:
    """Raises the limit of open files to the highest that the system allows.

    Child processes inherit it. Systemd, and containerd since version 2, start a process with a limit of 1,024 and allow
    hundreds of thousands, because programs that call `select` need the low limit. None of this server's programs calls
    it. With the low limit 1,100 idle connections of one anonymous caller locked out all other clients, and the server
    could not connect to its database.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def is_glibc() -> bool:
    """Returns whether the C library is glibc.

    `give_back_large_buffers` configures its allocator.
    """
    try:
        return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    except (OSError, TypeError):
        return False


def give_back_large_buffers() -> bool:
    """Makes glibc return freed blocks of 1 MiB and more to the system.

    Returns False if the C library is not glibc.

    By default glibc raises its threshold when such a block is freed: the next block of that size comes from the heap
    and is never returned. The buffer of one password's hash, 19 MiB, would stay allocated for good. A threshold that is
    set explicitly does not change.
    """
    if not is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Setting one threshold stops glibc from adjusting both; the default of the other would trim the heap at every free.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE_BYTES) and mallopt(_TRIM_THRESHOLD, _LARGE_BYTES))


@contextmanager
def no_collections() -> Iterator[None]:
    """Turns the garbage collector off while modules are loaded.

    Modules are never freed, and each full collection visits all that were loaded before. That takes a sixth of the
    processor time of loading a server.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def collect_rarely() -> None:
    """Makes the garbage collector run rarely, and never over present objects.

    Call it when all is loaded. A full collection visits every tracked object and blocks the event loop: 50 ms and more
    with all modules loaded. Objects that exist at the start are never freed. Objects that a server stores later
    (objects of clusters, events) form no cycles. No call may leave a cycle, however it ends: callers could fill the
    memory with them.
    """
    gc.collect()
    gc.freeze()
    # The first threshold is high because a collection of thousands of young objects that stay alive, such as the pods
    # of a cluster, takes milliseconds. Full collections are rarer still: with two thousand pending calls one takes
    # 40 ms.
    gc.set_threshold(2_000, 4, 800)


def served_calls_go_first() -> None:
    """Lowers the priority of gRPC's reading threads. Call it once the process serves.

    A burst of thousands of calls keeps several of these threads busy for a tenth of a second. Without this, the main
    thread, which serves all calls, had a third of the processor time that it needed. A new thread inherits the
    niceness of the thread that starts it, and `lifeguard` starts the later ones.
    """
    for thread in Path("/proc/self/task").glob("*"):
        # The thread may have ended already. A thread with a higher niceness stays as it is.
        with suppress(OSError):
            number = int(thread.name)
            if (thread / "comm").read_text().strip() in _READING_THREADS:
                niceness = max(READING_NICENESS, os.getpriority(os.PRIO_PROCESS, number))
                os.setpriority(os.PRIO_PROCESS, number, niceness)
