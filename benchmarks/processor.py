"""CPU time of processes, as the operating system counts it: user and system, including processes that have ended.

Throughput depends on the other load of the cores; CPU time per call does not. A process counts with all processes
that it started. The CPU time of an ended child is added to its parent's when the parent waits for it. So a difference
of two readings is complete if the process waits for its children, as PostgreSQL and the product do.

    before = processor.seconds(process_id)
    ...
    used = processor.seconds(process_id) - before
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# Fields after the name in /proc/*/stat: the parent; user and system time, of the process and of its ended children.
_PARENT, _USER, _ENDED_SYSTEM = 1, 11, 14
_APP, _SYSTEM = "the callers' role", "the server's role"
_SUPERUSER = "postgres"
_ROLES = {
    "pilothouse_app": _APP,
    "pilothouse_system": _SYSTEM,
    "pilothouse_maintenance": "the maintenance role",
}


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    own: float
    ended_children: float


def seconds(process_id: int) -> float:
    """Returns the CPU time of the process and of all its descendants, including those that have ended.

    Raises:
            RuntimeError: there is no such process.
    """
    processes = _all()
    if process_id not in processes:
        raise RuntimeError(f"process {process_id} has ended")
    return sum(
        _used(processes, each) + processes[each].ended_children for each in _tree(processes, process_id)
    )


def database_seconds(postmaster: int, database: str) -> float:
    """Returns the CPU time of PostgreSQL's processes, without those that serve clients of other databases."""
    processes = _all()
    used = 0.0
    for each in _tree(processes, postmaster):
        words = _words(each)
        if len(words) < 3 or words[1] not in (*_ROLES, _SUPERUSER) or words[2] == database:
            used += _used(processes, each)
        used += processes[each].ended_children
    return used


def by_role(postmaster: int) -> dict[str, float]:
    """Returns the CPU time of PostgreSQL's processes, by the role of their client.

    Processes without a client (the writers) and ended processes count as `others`.
    """
    processes = _all()
    used: dict[str, float] = defaultdict(float)
    for each in _tree(processes, postmaster):
        used[_role(each)] += _used(processes, each)
        used["others"] += processes[each].ended_children
    return dict(used)


def by_thread(process_id: int) -> dict[str, float]:
    """Returns the CPU time of a process's live threads, by name; the first thread is named `main`."""
    used: dict[str, float] = defaultdict(float)
    for thread in Path(f"/proc/{process_id}/task").iterdir():
        try:
            name = "main" if thread.name == str(process_id) else (thread / "comm").read_text().strip()
            used[name] += int((thread / "schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue  # the thread has ended
    return dict(used)


def _used(processes: dict[int, _Process], process_id: int) -> float:
    """Returns a process's CPU time: to the nanosecond if it has a single thread, otherwise to a tick."""
    try:
        precise = int(Path(f"/proc/{process_id}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        precise = 0.0
    return max(precise, processes[process_id].own)


def _tree(processes: dict[int, _Process], first: int) -> Iterator[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for process_id, process in processes.items():
        children[process.parent].append(process_id)
    waiting = [first]
    while waiting:
        process_id = waiting.pop()
        yield process_id
        waiting += children[process_id]


def _all() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = _read(folder)
            except OSError:
                continue  # the process has ended
    return found


def _read(folder: Path) -> _Process:
    # The name is in parentheses and may contain any characters.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    user, system, ended_user, ended_system = (
        int(field) / _TICKS for field in fields[_USER : _ENDED_SYSTEM + 1]
    )
    return _Process(int(fields[_PARENT]), user + system, ended_user + ended_system)


def _role(process_id: int) -> str:
    return next((_ROLES[word] for word in _words(process_id)[1:2] if word in _ROLES), "others")


def _words(process_id: int) -> list[str]:
    """Returns the title of a process; with a client: `postgres:`, the role, the database, and the activity."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text().split()
    except OSError:
        return []
