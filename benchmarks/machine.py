"""The machine: what is written at the head of the table, and which core does what.

With two cores the one that serves (the product, or the baseline in its place) has a core for itself; the load and the
database share the other. With more, the database has what is left. Where there is one core only, nothing is pinned.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("grpcio", "protobuf", "sqlalchemy", "asyncpg", "msgspec", "aiohttp")


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores do what; an empty set leaves the process where the kernel puts it."""

    serving: frozenset[int]
    asking: frozenset[int]
    database: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The cores that this process may use, given away."""
        free = sorted(os.sched_getaffinity(0))
        if len(free) < 2:
            return cls(frozenset(), frozenset(), frozenset())
        if len(free) == 2:
            return cls(frozenset(free[:1]), frozenset(free[1:]), frozenset(free[1:]))
        return cls(frozenset(free[:1]), frozenset(free[1:2]), frozenset(free[2:]))

    def __str__(self) -> str:
        if not self.serving:
            return "one core, nothing is pinned"
        return (
            f"core {_numbers(self.serving)} serves, core {_numbers(self.asking)} asks, "
            f"PostgreSQL on {_numbers(self.database)}"
        )


def _numbers(cores: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cores)))


def pin(process_id: int, cores: frozenset[int]) -> None:
    """Keeps a process, and what it starts from now on, on these cores; none: where it is."""
    if cores:
        os.sched_setaffinity(process_id, cores)


def environment() -> dict[str, str]:
    """The environment of every process of a measurement: this one's, less the product's settings.

    Python keeps what it compiles beside the modules, whatever this machine's habit is: a start that compiles all of
    them anew is not the start of a server that has run here before.
    """
    left_out = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.startswith("PILOTHOUSE_")
    }


def description(postgres: str) -> list[str]:
    """The machine, the versions and how busy it is, as lines."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    lines = [
        f"{_processor()}, {cores} cores, {_memory_gib():.0f} GiB, Linux {platform.release()}",
        f"Python {platform.python_version()}, {packages}, PostgreSQL {postgres}{_etcd()}",
        f"load before the run {load:.1f}",
    ]
    if load > cores / 2:
        lines.append("the machine was busy with other work when this began: take no figure for good")
    return lines


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _etcd() -> str:
    program = shutil.which("etcd")
    if program is None:
        return ""
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return f", etcd {words[2]}"


def proportional_bytes(process_id: int) -> int:
    """Memory of a process: its own pages, and its share of those that it shares with others."""
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {process_id} does not say how much memory it uses")


def free_port() -> int:
    """Returns a port of the loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
