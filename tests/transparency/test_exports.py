"""An export holds little, however large its records are and however many are exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilothouse_client import audit_verifier
from pilothouse_server.audit import exporting, operations
from tests.conftest import Database
from tests.harness import running_server
from tests.transparency.logs import a_record, exported, fill, lines_of

_BODY_BYTES = 16_000


async def test_no_more_is_read_at_once_than_an_answer_holds(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = operations.exported_records
    stretches: list[int] = []

    async def noting(*arguments: Any, **named: Any) -> list[Any]:
        rows = list(await read(*arguments, **named))
        stretches.append(sum(len(str(row.request_body)) + len(str(row.metadata)) for row in rows))
        return rows

    monkeypatch.setattr(operations, "exported_records", noting)
    async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=60.0) as server:
        for number in range(100):
            body = {"text": "x" * _BODY_BYTES, "numbers": [2**63 - 1, -7, None, "\u20ac\u0001"]}
            record = msgspec.structs.replace(
                a_record(number), request_body=body, metadata={"whole": True}, request_headers=None
            )
            await server.application.audit_writer.write(record)
        await fill(server, 20)
        await exported(server.admin, tmp_path / "export")
    assert sum(stretches) > 2 * exporting.MOST_BYTES_AT_ONCE
    assert max(stretches) < exporting.MOST_BYTES_AT_ONCE + 2 * _BODY_BYTES
    lines = lines_of(tmp_path / "export")
    found = audit_verifier.verify(iter((tmp_path / "export").read_text().splitlines()), lines[0]["keys"][0])
    assert found["complete"]
    assert found["records"] == len(lines) - 2 >= 120
