"""All SQL about sinks of the audit log: their rows, leases and cursors, and the records that are sent to them.

The runner acts as the system role, and each of its statements is a transaction of its own. A lease is free if it has
expired, or if its end is so far in the future that the database's clock must have been set back since it was written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, text, update

from pilothouse_server.audit.sinks.model import AuditSink, LeasedSink, Record
from pilothouse_server.audit.sinks.tables import AUDIT_SINKS
from pilothouse_server.encryption.envelopes import Sealed
from pilothouse_server.errors import already_exists
from pilothouse_server.store import audit_records
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import FilterField, FilterKind, compile_filter, filter_fields
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.references import creator
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

register_constraint("uq_audit_sinks_name", lambda: already_exists("audit sink", "of this name"))
register_constraint("uq_audit_sinks_file", lambda: already_exists("audit sink", "that writes this file"))

_SINKS = AUDIT_SINKS.c
_SECRET = ("secrets", "data_key", "key_id")
_SHOWN = [column for column in _SINKS if column.name not in _SECRET]
_WORDS = {
    "kind": ("file", "http", "syslog", "otlp"),
    "format": ("ocsf", "cloudevents"),
    "status": ("pending", "healthy", "failing"),
}
_FILTERS = {
    "skipped_records": FilterField(_SINKS.skipped, FilterKind.INTEGER),
    "last_delivered_time": FilterField(_SINKS.last_delivered_at, FilterKind.TIMESTAMP),
    **filter_fields(
        AUDIT_SINKS, "name address required reason message position uid failing_since create_time"
    ),
    **{
        name: FilterField(
            _SINKS[name],
            FilterKind.ENUM,
            {word.upper(): word for word in words},
            f"AUDIT_SINK_{name.upper()}_",
        )
        for name, words in _WORDS.items()
    },
}
_ORDERS = {"name": OrderField(_SINKS.name), "create_time": OrderField(_SINKS.created_at)}

_LAGS = text("""
SELECT s.id, greatest(h.audit_sequence - s.position, 0) AS lag_records, o.started_at AS oldest_pending_at
FROM audit_sinks AS s CROSS JOIN stream_head AS h
LEFT JOIN LATERAL (SELECT l.started_at FROM operation_logs AS l WHERE l.sequence > s.position
                   ORDER BY l.sequence LIMIT 1) AS o ON h.audit_sequence > s.position
WHERE h.id = 1 AND (CAST(:ids AS bigint[]) IS NULL OR s.id = ANY (CAST(:ids AS bigint[])))
""")
_FAR_AHEAD = "interval '5 minutes'"
_TAKE = text(f"""
UPDATE audit_sinks AS s
SET lease_owner = :owner, lease_epoch = s.lease_epoch + 1,
    leased_until = clock_timestamp() + make_interval(secs => :seconds)
WHERE s.id = (
    SELECT f.id FROM audit_sinks AS f CROSS JOIN stream_head AS h
    WHERE h.id = 1 AND h.audit_sequence <> f.position
      AND (f.leased_until IS NULL OR f.leased_until <= clock_timestamp()
           OR f.leased_until > clock_timestamp() + {_FAR_AHEAD})
      AND (f.next_attempt_at <= clock_timestamp() OR f.next_attempt_at > clock_timestamp() + {_FAR_AHEAD})
    ORDER BY f.next_attempt_at, f.id LIMIT 1 FOR UPDATE OF f SKIP LOCKED)
RETURNING s.*, (SELECT n.audit_sequence FROM stream_head AS n WHERE n.id = 1) AS newest
""")  # noqa: S608 - our own constant
_RENEW = text(
    "UPDATE audit_sinks SET leased_until = clock_timestamp() + make_interval(secs => :seconds) "
    "WHERE id = ANY (CAST(:ids AS bigint[])) AND lease_owner = :owner RETURNING id, lease_epoch"
)
_HELD = "id = :id AND lease_owner = :owner AND lease_epoch = :epoch"
_ACKNOWLEDGED = text(
    "UPDATE audit_sinks SET position = :position, skipped = skipped + :skipped, status = 'healthy', reason = NULL, "  # noqa: S608
    "message = NULL, attempts = 0, failing_since = NULL, last_delivered_at = clock_timestamp() "
    f"WHERE {_HELD} RETURNING id"
)
_FAILED = text(
    "UPDATE audit_sinks SET status = 'failing', reason = :reason, message = :message, attempts = attempts + 1, "  # noqa: S608
    "failing_since = coalesce(failing_since, clock_timestamp()), lease_owner = NULL, leased_until = NULL, "
    f"next_attempt_at = clock_timestamp() + make_interval(secs => :seconds) WHERE {_HELD}"
)
_GIVE_UP = text(f"UPDATE audit_sinks SET lease_owner = NULL, leased_until = NULL WHERE {_HELD}")  # noqa: S608
_RECORDS = text("""
SELECT l.*, n.name AS namespace_name
FROM operation_logs AS l LEFT JOIN namespaces AS n ON n.id = l.namespace_id
WHERE l.sequence > :after AND l.sequence <= (SELECT h.audit_sequence FROM stream_head AS h WHERE h.id = 1)
ORDER BY l.sequence LIMIT :most
""")

_LACKING = text("SELECT 1 FROM audit_sinks WHERE required AND position < :sequence LIMIT 1")


async def add(transaction: Transaction, wanted: AuditSink, position: int) -> AuditSink:
    """Adds a sink that begins after a sequence of the log. Its constraints raise AlreadyExists."""
    statement = insert(AUDIT_SINKS).values(
        name=wanted.name,
        kind=wanted.kind,
        format=wanted.format,
        address=wanted.address,
        options=_options(wanted),
        required=wanted.required,
        position=position,
        created_by=transaction.actor.user_id,
    )
    await transaction.connection.execute(statement)
    return await _whole(transaction, wanted.name)


async def seal(transaction: Transaction, sink: AuditSink, sealed: Sealed) -> None:
    """Stores the secrets of a sink that was just added, because they are bound to its uid."""
    values = {"secrets": sealed.ciphertext, "data_key": sealed.data_key, "key_id": sealed.key_id}
    await transaction.connection.execute(update(AUDIT_SINKS).where(_SINKS.id == sink.id).values(**values))


async def find(transaction: ReadTransaction, name: str) -> AuditSink | None:
    """Returns the sink of this name, without its lag."""
    query = select(*_SHOWN, creator(_SINKS.created_by)).where(_SINKS.name == name)
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _sink(row)


async def list_sinks(transaction: ReadTransaction, page: PageRequest) -> tuple[Sequence[AuditSink], NextPage]:
    """Returns one page of sinks, each with the number of records still to be sent, and where the next page
    begins.
    """
    query = select(*_SHOWN, creator(_SINKS.created_by)).where(compile_filter(page.filter, _FILTERS))
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=_SINKS.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    lags = await find_lags(transaction, [row.id for row in rows])
    return [_sink(row, lags.get(row.id)) for row in rows], next_page


async def remove(transaction: Transaction, sink: AuditSink) -> None:
    """Removes a sink, its cursor and its secrets."""
    await transaction.connection.execute(delete(AUDIT_SINKS).where(_SINKS.id == sink.id))


async def find_lags(
    transaction: ReadTransaction, ids: Collection[int] | None = None
) -> Mapping[int, tuple[int, datetime | None]]:
    """Returns the number of records still to be sent, and when the oldest of them began, by the sinks' ids."""
    found = await transaction.connection.execute(_LAGS, {"ids": None if ids is None else list(ids)})
    return {row.id: (row.lag_records, row.oldest_pending_at) for row in found}


async def names(transaction: ReadTransaction) -> Mapping[int, str]:
    """Returns the names of all sinks by their ids."""
    return {row.id: row.name for row in await transaction.connection.execute(select(_SINKS.id, _SINKS.name))}


async def take(
    transaction: ReadTransaction, owner: str, seconds: float
) -> tuple[LeasedSink, Sealed | None] | None:
    """Leases the sink with pending records that has waited longest; returns it with its encrypted secrets, or None."""
    row = (await transaction.connection.execute(_TAKE, {"owner": owner, "seconds": seconds})).first()
    if row is None:
        return None
    sealed = (
        None if row.secrets is None else Sealed(bytes(row.secrets), bytes(row.data_key or b""), row.key_id)
    )
    return LeasedSink(_sink(row), row.lease_epoch, row.position > row.newest), sealed


async def renew(
    transaction: ReadTransaction, owner: str, ids: Collection[int], seconds: float
) -> Mapping[int, int]:
    """Renews leases; returns the epochs of those that are still held, by the sinks' ids."""
    found = await transaction.connection.execute(
        _RENEW, {"owner": owner, "ids": list(ids), "seconds": seconds}
    )
    return {row.id: row.lease_epoch for row in found}


async def acknowledge(
    transaction: ReadTransaction, leased: LeasedSink, owner: str, position: int, skipped: int
) -> bool:
    """Moves the cursor; writes nothing and returns False if the lease is lost."""
    parameters = {**_held(leased, owner), "position": position, "skipped": skipped}
    return (await transaction.connection.execute(_ACKNOWLEDGED, parameters)).first() is not None


async def fail(
    transaction: ReadTransaction, leased: LeasedSink, owner: str, reason: str, message: str, seconds: float
) -> None:
    """Stores why a sink does not accept records, and releases it; it is tried again after `seconds`."""
    await transaction.connection.execute(
        _FAILED,
        {**_held(leased, owner), "reason": reason[:50], "message": message[:1000], "seconds": seconds},
    )


async def give_up(transaction: ReadTransaction, leased: LeasedSink, owner: str) -> None:
    """Ends the lease, so that another server may take the sink immediately."""
    await transaction.connection.execute(_GIVE_UP, _held(leased, owner))


async def records_after(transaction: ReadTransaction, sequence: int, most: int) -> list[Record]:
    """Returns at most `most` records after a sequence, in order; none that somebody inserted beyond the log's end."""
    rows = (await transaction.connection.execute(_RECORDS, {"after": sequence, "most": most})).all()
    return [_record(row) for row in rows]


async def required_have(transaction: ReadTransaction, sequence: int) -> bool:
    """Returns whether every required sink has the records up to a sequence of the log."""
    found = await transaction.connection.execute(_LACKING, {"sequence": sequence})
    return found.first() is None


def _held(leased: LeasedSink, owner: str) -> dict[str, Any]:
    return {"id": leased.sink.id, "owner": owner, "epoch": leased.epoch}


async def _whole(transaction: ReadTransaction, name: str) -> AuditSink:
    found = await find(transaction, name)
    assert found is not None, "a row that was just written can be read back"
    return found


_OPTIONS = ("certificate_authority", "client_certificate", "rotate_bytes", "keep_files")


def _options(sink: AuditSink) -> dict[str, Any]:
    return {name: value for name in _OPTIONS if (value := getattr(sink, name))}


def _record(row: Row) -> Record:
    fields = audit_records.stored_row(row)
    return Record(
        sequence=row.sequence,
        fields=fields,
        canonical=audit_records.canonical_json(fields),
        record_hash=bytes(row.record_hash),
        namespace=row.metadata.get("namespace") or row.namespace_name or "",
    )


def _sink(row: Row, lag: tuple[int, datetime | None] | None = None) -> AuditSink:
    records, oldest = lag or (0, None)
    return AuditSink(
        id=row.id,
        uid=str(row.uid),
        name=row.name,
        kind=row.kind,
        address=row.address,
        format=row.format,
        required=row.required,
        **row.options,
        position=row.position,
        skipped=row.skipped,
        status=row.status,
        reason=row.reason or "",
        message=row.message or "",
        attempts=row.attempts,
        failing_since=row.failing_since,
        last_delivered_at=row.last_delivered_at,
        created_at=row.created_at,
        created_by=getattr(row, "creator", None) or "",
        lag_records=records,
        oldest_pending_at=oldest,
    )
