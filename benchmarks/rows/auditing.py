"""Row "audit": the cost of the transparency log, and the speed of proofs, verification and export.

The baseline of verification and export is a bare reader of the same rows that hashes a text of a record's length for
each row; the baseline of a proof is GetOperation of the same record.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import grpc.aio

from benchmarks import population
from benchmarks.measure import Figure, Run, compared, in_turns
from benchmarks.product import Product
from benchmarks.testbed import Database, Testbed, connected
from pilothouse.audit.v1 import audit_pb2

_SERVICE = "/pilothouse.audit.v1.AuditService"
_PROOFS = 50
_PAGE = 1000
# The time per record that amounts to 2 % of a core at 2,000 records a second.
_MICROSECONDS = 10.0
_TEXT = b"x" * 700


class _Auditor:
    """Calls the audit service of one server."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)

    async def ask(self, method: str, request: Any, response: Any) -> Any:
        call: Any = self._channel.unary_unary(f"{_SERVICE}/{method}")
        return response.FromString(await call(request.SerializeToString(), metadata=self._metadata))

    async def stream(self, method: str, request: Any, response: Any) -> AsyncIterator[Any]:
        call: Any = self._channel.unary_stream(f"{_SERVICE}/{method}")
        async for answer in call(request.SerializeToString(), metadata=self._metadata):
            yield response.FromString(answer)


async def audit_log(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures the row."""
    records = testbed.scale.records[-1]
    async with testbed.database() as database:
        async with connected(database.superuser) as connection:
            await population.audited_records(connection, records)
            ids = [
                str(row[0])
                for row in await connection.fetch(
                    "SELECT operation_id FROM operation_logs WHERE sequence % $1 = 0 LIMIT $2",
                    max(1, records // _PROOFS),
                    _PROOFS,
                )
            ]
        async with (
            testbed.product(database) as product,
            grpc.aio.insecure_channel(product.address) as channel,
        ):
            auditor = _Auditor(channel, await product.token())
            yield await _sealing(testbed, product, database, auditor, records)
            yield await _proofs(testbed, product, database, auditor, ids, records)
            yield await _verification(testbed, product, database, auditor, records)
            yield await _export(testbed, product, database, auditor, records)


async def _sealing(
    testbed: Testbed, product: Product, database: Database, auditor: _Auditor, records: int
) -> Figure:
    async def sealed() -> dict[str, float]:
        began = time.perf_counter()
        # An export begins with a head over all existing records.
        async for answer in auditor.stream(
            "ExportAuditLog",
            audit_pb2.ExportAuditLogRequest(filter="sequence = 1"),
            audit_pb2.ExportAuditLogResponse,
        ):
            if answer.HasField("head") and answer.head.size <= records:
                raise RuntimeError("the head does not have all records")
        return {"seconds": time.perf_counter() - began, "calls": records}

    run = await testbed.metered(product.process_id, database, sealed(), "seconds")
    cost = (run.server or 0.0) + (run.database or 0.0)
    return Figure(
        "audit",
        f"tree and seal of {records:,} records: CPU of a record, server and PostgreSQL",
        "µs",
        cost,
        goal=("≤", _MICROSECONDS),
        goal_of="value",
        server=(run.server, None),
        database=(run.database, None),
    )


async def _proofs(
    testbed: Testbed, product: Product, database: Database, auditor: _Auditor, ids: list[str], records: int
) -> Figure:
    async def timed(method: str, request: Any, response: Any) -> dict[str, float]:
        began = time.perf_counter()
        for each in ids:
            await auditor.ask(method, request(operation_id=each), response)
        return {"ms": (time.perf_counter() - began) / len(ids) * 1000, "calls": len(ids)}

    async def run(method: str, request: Any, response: Any) -> Run:
        return await testbed.metered(product.process_id, database, timed(method, request, response), "ms")

    pairs = await in_turns(
        lambda: run("ProveOperation", audit_pb2.ProveOperationRequest, audit_pb2.ProveOperationResponse),
        lambda: run("GetOperation", audit_pb2.GetOperationRequest, audit_pb2.GetOperationResponse),
        testbed.scale.runs,
        warm=testbed.scale.warm,
    )
    what = f"a proof among {records:,}"
    return compared("audit", what, "ms", pairs, "GetOperation", ("≤", 20.0), goal_of="value")


async def _verification(
    testbed: Testbed, product: Product, database: Database, auditor: _Auditor, records: int
) -> Figure:
    async def verified() -> dict[str, float]:
        began = time.perf_counter()
        stream = auditor.stream(
            "VerifyAuditLog", audit_pb2.VerifyAuditLogRequest(), audit_pb2.VerifyAuditLogResponse
        )
        *_, answer = [answer async for answer in stream]
        if not answer.intact or answer.verified_records < records:
            raise RuntimeError(f"the log is not intact: {answer.findings[:3]} {answer.verified_records}")
        return {"seconds": (time.perf_counter() - began) * 1e6 / answer.verified_records, "calls": records}

    async def run() -> Run:
        return await testbed.metered(product.process_id, database, verified(), "seconds")

    pairs = await in_turns(
        run, lambda: _bare(database, records, per_million=True), testbed.scale.runs, warm=testbed.scale.warm
    )
    what = f"VerifyAuditLog of {records:,}, as for 1,000,000"
    return compared("audit", what, "s", pairs, "rows read and hashed", ("≤", 60.0), goal_of="value")


async def _export(
    testbed: Testbed, product: Product, database: Database, auditor: _Auditor, records: int
) -> Figure:
    async def exported() -> dict[str, float]:
        began, count = time.perf_counter(), 0
        async for answer in auditor.stream(
            "ExportAuditLog", audit_pb2.ExportAuditLogRequest(), audit_pb2.ExportAuditLogResponse
        ):
            count += len(answer.records)
        if count < records:
            raise RuntimeError("the export lacks records")
        return {"rate": count / (time.perf_counter() - began), "calls": count}

    async def run() -> Run:
        return await testbed.metered(product.process_id, database, exported())

    pairs = await in_turns(
        run, lambda: _bare(database, records, per_million=False), testbed.scale.runs, warm=testbed.scale.warm
    )
    what = f"export of {records:,}"
    return compared("audit", what, "/s", pairs, "rows read and hashed", ("≥", 20_000.0), goal_of="value")


async def _bare(database: Database, records: int, *, per_million: bool) -> float:
    began, after = time.perf_counter(), 0
    async with connected(database.superuser) as connection:
        while after < records:
            rows = await connection.fetch(
                "SELECT * FROM operation_logs WHERE sequence > $1 ORDER BY sequence LIMIT $2", after, _PAGE
            )
            for _ in rows:
                sha256(_TEXT).digest()
            after = rows[-1]["sequence"]
    seconds = time.perf_counter() - began
    return seconds * 1e6 / records if per_million else records / seconds
