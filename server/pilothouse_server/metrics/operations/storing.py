"""Stores samples in the database: batches, samples that cannot be stored, and a buffer for outages.

A batch is stored completely or not at all. Samples with faults that are known beforehand are left out of it: invalid
numbers, and times without a partition. Other faults are known only to the database, for example a container that was
just deleted. The database then refuses the batch, which is written again with the `careful` statement. No fault
prevents the other samples of the batch from being stored. Samples that are left out are counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter

from pilothouse_server.errors import Aborted, PilothouseError, Unavailable
from pilothouse_server.metrics.model import Stored, TimeRange, UsageSample
from pilothouse_server.metrics.operations import roll_ups
from pilothouse_server.metrics.repository import series
from pilothouse_server.metrics.repository.samples import insert as insert_samples
from pilothouse_server.metrics.repository.samples import time_range
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

BATCH_SAMPLES: Final = 5000
PENDING_SAMPLES: Final = 50_000
# The maximum clock skew. A sample from the future would count as the newest one until that time.
AHEAD: Final = timedelta(minutes=5)
# The limits of the columns.
MOST_CORES: Final = 999_999
_MOST_COUNT: Final = 2**63 - 1
_CORES = tuple(name for name in UsageSample.__struct_fields__ if name.startswith("cpu_cores"))
_COUNTS = tuple(
    name for name in UsageSample.__struct_fields__ if name.startswith(("memory", "network", "disk", "file"))
)
_RANGE_SECONDS = 30.0
_ATTEMPTS = 4

STORED = Counter("pilothouse_usage_samples_stored_total", "Usage samples stored.")
DROPPED = Counter(
    "pilothouse_usage_samples_dropped_total", "Usage samples that were not stored.", ("reason",)
)


class UsageStore:
    """Stores samples as the system role. A server has one, to which the collector passes its samples."""

    def __init__(self, store: Store, *, pending_samples: int = PENDING_SAMPLES) -> None:
        self._store = store
        self._pending: deque[UsageSample] = deque()
        self._pending_samples = pending_samples
        self._flushing = asyncio.Lock()
        # Whether the first pending batch may have been stored although its commit was not confirmed.
        self._uncertain = False
        self._range: TimeRange | None = None
        self._range_read_at = 0.0

    @property
    def pending(self) -> int:
        """The number of samples that wait for the database."""
        return len(self._pending)

    async def store(self, samples: Sequence[UsageSample]) -> None:
        """Stores samples, after those that were buffered while the database was unreachable.

        Samples of containers that were deleted, or of times that are not stored, are left out and counted.

        Raises:
            PilothouseError: the database cannot store them now. Up to `pending_samples` samples wait for the next call;
                beyond that the oldest are dropped and counted.
        """
        sound = [sample async for sample in cooperatively(samples) if not problem(sample)]
        if len(sound) < len(samples):
            DROPPED.labels("invalid").inc(len(samples) - len(sound))
        self._pending.extend(sound)
        excess = len(self._pending) - self._pending_samples
        if excess > 0:
            for _ in range(excess):
                self._pending.popleft()
            DROPPED.labels("buffer_full").inc(excess)
            log.warning("usage samples dropped: the database cannot store them", samples=excess)
        async with self._flushing:
            while self._pending:
                await self._flush()

    async def _flush(self) -> None:
        batch = [self._pending.popleft() for _ in range(min(BATCH_SAMPLES, len(self._pending)))]
        try:
            await self.write(batch, again=self._uncertain)
        except PilothouseError:
            self._pending.extendleft(reversed(batch))
            self._uncertain = True
            raise
        except Exception:
            DROPPED.labels("fault").inc(len(batch))
            raise
        self._uncertain = False

    async def record(self, samples: Sequence[UsageSample]) -> Stored:
        """Stores one batch of at most `BATCH_SAMPLES`; samples may have been stored before, or be in it twice.

        For each container and time the first sample is stored. Raises as `write`.
        """
        once = {(sample.container_id, sample.timestamp): sample for sample in reversed(samples)}
        stored = await self.write(list(reversed(once.values())), again=True)
        return msgspec.structs.replace(stored, repeated=stored.repeated + len(samples) - len(once))

    async def write(self, samples: Sequence[UsageSample], *, again: bool = False) -> Stored:
        """Stores one batch of at most `BATCH_SAMPLES` in one transaction.

        `again` leaves out samples that are stored already.

        Raises:
            Unavailable: the database is unreachable, or containers are created and deleted faster than the batch is
                written.
        """
        asked = len(samples)
        for attempt in range(_ATTEMPTS):
            range_ = await self.time_range(anew=attempt > 0)
            samples = [sample for sample in samples if range_.holds(sample.timestamp)]
            if not samples:
                return _counted(Stored(out_of_range=asked))
            try:
                stored = await self._write(samples, careful=attempt > 0, again=again)
            except Aborted as error:
                log.debug("batch of samples refused", reason=error.reason, attempt=attempt)
                continue
            return _counted(msgspec.structs.replace(stored, out_of_range=asked - len(samples)))
        raise Unavailable(
            "containers changed while usage was stored; retry",
            reason="USAGE_CONTENTION",
            retry_after_seconds=1.0,
        )

    async def _write(self, samples: Sequence[UsageSample], *, careful: bool, again: bool) -> Stored:
        async with self._store.system_write("usage") as transaction:
            late = roll_ups.reaches_back(transaction, samples)
            if late:
                await series.lock_roll_ups(transaction)
            stored = await insert_samples(transaction, samples, careful=careful, again=again)
            if late:
                await roll_ups.repair(transaction, samples)
        return stored

    async def time_range(self, *, anew: bool = False) -> TimeRange:
        """Returns the times for which samples can be stored now.

        Raises:
            Unavailable: the database is unreachable, or has no partition for the current time.
        """
        now = time.monotonic()
        if anew or self._range is None or now - self._range_read_at > _RANGE_SECONDS:
            async with self._store.system_read() as transaction:
                found = await time_range(transaction)
                if found is None:
                    raise Unavailable(
                        "the database has no partition for samples of today, try again",
                        reason="USAGE_PARTITION_MISSING",
                        retry_after_seconds=10.0,
                    )
                self._range = TimeRange(found.oldest, min(found.newest, transaction.now + AHEAD))
                self._range_read_at = now
        return self._range


def problem(sample: UsageSample) -> str:
    """Returns the fault in the numbers of a sample; '' if there is none."""
    for name in _CORES:
        cores: float | None = getattr(sample, name)
        if cores is not None and not 0 <= cores <= MOST_CORES:
            return f"{name} must be from 0 to {MOST_CORES}"
    for name in _COUNTS:
        count: int | None = getattr(sample, name)
        if count is not None and not 0 <= count <= _MOST_COUNT:
            return f"{name} must be from 0 to {_MOST_COUNT}"
    return ""


def _counted(stored: Stored) -> Stored:
    STORED.inc(stored.stored)
    for reason, count in (("container_gone", stored.gone), ("out_of_range", stored.out_of_range)):
        if count:
            DROPPED.labels(reason).inc(count)
    return stored
