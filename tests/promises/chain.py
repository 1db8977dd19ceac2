"""The audit chain computed once more from the stored rows, by nothing of the product but its written definition."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

# Columns that the database gives a record its place by.
_PLACE = {"id", "sequence", "record_hash", "chain_hash"}
# Records and head of one moment, by one statement: servers write on.
_ALL = (
    "SELECT l.*, h.audit_sequence AS head_sequence, h.audit_chain_hash AS head_hash "
    "FROM stream_head AS h LEFT JOIN operation_logs AS l ON true ORDER BY l.sequence"
)
_HEAD = {"head_sequence", "head_hash"}


async def broken_links(sql: asyncpg.Connection) -> list[str]:
    """What is wrong with the chain: every record and link that does not hash to what is stored."""
    await sql.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    found = await sql.fetch(_ALL)
    head = (found[0]["head_sequence"], found[0]["head_hash"])
    rows = [row for row in found if row["sequence"] is not None]
    faults: list[str] = []
    link = bytes(32)
    for place, row in enumerate(rows, start=1):
        if row["sequence"] != place:
            faults.append(f"{place}: sequence {row['sequence']}")
        record = {name: _plain(value) for name, value in row.items() if name not in _PLACE | _HEAD}
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).digest()
        if digest != row["record_hash"]:
            faults.append(f"{place}: record hash of {row['request_path']}")
        link = hashlib.sha256(link + row["sequence"].to_bytes(8, "big") + digest).digest()
        if link != row["chain_hash"]:
            faults.append(f"{place}: chain hash")
    if head != (len(rows), link):
        faults.append("the head is another")
    return faults


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value) if isinstance(value, UUID) else value
