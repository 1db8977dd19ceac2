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


async def broken_links(sql: asyncpg.Connection) -> list[str]:
    """What is wrong with the chain: every record and link that does not hash to what is stored."""
    await sql.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    rows = await sql.fetch("SELECT * FROM operation_logs ORDER BY sequence")
    head = await sql.fetchrow("SELECT audit_sequence, audit_chain_hash FROM stream_head")
    assert head is not None
    faults: list[str] = []
    link = bytes(32)
    for place, row in enumerate(rows, start=1):
        if row["sequence"] != place:
            faults.append(f"{place}: sequence {row['sequence']}")
        record = {name: _plain(value) for name, value in row.items() if name not in _PLACE}
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).digest()
        if digest != row["record_hash"]:
            faults.append(f"{place}: record hash of {row['request_path']}")
        link = hashlib.sha256(link + row["sequence"].to_bytes(8, "big") + digest).digest()
        if link != row["chain_hash"]:
            faults.append(f"{place}: chain hash")
    if (head["audit_sequence"], head["audit_chain_hash"]) != (len(rows), link):
        faults.append("the head is another")
    return faults


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value) if isinstance(value, UUID) else value
