"""The logs of one or several containers, joined, as the cluster returns them.

The log of each program of a pod has its own reader and position: the time of the last line, and how many lines with
that time were sent. While following, the stream adds the logs of new pods and finishes those of deleted pods.
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
from pilothouse_server.errors import FailedPrecondition, PilothouseError
from pilothouse_server.kubernetes.errors import NotFound, Throttled, Unreachable
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
    # The number of pods that are read.
    pods: int = 0

    async def batches(self) -> AsyncGenerator[list[Entry | Problem], None]:
        """Yields lines in batches, and the problems of logs that cannot be read.

        Ends when every log has ended; with `follow`, it does not end by itself.

        Raises:
            Unavailable: the cluster does not respond, and `follow` is not set.
            FailedPrecondition: the cluster does not have the only requested log; the message is the cluster's.
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
                # The log of a deleted pod cannot be resumed, and its position would only make the token longer.
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
        """Runs a reader for each log; ends when the readers have ended, unless following."""
        logs = await self._logs_to_read()
        if not self.query.follow:
            for log in logs:
                await self._read_once(*log, alone=len(logs) == 1)
            await self._lines.put(None)
            return
        # `tail_lines` is only for the first logs of a stream that does not resume another. All lines are new in a log
        # that appears later, or that did not exist when the resumed stream ended.
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
        # For one program, the key has the form of earlier releases, so their tokens stay valid.
        return pod_key(f"{pod}/{program}" if self.query.several_programs else pod)

    async def _read_once(self, container: Container, pod: Pod, program: str, *, alone: bool) -> None:
        """Reads a log to its end. If it cannot be read and is one of several, reports the problem and returns.

        A deleted pod without a log is not a problem: its program never started, or the pod is gone by now.
        """
        reader = self._reader(container, pod, program)
        try:
            await reader.read_to_end()
        except PilothouseError as error:
            # A cluster that does not respond would fail the other logs as well, each after a timeout of its own.
            if alone or isinstance(error.__context__, Unreachable | Throttled):
                raise
            deleted = pod.deleting or isinstance(error.__context__, NotFound)
            if not (deleted and isinstance(error, FailedPrecondition)):
                await reader.report(error)

    def _reader(self, container: Container, pod: Pod, program: str) -> PodLogReader:
        # The reader has its own copy of the position; `positions` advances when a line is sent.
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
