"""A required sink prevents the deletion of records that it lacks; other sinks do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse_server import app
from pilothouse_server.audit.log_identity import LogIdentity
from pilothouse_server.audit.noun import audit_jobs
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.periodic import Periodic
from pilothouse_server.store.unit_of_work import Store
from tests.conftest import Database
from tests.harness import running_server


async def test_records_that_a_required_sink_lacks_are_kept(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def jobs(store: Store, settings: Settings, identity: LogIdentity, delivered: Any) -> tuple[Periodic, ...]:
        asked.append(delivered)
        return audit_jobs(store, settings, identity, delivered)

    monkeypatch.setattr(app, "audit_jobs", jobs)
    async with running_server(database, tmp_path, with_cluster=False) as server, database.system() as sql:
        # The job that drops old records uses this function.
        (have,) = asked
        assert have == server.application.sinks.have
        assert await have(1_000_000)
        for name, required, position in (("siem", True, 7), ("archive", True, 9), ("other", False, 0)):
            await sql.execute(
                "INSERT INTO audit_sinks (name, kind, address, required, position, next_attempt_at) "
                "VALUES ($1, 'http', 'https://siem.example.com', $2, $3, now() + interval '1 minute')",
                name,
                required,
                position,
            )
        assert [await have(place) for place in (6, 7, 8, 9)] == [True, True, False, False]
        await sql.execute("DELETE FROM audit_sinks WHERE name = 'siem'")
        assert await have(9)
