"""Promise 1: no change without its record, and no record without its change."""

from __future__ import annotations

import pytest

from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.refusals import Bounds
from pilothouse_server.store.unit_of_work import UnitOfWork
from tests.conftest import number_changes
from tests.promises.environment import Environment
from tests.promises.tables import RECORDS, contents

_REFUSE = "ALTER TABLE pending_changes ADD CONSTRAINT no_more_records CHECK (false) NOT VALID"
_ALLOW = "ALTER TABLE pending_changes DROP CONSTRAINT no_more_records"


async def changes_without_record(environment: Environment) -> list[str]:
    """Makes every mutation while no record can be written.

    Returns the changes that happened anyway.
    """
    faults: list[str] = []
    async with environment.sql() as sql:
        await sql.execute(_REFUSE)
        before = await contents(sql)
        for rule in environment.rules.values():
            if rule.mutates:
                outcome = await environment.caller_of(rule).invoke(rule, environment.request(rule))
                if outcome.code not in ("UNAVAILABLE", "INTERNAL"):
                    faults.append(f"{rule.name} answered {outcome.code} {outcome.message}")
                after = await contents(sql)
                faults += [
                    f"{rule.name} changed {table}" for table in before if after[table] != before[table]
                ]
                before = after
        await sql.execute(_ALLOW)
    return faults


async def test_nothing_changes_without_its_record(full_environment: Environment) -> None:
    assert await changes_without_record(full_environment) == []
    # The same requests succeed as soon as they can be recorded, so only the missing record stopped them.
    for rule in sorted(full_environment.rules.values(), key=lambda rule: rule.name == "DeleteNamespace"):
        if rule.mutates:
            outcome = await full_environment.caller_of(rule).invoke(rule, full_environment.request(rule))
            assert outcome.code == "OK", f"{rule.name}: {outcome.code} {outcome.message}"


@pytest.mark.full
async def test_a_change_that_does_not_wait_for_its_record_is_found(
    full_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = UnitOfWork._put

    async def careless(self: UnitOfWork, transaction: object, *arguments: object) -> object:
        work = self._connection
        assert work is not None
        await work.command("COMMIT")
        return await put(self, transaction, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(UnitOfWork, "_put", careless)
    faults = await changes_without_record(full_environment)
    assert "UpdateConfigMap changed config_maps" in faults
    assert "CreateRole changed roles" in faults


@pytest.mark.full
@pytest.mark.parametrize(
    ("function", "method"), [("create_container", "CreateContainer"), ("change_container", "ScaleContainer")]
)
async def test_a_draft_that_does_not_wait_for_its_record_is_found(
    full_environment: Environment, function: str, method: str
) -> None:
    async with full_environment.sql() as sql:
        source = await sql.fetchval(f"SELECT pg_get_functiondef('{function}'::regproc)")
        put = "PERFORM public.put_changes(p_audit, p_hashes, p_events, p_messages, NULL, p_idempotency);"
        assert put in source
        await sql.execute(source.replace(put, f"BEGIN {put} EXCEPTION WHEN OTHERS THEN NULL; END;"))
    assert f"{method} changed containers" in await changes_without_record(full_environment)


async def written_by_validation(environment: Environment) -> list[str]:
    """Makes a dry run of every mutation that has one.

    Returns the writes of each dry run other than its one record.
    """
    faults: list[str] = []
    async with environment.sql() as sql:
        before = await contents(sql, RECORDS)
        for rule in environment.rules.values():
            if rule.has_validate_only:
                request = environment.request(rule)
                request.validate_only = True
                await number_changes(sql)
                count = await sql.fetchval("SELECT count(*) FROM operation_logs")
                outcome = await environment.caller_of(rule).invoke(rule, request)
                if outcome.code != "OK":
                    faults.append(f"{rule.name}: {outcome.code} {outcome.message}")
                await number_changes(sql)
                rows = await sql.fetch(
                    "SELECT request_path FROM operation_logs ORDER BY sequence OFFSET $1", count
                )
                if [row["request_path"] for row in rows if row["request_path"] == rule.method] != [
                    rule.method
                ]:
                    faults.append(f"{rule.name} left {len(rows)} records")
                after = await contents(sql, RECORDS)
                faults += [f"{rule.name} wrote {table}" for table in before if after[table] != before[table]]
                before = after
    return faults


async def test_validation_writes_nothing_but_its_record(full_environment: Environment) -> None:
    assert await written_by_validation(full_environment) == []


@pytest.mark.full
async def test_validation_that_is_committed_is_found(
    full_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keep(_self: Call) -> None:
        return

    monkeypatch.setattr(Call, "leave_transaction", keep)
    faults = await written_by_validation(full_environment)
    assert "CreateContainer wrote containers" in faults


async def test_denied_calls_return_audit_unavailable_without_their_record(
    full_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An anonymous caller who tries every method exceeds the bound of single records.
    monkeypatch.setattr(
        full_environment.server.application.audit.anonymous_refusals, "bounds", Bounds(singly=1000)
    )
    async with full_environment.sql() as sql:
        await sql.execute(_REFUSE)
        for rule in full_environment.rules.values():
            denied = await full_environment.stranger.invoke(rule, full_environment.request(rule))
            if rule.public:
                continue
            assert (denied.code, denied.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE"), rule.name
        await sql.execute(_ALLOW)
