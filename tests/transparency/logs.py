"""A log of some calls, its export as the command writes it, and changes to it by a superuser."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_client import AsyncClient, NotFoundError
from pilothouse_client.commands.audit_log import _Export
from pilothouse_server.app import Application
from pilothouse_server.audit import exporting, messages, proofs, repository
from pilothouse_server.audit.log_identity import LogIdentity
from pilothouse_server.audit.merkle import Edge
from pilothouse_server.audit.notes import Checkpoint
from pilothouse_server.audit.verification import Verification, VerificationReport
from pilothouse_server.store import audit_records, audit_tree
from pilothouse_server.store.audit_records import AuditRecord
from tests.conftest import Database, connection
from tests.harness import NOWHERE, Server, settings_for


def a_record(number: int, *, age: timedelta = timedelta(0), namespace_id: int | None = None) -> AuditRecord:
    """Returns the record of a call that nobody made."""
    began = datetime.now(UTC) - age
    return AuditRecord(
        operation_id=uuid4(),
        user_id=None,
        username="somebody",
        action="get",
        resource_type="container",
        resource_id=number,
        resource_name=f"container-{number}",
        namespace_id=namespace_id,
        request_method="UNARY",
        request_path="/pilothouse.container.v1.ContainerService/GetContainer",
        request_body={
            "name": f"caf\u00e9-{number}",
            "big": 2**63 - 1,
            "list": [1, "a", None, {"z": 1, "a": True}],
        },
        request_headers={"user-agent": "tests"},
        client_ip="192.0.2.1",
        user_agent="tests",
        status_code=200,
        response_body=None,
        duration_ms=number,
        error_code=None,
        error_message=None,
        started_at=began,
        completed_at=began,
        metadata={"number": number},
    )


async def fill(
    server: Server, count: int, *, age: timedelta = timedelta(0), namespace_id: int | None = None
) -> None:
    """Writes some records and waits until they are numbered."""
    for number in range(count - 1):
        server.application.audit_writer.submit(a_record(number, age=age, namespace_id=namespace_id))
    await server.application.audit_writer.write(a_record(count, age=age, namespace_id=namespace_id))
    await server.application.feed.settled()


async def witnessed(server: Server) -> pb.AuditHead | None:
    """Returns the newest head that enough witnesses have signed."""
    with suppress(NotFoundError):
        return await server.admin.audit.get_audit_head(witnessed=True)
    return None


async def exported(client: AsyncClient, file: Path, **request: Any) -> None:
    """Writes an export to a file, as the command would."""
    answers: list[pb.ExportAuditLogResponse] = []
    async with client.audit.export_audit_log(**request) as stream:
        answers = [answer async for answer in stream]
    with file.open("w") as written:
        _Export(request.get("namespace", ""), request.get("filter", "")).write(iter(answers), written)


async def exported_at_rest(application: Application, file: Path) -> None:
    """Exports all records up to the newest head of a log that no server writes to."""
    store = application.store
    async with store.system_read() as transaction:
        state, seal = await audit_tree.read(transaction), await audit_tree.newest_seal(transaction)
        assert seal is not None
    head = messages.AUDIT_HEAD.to_proto(proofs.head_of(seal, state, application.sealer.identity))
    answers = [pb.ExportAuditLogResponse(head=head)]

    async def read(after: int, upto: int, most: int) -> list[Any]:
        async with store.system_read() as transaction:
            return [*await repository.stored_records(transaction, after, upto)][:most]

    answers += [messages.exported(found) async for found in exporting.export(store, read, 0, seal.size)]
    answers.append(pb.ExportAuditLogResponse(done=True, sees_all=True))
    with file.open("w") as written:
        _Export("", "").write(iter(answers), written)


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def hashes_of(encoded: Sequence[str]) -> list[bytes]:
    return [base64.b64decode(each) for each in encoded]


def last_month() -> timedelta:
    """Returns the age of the last hour of the previous month."""
    now = datetime.now(UTC)
    return now - this_month() + timedelta(hours=1)


def this_month() -> datetime:
    """Returns when this month began."""
    return datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


_TABLES = ("operation_logs", "audit_seals", "audit_tiles", "audit_tree", "stream_head")


@asynccontextmanager
async def superuser(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Yields a connection with all rights; its changes to the log are undone at the end of the block."""
    async with connection(database.admin_dsn) as sql:
        for table in _TABLES:
            await sql.execute(f"CREATE TEMPORARY TABLE kept_{table} AS SELECT * FROM {table}")
        try:
            yield sql
        finally:
            for table in _TABLES:
                await sql.execute(f"DELETE FROM {table}")
                await sql.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")


@asynccontextmanager
async def idle_application(database: Database, directory: Path) -> AsyncIterator[Application]:
    """Yields the parts of a server that does not run, so that nothing writes to the log."""
    application = Application(settings_for(database, directory), {"local": NOWHERE})
    try:
        yield application
    finally:
        await application.database.close()


async def verified(
    application: Application, kept: Checkpoint | None = None, *, identity: LogIdentity | None = None
) -> VerificationReport:
    """Returns the findings of a verification of a log that no server writes to."""
    async with application.store.system_read() as transaction:
        state = await audit_tree.read(transaction)
    walk = Verification(application.store, state, identity or application.sealer.identity, kept)
    reports = [report async for report in walk.run()]
    assert reports[-1].done
    return reports[-1]


@asynccontextmanager
async def detached(sql: asyncpg.Connection, which: int = 0) -> AsyncIterator[tuple[int, int]]:
    """Detaches one partition with records for the block, counted from the oldest.

    Yields its first and last record.
    """
    partition, first, last = await sql.fetchrow(
        "SELECT tableoid::regclass::text, min(sequence), max(sequence) FROM operation_logs "
        "GROUP BY 1 ORDER BY 2 OFFSET $1 LIMIT 1",
        which,
    )
    bounds = await sql.fetchval(
        "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = $1::text::regclass", partition
    )
    await sql.execute(f"ALTER TABLE operation_logs DETACH PARTITION {partition}")
    try:
        yield first, last
    finally:
        await sql.execute(f"ALTER TABLE operation_logs ATTACH PARTITION {partition} {bounds}")


async def rebuild(application: Application, sql: asyncpg.Connection) -> None:
    """Recomputes the hashes and the tree over the present records, as an informed attacker would."""
    async with application.store.system_read() as transaction:
        rows = await repository.stored_records(transaction, 0, 10**9)
    hashes = []
    for row in rows:
        digest = audit_records.record_hash(audit_records.canonical_json(audit_records.stored_row(row)))
        hashes.append(digest)
        await sql.execute(
            "UPDATE operation_logs SET record_hash = $2 WHERE sequence = $1", row.sequence, digest
        )
    edge = Edge()
    full = edge.grow(hashes)
    await sql.execute("DELETE FROM audit_tiles")
    await sql.executemany(
        "INSERT INTO audit_tiles (level, position, hashes) VALUES ($1, $2, $3)",
        [(tile.level, tile.position, tile.hashes) for tile in full],
    )
    await sql.execute("UPDATE audit_tree SET size = $1, edge = $2", edge.size, edge.levels)
