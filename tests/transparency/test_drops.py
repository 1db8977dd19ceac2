"""Retention's list of dropped ranges counts only if the log has signed it.

It drops only records that match the tree.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pilothouse_client import audit_verifier
from pilothouse_server.audit import drops
from pilothouse_server.audit.notes import Signer
from pilothouse_server.audit.repository import Stretch
from pilothouse_server.audit.retention import _record
from pilothouse_server.audit.verification import Fault
from tests.conftest import Database, connection
from tests.harness import Server, running_server
from tests.transparency.go import needs_go, run
from tests.transparency.logs import exported, fill, last_month, this_month, verified
from tests.transparency.test_identity import NEW, OLD, secret
from tests.transparency.test_retention import retention

NAME = "example.com/log"


def told(*stretches: Stretch, by: bytes = OLD, name: str = NAME) -> dict[str, object]:
    """Returns the metadata of a record of retention."""
    return {"dropped": list(stretches), "signatures": Signer(name, by).line(drops.text(name, stretches))}


def test_only_ranges_that_the_log_has_signed_count_as_dropped() -> None:
    keys = [Signer(NAME, OLD).verifier]
    good = told((1, 9), (20, 29))
    dropped = drops.Dropped([good], keys)
    assert dropped.holds(2, 9)
    assert not dropped.holds(9, 10)
    for wrong in (
        {**good, "dropped": [(1, 10), (20, 29)]},
        {**good, "dropped": [(1, 9)]},
        {**good, "dropped": [(1, 9, 0), (20, 29, 0)]},
        {**good, "dropped": None},
        {**good, "signatures": None},
        {**good, "signatures": "nothing\n"},
        {"dropped": good["dropped"]},
        {},
        told((1, 99), by=NEW),
        told((1, 99), name="example.com/other"),
    ):
        assert drops.signed_by(wrong, keys) == []
        # An unsigned list does not hide a signed one.
        assert drops.Dropped([wrong, good], keys).holds(1, 9)
        assert not drops.Dropped([wrong, good], keys).holds(9, 10)


async def forged(server: Server, first: int, last: int) -> None:
    """Writes a record like retention's, signed without a key of the log."""
    dropped = [(first, last)]
    signatures = Signer(NAME, NEW).line(drops.text(NAME, dropped))
    unit = server.application.store.system_unit()
    await unit.begin()
    await unit.commit(audit=[_record("operation_logs_1", dropped, signatures, datetime.now(UTC))])
    await server.application.feed.settled()


async def whole(server: Server, file: Path, key: str) -> dict[str, object]:
    """Returns the offline verifier's findings about a complete export."""
    await exported(server.admin, file)
    return audit_verifier.verify(iter(file.read_text().splitlines()), key)


@pytest.mark.full
@needs_go
async def test_deletion_with_a_forged_record_of_retention_is_found(
    database: Database, tmp_path: Path, verify: Path
) -> None:
    async with running_server(
        database, tmp_path, with_cluster=False, audit_key=secret(NAME, OLD), audit_seal_seconds=60.0
    ) as server:
        await fill(server, 30, age=last_month())
        await fill(server, 30)
        await server.application.sealer.seal()
        (dropped,) = await retention(server).drop_older(this_month())
        await forged(server, 45, 46)
        async with connection(database.admin_dsn) as sql:
            gone = await sql.execute("DELETE FROM operation_logs WHERE sequence IN (45, 46)")
        assert gone == "DELETE 2"
        findings = (await verified(server.application)).findings
        key = (await server.admin.audit.get_audit_head()).verifier_keys[0]
        with pytest.raises(audit_verifier.WrongError, match="records 45 to 46 are missing"):
            await whole(server, tmp_path / "export", key)
        ended = await run(verify, tmp_path / "export", key)
        assert (ended.returncode, ended.stderr) == (1, "WRONG: records 45 to 46 are missing\n")
        # The new list does not contain the deleted records.
        assert await retention(server).drop_older(this_month()) == []
        await server.application.feed.settled()
        assert (await verified(server.application)).findings == findings
        assert [(each.fault, each.first, each.last) for each in findings] == [(Fault.MISSING, 45, 46)]
        assert dropped.startswith("operation_logs")


@pytest.mark.full
async def test_a_record_with_a_forged_old_time_is_kept(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False, audit_seal_seconds=60.0) as server:
        await fill(server, 30, age=last_month())
        await fill(server, 30)
        await server.application.sealer.seal()
        async with connection(database.admin_dsn) as sql:
            before = await sql.fetchval("SELECT started_at FROM operation_logs WHERE sequence = 50")
            moved = "UPDATE operation_logs SET started_at = $1 WHERE sequence = 50"
            assert await sql.execute(moved, datetime.now(UTC) - last_month()) == "UPDATE 1"
            with capture_logs() as logs:
                assert await retention(server).drop_older(this_month()) == []
            assert [line["reason"] for line in logs if line["event"].endswith("log is kept")] == [
                "not intact"
            ]
            await sql.execute(moved, before)
        assert len(await retention(server).drop_older(this_month())) == 1


@pytest.mark.full
@needs_go
async def test_drops_that_a_removed_key_signed_are_still_recognised(
    database: Database, tmp_path: Path, verify: Path
) -> None:
    old, new = secret(NAME, OLD), secret(NAME, NEW)
    settings = {"with_cluster": False, "audit_seal_seconds": 60.0}
    async with running_server(database, tmp_path, **settings, audit_key=old) as server:  # type: ignore[arg-type]
        await fill(server, 30, age=last_month())
        await server.application.sealer.seal()
        assert len(await retention(server).drop_older(this_month())) == 1
    async with running_server(database, tmp_path, **settings, audit_key=f"{new} {old}") as server:  # type: ignore[arg-type]
        # Retention also runs each hour.
        assert await retention(server).drop_older(this_month()) == []
        await server.application.feed.settled()
        count = await _drop_records(database)
        assert await retention(server).drop_older(this_month()) == []
        await server.application.feed.settled()
        assert await _drop_records(database) == count >= 2, "it is told once for each key"
        # Both keys sign a head before the old one is removed, which hands the log over to the new key.
        await server.application.sealer.seal()
    async with running_server(database, tmp_path, **settings, audit_key=new) as server:  # type: ignore[arg-type]
        await server.application.sealer.seal()
        report = await verified(server.application)
        assert (report.findings, report.dropped) == ([], 30)
        key = str(Signer(NAME, NEW).verifier)
        assert (await whole(server, tmp_path / "export", key))["dropped"] == 30
        ended = await run(verify, tmp_path / "export", key)
        assert ended.returncode == 0, ended.stderr


async def _drop_records(database: Database) -> int:
    async with connection(database.admin_dsn) as sql:
        found: int = await sql.fetchval(
            "SELECT count(*) FROM operation_logs WHERE resource_type = 'audit_log' AND action = 'delete'"
        )
    return found
