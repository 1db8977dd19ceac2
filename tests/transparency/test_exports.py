"""A reader of many records has few of them in memory, for any size of the records and number of readers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilothouse_client import audit_verifier
from pilothouse_server.audit import exporting, operations, service
from pilothouse_server.audit.verification import Verification
from tests.conftest import Database
from tests.harness import running_server
from tests.transparency.logs import a_record, exported, fill, lines_of

_BODY_BYTES = 16_000


async def test_an_export_reads_only_as_much_as_a_response_contains(
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


async def test_a_watch_that_is_behind_reads_limited_ranges(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = operations.operations_between
    stretches: list[int] = []

    async def noting(*arguments: Any, **named: Any) -> Any:
        answer = await read(*arguments, **named)
        found, _ = answer
        stretches.append(sum(len(each.request_body_text or "") for each in found))
        return answer

    monkeypatch.setattr(operations, "operations_between", noting)
    async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=60.0) as server:
        async with server.admin.audit.watch_operations() as begun:
            token = (await anext(aiter(begun))).resume_token
        body = {"text": "x" * _BODY_BYTES}
        for number in range(100):
            record = msgspec.structs.replace(a_record(number), request_body=body)
            await server.application.audit_writer.write(record)
        await server.application.feed.settled()
        numbers: list[int] = []
        async with server.admin.audit.watch_operations(resume_token=token) as answers:
            async for answer in answers:
                if answer.resource.resource_name.startswith("container-"):
                    numbers.append(int(answer.resource.resource_name.removeprefix("container-")))
                if len(numbers) == 100:
                    break
    assert numbers == list(range(100))
    assert sum(stretches) > 2 * service._STRETCH_BYTES
    assert max(stretches) < service._STRETCH_BYTES + 2 * _BODY_BYTES


async def test_a_user_s_verifications_have_one_range_in_memory(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, records = Verification._rows, Verification._records
    at_once = most = verified = 0

    async def reading(self: Verification, after: int, upto: int) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        return await rows(self, after, upto)

    async def verifying(self: Verification, *arguments: Any) -> None:
        nonlocal at_once, verified
        await records(self, *arguments)
        at_once, verified = at_once - 1, verified + 1

    monkeypatch.setattr(Verification, "_rows", reading)
    monkeypatch.setattr(Verification, "_records", verifying)
    async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=60.0) as server:
        await fill(server, 20)

        async def verify() -> bool:
            async with server.admin.audit.verify_audit_log() as answers:
                return [answer.intact async for answer in answers][-1]

        assert await asyncio.gather(*(verify() for _ in range(5))) == [True] * 5
    assert (verified >= 5, most) == (True, 1)
