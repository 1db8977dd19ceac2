"""Drops old records of the audit log, and records which ranges it dropped.

A partition is dropped completely or kept. It is kept while no sealed head covers all of its records, while a required
sink lacks some of them, while it has records of a namespace under legal hold, and if a record differs from the tree.
Otherwise somebody could backdate a record to have it dropped together with the evidence.

Before partitions are dropped, a record lists their ranges of the log, and all ranges that were dropped before. So the
newest such record distinguishes retention from tampering, even after older ones are dropped. The keys of the log sign
it, so that nobody else can write one, and it is written again when another key signs. The hashes of records are not in
partitions and stay permanently (`audit_tree`).

If the server ends after the record was written, the next run drops the partition: a record that lists too much is not
a fault.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from prometheus_client import Gauge

from pilothouse_server.audit import repository
from pilothouse_server.audit.dropping import Dropping
from pilothouse_server.audit.repository import Stretch
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.partitions import AUDIT_LOG, Partition, Partitions
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

HELD = Gauge(
    "pilothouse_audit_partitions_held",
    "Partitions of the audit log that are old enough to be dropped, but are kept.",
    ("reason",),
)
_TOO_MANY = "too many stretches"
_NOT_INTACT = "not intact"
_REASONS = ("not sealed", "a sink lacks records", "legal hold", _TOO_MANY, _NOT_INTACT)
# A record of more ranges would be too long.
_MOST_STRETCHES = 1000
# The most ranges that are read of one partition; ranges of adjacent partitions may be joined.
_MOST_READ = 50_000

# (last sequence of a partition) → whether every required sink has the records up to there
Delivered = Callable[[int], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Retention:
    """Drops old records; `delivered` returns whether the required sinks have acknowledged the log up to a sequence."""

    store: Store
    partitions: Partitions
    delivered: Delivered
    audit_log: Dropping

    async def drop_older(self, before: datetime) -> list[str]:
        """Drops the partitions of the log without records at or after `before`, unless they must be kept.

        Returns their names, oldest first. Raises as `Partitions.drop_older`.
        """
        held = dict.fromkeys(_REASONS, 0)
        going: list[tuple[str, list[Stretch]]] = []
        for partition in await self.partitions.by_time(AUDIT_LOG.table):
            if partition.upper is None or partition.upper > before or partition.lower is None:
                continue
            reason = await self._kept_by(await self._facts(partition))
            found = [] if reason else await self._stretches(partition)
            if reason := reason or await self._unverified(found):
                held[reason] += 1
                log.info("a partition of the audit log is kept", partition=partition.name, reason=reason)
            else:
                going.append((partition.name, found))
        if not await self._tell(going):
            held[_TOO_MANY] = len(going)
            log.warning("partitions of the audit log are kept", reason=_TOO_MANY, first=going[0][0])
            going = []
        for reason, count in held.items():
            HELD.labels(reason).set(count)
        return await self.partitions.drop_named(AUDIT_LOG, [name for name, _ in going])

    async def _facts(self, partition: Partition[datetime]) -> Any:
        """Returns the facts about the records of a partition that decide whether it is kept."""
        async with self.store.system_read() as transaction:
            return await repository.partition_facts(transaction, _bounds(partition))

    async def _kept_by(self, facts: Any) -> str:
        """Returns why a partition is kept; '' if it may be dropped."""
        if facts.last is None:
            return ""
        if facts.last > facts.sealed:
            return "not sealed"
        if facts.held:
            return "legal hold"
        return "" if await self.delivered(facts.last) else "a sink lacks records"

    async def _stretches(self, partition: Partition[datetime]) -> list[Stretch]:
        """Returns the ranges of the log that a partition contains."""
        async with self.store.system_read() as transaction:
            return await repository.stretches(transaction, _bounds(partition), _MOST_READ)

    async def _unverified(self, found: Sequence[Stretch]) -> str:
        """Returns why records are unverified, and so kept; '' if they may be dropped."""
        if len(found) == _MOST_READ:
            return _TOO_MANY
        return "" if await self.audit_log.intact(found) else _NOT_INTACT

    async def _tell(self, going: Sequence[tuple[str, Sequence[Stretch]]]) -> bool:
        """Writes the record, unless it would add nothing. Returns False if it would be too long."""
        found: list[Stretch] = []
        for _, stretches in going:
            found = merged(found, stretches)
        dropped, by_all = await self._recorded_drops()
        if not found and (by_all or not dropped):
            return True
        dropped = merged(dropped, found)
        if len(dropped) > _MOST_STRETCHES:
            return False
        names = [name for name, _ in going]
        name = " to ".join(dict.fromkeys([*names[:1], *names[-1:]])) or None
        record = _record(name, dropped, await self.audit_log.sign(dropped), datetime.now(UTC))
        unit = self.store.system_unit()
        try:
            await unit.begin()
        except BaseException:
            await unit.rollback()
            raise
        await unit.commit(audit=[record])
        return True

    async def _recorded_drops(self) -> tuple[list[Stretch], bool]:
        """Returns the dropped ranges of the newest record that the log has signed, and whether every present key has
        signed it.
        """
        async with self.store.system_read() as transaction:
            told = list(await repository.drop_records(transaction))
        for metadata in told:
            by_one, by_all = await self.audit_log.signed(metadata)
            if by_one:
                return [(first, last) for first, last in metadata["dropped"]], by_all
        return [], True


def merged(before: Sequence[Stretch], found: Sequence[Stretch]) -> list[Stretch]:
    """Returns ranges in order; adjacent and overlapping ones are joined."""
    result: list[Stretch] = []
    for first, last in sorted([*before, *found]):
        if result and first <= result[-1][1] + 1:
            begun, ended = result[-1]
            result[-1] = (begun, max(last, ended))
        else:
            result.append((first, last))
    return result


def _bounds(partition: Partition[datetime]) -> dict[str, Any]:
    return {"lower": partition.lower, "upper": partition.upper}


def _record(name: str | None, dropped: Sequence[Stretch], signatures: str, now: datetime) -> AuditRecord:
    return AuditRecord(
        operation_id=uuid4(),
        username="system",
        action="delete",
        resource_type="audit_log",
        resource_name=name,
        status_code=200,
        started_at=now,
        completed_at=now,
        metadata={
            "dropped": [list(stretch) for stretch in dropped],
            "signatures": signatures,
            "reason": "retention",
        },
    )
