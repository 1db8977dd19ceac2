"""Logs of containers, and programs run in them: what answers with what the cluster says, not with what is
stored.

A log stream joins the pods of one or several containers. Each pod has a reader of its own and a position: the
time of its last line and how many lines of that very time were passed on. `sinceTime` asks the cluster for
the rest by whole seconds, and what was passed on is dropped, so nothing comes twice, after a restart of the
container as after a cut connection or a call that resumes. While following, pods that come are joined and
pods that go are finished.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, floor

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.containers.log_positions import LogPosition, PodKey, pod_key
from pilothouse_server.containers.model import Container, Pod
from pilothouse_server.errors import FailedPrecondition, PilothouseError, Unavailable, not_found
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    ClusterError,
    InternalError,
    NotFound,
    Refused,
    Throttled,
    Unreachable,
)
from pilothouse_server.kubernetes.logs import LogLine, pod_log
from pilothouse_server.tasks import cancel_and_wait

FindPods = Callable[[], Awaitable[Sequence[tuple[Container, Pod]]]]

MOST_CONTAINERS = 50
MOST_PODS = 100
_QUEUE_LINES = 2000
_BATCH_LINES = 500
_BATCH_BYTES = 256 * 1024
_LOOK_AGAIN_SECONDS = 1.0
# Less than the pause before a container that failed is started again, or a run of it would be overlooked.
_LONGEST_PAUSE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What of the logs is asked for. `init_container` is '' for the main one."""

    init_container: str = ""
    follow: bool = False
    previous: bool = False
    since: datetime | None = None
    tail_lines: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of one pod of one container."""

    container: str
    pod: str
    line: LogLine


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a log cannot be read, or not now."""

    container: str
    pod: str
    reason: str
    message: str


@dataclass(slots=True)
class LogStream:
    """The joined log.

    `positions` may begin with those of an earlier stream; they are kept up with what is yielded.
    """

    connect: Connect
    find_pods: FindPods
    query: LogQuery
    positions: dict[PodKey, LogPosition] = field(default_factory=dict)
    _lines: asyncio.Queue[Entry | Problem | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE_LINES))
    _readers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    # How far each reader is; `positions` follows when a line is passed on.
    _read: dict[PodKey, LogPosition] = field(default_factory=dict)
    _present: set[PodKey] = field(default_factory=set)
    # What was last reported of a log that is waited for.
    _reported: dict[str, str] = field(default_factory=dict)

    @property
    def pods(self) -> int:
        """How many pods are read."""
        return len(self._present)

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
                        self.positions.setdefault(pod_key(entry.pod), LogPosition()).advance(
                            entry.line.nanoseconds
                        )
                # Of pods that are gone there is nothing to resume; a long stream's token would grow with them.
                self.positions = {
                    pod: position for pod, position in self.positions.items() if pod in self._present
                }
                yield batch
        finally:
            await cancel_and_wait(watcher, *self._readers.values())

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
        pods = await self._pods_to_read()
        if not self.query.follow:
            for container, pod in pods:
                await self._read_once(container, pod, alone=len(pods) == 1)
            await self._lines.put(None)
            return
        # Of a pod that comes later, or of one that had no log when the stream that this one resumes ended, every line
        # is new.
        tail_lines = None if self.positions else self.query.tail_lines
        while True:
            for container, pod in pods:
                if pod.name not in self._readers:
                    reader = self._follow(container, pod, tail_lines)
                    self._readers[pod.name] = asyncio.create_task(reader, name=f"log {pod.name}")
            tail_lines = None
            for task in [task for task in self._readers.values() if task.done()]:
                task.result()
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            pods = await self._pods_to_read()

    async def _pods_to_read(self) -> Sequence[tuple[Container, Pod]]:
        pods = (await self.find_pods())[:MOST_PODS]
        self._present = {pod_key(pod.name) for _, pod in pods}
        return pods

    async def _read_once(self, container: Container, pod: Pod, *, alone: bool) -> None:
        """Reads a log to its end; of several one that cannot be read is reported, and the others are read."""
        try:
            await self._read_log(container, pod, tail_lines=self.query.tail_lines)
        except PilothouseError as error:
            # Where the cluster does not answer for one, it would not for the others either, each after a while.
            if alone or isinstance(error.__context__, Unreachable | Throttled):
                raise
            await self._report(container, pod, error)

    async def _report(self, container: Container, pod: Pod, error: PilothouseError) -> None:
        """Reports why a log is not read, once as long as that does not change."""
        if self._reported.get(pod.name) != error.message:
            self._reported[pod.name] = error.message
            await self._lines.put(Problem(container.name, pod.name, error.reason, error.message))

    async def _follow(self, container: Container, pod: Pod, tail_lines: int | None) -> None:
        """Reads a pod's log again and again until the pod is gone.

        Between two readings, or since the stream that this one resumes, the container may have been started again. The
        log requested is then the new run's, so the run before is read first, from the position on. Where no line has
        been seen of a log that is there, the run before is older than what was requested, and is left out.
        """
        has_log, pause, failures = True, _LOOK_AGAIN_SECONDS, 0
        while True:
            before = self._position(pod).nanoseconds
            try:
                if self._position(pod).nanoseconds or not has_log:
                    await self._read_log(container, pod, previous=True, quiet=True)
                elif tail_lines == 0:
                    # Only finds the position; without it, what comes before the next reading would be of the past, too.
                    await self._read_log(container, pod, tail_lines=1, follow=False, quiet=True, silent=True)
                    tail_lines = None if self._position(pod).nanoseconds else 0
                has_log = await self._read_log(container, pod, tail_lines=tail_lines, follow=True, quiet=True)
                tail_lines = None
            except Unavailable as error:
                # The line is dead, not the log. A single cut is nothing to report: most are healed at once.
                failures += 1
                if failures > 1:
                    await self._report(container, pod, error)
            except GoneError:
                return
            else:
                failures = 0
            # What has ended may stay so for long; what is about to start is wanted soon.
            ended = has_log and self._position(pod).nanoseconds == before
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if ended else _LOOK_AGAIN_SECONDS
            await asyncio.sleep(pause)

    def _position(self, pod: Pod) -> LogPosition:
        """How far the pod's reader is."""
        key = pod_key(pod.name)
        if key not in self._read:
            begun = self.positions.get(key, LogPosition())
            self._read[key] = LogPosition(begun.nanoseconds, begun.lines)
        return self._read[key]

    async def _read_log(
        self,
        container: Container,
        pod: Pod,
        *,
        tail_lines: int | None = None,
        follow: bool = False,
        previous: bool = False,
        quiet: bool = False,
        silent: bool = False,
    ) -> bool:
        """Reads a log from the pod's position to its end, and returns whether there was one.

        `quiet`: a missing pod raises GoneError, a missing log nothing. `silent`: the lines count as passed on.
        """
        position = self._position(pod)
        passed = LogPosition(position.nanoseconds, position.lines)
        lines = pod_log(
            await _connected(self.connect, container),
            container.kubernetes_namespace,
            pod.name,
            container=self.query.init_container or container.spec.pod_container_name,
            follow=follow,
            previous=self.query.previous or previous,
            since_nanoseconds=passed.nanoseconds or None,
            # The caller's moment is none of the cluster's clock, which may be ahead of ours or behind.
            since_seconds=_seconds_ago(self.query.since) if self.query.since else None,
            tail_lines=None if passed.nanoseconds else tail_lines,
        )
        try:
            async with contextlib.aclosing(lines) as reading:
                async for line in reading:
                    if line.nanoseconds < passed.nanoseconds:
                        continue
                    if line.nanoseconds == passed.nanoseconds and passed.lines:
                        passed.lines -= 1
                        continue
                    position.advance(line.nanoseconds)
                    self._reported.pop(pod.name, None)
                    if silent:
                        self.positions.setdefault(pod_key(pod.name), LogPosition()).advance(line.nanoseconds)
                    else:
                        await self._lines.put(Entry(container.name, pod.name, line))
        except NotFound as error:
            if quiet:
                raise GoneError from error
            raise caller_error(error, container.cluster_name) from None
        except Refused as error:
            # A container that waits to start has no log yet: while following, it is asked again.
            if not quiet:
                raise caller_error(error, container.cluster_name) from None
            if not previous:
                await self._report(container, pod, caller_error(error, container.cluster_name))
            return False
        except ClusterError as error:
            raise caller_error(error, container.cluster_name) from None
        return True


def _size(item: Entry | Problem) -> int:
    return len(item.line.text if isinstance(item, Entry) else item.message)


def _seconds_ago(moment: datetime) -> int:
    """Whole seconds, rather more than less."""
    return ceil(datetime.now(UTC).timestamp() - floor(moment.timestamp()))


class GoneError(Exception):
    """The pod of a log is gone."""


async def _connected(connect: Connect, container: Container) -> ClusterClient:
    try:
        return await connect(container.cluster_name)
    except ClusterError as error:
        raise caller_error(error, container.cluster_name) from None


def caller_error(error: ClusterError, cluster: str) -> PilothouseError:
    """What a caller hears of a cluster's failure.

    UNAVAILABLE where it does not answer, else its own words.
    """
    metadata = {"cluster": cluster}
    if isinstance(error, Unreachable | Throttled | InternalError):
        does = "fails" if isinstance(error, InternalError) else "does not answer"
        return Unavailable(
            f'cluster "{cluster}" {does}: {error}',
            reason="CLUSTER_UNAVAILABLE",
            metadata=metadata,
            retry_after_seconds=getattr(error, "retry_after_seconds", 1.0),
        )
    return FailedPrecondition(
        f'cluster "{cluster}" refuses: {error}', reason="CLUSTER_REFUSED", metadata=metadata
    )


def ready_pod(pods: Sequence[Pod], name: str, container: str) -> Pod:
    """The pod of this name, or the newest that is ready, else the newest that runs.

    Raises:
        NotFound: there is no pod of this name.
        FailedPrecondition: none runs.
    """
    if name:
        for pod in pods:
            if pod.name == name:
                return pod
        raise not_found("pod", name)
    running = [pod for pod in pods if pod.phase == "Running" and not pod.deleting]
    if not running:
        raise FailedPrecondition(f'container "{container}" has no running pod', reason="NOT_RUNNING")
    return max(running, key=lambda pod: (pod.ready, pod.started_at.timestamp() if pod.started_at else 0.0))
