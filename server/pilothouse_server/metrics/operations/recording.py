"""Records samples from other programs. Each sample is accepted or refused independently.

Names are resolved under the caller's own row-level security, so no caller can record for containers outside their
scope. Only the write uses the system role. One batch is written while the next one is gathered. More is not buffered: a
sender that is faster than the database waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from pilothouse_server.authorization.access import Principal
from pilothouse_server.metrics.model import TimeRange, UsageSample, UsageTarget
from pilothouse_server.metrics.operations.storing import BATCH_SAMPLES, UsageStore, problem
from pilothouse_server.metrics.repository import samples
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.unit_of_work import ReadTransaction

PERMISSION: Final = "metrics.record"
CONTAINER_NOT_FOUND: Final = "CONTAINER_NOT_FOUND"
PERMISSION_DENIED: Final = "PERMISSION_DENIED"
INVALID_SAMPLE: Final = "INVALID_SAMPLE"
TIMESTAMP_OUT_OF_RANGE: Final = "TIMESTAMP_OUT_OF_RANGE"
# Seconds for which a name is resolved to the same container. If the container is recreated within this time, its
# samples are refused instead of being recorded for the old one.
_TARGET_SECONDS = 10.0
# Number of samples to check before yielding to the event loop.
_AT_ONCE = 100

Name = tuple[str, str]
Number = TypeVar("Number", int, float)


class Recording(msgspec.Struct):
    """A sample as its sender names it; `sample.container_id` and `.namespace_id` are not set yet.

    `sample`: None if the message is malformed; `fault` is then the reason.
    """

    namespace: str
    container: str
    timestamp: datetime | None
    sample: UsageSample | None
    fault: str = ""


@dataclass(slots=True)
class RefusedSample:
    """Samples refused for one reason; `example` has the index of the first one and its fault."""

    reason: str
    example: str
    count: int = 0


@dataclass(slots=True)
class RecordingReport:
    """The number of accepted samples, and the refused samples by reason."""

    accepted: int = 0
    refusals: dict[str, RefusedSample] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """The number of refused samples, for all reasons."""
        return sum(refusal.count for refusal in self.refusals.values())

    def refuse(self, reason: str, example: str, count: int = 1) -> None:
        """Counts samples as refused; keeps the first example of each reason."""
        if count:
            self.refusals.setdefault(reason, RefusedSample(reason, example)).count += count


class Recorder:
    """Records the samples of one stream. Permissions of `caller` are checked per batch, because grants may change.

    Every method raises the error of storing the previous batch.
    """

    def __init__(
        self,
        usage: UsageStore,
        reading: Callable[[], AbstractAsyncContextManager[ReadTransaction]],
        caller: Callable[[], Principal],
    ) -> None:
        self.report = RecordingReport()
        self._usage = usage
        self._reading = reading
        self._caller = caller
        self._buffer: list[tuple[int, Recording]] = []
        self._received = 0
        self._writing: asyncio.Task[None] | None = None
        self._targets: dict[Name, UsageTarget] = {}
        self._targets_read_at = 0.0

    @property
    def gathered(self) -> int:
        """The number of samples that wait until their batch is full."""
        return len(self._buffer)

    async def add(self, recordings: Sequence[Recording]) -> None:
        """Adds samples; waits while one batch is written and the next one is full."""
        self._buffer += enumerate(recordings, self._received)
        self._received += len(recordings)
        while len(self._buffer) >= BATCH_SAMPLES:
            batch, self._buffer = self._buffer[:BATCH_SAMPLES], self._buffer[BATCH_SAMPLES:]
            await self._begin(batch)

    async def flush(self) -> None:
        """Returns once all added samples are stored or refused."""
        batch, self._buffer = self._buffer, []
        await self._begin(batch)
        await self._settle()

    async def close(self) -> None:
        """Drops samples that are not stored yet; has no effect after `flush`."""
        if self._writing is not None:
            await cancel_and_wait(self._writing)

    async def _begin(self, batch: list[tuple[int, Recording]]) -> None:
        await self._settle()
        if batch:
            self._writing = asyncio.create_task(self._write(batch))

    async def _settle(self) -> None:
        if self._writing is not None:
            await self._writing
            self._writing = None

    async def _write(self, batch: list[tuple[int, Recording]]) -> None:
        principal = self._caller()
        named = [item for _, item in batch if item.sample is not None]
        targets = await self._find({(item.namespace, item.container) for item in named})
        range_ = await self._usage.time_range()
        allowed = {
            namespace: principal.allows(PERMISSION, namespace)
            for namespace in {item.namespace for item in named}
            if principal.reaches(namespace)
        }
        samples: list[UsageSample] = []
        share = Share()
        for place, item in batch:
            if place % _AT_ONCE == 0:
                await share.used()
            target = targets.get((item.namespace, item.container))
            fault = _fault(item, target, allowed.get(item.namespace), range_)
            if fault is not None:
                self.report.refuse(fault[0], f"sample {place}: {fault[1]}")
            elif target is not None and item.sample is not None:
                samples.append(_bound(item.sample, target))
        if samples:
            stored = await self._usage.record(samples)
            self.report.accepted += stored.stored + stored.repeated
            self.report.refuse(CONTAINER_NOT_FOUND, "its container was deleted during the call", stored.gone)
            self.report.refuse(
                TIMESTAMP_OUT_OF_RANGE, "samples of its day are no longer stored", stored.out_of_range
            )

    async def _find(self, names: set[Name]) -> dict[Name, UsageTarget]:
        now = time.monotonic()
        if now - self._targets_read_at > _TARGET_SECONDS:
            self._targets.clear()
            self._targets_read_at = now
        unknown = [name for name in names if name not in self._targets]
        if unknown:
            async with self._reading() as transaction:
                self._targets |= await samples.find_targets(transaction, unknown)
        return self._targets


def _fault(
    item: Recording, target: UsageTarget | None, allowed: bool | None, range_: TimeRange
) -> tuple[str, str] | None:
    """Returns why a sample cannot be stored: reason and message. `allowed`: None if its namespace is out of scope."""
    if item.sample is None:
        return INVALID_SAMPLE, item.fault
    if item.timestamp is None:
        return INVALID_SAMPLE, "timestamp must be set"
    if figures := problem(item.sample):
        return INVALID_SAMPLE, figures
    if allowed is False:
        return PERMISSION_DENIED, f"permission {PERMISSION} is needed in namespace {_quoted(item.namespace)}"
    if target is None or allowed is None:
        name = f"{_quoted(item.container)} in namespace {_quoted(item.namespace)}"
        return CONTAINER_NOT_FOUND, f"container {name} not found"
    if not range_.holds(item.timestamp):
        return (
            TIMESTAMP_OUT_OF_RANGE,
            f"timestamp must be from {range_.oldest:%Y-%m-%dT%H:%M:%SZ} on, and at most five minutes ahead",
        )
    return None


def _quoted(name: str) -> str:
    """Returns an unchecked name in a form that can be shown."""
    return f'"{name[:63]}"' if name.isprintable() else "(a malformed name)"


def _bound(sample: UsageSample, target: UsageTarget) -> UsageSample:
    """Returns the sample with its container; missing requests and limits are those of the container."""
    return msgspec.structs.replace(
        sample,
        container_id=target.container_id,
        namespace_id=target.namespace_id,
        cpu_cores_request=_first(sample.cpu_cores_request, target.cpu_cores_request),
        cpu_cores_limit=_first(sample.cpu_cores_limit, target.cpu_cores_limit),
        memory_bytes_request=_first(sample.memory_bytes_request, target.memory_bytes_request),
        memory_bytes_limit=_first(sample.memory_bytes_limit, target.memory_bytes_limit),
    )


def _first(said: Number | None, otherwise: Number | None) -> Number | None:
    return otherwise if said is None else said
