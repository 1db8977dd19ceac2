"""`put_changes` and `sequence_changes`: changes are numbered as they were put, within the limits of their caller."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.conftest import Database, connection, number_changes
from tests.migrations.filling import ADMINISTRATOR, user_of
from tests.migrations.sequencing import PUT, event, numbering_faults, put, record, record_hash, sequence
from tests.promises.stored_log import log_faults
from tests.waiting import patient

# An event and its message.
_EVENT = (event(), b"message")


async def test_changes_are_written_as_given(tenants: Database) -> None:
    operation = str(uuid4())
    given = record(
        5, operation_id=operation, user_id=11, username="alpha", namespace_id=1, request_method="UNARY",
        request_body={"container": {"name": "größe", "n": 1}}, status_code=409, error_code="ALREADY_EXISTS",
        started_at="2026-11-24T10:00:00.123456Z", duration_ms=3, metadata={"peer": "ipv4:127.0.0.1"},
    )  # fmt: skip
    change = event(
        5, namespace_id=1, labels={"app": "web"}, status="running", labels_before={}, status_before="pending"
    )
    async with tenants.owner() as owner:
        await owner.execute("TRUNCATE operation_logs, events, pending_changes")
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2026-11-01', 1)")
    async with tenants.system() as system:
        await put(
            system,
            [given],
            [(change, b"message 5")],
            operation={"operation_id": operation, "user_id": 11, "method": "Create", "resource_type": "container"},
            idempotency={
                "user_id": 11, "request_id": operation, "method": "Create", "request_hmac": "aGk=",
                "response": base64.b64encode(b"answer").decode(), "operation_id": operation,
            },
        )  # fmt: skip
        numbered, head = await sequence(system)
        stored = await system.fetchrow(
            "SELECT * FROM operation_logs WHERE sequence = $1", head["audit_sequence"]
        )
        assert stored is not None
        assert json.loads(stored["request_body"]) == given["request_body"]
        assert stored["started_at"].isoformat() == "2026-11-24T10:00:00.123456+00:00"
        assert stored["record_hash"] == record_hash(given)
        assert (stored["error_code"], stored["status_code"], stored["username"]) == (
            "ALREADY_EXISTS",
            409,
            "alpha",
        )
        stored = await system.fetchrow("SELECT * FROM events WHERE revision = $1", numbered["revision"])
        assert stored is not None
        assert stored["message"] == numbered["message"] == b"message 5"
        assert (stored["status"], stored["status_before"], json.loads(stored["labels"])) == (
            "running",
            "pending",
            {"app": "web"},
        )
        assert (
            await system.fetchval("SELECT method FROM operations WHERE operation_id = $1", operation)
            == "Create"
        )
        assert (
            await system.fetchval("SELECT response FROM idempotency_keys WHERE request_id = $1", operation)
            == b"answer"
        )
        assert head["history_id"] == await system.fetchval("SELECT history_id FROM stream_head")


async def test_a_call_with_nothing_pending_returns_only_the_head(database: Database) -> None:
    async with database.system() as system:
        await put(system, [record()], [_EVENT, _EVENT])
        assert [row["revision"] for row in await sequence(system)] == [1, 2, 2]
        (head,) = await sequence(system)
        assert (head["revision"], head["audit_sequence"]) == (2, 1)


async def test_a_replayed_request_id_puts_nothing(tenants: Database) -> None:
    key = {"user_id": 11, "request_id": str(uuid4()), "method": "Create", "request_hmac": "aGk="}
    async with tenants.system() as system:
        await put(system, [], [_EVENT], idempotency=key)
        pending = await system.fetch("SELECT id FROM pending_changes")
        with pytest.raises(asyncpg.UniqueViolationError, match="pk_idempotency_keys"):
            await put(system, [], [_EVENT], idempotency=key)
        assert await system.fetch("SELECT id FROM pending_changes") == pending


async def test_an_existing_operation_is_not_replaced(database: Database) -> None:
    operation = {"operation_id": str(uuid4()), "method": "Create", "resource_type": "container"}
    async with database.system() as system:
        await put(system, [], [], operation=operation)
        await put(system, [], [], operation={**operation, "method": "Delete"})
        assert [row[0] for row in await system.fetch("SELECT method FROM operations")] == ["Create"]


async def test_listeners_are_notified_of_the_newest_revision_when_it_is_numbered(database: Database) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with database.system() as system, database.system() as listener:
        await listener.add_listener("pilothouse_changes", lambda *arguments: heard.put_nowait(arguments[3]))
        await put(system, [], [_EVENT] * 3)
        await listener.execute("SELECT 1")
        assert heard.empty()
        await sequence(system)
        assert await asyncio.wait_for(heard.get(), patient(10)) == "3"
        # A record without an event does not notify watchers.
        await put(system, [record()], [])
        await sequence(system)
        await put(system, [], [_EVENT])
        await sequence(system)
        assert await asyncio.wait_for(heard.get(), patient(10)) == "4"


@pytest.mark.parametrize(
    ("columns", "refused"),
    [
        ({}, "record_hash"),
        ({"duration_ms": -1}, "duration_ms"),
        ({"status_code": 7}, "status_code"),
        ({"request_method": "GET"}, "request_method"),
    ],
)
async def test_a_record_that_breaks_a_rule_is_refused_whole(
    database: Database, columns: dict[str, Any], refused: str
) -> None:
    records = [record(), record() | columns]
    hashes = [record_hash(records[0]), record_hash(records[1]) if columns else b"short"]
    async with database.system() as system:
        with pytest.raises(asyncpg.CheckViolationError, match=f"ck_operation_logs_{refused}"):
            await system.execute(PUT, json.dumps(records), hashes, json.dumps([_EVENT[0]]), [_EVENT[1]])
        assert await system.fetch("SELECT id FROM pending_changes") == []


async def test_a_new_action_or_resource_type_of_the_log_needs_no_migration(database: Database) -> None:
    async with database.system() as system:
        await put(system, [record() | {"action": "fly", "resource_type": "moon"}], [])
        await sequence(system)
        found = await system.fetchrow("SELECT action, resource_type FROM operation_logs")
        assert found is not None
        assert tuple(found) == ("fly", "moon")


async def test_requests_can_put_changes_only_in_their_own_name(tenants: Database) -> None:
    async with tenants.owner() as owner:
        await owner.execute("TRUNCATE operation_logs, events, pending_changes")
    mine: dict[str, Any] = {"user_id": user_of(1), "username": "alpha", "namespace_id": 1}
    of_one, of_two, of_none = ((event(namespace_id=number), b"") for number in (1, 2, None))
    async with tenants.app(user_of(1)) as app:
        await put(app, [record(**mine)], [of_one])
    key = {"request_id": str(uuid4()), "method": "Create", "request_hmac": "aGk="}
    other = {"operation_id": str(uuid4()), "method": "x", "resource_type": "user", "user_id": user_of(2)}
    for records, events, more in (
        ([record(**mine), record(user_id=user_of(2))], [], {}),
        ([record(user_id=None)], [], {}),
        ([], [], {"idempotency": {**key, "user_id": user_of(2)}}),
        ([], [], {"operation": other}),
        ([], [of_one, of_two], {}),
        ([], [of_none], {}),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with tenants.app(user_of(1)) as app:
                await put(app, records, events, **more)
    async with tenants.app(ADMINISTRATOR) as app:
        await put(app, [], [of_two, of_none])
    async with tenants.system() as system:
        await number_changes(system)
        assert await numbering_faults(system) == []
        assert await system.fetchval("SELECT count(*) FROM operation_logs") == 1


@pytest.mark.parametrize("login", ["app_dsn", "system_dsn"])
@pytest.mark.parametrize("table", ["operation_logs", "events", "stream_head"])
async def test_the_function_is_the_only_way_to_write(database: Database, login: str, table: str) -> None:
    async with connection(getattr(database, login)) as opened:
        for statement in (
            f"INSERT INTO {table} SELECT * FROM {table}",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await opened.execute(statement)
    async with connection(database.admin_dsn) as admin:
        column = await admin.fetchval(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 1", table
        )
    async with connection(getattr(database, login)) as opened:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await opened.execute(f"UPDATE {table} SET {column} = {column}")


async def _five_records(system: asyncpg.Connection) -> None:
    for number in range(5):
        await put(system, [record(number)], [])
    await number_changes(system)
    assert await numbering_faults(system) == []


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE operation_logs SET mark = 'another!' WHERE sequence = 5",
        "UPDATE operation_logs SET mark = 'the same' WHERE sequence IN (2, 3)",
        "UPDATE operation_logs SET sequence = 6 WHERE sequence = 3",
        "DELETE FROM operation_logs WHERE sequence = 3",
        "DELETE FROM operation_logs WHERE sequence = 5",
        "DELETE FROM operation_logs",
        "UPDATE stream_head SET audit_sequence = 4",
    ],
)
async def test_tampering_is_found(database: Database, tampering: str) -> None:
    """The positive control of the check of places and marks."""
    async with database.system() as system, database.owner() as owner:
        await _five_records(system)
        await owner.execute(tampering)
        assert await numbering_faults(system) != []


async def test_a_new_history_has_a_new_name_and_the_same_numbers(database: Database) -> None:
    async with database.system() as system, database.owner() as owner:
        await put(system, [], [_EVENT])
        before = (await sequence(system))[-1]
        name = await owner.fetchval("SELECT begin_new_history()")
        await put(system, [], [_EVENT])
        after = (await sequence(system))[-1]
        assert after["history_id"] == name != before["history_id"]
        assert after["revision"] == before["revision"] + 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.app() as app:
                await app.execute("SELECT begin_new_history()")


async def test_a_new_history_ends_leases_and_is_logged(database: Database) -> None:
    async with database.system() as system, database.owner() as owner:
        await put(system, [], [_EVENT])
        before = (await sequence(system))[-1]["history_id"]
        await system.execute(
            "INSERT INTO leases (name, owner, epoch, expires_at) VALUES ('a', 'somebody', 7, now() + '1 hour')"
        )
        await system.execute(
            "INSERT INTO reconcile_work (resource_type, resource_id, cluster_name, lease_owner, lease_epoch, "
            "leased_until, due_at) VALUES ('namespace', 1, 'c', 'somebody', 3, now() + '1 hour', now() + '1 hour')"
        )
        words = 'the "reason" \\ of\tit, ä'
        name = await system.fetchval("SELECT begin_new_history($1, 'seen', $2)", words, before)
        # A second server that found the same history broken receives the new history.
        assert await system.fetchval("SELECT begin_new_history('again', '', $1)", before) == name != before
        await number_changes(system)
        lease = await owner.fetchrow("SELECT owner, epoch, expires_at <= now() AS free FROM leases")
        assert tuple(lease or ()) == (None, 8, True)
        work = await owner.fetchrow(
            "SELECT lease_owner, lease_epoch, leased_until, due_at <= now() FROM reconcile_work"
        )
        assert tuple(work or ()) == (None, 4, None, True)
        assert await log_faults(owner) == []
        rows = await owner.fetch("SELECT metadata FROM operation_logs")
        assert [row["metadata"] for row in rows] == [
            {
                "history": str(name),
                "history_before": str(before),
                "reason": words,
                "revision": 1,
                "seen": "seen",
                "sequence": 0,
            }
        ]
