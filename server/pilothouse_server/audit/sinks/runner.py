"""Sends the log to its sinks. Leases decide which server serves which sink.

Each server looks for a sink with pending records and without a holder, leases it, and sends batch after batch in the
order of the log until no records have been pending for a while. After the sink has acknowledged a batch, the cursor
moves, by a statement that writes nothing if the lease is lost. So a kill at any time loses nothing: the next holder
sends again the records that were not acknowledged, and those that were acknowledged before the cursor moved.

A sink that fails is released with the time of its next attempt, at most a minute away. It then uses no memory,
connection or task of any server; only its lag grows. No resource of the database is held while a server waits for a
sink.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import structlog
from prometheus_client import Counter, Gauge

from pilothouse_server.audit.sinks import repository
from pilothouse_server.audit.sinks.model import AuditSink, LeasedSink, Record, SinkSecrets
from pilothouse_server.audit.sinks.operations import opened
from pilothouse_server.audit.sinks.senders import Sender, SinkFailed
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.errors import PilothouseError
from pilothouse_server.runtime.backoff import backoff_seconds
from pilothouse_server.runtime.tasks import cancel_and_wait, uncancelled
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

LEASE_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_GAUGE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
# A sink without pending records for this long is released, so that servers share the work again.
_IDLE_SECONDS = 30.0
MOST_RECORDS = 200
_MOST_BYTES = 512 * 1024
# Records that are encoded before other tasks run.
_AT_ONCE = 20

LAG = Gauge("pilothouse_audit_sink_lag_records", "Records that a sink has still to be sent.", ("sink",))
OLDEST = Gauge(
    "pilothouse_audit_sink_oldest_seconds",
    "Age of the oldest record that a sink has still to be sent.",
    ("sink",),
)
SENT = Counter("pilothouse_audit_sink_records_total", "Records that a sink has acknowledged.", ("sink",))
FAILURES = Counter("pilothouse_audit_sink_failures_total", "Batches that a sink did not take.", ("sink",))

Encode = Callable[[Record], bytes]
# Creates the sender of a sink and the encoder of its records; raises PilothouseError if its row cannot be used.
MakeSender = Callable[[AuditSink, SinkSecrets], tuple[Sender, Encode]]
# (sequence, seconds) → waits at most so long for records after the sequence; returns whether there are any.
Beyond = Callable[[int, float], Awaitable[bool]]


@dataclass(eq=False, slots=True)
class _Held:
    """A sink that this server leases. `until`: when its lease may have expired, by the event loop's clock."""

    leased: LeasedSink
    until: float
    task: asyncio.Task[None] | None = None
    batch: int = field(default=MOST_RECORDS)


class SinkRunner:
    """The sinks of one server. `beyond` waits for new records; `newest` returns the sequence of the last one."""

    def __init__(
        self,
        store: Store,
        envelopes: Envelopes,
        make_sender: MakeSender,
        beyond: Beyond,
        *,
        newest: Callable[[], int] = lambda: 0,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._lease_seconds = lease_seconds
        self._newest = newest
        self._store = store
        self._envelopes = envelopes
        self._make_sender = make_sender
        self._beyond = beyond
        self._owner = f"sinks/{uuid4()}"
        self._held: dict[int, _Held] = {}
        self._shown: set[str] = set()

    async def run(self) -> None:
        """Runs until cancelled, then releases its sinks."""
        loop = asyncio.get_running_loop()
        renewed = shown = loop.time() - _GAUGE_SECONDS
        away = False
        try:
            while True:
                newest = self._newest()
                try:
                    await self._take_one()
                    if self._held and loop.time() >= renewed + self._lease_seconds / 4:
                        await self._renew()
                        renewed = loop.time()
                    if loop.time() >= shown + _GAUGE_SECONDS:
                        await self._show()
                        shown = loop.time()
                    away = False
                except PilothouseError as error:
                    # The database is unavailable; leases expire unless it is available again before.
                    if not away:
                        log.warning("sinks of the audit log wait for the database", reason=error.reason)
                    away = True
                await self._end_overdue()
                await asyncio.sleep(min(_LOOK_SECONDS, self._lease_seconds / 4))
                if not (self._held or self._shown):
                    # There is no sink, and creating one writes a record. So an idle server rarely queries for sinks.
                    await self._beyond(newest, _GAUGE_SECONDS)
        finally:
            await uncancelled(self._close())

    async def have(self, sequence: int) -> bool:
        """Returns whether every required sink has the records up to a sequence of the log. Raises Unavailable."""
        async with self._store.system_look() as transaction:
            return await repository.required_have(transaction, sequence)

    async def _close(self) -> None:
        """Ends the work and releases the sinks immediately."""
        for held in list(self._held.values()):
            if held.task is not None:
                await cancel_and_wait(held.task)
            try:
                await self._let_go(held)
            except PilothouseError:
                # The lease then expires.
                return

    async def _take_one(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lease_seconds
        async with self._store.system_look() as transaction:
            taken = await repository.take(transaction, self._owner, self._lease_seconds)
        if taken is None:
            return
        leased, sealed = taken
        if leased.beyond:
            # Otherwise all new records up to the cursor would be skipped silently.
            await self._fail(
                _Held(leased, until),
                SinkFailed(
                    "BEYOND_THE_LOG",
                    (
                        f"its cursor is at {leased.sink.position}, beyond the end of the log: delete the "
                        "sink, and create it again after the last record that it received"
                    ),
                ),
            )
            return
        held = self._held[leased.sink.id] = _Held(leased, until)
        try:
            if sealed is not None:
                await self._envelopes.at_hand(sealed)
            sender, encode = self._make_sender(leased.sink, opened(leased.sink, sealed, self._envelopes))
        except PilothouseError as error:
            del self._held[leased.sink.id]
            await self._fail(held, SinkFailed(error.reason, error.message))
            return
        held.task = asyncio.create_task(self._serve(held, sender, encode), name=f"sink {leased.sink.name}")

    async def _renew(self) -> None:
        until = asyncio.get_running_loop().time() + self._lease_seconds
        async with self._store.system_look() as transaction:
            epochs = await repository.renew(transaction, self._owner, list(self._held), self._lease_seconds)
        for sink_id, held in self._held.items():
            # A sink that was deleted, or that another server holds, is ended.
            held.until = until if epochs.get(sink_id) == held.leased.epoch else 0.0

    async def _end_overdue(self) -> None:
        now = asyncio.get_running_loop().time()
        for held in [each for each in self._held.values() if each.until <= now]:
            if held.task is not None:
                await cancel_and_wait(held.task)

    async def _serve(self, held: _Held, sender: Sender, encode: Encode) -> None:
        """Sends until the lease is lost, the sink fails, or no records have been pending for a while."""
        leased = held.leased
        try:
            while await self._next_batch(held, sender, encode):
                pass
            await self._let_go(held)
        except SinkFailed as error:
            await self._fail(held, error)
        except Exception as error:  # noqa: BLE001 - a fault of one sink must not end the others
            reason = error.reason if isinstance(error, PilothouseError) else type(error).__name__
            log.error("a sink of the audit log failed", sink=leased.sink.name, error=reason)
            await self._fail(held, SinkFailed("INTERNAL", f"it failed in this server ({reason})"))
        finally:
            # This server may already have taken the sink again.
            if self._held.get(leased.sink.id) is held:
                del self._held[leased.sink.id]
            await sender.close()

    async def _next_batch(self, held: _Held, sender: Sender, encode: Encode) -> bool:
        """Sends one batch and moves the cursor. Returns False once this server no longer serves the sink."""
        sink = held.leased.sink
        async with self._store.system_read() as transaction:
            records = await repository.records_after(transaction, sink.position, held.batch)
        if not records:
            return await self._beyond(sink.position, _IDLE_SECONDS)
        items = await _encoded(records, encode)
        records = records[: len(items)]
        if asyncio.get_running_loop().time() >= held.until:
            return False
        try:
            await sender.send(items)
        except SinkFailed as error:
            if error.too_large and held.batch > 1:
                held.batch = max(1, len(items) // 2)
                return True
            raise
        held.batch = min(MOST_RECORDS, held.batch * 2)
        return await self._acknowledged(held, records)

    async def _acknowledged(self, held: _Held, records: Sequence[Record]) -> bool:
        sink = held.leased.sink
        newest = records[-1].sequence
        # Retention drops records that an optional sink does not have yet. `max`: somebody may have inserted a record
        # twice.
        skipped = max(0, newest - sink.position - len(records))
        async with self._store.system_look() as transaction:
            moved = await repository.acknowledge(transaction, held.leased, self._owner, newest, skipped)
        if moved:
            SENT.labels(sink.name).inc(len(records))
            held.leased = held.leased.moved_to(newest)
        return moved

    async def _fail(self, held: _Held, error: SinkFailed) -> None:
        sink = held.leased.sink
        FAILURES.labels(sink.name).inc()
        if sink.status != "failing":
            log.warning("a sink of the audit log fails", sink=sink.name, reason=error.reason)
        try:
            async with self._store.system_look() as transaction:
                pause = backoff_seconds(sink.attempts + 1, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
                await repository.fail(
                    transaction, held.leased, self._owner, error.reason, error.message, pause
                )
        except PilothouseError:
            # The lease then expires.
            return

    async def _let_go(self, held: _Held) -> None:
        async with self._store.system_look() as transaction:
            await repository.give_up(transaction, held.leased, self._owner)

    async def _show(self) -> None:
        async with self._store.system_look() as transaction:
            names = await repository.names(transaction)
            lags = await repository.find_lags(transaction) if names else {}
        now = datetime.now(UTC)
        for sink_id, (records, oldest) in lags.items():
            name = names.get(sink_id)
            if name is not None:
                LAG.labels(name).set(records)
                OLDEST.labels(name).set(0.0 if oldest is None else max(0.0, (now - oldest).total_seconds()))
        for gone in self._shown - set(names.values()):
            for metric in (LAG, OLDEST, SENT, FAILURES):
                # A metric that was never counted does not exist.
                with suppress(KeyError):
                    metric.remove(gone)
        self._shown = set(names.values())


async def _encoded(records: Sequence[Record], encode: Encode) -> list[bytes]:
    """Returns the records that fit into a batch, at least one, encoded; other tasks run in between."""
    items: list[bytes] = []
    size = 0
    for number, record in enumerate(records, start=1):
        item = encode(record)
        size += len(item)
        if items and size > _MOST_BYTES:
            break
        items.append(item)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return items
