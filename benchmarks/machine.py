"""The machine: its description at the head of the table, and the assignment of cores.

With two cores, the server (the product, or the baseline in its place) has a core to itself; the load and the database
share the other core. With more cores, the database has the remaining ones. On a single core, nothing is pinned.
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
    """The cores of each kind of process; with an empty set, the kernel decides."""

    serving: frozenset[int]
    asking: frozenset[int]
    database: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Distributes the cores that this process may use."""
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
    """Restricts a process, and the processes that it starts later, to these cores; without cores, does nothing."""
    if cores:
        os.sched_setaffinity(process_id, cores)


def environment() -> dict[str, str]:
    """Returns the environment of every process of a measurement: this process's, without the product's settings.

    Python stores bytecode next to the modules, regardless of this machine's configuration: a start that compiles all
    modules again is not representative of a server that has run here before.
    """
    left_out = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.startswith("PILOTHOUSE_")
    }


def description(postgres: str) -> list[str]:
    """Returns lines with the machine, the versions and the machine's load."""
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
    """Returns the memory of a process: its own pages, and its share of the pages that it shares."""
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {process_id} does not say how much memory it uses")


def free_port() -> int:
    """Returns a loopback port that nothing listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
