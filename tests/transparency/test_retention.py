"""Retention drops records, never their hashes, and writes a record of that.

Also: the reasons that keep a partition, and the verification in the background.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict
from prometheus_client import REGISTRY

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, PilothouseError, audit_verifier
from pilothouse_client.commands.audit_log import _Export
from pilothouse_server import app
from pilothouse_server.audit import operations
from pilothouse_server.audit.dropping import Dropping
from pilothouse_server.audit.retention import Retention, merged
from pilothouse_server.audit.verification import Fault
from pilothouse_server.audit.walking import walk
from pilothouse_server.store.partitions import Partitions
from tests.conftest import Database, connection
from tests.harness import Server, running_server
from tests.transparency.logs import exported, fill, last_month, lines_of, this_month


async def _all(_sequence: int) -> bool:
    return True


def retention(server: Server, delivered=_all) -> Retention:  # type: ignore[no-untyped-def]
    store = server.application.store
    dropping = Dropping(store, server.application.sealer.identity)
    return Retention(store, Partitions(store.database.maintenance), delivered, dropping)


async def hold(client: AsyncClient, *, held: bool) -> None:
    """Sets or lifts the legal hold of the test's namespace."""
    await client.namespaces.update(
        name="held",
        namespace=namespace_pb2.Namespace(legal_hold=held),
        update_mask=FieldMask(paths=["legal_hold"]),
    )


async def _nobody_else_lifts_it(server: Server) -> None:
    holder = await server.user("holder", {"held": "admin"})
    with pytest.raises(PilothouseError) as caught:
        await hold(holder, held=False)
    assert (caught.value.code.name, caught.value.metadata["permission"]) == (
        "PERMISSION_DENIED",
        "audit.hold",
    )
    with pytest.raises(PilothouseError) as caught:
        await server.admin.namespaces.delete(name="held", cascade=True)
    assert (caught.value.code.name, caught.value.reason) == ("FAILED_PRECONDITION", "LEGAL_HOLD")


@pytest.mark.full
async def test_dropped_records_are_distinguished_from_removed_ones(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=60.0) as server:
        held = await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="held"))
        async with connection(database.admin_dsn) as sql:
            namespace_id = await sql.fetchval(
                "SELECT id FROM namespaces WHERE uid = $1::text::uuid", held.uid
            )
            await fill(server, 30, age=last_month(), namespace_id=namespace_id)
            assert await retention(server).drop_older(this_month()) == [], "no head covers it yet"
            await server.application.sealer.seal()

            async def behind(_sequence: int) -> bool:
                return False

            assert await retention(server, behind).drop_older(this_month()) == [], "a sink lacks it"
            await hold(server.admin, held=True)
            assert await retention(server).drop_older(this_month()) == [], "it is held"
            await _nobody_else_lifts_it(server)
            await hold(server.admin, held=False)
            before = await server.admin.audit.get_audit_head()
            (dropped,) = await retention(server).drop_older(this_month())
            await fill(server, 20)
            async with server.admin.audit.verify_audit_log(checkpoint=before.checkpoint) as answers:
                *_, verdict = [answer async for answer in answers]
            assert verdict.intact, verdict.findings
            assert verdict.dropped_records == 30
            file = tmp_path / "export.jsonl"
            await exported(server.admin, file)
            key = before.verifier_keys[0]
            found = audit_verifier.verify(iter(file.read_text().splitlines()), key)
            assert (found["complete"], found["dropped"]) == (True, 30)
            told = [each for each in lines_of(file)[1:-1] if dropped in each["record"]]
            assert len(told) == 1
            # The record of the drop is removed, so nothing explains the missing records.
            await sql.execute("DELETE FROM operation_logs WHERE sequence = $1", told[0]["sequence"])
        assert (await server.application.sealer.seal()).size > before.size
        report = await walk(server.application.store, server.application.sealer.identity, leisure=0.0)
        assert {each.fault for each in report.findings} == {Fault.MISSING}
        assert sum(each.last - each.first + 1 for each in report.findings) == 31
        await server.application.feed.settled()
        operations = server.admin.audit.list_operations(
            filter='action = "verify" AND error_code = "DATA_LOSS"'
        )
        told_of = [MessageToDict(operation.metadata) async for operation in operations]
        assert [each["findings"][0]["fault"] for each in told_of] == ["missing"]


async def test_an_export_that_is_resumed_after_a_drop_is_complete(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of the drop comes after the head of the export."""
    told = operations.drop_records

    async def told_by_nobody_too(transaction: Any) -> list[Any]:
        nobodys = {"dropped": [[1, 2, "00" * 32]], "signatures": "\u2014 somebody AAAAAAAA\n"}
        return [nobodys, *await told(transaction)]

    monkeypatch.setattr(operations, "drop_records", told_by_nobody_too)
    async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=60.0) as server:
        await fill(server, 30, age=last_month())
        await fill(server, 5)
        await server.application.sealer.seal()
        file = tmp_path / "export.jsonl"
        await exported(server.admin, file)
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:21]))
        (dropped,) = await retention(server).drop_older(this_month())
        begun = _Export.read(file, "", "")
        rest = server.admin.audit.export_audit_log(after_sequence=begun.place, tree_size=begun.tree_size)
        async with rest as stream:
            answers = [answer async for answer in stream]
        with file.open("a") as written:
            begun.write(iter(answers), written)
        # A user who does not see all records cannot tell which are missing, and is told nothing of other tenants'
        # records.
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="own"))
        tenant = await server.user("tess", {"own": "admin"})
        async with tenant.audit.export_audit_log(namespace="own") as stream:
            (*_, last_told) = [answer async for answer in stream]
        assert (last_told.done, last_told.sees_all, last_told.dropped) == (True, False, "")
    lines = lines_of(file)
    assert not any(dropped in line.get("record", "") for line in lines)
    places = [line["sequence"] for line in lines[1:-1]]
    gone = sum(later - each - 1 for each, later in pairwise(places))
    assert gone > 0

    def verify(end: dict[str, Any]) -> dict[str, Any]:
        shown = [*lines[:-1], end]
        return audit_verifier.verify(iter(map(json.dumps, shown)), lines[0]["keys"][0])

    found = verify(lines[-1])
    assert (found["complete"], found["dropped"]) == (True, gone)
    # Without that list, or with another one, the records are missing.
    (first, last), *others = lines[-1]["dropped"]
    for end in (
        {name: lines[-1][name] for name in ("end", "records", "complete")},
        lines[-1] | {"dropped": [[first, last + 1], *others]},
    ):
        with pytest.raises(audit_verifier.WrongError, match="are missing"):
            verify(end)


async def test_a_partition_with_too_many_ranges_to_record_is_kept(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of two months alternate, as those of streams that stay open over the turn of a month."""
    # The server's own job would set the gauge that is read below.
    monkeypatch.setattr(app, "audit_jobs", lambda *_: ())
    async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=60.0) as server:
        for _ in range(4):
            await fill(server, 2, age=last_month())
            await fill(server, 2)
        await server.application.sealer.seal()
        monkeypatch.setattr("pilothouse_server.audit.retention._MOST_STRETCHES", 3)
        assert await retention(server).drop_older(this_month()) == []
        assert REGISTRY.get_sample_value("pilothouse_audit_partitions_held", {"reason": "too many stretches"})
        async with server.admin.audit.verify_audit_log() as answers:
            *_, verdict = [answer async for answer in answers]
        assert (verdict.intact, verdict.dropped_records) == (True, 0)
        monkeypatch.setattr("pilothouse_server.audit.retention._MOST_STRETCHES", 4)
        (dropped,) = await retention(server).drop_older(this_month())
        async with server.admin.audit.verify_audit_log() as answers:
            *_, verdict = [answer async for answer in answers]
        assert verdict.intact, (dropped, verdict.findings)
        assert verdict.dropped_records == 8


@pytest.mark.parametrize(
    ("before", "found", "expected"),
    [
        ([], [(1, 5)], [(1, 5)]),
        ([(1, 5)], [(6, 9)], [(1, 9)]),
        ([(1, 5)], [(7, 9)], [(1, 5), (7, 9)]),
        ([(1, 9)], [(2, 4)], [(1, 9)]),
        ([(1, 3), (7, 9)], [(4, 6)], [(1, 9)]),
    ],
)
def test_adjacent_ranges_are_merged(
    before: list[tuple[int, int]],
    found: list[tuple[int, int]],
    expected: list[tuple[int, int]],
) -> None:
    assert merged(before, found) == expected
