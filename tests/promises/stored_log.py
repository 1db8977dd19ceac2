"""Computes the hashes of the stored log again, without the product's code.

It follows docs/audit-format.md and RFC 6962.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

# Columns that the database sets when it gives a record its place in the log.
_PLACE = {"id", "sequence", "record_hash", "mark"}
# Reads the records and the head of one moment in one statement, because servers continue to write.
_ALL = (
    "SELECT l.*, h.audit_sequence AS head_sequence, h.record_mark AS head_mark "
    "FROM stream_head AS h LEFT JOIN operation_logs AS l ON true ORDER BY l.sequence"
)
_HEAD = {"head_sequence", "head_mark"}


async def log_faults(sql: asyncpg.Connection) -> list[str]:
    """Returns the faults of the log.

    These are each record with a wrong place or a wrong hash, and a differing head.
    """
    await sql.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    found = await sql.fetch(_ALL)
    head = (found[0]["head_sequence"], found[0]["head_mark"])
    rows = [row for row in found if row["sequence"] is not None]
    faults: list[str] = []
    for place, row in enumerate(rows, start=1):
        if row["sequence"] != place:
            faults.append(f"{place}: sequence {row['sequence']}")
        record = {name: _plain(value) for name, value in row.items() if name not in _PLACE | _HEAD}
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).digest()
        if digest != row["record_hash"]:
            faults.append(f"{place}: record hash of {row['request_path']}")
    if head != (len(rows), rows[-1]["mark"] if rows else bytes(8)):
        faults.append("the head is another")
    return faults


async def tree_faults(sql: asyncpg.Connection) -> list[str]:
    """Returns the faults of the newest sealed head.

    Its root must equal the root over the stored records' hashes.
    """
    head = await sql.fetchrow("SELECT size, root FROM audit_seals ORDER BY size DESC LIMIT 1")
    if head is None:
        return ["there is no sealed head"]
    rows = await sql.fetch(
        "SELECT record_hash FROM operation_logs WHERE sequence <= $1 ORDER BY sequence", head["size"]
    )
    if len(rows) != head["size"] or _root([row["record_hash"] for row in rows]) != head["root"]:
        return [f"the head of {head['size']} leaves is not that of the {len(rows)} records"]
    return []


def _root(data: Sequence[bytes]) -> bytes:
    """Returns the root of the tree whose leaves have these data (RFC 6962, 2.1)."""
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    half = 1 << ((len(data) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + _root(data[:half]) + _root(data[half:])).digest()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value) if isinstance(value, UUID) else value
