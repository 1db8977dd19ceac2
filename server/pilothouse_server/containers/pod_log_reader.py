"""The log of one pod, read from a position on.

`sinceTime` requests the rest of the log from the cluster, to the whole second. The reader drops lines that were read
before, so that no line is sent twice after a restart of the container, a broken connection or a resumed call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, floor

from pilothouse_server.clusters.refusals import Connect, unavailability, words
from pilothouse_server.containers.log_positions import LogPosition
from pilothouse_server.containers.model import Container, Pod
from pilothouse_server.containers.program_status import program_names
from pilothouse_server.errors import FailedPrecondition, PilothouseError, Unavailable
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    ClusterError,
    NotFound,
    Refused,
)
from pilothouse_server.kubernetes.logs import LogLine, LogOptions, pod_log

PAUSE_SECONDS = 1.0
# The most lines that a caller may request from the end of a log up to a time. The cluster cannot select these lines, so
# the reader buffers them.
MOST_LINES_BEFORE = 10_000
_MOST_BYTES_BEFORE = 4 << 20
# Shorter than the delay before a failed container is restarted, because otherwise the reader would miss a run.
_LONGEST_PAUSE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class LogQuery:
    """The requested part of the logs. Without `programs`, it is the main program's, or that of `every_program`."""

    programs: tuple[str, ...] = ()
    every_program: bool = False
    follow: bool = False
    previous: bool = False
    since: datetime | None = None
    tail_lines: int | None = None
    end_nanoseconds: int | None = None

    @property
    def several_programs(self) -> bool:
        return self.every_program or len(self.programs) > 1

    def programs_of(self, container: Container) -> Sequence[str]:
        """Returns the programs of a container's pods whose logs are requested."""
        if self.every_program:
            return program_names(container)
        return self.programs or (container.spec.pod_container_name,)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a program of a pod of a container. A line that is not `shown` only advances the position."""

    container: str
    pod: str
    program: str
    line: LogLine
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why a log cannot be read at all, or not yet."""

    container: str
    pod: str
    program: str
    reason: str
    message: str


@dataclass(slots=True)
class PodLogReader:
    """Reads the log of one program of a pod, and passes lines and problems to `put`. `position` is its progress."""

    connect: Connect
    query: LogQuery
    container: Container
    pod: Pod
    program: str
    position: LogPosition
    put: Callable[[Entry | Problem], Awaitable[None]]
    # The last problem that was reported since a line was read.
    _reported: str = field(default="", init=False)

    async def read_to_end(self) -> None:
        """Reads the log to its end, once.

        Raises:
            Unavailable: the cluster does not respond.
            FailedPrecondition: the cluster has no such log; the message is the cluster's.
        """
        try:
            await self._read(tail_lines=self.query.tail_lines)
        except ClusterError as error:
            raise self._caller_error(error) from None

    async def follow(self, tail_lines: int | None) -> None:
        """Reads the log repeatedly until the pod is deleted.

        Between two readings, or since the end of the resumed stream, the container may have been restarted. The cluster
        then returns the log of the new run, so the log of the previous run is read first, from the position on. If a
        log exists but no line was read, the previous run is older than the request, and is left out.
        """
        has_log, pause, failures = True, PAUSE_SECONDS, 0
        while True:
            before = self.position.nanoseconds
            try:
                if self._has_read() or not has_log:
                    await self._try_to_read(previous=True)
                elif tail_lines == 0:
                    # Only finds the position. Without it, lines written before the next reading would count as past.
                    await self._try_to_read(tail_lines=1, shown=False)
                    tail_lines = None if self._has_read() else 0
                has_log = await self._try_to_read(tail_lines=tail_lines, follow=True)
                tail_lines = None
            except Unavailable as error:
                # The connection has failed, but the log has not ended. A single failure is not reported, because most
                # connections work again immediately.
                failures += 1
                if failures > 1:
                    await self.report(error)
            except _GoneError:
                return
            else:
                failures = 0
            # An ended program may stay so for long; the log of a starting one is needed soon.
            ended = has_log and self.position.nanoseconds == before
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if ended else PAUSE_SECONDS
            await asyncio.sleep(pause)

    def _has_read(self) -> bool:
        # A method, because a type checker assumes that reading does not change the attribute.
        return self.position.nanoseconds > 0

    async def report(self, error: PilothouseError) -> None:
        """Puts the reason why the log is not read, unless it is the one reported last."""
        if self._reported != error.message:
            self._reported = error.message
            await self.put(
                Problem(self.container.name, self.pod.name, self.program, error.reason, error.message)
            )

    async def _try_to_read(
        self,
        *,
        tail_lines: int | None = None,
        follow: bool = False,
        previous: bool = False,
        shown: bool = True,
    ) -> bool:
        """Reads a log that may not exist; returns whether it does.

        Raises:
            _GoneError: the pod was deleted.
            Unavailable: the cluster does not respond.
        """
        try:
            await self._read(tail_lines=tail_lines, follow=follow, previous=previous, shown=shown)
        except NotFound as error:
            raise _GoneError from error
        except Refused as error:
            # A container that waits to start has no log yet; `follow` tries again.
            if not previous:
                await self.report(self._caller_error(error))
            return False
        except ClusterError as error:
            raise self._caller_error(error) from None
        return True

    async def _read(
        self,
        *,
        tail_lines: int | None = None,
        follow: bool = False,
        previous: bool = False,
        shown: bool = True,
    ) -> None:
        """Reads a log from the position to its end, as it is now. Raises ClusterError."""
        passed = LogPosition(self.position.nanoseconds, self.position.lines)
        end = self.query.end_nanoseconds
        lines = pod_log(
            await self._connected(),
            self.container.kubernetes_namespace,
            self.pod.name,
            container=self.program,
            options=LogOptions(
                follow=follow,
                previous=self.query.previous or previous,
                since_nanoseconds=passed.nanoseconds or None,
                # Sent as an age, because the caller's time is not by the cluster's clock, which may be fast or slow.
                since_seconds=_seconds_ago(self.query.since) if self.query.since else None,
                tail_lines=None if passed.nanoseconds or end is not None else tail_lines,
            ),
        )
        if end is not None:
            lines = _lines_before(lines, end, None if passed.nanoseconds else tail_lines)
        async with contextlib.aclosing(_new_lines(lines, passed)) as reading:
            async for line in reading:
                self.position.advance(line.nanoseconds)
                self._reported = ""
                await self.put(Entry(self.container.name, self.pod.name, self.program, line, shown))

    async def _connected(self) -> ClusterClient:
        try:
            return await self.connect(self.container.cluster_name)
        except ClusterError as error:
            raise self._caller_error(error) from None

    def _caller_error(self, error: ClusterError) -> PilothouseError:
        found = caller_error(error, self.container.cluster_name)
        names, program = program_names(self.container), self.program
        if program not in names and isinstance(error, Refused):
            # Checked only after the request failed, because a pod of an older template may have the program.
            words = f'container "{self.container.name}" has no program "{program}": it has {", ".join(names)}'
            return FailedPrecondition(words, reason=found.reason, metadata=found.metadata)
        return found


async def _new_lines(
    lines: AsyncGenerator[LogLine, None], passed: LogPosition
) -> AsyncGenerator[LogLine, None]:
    """Yields the lines after the position."""
    same_moment = passed.lines
    async with contextlib.aclosing(lines) as reading:
        async for line in reading:
            if line.nanoseconds < passed.nanoseconds:
                continue
            if line.nanoseconds == passed.nanoseconds and same_moment:
                same_moment -= 1
                continue
            yield line


async def _lines_before(
    lines: AsyncGenerator[LogLine, None], end_nanoseconds: int, most: int | None
) -> AsyncGenerator[LogLine, None]:
    """Yields the lines before a time; with `most`, only the last ones, as far as `_MOST_BYTES_BEFORE` allows."""
    kept, size = deque[LogLine](), 0
    async with contextlib.aclosing(lines) as reading:
        async for line in reading:
            if line.nanoseconds >= end_nanoseconds:
                break
            if most is None:
                yield line
                continue
            kept.append(line)
            size += len(line.text)
            while len(kept) > most or size > _MOST_BYTES_BEFORE:
                size -= len(kept.popleft().text)
    for line in kept:
        yield line


class _GoneError(Exception):
    """The pod of a log was deleted."""


def _seconds_ago(moment: datetime) -> int:
    """Returns the age of a time in whole seconds, rounded up."""
    return ceil(datetime.now(UTC).timestamp() - floor(moment.timestamp()))


def caller_error(error: ClusterError, cluster: str) -> PilothouseError:
    """Returns the caller's error for a cluster's failure.

    It is UNAVAILABLE if the cluster is not available, or else FAILED_PRECONDITION with the cluster's message.
    """
    return unavailability(error, cluster) or FailedPrecondition(
        words(error, cluster),
        reason="CLUSTER_REFUSED",
        metadata={"cluster": cluster},
    )
