"""`append_changes`: numbers in commit order, no gap after a rollback, a chain that Python computes alike."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.conftest import Database, connection, number_changes
from tests.migrations.filling import ADMINISTRATOR, user_of
from tests.promises.chain import broken_links
from tests.waiting import patient, poll_until

WRITERS = 16
_GENESIS = bytes(32)


def _record(number: int = 0, **columns: Any) -> dict[str, Any]:
    """An audit record as the application sends it: its columns, and the hash over them."""
    record = {
        "action": "create",
        "resource_type": "container",
        "resource_id": number,
        "user_id": None,
        **columns,
    }
    return {**record, "record_hash": hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()}


def _event(number: int = 0, **columns: Any) -> dict[str, Any]:
    message = base64.b64encode(f"message {number}".encode()).decode()
    return {
        "resource_type": "container",
        "resource_id": number,
        "namespace_id": None,
        "resource_name": f"web-{number}",
        "kind": "modified",
        "message": message,
        **columns,
    }


async def _append(opened: asyncpg.Connection, **arguments: Any) -> asyncpg.Record:
    names = ("audit", "events", "operation", "idempotency")
    given = [name for name in names if name in arguments]
    parameters = ", ".join(f"p_{name} => ${index}::jsonb" for index, name in enumerate(given, 1))
    row = await opened.fetchrow(
        f"SELECT * FROM append_changes({parameters})", *(json.dumps(arguments[name]) for name in given)
    )
    assert row is not None
    return row


async def _chain_faults(opened: asyncpg.Connection) -> list[str]:
    """What is wrong with the audit log, recomputed here; `opened` may read all of it."""
    faults = []
    chain, expected = _GENESIS, 0
    for row in await opened.fetch(
        "SELECT sequence, record_hash, chain_hash FROM operation_logs ORDER BY sequence"
    ):
        expected += 1
        if row["sequence"] != expected:
            faults.append(f"sequence {expected} is missing or double")
            expected = row["sequence"]
        chain = hashlib.sha256(chain + row["sequence"].to_bytes(8, "big") + row["record_hash"]).digest()
        if chain != row["chain_hash"]:
            faults.append(f"the chain breaks at {row['sequence']}")
            chain = row["chain_hash"]
    head = await opened.fetchrow("SELECT audit_sequence, audit_chain_hash FROM stream_head")
    assert head is not None
    if (head[0], bytes(head[1])) != (expected, bytes(chain)):
        faults.append("the head is not the last record's")
    return faults


async def test_sixteen_writers_get_gapless_numbers_in_commit_order(database: Database) -> None:
    """A fifth of the transactions roll back; a reader that follows by cursor misses nothing."""
    commits = 12
    returned: list[tuple[str, asyncpg.Record, int, int]] = []
    done = asyncio.Event()

    async def write(writer: int) -> None:
        choose = random.Random(writer)
        async with connection(database.system_dsn) as opened:
            for _ in range(commits):
                operation = str(uuid4())
                records = [_record(writer, operation_id=operation) for _ in range(choose.randint(0, 2))]
                events = [_event(writer, operation_id=operation) for _ in range(choose.randint(0, 3))]
                transaction = opened.transaction()
                await transaction.start()
                row = await _append(opened, audit=records, events=events)
                if choose.random() < 0.2:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    returned.append((operation, row, len(events), len(records)))

    async def follow() -> list[int]:
        seen: list[int] = []
        async with connection(database.system_dsn) as opened:
            while True:
                finished = done.is_set()
                rows = await opened.fetch(
                    "SELECT revision FROM events WHERE revision > $1 ORDER BY revision",
                    seen[-1] if seen else 0,
                )
                seen.extend(row[0] for row in rows)
                if finished and not rows:
                    return seen

    reader = asyncio.create_task(follow())
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    done.set()
    seen = await reader

    total = sum(events for _, _, events, _ in returned)
    assert total > WRITERS
    assert seen == list(range(1, total + 1))
    async with database.system() as system:
        assert await _chain_faults(system) == []
        assert await system.fetchval("SELECT count(*) FROM operation_logs") == sum(row[3] for row in returned)
        assert await system.fetchval("SELECT revision FROM stream_head") == total
        for operation, row, events, records in returned:
            for table, number, first, last, count in (
                ("events", "revision", row["first_revision"], row["last_revision"], events),
                ("operation_logs", "sequence", row["first_sequence"], row["last_sequence"], records),
            ):
                written = await system.fetch(
                    f"SELECT {number} FROM {table} WHERE operation_id = $1 ORDER BY 1", operation
                )
                expected = list(range(first, last + 1)) if count else []
                assert [one[0] for one in written] == expected


async def test_a_rollback_leaves_no_gap(database: Database) -> None:
    async with database.system() as system:
        first = await _append(system, audit=[_record(1)], events=[_event(1)])
        transaction = system.transaction()
        await transaction.start()
        undone = await _append(system, audit=[_record(2)] * 3, events=[_event(2)] * 5)
        await transaction.rollback()
        second = await _append(system, audit=[_record(3)], events=[_event(3)])
        assert (first["last_revision"], undone["last_revision"], second["last_revision"]) == (1, 6, 2)
        assert (first["last_sequence"], undone["last_sequence"], second["last_sequence"]) == (1, 4, 2)
        assert await _chain_faults(system) == []


async def _second_while_first_is_open(database: Database, **arguments: Any) -> asyncpg.Record:
    """Appends twice, the second while the first is uncommitted; what the second is answered once the first commits."""
    async with database.system() as first, database.system() as second, database.system() as observer:
        transaction = first.transaction()
        await transaction.start()
        await _append(first, **arguments)
        waiting = asyncio.create_task(_append(second, **arguments))

        async def blocked() -> bool:
            query = "SELECT cardinality(pg_blocking_pids($1)) > 0"
            return bool(await observer.fetchval(query, second.get_server_pid()))

        await poll_until(blocked)
        assert await observer.fetchval("SELECT revision + audit_sequence FROM stream_head") == 0
        await transaction.commit()
        return await waiting


async def test_a_writer_waits_until_the_one_before_has_ended(database: Database) -> None:
    row = await _second_while_first_is_open(database, audit=[_record()], events=[_event()])
    assert tuple(row)[:4] == (2, 2, 2, 2)
    async with database.system() as system:
        assert await _chain_faults(system) == []


async def test_without_the_lock_numbers_are_double(database: Database) -> None:
    """The positive control of the test above and of the one with sixteen writers.

    Of the log, that is: a revision given twice breaks the key of the events, and is then given anew.
    """
    async with database.owner() as owner:
        source = await owner.fetchval("SELECT pg_get_functiondef('number_visible'::regproc)")
        assert source.count(" FOR UPDATE;") == 1
        await owner.execute(source.replace(" FOR UPDATE;", ";"))
    await _second_while_first_is_open(database, audit=[_record()])
    async with database.system() as system:
        assert await _chain_faults(system) != []


async def test_what_is_written_is_what_was_given(tenants: Database) -> None:
    async with tenants.owner() as owner:
        await owner.execute("TRUNCATE operation_logs, events")
    operation = str(uuid4())
    record = _record(
        5, operation_id=operation, user_id=11, username="alpha", namespace_id=1, request_method="UNARY",
        request_body={"container": {"name": "größe", "n": 1}}, status_code=409, error_code="ALREADY_EXISTS",
        started_at="2026-11-24T10:00:00.123456Z", duration_ms=3, metadata={"peer": "ipv4:127.0.0.1"},
    )  # fmt: skip
    event = _event(
        5, namespace_id=1, labels={"app": "web"}, status="running", labels_before={}, status_before="pending"
    )
    async with tenants.owner() as owner:
        await owner.execute("SELECT create_monthly_partitions('operation_logs', '2026-11-01', 1)")
    async with tenants.system() as system:
        row = await _append(
            system,
            audit=[record],
            events=[event],
            operation={"operation_id": operation, "user_id": 11, "method": "Create", "resource_type": "container"},
            idempotency={
                "user_id": 11, "request_id": operation, "method": "Create", "request_hmac": "aGk=",
                "response": base64.b64encode(b"answer").decode(), "operation_id": operation,
            },
        )  # fmt: skip
        stored = await system.fetchrow(
            "SELECT * FROM operation_logs WHERE sequence = $1", row["last_sequence"]
        )
        assert stored is not None
        assert json.loads(stored["request_body"]) == record["request_body"]
        assert stored["started_at"].isoformat() == "2026-11-24T10:00:00.123456+00:00"
        assert stored["record_hash"].hex() == record["record_hash"]
        assert (stored["error_code"], stored["status_code"], stored["username"]) == (
            "ALREADY_EXISTS",
            409,
            "alpha",
        )
        stored = await system.fetchrow("SELECT * FROM events WHERE revision = $1", row["last_revision"])
        assert stored is not None
        assert stored["message"] == b"message 5"
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
        assert row["history_id"] == await system.fetchval("SELECT history_id FROM stream_head")


async def test_nothing_to_append_answers_the_head(database: Database) -> None:
    async with database.system() as system:
        await _append(system, audit=[_record()], events=[_event(), _event()])
        row = await _append(system, audit=None, events=None, operation=None, idempotency=None)
        assert tuple(row)[:4] == (None, 2, None, 1)


async def test_a_replayed_request_id_appends_nothing(tenants: Database) -> None:
    key = {"user_id": 11, "request_id": str(uuid4()), "method": "Create", "request_hmac": "aGk="}
    async with tenants.system() as system:
        first = await _append(system, events=[_event(1)], idempotency=key)
        with pytest.raises(asyncpg.UniqueViolationError, match="pk_idempotency_keys"):
            await _append(system, events=[_event(2)], idempotency=key)
        assert await system.fetchval("SELECT max(revision) FROM events") == first["last_revision"]


async def test_an_operation_that_is_there_already_stays(database: Database) -> None:
    operation = {"operation_id": str(uuid4()), "method": "Create", "resource_type": "container"}
    async with database.system() as system:
        await _append(system, operation=operation)
        await _append(system, operation={**operation, "method": "Delete"})
        assert [row[0] for row in await system.fetch("SELECT method FROM operations")] == ["Create"]


async def test_listeners_are_told_the_newest_revision_when_it_is_committed(database: Database) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with database.system() as system, database.system() as listener:
        await listener.add_listener("pilothouse_changes", lambda *arguments: heard.put_nowait(arguments[3]))
        transaction = system.transaction()
        await transaction.start()
        await _append(system, events=[_event()] * 3)
        await listener.execute("SELECT 1")
        assert heard.empty()
        await transaction.commit()
        assert await asyncio.wait_for(heard.get(), patient(10)) == "3"
        # A record without an event is nothing that a watcher waits for.
        await _append(system, audit=[_record()])
        await _append(system, events=[_event()])
        assert await asyncio.wait_for(heard.get(), patient(10)) == "4"


@pytest.mark.parametrize(
    ("columns", "refused"),
    [
        ({"record_hash": "00"}, "record_hash"),
        ({"duration_ms": -1}, "duration_ms"),
        ({"status_code": 7}, "status_code"),
        ({"request_method": "GET"}, "request_method"),
    ],
)
async def test_a_record_that_breaks_a_rule_is_refused_whole(
    database: Database, columns: dict[str, Any], refused: str
) -> None:
    async with database.system() as system:
        with pytest.raises(asyncpg.CheckViolationError, match=f"ck_operation_logs_{refused}"):
            await _append(system, audit=[_record(), _record() | columns], events=[_event()])
        assert await system.fetch("SELECT FROM operation_logs") == []
        assert await system.fetchval("SELECT revision + audit_sequence FROM stream_head") == 0


async def test_a_new_word_of_the_log_needs_no_migration(database: Database) -> None:
    async with database.system() as system:
        await _append(system, audit=[_record() | {"action": "fly", "resource_type": "moon"}])
        found = await system.fetchrow("SELECT action, resource_type FROM operation_logs")
        assert found is not None
        assert tuple(found) == ("fly", "moon")


async def test_requests_append_in_their_own_name_only(tenants: Database) -> None:
    async with tenants.owner() as owner:
        await owner.execute("TRUNCATE operation_logs, events")
    mine: dict[str, Any] = {"user_id": user_of(1), "username": "alpha", "namespace_id": 1}
    async with tenants.app(user_of(1)) as app:
        await _append(app, audit=[_record(**mine)], events=[_event(namespace_id=1)])
    key = {"request_id": str(uuid4()), "method": "Create", "request_hmac": "aGk="}
    for forged in (
        {"audit": [_record(**mine), _record(user_id=user_of(2))]},
        {"audit": [_record(user_id=None)]},
        {"idempotency": {**key, "user_id": user_of(2)}},
        {
            "operation": {
                "operation_id": str(uuid4()),
                "method": "x",
                "resource_type": "user",
                "user_id": user_of(2),
            }
        },
        {"events": [_event(namespace_id=1), _event(namespace_id=2)]},
        {"events": [_event(namespace_id=None)]},
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with tenants.app(user_of(1)) as app:
                await _append(app, **forged)
    async with tenants.app(ADMINISTRATOR) as app:
        await _append(app, events=[_event(namespace_id=2), _event(namespace_id=None)])
    async with tenants.system() as system:
        assert await _chain_faults(system) == []
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


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE operation_logs SET record_hash = sha256('forged') WHERE sequence = 3",
        "UPDATE operation_logs SET chain_hash = sha256('forged') WHERE sequence = 5",
        "UPDATE operation_logs SET sequence = CASE sequence WHEN 2 THEN 3 ELSE 2 END WHERE sequence IN (2, 3)",
        "DELETE FROM operation_logs WHERE sequence = 3",
        "DELETE FROM operation_logs WHERE sequence = 5",
        "DELETE FROM operation_logs",
        "UPDATE stream_head SET audit_sequence = 4",
    ],
)
async def test_tampering_is_found(database: Database, tampering: str) -> None:
    """The positive control of the recomputed chain."""
    async with database.system() as system, database.owner() as owner:
        for number in range(5):
            await _append(system, audit=[_record(number)])
        assert await _chain_faults(system) == []
        await owner.execute(tampering)
        assert await _chain_faults(system) != []


async def test_a_new_history_has_a_new_name_and_the_same_numbers(database: Database) -> None:
    async with database.system() as system, database.owner() as owner:
        before = await _append(system, events=[_event()])
        name = await owner.fetchval("SELECT begin_new_history()")
        after = await _append(system, events=[_event()])
        assert after["history_id"] == name != before["history_id"]
        assert after["first_revision"] == before["last_revision"] + 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.app() as app:
                await app.execute("SELECT begin_new_history()")


async def test_a_new_history_ends_leases_and_stands_in_the_log(database: Database) -> None:
    async with database.system() as system, database.owner() as owner:
        before = (await _append(system, events=[_event()]))["history_id"]
        await system.execute(
            "INSERT INTO leases (name, owner, epoch, expires_at) VALUES ('a', 'somebody', 7, now() + '1 hour')"
        )
        await system.execute(
            "INSERT INTO reconcile_work (resource_type, resource_id, cluster_name, lease_owner, lease_epoch, "
            "leased_until, due_at) VALUES ('namespace', 1, 'c', 'somebody', 3, now() + '1 hour', now() + '1 hour')"
        )
        words = 'the "reason" \\ of\tit, ä'
        name = await system.fetchval("SELECT begin_new_history($1, 'seen', $2)", words, before)
        # The second server that found the same history broken is given the new one.
        assert await system.fetchval("SELECT begin_new_history('again', '', $1)", before) == name != before
        await number_changes(system)
        lease = await owner.fetchrow("SELECT owner, epoch, expires_at <= now() AS free FROM leases")
        assert tuple(lease or ()) == (None, 8, True)
        work = await owner.fetchrow(
            "SELECT lease_owner, lease_epoch, leased_until, due_at <= now() FROM reconcile_work"
        )
        assert tuple(work or ()) == (None, 4, None, True)
        assert await broken_links(owner) == []
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
