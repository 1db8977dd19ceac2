"""Writes audit records that belong to no other transaction.

These are reads, denials, failures, log-ins and streams.

One task writes the gathered records, one batch in each transaction, so that a thousand reads a second do not
take the stream head's lock a thousand times. A read does not wait for its record (a kill loses at most the
records of a second). A call that must not return without its record uses `write`, which waits until the batch
with the record is committed. The queue is bounded: if it is full, a read's record is lost, and a call that must
be recorded fails. While the database is unreachable the records of reads stay in the queue, in their order, and
are written later. Lost records are counted in `lost`, and exported as a metric.

A batch that the database refuses is written again record by record, so that one record that cannot be stored
does not prevent the others. A batch that failed because of a concurrent change (a deadlock) is written again as
it is. A batch that has begun is finished even if tasks are cancelled, and `close` waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog
from prometheus_client import Counter

from pilothouse_server.errors import Aborted, PilothouseError, Unavailable
from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

LOST = Counter("pilothouse_audit_records_lost_total", "Audit records that could not be written.")

_BATCH = 256
# The pause between two attempts while the database is unreachable.
_AWAY_SECONDS = 0.5
_GATHER_SECONDS = 0.1
_ATTEMPTS = 5

_Waiting = tuple[AuditRecord, asyncio.Future[None] | None]


class AuditWriter:
    """The one writer of a server.

    `run` is its task; `close` writes the remaining records.
    """

    def __init__(self, store: Store, *, capacity: int = 20_000) -> None:
        self._store = store
        self._capacity = capacity
        self._waiting: deque[_Waiting] = deque()
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._closing = False
        # Whether the database was unreachable for the last batch.
        self._away = False
        self.lost = 0

    def submit(self, record: AuditRecord) -> None:
        """Hands over the record of a plain read; it is written within a second."""
        if len(self._waiting) >= self._capacity or self._closing:
            self._count_lost()
            return
        self._waiting.append((record, None))
        self._wake.set()

    async def write(self, record: AuditRecord) -> None:
        """Returns when the record is committed.

        Raises:
            Unavailable: the record could not be written; the call must fail.
        """
        if len(self._waiting) >= self._capacity or self._closing:
            raise _unwritten()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        self._wake.set()
        self._urgent.set()
        await done

    async def run(self) -> None:
        """Writes batches until cancelled."""
        while True:
            await self._wake.wait()
            if not self._urgent.is_set():
                try:
                    async with asyncio.timeout(_GATHER_SECONDS):
                        await self._urgent.wait()
                except TimeoutError:
                    pass
            await self._flush()
            if self._away:
                await asyncio.sleep(_AWAY_SECONDS)

    async def close(self) -> None:
        """Writes the remaining records; called when no call is in flight any more."""
        self._closing = True
        while self._waiting:
            await self._flush()
        async with self._writing:
            return

    async def _flush(self) -> None:
        await uncancelled(self._write_batch())

    async def _write_batch(self) -> None:
        async with self._writing:
            await self._write_next()

    async def _write_next(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        if not self._waiting:
            self._wake.clear()
            self._urgent.clear()
        if batch:
            await self._keep(batch)

    async def _keep(self, batch: list[_Waiting], attempts: int = _ATTEMPTS) -> None:
        try:
            await self._append([record for record, _ in batch])
        except Aborted as error:
            if attempts > 1:
                await self._keep(batch, attempts - 1)
            else:
                self._give_up(batch, error)
        except Unavailable as error:
            self._postpone(batch, error)
        except Exception as error:  # noqa: BLE001 - the writer outlives every batch; its calls get the error
            if len(batch) == 1:
                self._give_up(batch, error)
                return
            for one in batch:
                await self._keep([one])
        else:
            self._away = False
            for _, done in batch:
                if done is not None and not done.done():
                    done.set_result(None)

    async def _append(self, records: list[AuditRecord]) -> None:
        unit = self._store.system_unit()
        try:
            await unit.begin()
        except BaseException:
            await unit.rollback()
            raise
        await unit.commit(audit=records)

    def _postpone(self, batch: list[_Waiting], error: Unavailable) -> None:
        """Fails the calls that wait for their records.

        It queues the records of reads again, if there is room.
        """
        calls = [each for each in batch if each[1] is not None]
        reads = [each for each in batch if each[1] is None]
        room = 0 if self._closing else max(0, self._capacity - len(self._waiting))
        self._give_up([*calls, *reads[room:]], error)
        self._waiting.extendleft(reversed(reads[:room]))
        self._away = True
        if self._waiting:
            self._wake.set()

    def _give_up(self, batch: list[_Waiting], error: Exception) -> None:
        if not batch:
            return
        why = (
            {"reason": error.reason}
            if isinstance(error, PilothouseError)
            else {"error": type(error).__name__}
        )
        log.error("audit records not written", count=len(batch), **why)
        for _, done in batch:
            self._count_lost()
            if done is not None and not done.done():
                done.set_exception(_unwritten())

    def _count_lost(self) -> None:
        self.lost += 1
        LOST.inc()


def _unwritten() -> Unavailable:
    return Unavailable(
        "the audit record cannot be written, so the call is refused; try again",
        reason="AUDIT_UNAVAILABLE",
        retry_after_seconds=1.0,
    )
