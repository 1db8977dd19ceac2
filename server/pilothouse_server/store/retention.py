"""Old records of the audit log are dropped, and what was dropped stands in the log.

A partition goes whole, or stays: it stays while a sealed head does not cover all of its records, while a sink that is
required has not got them, and while a namespace that it has records of is held (`legal_hold`). Before some go, a record
says which places of the log were in them, with the value of the hash chain at the end of each stretch, and all that was
dropped before: so the newest such record tells retention apart from tampering, also once older ones are dropped
themselves. Hashes of records are not kept in partitions, and stay for ever (`audit_tree`).

Cut off after the record, the partition is still there and goes with the next run: a record that says too much is no
fault.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from prometheus_client import Gauge
from sqlalchemy import text

from pilothouse_server.store.audit_chain import AuditRecord
from pilothouse_server.store.partitions import AUDIT_LOG, Partition, Partitions
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

HELD = Gauge(
    "pilothouse_audit_partitions_held",
    "Partitions of the audit log that are old enough to be dropped, and stay.",
    ("reason",),
)
_TOO_MANY = "too many stretches"
_REASONS = ("not sealed", "a sink lacks records", "legal hold", _TOO_MANY)
# A record of more stretches would be too long.
_MOST_STRETCHES = 1000
# So many of one partition are looked at: those of several that go together may be one stretch.
_MOST_READ = 50_000

# (last sequence of a partition) → whether everybody who has to has the records up to there
Delivered = Callable[[int], Awaitable[bool]]
# First and last place, and the chain's value at the last one in hexadecimal.
Stretch = tuple[int, int, str]

_FACTS = text(
    "SELECT max(l.sequence) AS last, coalesce((SELECT max(s.size) FROM audit_seals AS s), 0) "
    "+ (SELECT t.chain_length - 1 FROM audit_tree AS t WHERE t.id = 1) AS sealed, "
    "bool_or(l.namespace_id IN (SELECT n.id FROM namespaces AS n WHERE n.legal_hold)) AS held "
    "FROM operation_logs AS l WHERE l.started_at >= :lower AND l.started_at < :upper"
)
_STRETCHES = text(
    "SELECT min(i.sequence) AS first, max(i.sequence) AS last, "
    "encode((array_agg(i.chain_hash ORDER BY i.sequence DESC))[1], 'hex') AS chain "
    "FROM (SELECT l.sequence, l.chain_hash, l.sequence - row_number() OVER (ORDER BY l.sequence) AS island "
    "FROM operation_logs AS l WHERE l.started_at >= :lower AND l.started_at < :upper) AS i "
    "GROUP BY i.island ORDER BY 1 LIMIT :most"
)
_BEFORE = text(
    "SELECT l.metadata -> 'dropped' AS dropped FROM operation_logs AS l "
    "WHERE l.action = 'delete' AND l.resource_type = 'audit_log' AND l.user_id IS NULL "
    "ORDER BY l.sequence DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Retention:
    """Drops what is old; `delivered` says of the sinks that are required what they have."""

    store: Store
    partitions: Partitions
    delivered: Delivered

    async def drop_older(self, before: datetime) -> list[str]:
        """Drops the partitions of the log that hold nothing at or after `before`, and that nothing keeps.

        Returns their names, oldest first. Raises as `Partitions.drop_older`.
        """
        held = dict.fromkeys(_REASONS, 0)
        going: list[Partition[datetime]] = []
        for partition in await self.partitions.by_time(AUDIT_LOG.table):
            if partition.upper is None or partition.upper > before or partition.lower is None:
                continue
            reason = await self._kept_by(partition)
            if reason:
                held[reason] += 1
                log.info("a partition of the audit log is kept", partition=partition.name, reason=reason)
            else:
                going.append(partition)
        if not await self._tell(going):
            held[_TOO_MANY] = len(going)
            log.warning("partitions of the audit log are kept", reason=_TOO_MANY, first=going[0].name)
            going = []
        for reason, count in held.items():
            HELD.labels(reason).set(count)
        return await self.partitions.drop_named(AUDIT_LOG, [partition.name for partition in going])

    async def _kept_by(self, partition: Partition[datetime]) -> str:
        """Why a partition stays; '' where it may go."""
        async with self.store.system_read() as transaction:
            facts: Any = (await transaction.connection.execute(_FACTS, _bounds(partition))).one()
        if facts.last is None:
            return ""
        if facts.last > facts.sealed:
            return "not sealed"
        if facts.held:
            return "legal hold"
        return "" if await self.delivered(facts.last) else "a sink lacks records"

    async def _tell(self, going: Sequence[Partition[datetime]]) -> bool:
        """Leaves the record; none for partitions that hold nothing. False where it would be too long."""
        found: list[Stretch] = []
        async with self.store.system_read() as transaction:
            for partition in going:
                rows = await transaction.connection.execute(
                    _STRETCHES, {**_bounds(partition), "most": _MOST_READ}
                )
                stretches: list[Stretch] = [(row.first, row.last, row.chain) for row in rows]
                if len(stretches) == _MOST_READ:
                    return False
                found = merged(found, stretches)
            before = (await transaction.connection.execute(_BEFORE)).scalar_one_or_none() or []
        if not found:
            return True
        dropped = merged([(first, last, chain) for first, last, chain in before], found)
        if len(dropped) > _MOST_STRETCHES:
            return False
        name = going[0].name if len(going) == 1 else f"{going[0].name} to {going[-1].name}"
        now = datetime.now(UTC)
        unit = self.store.system_unit()
        try:
            await unit.begin()
        except BaseException:
            await unit.rollback()
            raise
        await unit.commit(audit=[_record(name, dropped, now)])
        return True


def merged(before: Sequence[Stretch], found: Sequence[Stretch]) -> list[Stretch]:
    """Stretches in order, those that follow on one another or overlap as one."""
    result: list[Stretch] = []
    for first, last, chain in sorted([*before, *found]):
        if result and first <= result[-1][1] + 1:
            begun, ended, value = result[-1]
            result[-1] = (begun, last, chain) if last > ended else (begun, ended, value)
        else:
            result.append((first, last, chain))
    return result


def _bounds(partition: Partition[datetime]) -> dict[str, Any]:
    return {"lower": partition.lower, "upper": partition.upper}


def _record(name: str, dropped: Sequence[Stretch], now: datetime) -> AuditRecord:
    return AuditRecord(
        operation_id=uuid4(),
        user_id=None,
        username="system",
        action="delete",
        resource_type="audit_log",
        resource_id=None,
        resource_name=name,
        namespace_id=None,
        request_method="UNARY",
        request_path="",
        request_body=None,
        request_headers=None,
        client_ip=None,
        user_agent=None,
        status_code=200,
        response_body=None,
        duration_ms=None,
        error_code=None,
        error_message=None,
        started_at=now,
        completed_at=now,
        metadata={"dropped": [list(stretch) for stretch in dropped], "reason": "retention"},
    )
