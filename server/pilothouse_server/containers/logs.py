"""The logs of one or several containers, joined, as the cluster returns them.

Each log, which is that of a program of a pod, has a reader of its own and a position: the time of its last line and how
many lines of that very time were passed on. While following, pods that come are joined and pods that go are finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.containers.log_positions import LogPosition, PodKey, pod_key
from pilothouse_server.containers.model import Container, Pod
from pilothouse_server.containers.pod_log_reader import (
    PAUSE_SECONDS,
    Entry,
    LogQuery,
    PodLogReader,
    Problem,
)
from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.errors import Throttled, Unreachable
from pilothouse_server.runtime.tasks import cancel_and_wait

FindPods = Callable[[], Awaitable[Sequence[tuple[Container, Pod]]]]

MOST_CONTAINERS = 50
MOST_LOGS = 100
_QUEUE_LINES = 2000
_BATCH_LINES = 500
_BATCH_BYTES = 256 * 1024


@dataclass(slots=True)
class LogStream:
    """The joined log.

    `positions` may begin with those of an earlier stream; they are updated with the yielded lines.
    """

    connect: Connect
    find_pods: FindPods
    query: LogQuery
    positions: dict[PodKey, LogPosition] = field(default_factory=dict)
    _lines: asyncio.Queue[Entry | Problem | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE_LINES))
    _following: dict[PodKey, asyncio.Task[None]] = field(default_factory=dict)
    _present: set[PodKey] = field(default_factory=set)
    # How many pods are read.
    pods: int = 0

    async def batches(self) -> AsyncGenerator[list[Entry | Problem], None]:
        """Lines as they come, some at a time, and why others do not. Ends when every log has ended; with `follow` not
        by itself.

        Raises:
            Unavailable: a cluster does not answer, and `follow` is not set.
            FailedPrecondition: the cluster has no such log, and it is the only one; in its words.
        """
        watcher = asyncio.create_task(self._watch_pods(), name="log pods")
        try:
            while True:
                batch = await self._next_batch(watcher)
                if batch is None:
                    return
                for entry in batch:
                    if isinstance(entry, Entry):
                        self._advance(entry)
                # Of pods that are gone there is nothing to resume; a long stream's token would grow with them.
                self.positions = {
                    pod: position for pod, position in self.positions.items() if pod in self._present
                }
                yield batch
        finally:
            await cancel_and_wait(watcher, *self._following.values())

    async def _next_batch(self, watcher: asyncio.Task[None]) -> list[Entry | Problem] | None:
        first = asyncio.ensure_future(self._lines.get())
        try:
            while not first.done():
                await asyncio.wait({first, watcher}, return_when=asyncio.FIRST_COMPLETED)
                if watcher.done() and not first.done():
                    watcher.result()
                    if self._lines.empty():
                        return None
        finally:
            if not first.done():
                first.cancel()
        entry = first.result()
        if entry is None:
            return None
        batch, size = [entry], _size(entry)
        while not self._lines.empty() and len(batch) < _BATCH_LINES and size < _BATCH_BYTES:
            more = self._lines.get_nowait()
            if more is None:
                self._lines.put_nowait(None)
                break
            batch.append(more)
            size += _size(more)
        return batch

    async def _watch_pods(self) -> None:
        """Keeps a reader for each pod; ends when the readers have ended, unless following."""
        logs = await self._logs_to_read()
        if not self.query.follow:
            for log in logs:
                await self._read_once(*log, alone=len(logs) == 1)
            await self._lines.put(None)
            return
        # Of a pod that comes later, or of one that had no log when the stream that this one resumes ended, every line
        # is new.
        tail_lines = None if self.positions else self.query.tail_lines
        while True:
            for container, pod, program in logs:
                if (key := self._key(pod.name, program)) not in self._following:
                    following = self._reader(container, pod, program).follow(tail_lines)
                    self._following[key] = asyncio.create_task(following, name=f"log {pod.name}")
            tail_lines = None
            for task in [task for task in self._following.values() if task.done()]:
                task.result()
            await asyncio.sleep(PAUSE_SECONDS)
            logs = await self._logs_to_read()

    async def _logs_to_read(self) -> Sequence[tuple[Container, Pod, str]]:
        found = await self.find_pods()
        logs = [
            (container, pod, program)
            for container, pod in found
            for program in self.query.programs_of(container)
        ][:MOST_LOGS]
        self._present = {self._key(pod.name, program) for _, pod, program in logs}
        self.pods = len({pod.name for _, pod, _ in logs})
        return logs

    def _key(self, pod: str, program: str) -> PodKey:
        # Tokens of one program are those of earlier releases.
        return pod_key(f"{pod}/{program}" if self.query.several_programs else pod)

    async def _read_once(self, container: Container, pod: Pod, program: str, *, alone: bool) -> None:
        """Reads a log to its end; of several one that cannot be read is reported, and the others are read."""
        reader = self._reader(container, pod, program)
        try:
            await reader.read_to_end()
        except PilothouseError as error:
            # Where the cluster does not answer for one, it would not for the others either, each after a while.
            if alone or isinstance(error.__context__, Unreachable | Throttled):
                raise
            await reader.report(error)

    def _reader(self, container: Container, pod: Pod, program: str) -> PodLogReader:
        # Its position is its own; `positions` follows when a line is passed on.
        begun = self.positions.get(self._key(pod.name, program), LogPosition())
        position = LogPosition(begun.nanoseconds, begun.lines)
        return PodLogReader(self.connect, self.query, container, pod, program, position, self._put)

    async def _put(self, item: Entry | Problem) -> None:
        if isinstance(item, Entry) and not item.shown:
            self._advance(item)
        else:
            await self._lines.put(item)

    def _advance(self, entry: Entry) -> None:
        key = self._key(entry.pod, entry.program)
        self.positions.setdefault(key, LogPosition()).advance(entry.line.nanoseconds)


def _size(item: Entry | Problem) -> int:
    return len(item.line.text if isinstance(item, Entry) else item.message)
