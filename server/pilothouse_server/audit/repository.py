"""All SQL about the audit log.

Row-level security limits the records that a caller can read. `Sight` narrows that to the namespaces in which the caller
has the permission to read the log, and the caller's own records.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Select, Text, false, func, or_, select, text

from pilothouse_server.audit.model import AuditOperation, UserOperationStats
from pilothouse_server.audit.tables import OPERATION_LOGS, USER_OPERATION_STATS
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.store.filtering import FilterField, FilterKind, compile_filter, filter_fields
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
    read_page_in_slices,
)
from pilothouse_server.store.references import NAMESPACES
from pilothouse_server.store.unit_of_work import ReadTransaction

# Sequences of the first and the last record.
Stretch = tuple[int, int]
# The most records read that claim to be of retention.
_MOST_DROP_RECORDS = 100
_PARTITION_FACTS = text(
    "SELECT max(l.sequence) AS last, "
    "coalesce((SELECT max(s.size) FROM audit_seals AS s), 0) AS sealed, "
    "bool_or(l.namespace_id IN (SELECT n.id FROM namespaces AS n WHERE n.legal_hold)) AS held "
    "FROM operation_logs AS l WHERE l.started_at >= :lower AND l.started_at < :upper"
)
_STRETCHES = text(
    "SELECT min(i.sequence) AS first, max(i.sequence) AS last "
    "FROM (SELECT l.sequence, l.sequence - row_number() OVER (ORDER BY l.sequence) AS island "
    "FROM operation_logs AS l WHERE l.started_at >= :lower AND l.started_at < :upper) AS i "
    "GROUP BY i.island ORDER BY 1 LIMIT :most"
)

_LOG = OPERATION_LOGS.c
_FILTERS = {
    "operation_id": FilterField(_LOG.operation_id, FilterKind.UUID),
    "sequence": FilterField(_LOG.sequence, FilterKind.INTEGER),
    "username": FilterField(_LOG.username),
    "action": FilterField(_LOG.action),
    "resource_type": FilterField(_LOG.resource_type),
    "resource_name": FilterField(_LOG.resource_name),
    # The name at the time of the call; a record without it has only the id.
    "namespace": FilterField(func.coalesce(_LOG.metadata["namespace"].astext, NAMESPACES.c.name)),
    "method": FilterField(_LOG.request_path),
    "request_path": FilterField(_LOG.request_path),
    "request_method": FilterField(_LOG.request_method),
    "client_ip": FilterField(_LOG.client_ip),
    "user_agent": FilterField(_LOG.user_agent),
    "status_code": FilterField(_LOG.status_code, FilterKind.INTEGER),
    # A successful record has no code; responses and filters use OK.
    "error_code": FilterField(_LOG.error_code, names={"OK": ""}),
    "error_message": FilterField(_LOG.error_message),
    "result": FilterField(
        _LOG.error_code.is_(None), FilterKind.ENUM, {"SUCCESS": True, "FAILURE": False}, "RESULT_"
    ),
    "duration_ms": FilterField(_LOG.duration_ms, FilterKind.INTEGER),
    "start_time": FilterField(_LOG.started_at, FilterKind.TIMESTAMP),
    "end_time": FilterField(_LOG.completed_at, FilterKind.TIMESTAMP),
    **filter_fields(OPERATION_LOGS, "user_id resource_id namespace_id stream_id"),
    "grant_id": FilterField(_LOG.metadata["grant"]["id"].astext.cast(BigInteger), FilterKind.INTEGER),
    "resource_uid": FilterField(_LOG.metadata["resource_uid"].astext),
    "trace_id": FilterField(_LOG.metadata["trace_id"].astext),
    "parent_operation_id": FilterField(_LOG.metadata["parent_operation_id"].astext),
    "granting_role": FilterField(_LOG.metadata["grant"]["role"].astext),
    # For `text : "words"`, which may be part of any of these columns.
    "text": FilterField(
        func.concat_ws(
            " ",
            _LOG.username,
            _LOG.action,
            _LOG.resource_type,
            _LOG.resource_name,
            _LOG.metadata["namespace"].astext,
            _LOG.request_path,
            _LOG.client_ip,
            _LOG.user_agent,
            _LOG.error_code,
            _LOG.error_message,
        )
    ),
    "validate_only": FilterField(
        func.coalesce(_LOG.metadata["validate_only"].astext == "true", false()), FilterKind.BOOLEAN
    ),
}
_ORDERS = {"start_time": OrderField(_LOG.started_at), "sequence": OrderField(_LOG.sequence)}
_STATS_ORDERS = {"username": OrderField(USER_OPERATION_STATS.c.username)}


_OUTSIDE = text(
    "SELECT sequence FROM operation_logs "
    "WHERE sequence > (SELECT audit_sequence FROM stream_head WHERE id = 1) OR sequence < 1 "
    "ORDER BY sequence LIMIT 1000"
)


@dataclass(frozen=True, slots=True)
class Sight:
    """The records that a caller may see: own ones, and those of `visible` namespaces (None: every record).

    `namespace_id`, `username`, `action`, `resource_type` and a filter expression narrow this; None and '' do not.
    """

    user_id: int
    visible: frozenset[int] | None
    namespace_id: int | None = None
    username: str = ""
    action: str = ""
    resource_type: str = ""
    filter: str = ""

    def narrow(self, query: Select[Any]) -> Select[Any]:
        """Adds the conditions to a query of the log."""
        if self.visible is not None:
            query = query.where(or_(_LOG.user_id == self.user_id, _LOG.namespace_id.in_(self.visible)))
        if self.namespace_id is not None:
            query = query.where(_LOG.namespace_id == self.namespace_id)
        for column, value in (
            (_LOG.username, self.username),
            (_LOG.action, self.action),
            (_LOG.resource_type, self.resource_type),
        ):
            if value:
                query = query.where(column == value)
        return query.where(compile_filter(self.filter, _FILTERS)) if self.filter else query


def check_filter(text: str) -> None:
    """Raises InvalidArgument for a filter expression that is wrong."""
    compile_filter(text, _FILTERS)


# Most of a record's bytes are bodies and headers. They are selected as text, and decoded one record at a time.
_TEXTS = ("request_body", "request_headers", "response_body")
_FEW = 64
# An export also selects the metadata as text, and decodes one record at a time.
_EXPORTED_TEXTS = (*_TEXTS, "metadata")


def _operations() -> Select[Any]:
    return select(OPERATION_LOGS, NAMESPACES.c.name.label("namespace_name")).select_from(_WITH_NAMESPACE)


def _shown_operations(texts: Collection[str] = _TEXTS) -> Select[Any]:
    """Returns the query of `_operations` with these columns selected as text."""
    columns = (column.cast(Text).label(column.name) if column.name in texts else column for column in _LOG)
    return select(*columns, NAMESPACES.c.name.label("namespace_name")).select_from(_WITH_NAMESPACE)


_WITH_NAMESPACE = OPERATION_LOGS.outerjoin(NAMESPACES, NAMESPACES.c.id == _LOG.namespace_id)


async def list_operations(
    transaction: ReadTransaction, page: PageRequest, sight: Sight
) -> tuple[Iterator[AuditOperation], NextPage]:
    """Returns one page of records, read from their rows on demand, and where the next page begins."""
    query = sight.narrow(_shown_operations()).where(compile_filter(page.filter, _FILTERS))
    order = parse_order_by(page.order_by, _ORDERS, default="start_time desc", unique=_LOG.sequence)
    query = paginate(query, order, page)
    rows, next_page = await read_page_in_slices(transaction.connection, query, order, page, _size)
    return map(_operation, rows), next_page


def _size(row: Any) -> int:
    return sum(len(row[name] or "") for name in _TEXTS)


async def find_operation(
    transaction: ReadTransaction, operation_id: UUID, sight: Sight
) -> AuditOperation | None:
    """Returns the record of a call; a stream has two, and the later one is returned."""
    row = await _find(transaction, _shown_operations(), operation_id, sight)
    return None if row is None else _operation(row)


async def find_row(
    transaction: ReadTransaction, operation_id: UUID, sight: Sight, sequence: int = 0
) -> Any | None:
    """Returns the row of a call's record; of a stream's two records, the one at `sequence`, or else the later one."""
    return await _find(transaction, _operations(), operation_id, sight, sequence)


async def _find(
    transaction: ReadTransaction, select_: Select[Any], operation_id: UUID, sight: Sight, sequence: int = 0
) -> Any | None:
    query = sight.narrow(select_).where(_LOG.operation_id == operation_id)
    if sequence:
        query = query.where(_LOG.sequence == sequence)
    query = query.order_by(_LOG.sequence.desc()).limit(1)
    return (await transaction.connection.execute(query)).one_or_none()


async def operations_between(
    transaction: ReadTransaction, after: int, upto: int, sight: Sight, *, most: int, most_bytes: int
) -> tuple[list[AuditOperation], bool]:
    """Returns records of a range of the log that the caller may see, in order, and whether there may be more.

    At most `most` are returned, and no more once they reach `most_bytes`.
    """
    query = (
        sight.narrow(_shown_operations())
        .where(_LOG.sequence > after, _LOG.sequence <= upto)
        .order_by(_LOG.sequence)
        .limit(most)
    )
    if upto - after <= _FEW:
        # Most watches read one record at a time, for which a cursor would need three statements.
        few = (await transaction.connection.execute(query)).all()
        count = _fitting(few, most_bytes, _TEXTS)[0]
        return [_operation(row) for row in few[:count]], count < len(few)
    rows, cut = await _within(transaction, query, most_bytes, _TEXTS)
    return [_operation(row) for row in rows], cut or len(rows) == most


async def exported_records(
    transaction: ReadTransaction,
    after: int,
    upto: int,
    sight: Sight,
    filter_text: str,
    *,
    most: int,
    most_bytes: int,
) -> list[Any]:
    """Returns rows of a range of the log that the caller may see and that match a filter, in order.

    At most `most` are returned, and no more once they reach `most_bytes`. Bodies, headers and metadata are text.
    """
    query = (
        sight.narrow(_shown_operations(_EXPORTED_TEXTS))
        .where(_LOG.sequence > after, _LOG.sequence <= upto, compile_filter(filter_text, _FILTERS))
        .order_by(_LOG.sequence)
        .limit(most)
    )
    rows, _ = await _within(transaction, query, most_bytes, _EXPORTED_TEXTS)
    return rows


async def _within(
    transaction: ReadTransaction, query: Select[Any], most_bytes: int, texts: Collection[str]
) -> tuple[list[Any], bool]:
    """Returns the rows of a query until their texts reach `most_bytes`, and whether this cut the result."""
    rows: list[Any] = []
    left, share = most_bytes, Share()
    async with aclosing(transaction.connection.slices(query)) as slices:
        async for found in slices:
            count, size = _fitting(found, left, texts)
            rows += found[:count]
            left -= size
            if left <= 0:
                return rows, True
            await share.used()
    return rows, False


def _fitting(rows: Sequence[Any], most_bytes: int, texts: Collection[str]) -> tuple[int, int]:
    """Returns the number of rows until their texts reach `most_bytes`, and the bytes that these have."""
    size = 0
    for count, row in enumerate(rows, start=1):
        size += sum(len(row[name] or "") for name in texts)
        if size >= most_bytes:
            return count, size
    return len(rows), size


async def stored_records(transaction: ReadTransaction, after: int, upto: int) -> Sequence[Any]:
    """Returns every row of a range of the log, as it is stored, in order. For the system role."""
    query = (
        select(OPERATION_LOGS)
        .where(_LOG.sequence > after, _LOG.sequence <= upto)
        .order_by(_LOG.sequence, _LOG.id)
    )
    return (await transaction.connection.execute_in_slices(query)).all()


async def visible_records(transaction: ReadTransaction, after: int, upto: int, sight: Sight) -> Sequence[Any]:
    """Returns the rows of a range of the log that the caller may see, as they are stored, in order."""
    query = (
        sight.narrow(select(OPERATION_LOGS))
        .where(_LOG.sequence > after, _LOG.sequence <= upto)
        .order_by(_LOG.sequence, _LOG.id)
    )
    return (await transaction.connection.execute_in_slices(query)).all()


async def drop_records(transaction: ReadTransaction) -> Sequence[dict[str, Any]]:
    """Returns the metadata of the newest retention records, which list dropped ranges, newest first.

    For the system role.
    """
    query = (
        select(_LOG.metadata)
        .where(_LOG.action == "delete", _LOG.resource_type == "audit_log", _LOG.user_id.is_(None))
        .order_by(_LOG.sequence.desc())
        .limit(_MOST_DROP_RECORDS)
    )
    return (await transaction.connection.execute(query)).scalars()


async def sequences_outside(transaction: ReadTransaction) -> Sequence[int]:
    """Returns the sequences of records outside of the log's range, at most 1,000. For the system role."""
    return (await transaction.connection.execute(_OUTSIDE)).scalars()


async def oldest_sequence(transaction: ReadTransaction) -> int:
    """Returns the sequence of the oldest stored record, whether the caller may see it or not; 1 if there is none.

    For the system role.
    """
    found = (await transaction.connection.execute(select(func.min(_LOG.sequence)))).scalar_one()
    return int(found or 1)


async def list_stats(
    transaction: ReadTransaction, page: PageRequest, username: str
) -> tuple[Sequence[UserOperationStats], NextPage]:
    """Returns one page of the users' operation statistics, and where the next page begins."""
    query = select(USER_OPERATION_STATS)
    if username:
        query = query.where(USER_OPERATION_STATS.c.username == username)
    order = parse_order_by("", _STATS_ORDERS, default="username", unique=USER_OPERATION_STATS.c.user_id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_stats(row) for row in rows], next_page


def _operation(row: Any) -> AuditOperation:
    return AuditOperation(
        operation_id=str(row.operation_id),
        sequence=row.sequence,
        username=row.username or "",
        action=row.action,
        resource_type=row.resource_type,
        resource_name=row.resource_name or "",
        namespace=row.metadata.get("namespace") or row.namespace_name or "",
        request_method=row.request_method or "",
        request_path=row.request_path or "",
        request_body_text=row.request_body,
        request_headers_text=row.request_headers,
        client_ip=row.client_ip or "",
        user_agent=row.user_agent or "",
        status_code=row.status_code or 0,
        response_body_text=row.response_body,
        duration_ms=row.duration_ms,
        error_code=row.error_code or "",
        error_message=row.error_message or "",
        started_at=row.started_at,
        completed_at=row.completed_at,
        metadata=row.metadata,
        record_hash=row.record_hash,
        mark=bytes(row.mark),
        user_id=row.user_id,
        resource_id=row.resource_id,
        namespace_id=row.namespace_id,
        stream_id="" if row.stream_id is None else str(row.stream_id),
    )


def _stats(row: Any) -> UserOperationStats:
    return UserOperationStats(
        username=row.username,
        full_name=row.full_name or "",
        total_operations=row.total_operations,
        successful_operations=row.successful_operations,
        failed_operations=row.failed_operations,
        create_operations=row.create_operations,
        start_operations=row.start_operations,
        stop_operations=row.stop_operations,
        delete_operations=row.delete_operations,
        first_operation_at=row.first_operation_at,
        last_operation_at=row.last_operation_at,
        avg_duration_ms=None if row.avg_duration_ms is None else float(row.avg_duration_ms),
        operations_last_30_days=row.operations_last_30_days,
    )


async def partition_facts(transaction: ReadTransaction, bounds: Mapping[str, Any]) -> Any:
    """Returns the facts that decide whether a partition between the times `lower` and `upper` is kept, as a row.

    `last` is the newest sequence, None if the partition is empty; `sealed` the newest sequence that a sealed head
    covers; `held`: whether a namespace with a record in the partition is under legal hold.
    """
    return (await transaction.connection.execute(_PARTITION_FACTS, bounds)).one()


async def stretches(transaction: ReadTransaction, bounds: Mapping[str, Any], most: int) -> list[Stretch]:
    """Returns the ranges of sequences in a partition between the times `lower` and `upper`, at most `most` ranges."""
    rows = await transaction.connection.execute(_STRETCHES, {**bounds, "most": most})
    return [(row.first, row.last) for row in rows]
