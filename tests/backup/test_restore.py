"""A restored database equals the one that was backed up, and begins a new history."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_client.streams import ChangeKind
from pilothouse_server.backup.sealing import make_key_file
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.backup.copies import back_up, empty_database, restore
from tests.conftest import Database, connection, number_changes
from tests.harness import Server, running_server
from tests.isolation import test_tenants
from tests.isolation.rules import findings
from tests.migrations.catalogue import contents, snapshot
from tests.migrations.filling import TENANTS
from tests.migrations.sequencing import event, put, record
from tests.promises.stored_log import log_faults

# The fields that a new history changes deliberately.
_HEAD = {
    *("history_id", "audit_sequence", "record_mark"),
    *("pending_floor", "floor_candidate", "floor_transaction"),
}
_LEASE = {"owner", "epoch", "expires_at"}
_WORK = {"lease_owner", "leased_until", "lease_epoch", "due_at", "updated_at"}


@pytest.mark.full
async def test_every_table_is_restored_and_tenants_stay_isolated(
    tenants: Database, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with tenants.owner() as owner:
        await number_changes(owner)
        # A new history deletes heads beyond the end of the tree, so the tree must reach the head of size 1.
        await owner.execute("UPDATE audit_tree SET size = 1")
        before, schema = await contents(owner), await plain_schema(owner)
        sequences = await last_values(owner)
    backup = await back_up(tenants, tmp_path)
    async with empty_database(postgres) as empty:
        await restore(backup.path, empty)
        async with empty.owner() as owner:
            after = await contents(owner)
            assert await plain_schema(owner) == schema
            numbers = await last_values(owner)
        # A new history adds one record to the log, and so moves the head; it ends all leases.
        assert {name for name in numbers if numbers[name] != sequences[name]} == {
            "operation_logs_id_seq",
            "pending_changes_id_seq",
        }
        (head_before,), (head_after,) = before.pop("stream_head"), after.pop("stream_head")
        assert {name for name in head_before if head_before[name] != head_after[name]} <= _HEAD
        assert head_after["history_id"] != head_before["history_id"]
        assert head_after["audit_sequence"] == head_before["audit_sequence"] + 1
        log = after["operation_logs"]
        (begun,) = [row for row in log if row not in before["operation_logs"]]
        assert begun["metadata"]["reason"] == "a backup was restored"
        log.remove(begun)
        for rows in (before, after):
            assert rows.pop("pending_changes") == []
            for table, leased in (("leases", _LEASE), ("reconcile_work", _WORK)):
                rows[table] = [without(row, leased) for row in rows[table]]
        assert len(before) > 30
        for table, expected in before.items():
            assert expected, table
            assert after[table] == expected, table
        async with connection(empty.admin_dsn) as admin:
            assert await findings(admin) == []
        for tenant in TENANTS:
            await test_tenants.test_a_tenant_sees_its_own_rows_and_no_others(empty, tenant)
        await test_tenants.test_without_an_identity_nothing_is_seen(empty)
        await test_tenants.test_foreign_rows_can_be_neither_changed_nor_deleted(empty)


async def plain_schema(owner: asyncpg.Connection) -> set[str]:
    """Returns the schema without the casts and brackets that PostgreSQL adds whenever it parses an expression."""
    return {re.sub(r"::(text|character varying|bpchar)|[()\[\]]", "", line) for line in await snapshot(owner)}


def without(row: dict[str, object], names: set[str]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name not in names}


async def last_values(sql: asyncpg.Connection) -> dict[str, int | None]:
    """Returns the last value of each sequence, because no number may be given twice."""
    rows = await sql.fetch("SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public'")
    return {row["sequencename"]: row["last_value"] for row in rows}


async def test_pending_changes_are_numbered_by_the_restore(
    database: Database, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    async with database.owner() as owner:
        await put(owner, [record(1)], [(event(1), b"first")])
        await put(owner, [record(2)], [(event(2), b"second")])
        revision = await owner.fetchval("SELECT revision FROM stream_head")
    backup = await back_up(database, tmp_path)
    assert backup.manifest.revision == revision
    async with empty_database(postgres) as empty:
        await restore(backup.path, empty)
        async with empty.owner() as owner:
            events = await owner.fetch("SELECT revision, message FROM events ORDER BY revision DESC LIMIT 2")
            assert [tuple(row) for row in events] == [(revision + 2, b"second"), (revision + 1, b"first")]
            assert await owner.fetchval("SELECT count(*) FROM pending_changes") == 0
            # The search for pending rows is not stuck at a transaction of the other server.
            await put(owner, [record(3)], [(event(3), b"third")])
            await number_changes(owner)
            assert await owner.fetchval("SELECT revision FROM stream_head") == revision + 3


@pytest.mark.full
async def test_a_server_continues_with_a_restored_database(
    database: Database, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Secrets are decrypted, the log is complete, and an earlier watcher learns that the history is new."""
    key_file = tmp_path / "backup.key"
    make_key_file(key_file)
    async with running_server(database, tmp_path / "first", with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="vault"))
        secret = config_pb2.Secret(name="pin", string_data={"value": "correct horse"})
        await server.admin.config.create_secret(namespace="vault", secret=secret)
        token = await token_now(server)
        master = server.application.settings.key_file
        backup = await back_up(database, tmp_path / "backups", key_file=key_file, master_key_file=master)
        assert set(backup.manifest.files) == {"database.dump.sealed", "master.key.sealed"}
        assert await resumed(server, token) == "OK"
    async with empty_database(postgres) as empty:
        restored_keys = tmp_path / "restored.key"
        await restore(backup.path, empty, key_file=key_file, master_keys_to=restored_keys)
        assert restored_keys.read_text() == master.read_text()
        assert restored_keys.stat().st_mode & 0o077 == 0
        async with running_server(
            empty, tmp_path / "second", with_cluster=False, secret_key_file=restored_keys
        ) as server:
            values = await server.admin.config.reveal_secret(namespace="vault", name="pin")
            assert values.data["value"] == b"correct horse"
            assert await resumed(server, token) == "WATCH_CHANGED"
        async with empty.owner() as owner:
            await number_changes(owner)
            assert await log_faults(owner) == []
            assert (
                await owner.fetchval("SELECT count(*) FROM operation_logs") > backup.manifest.audit_sequence
            )


async def token_now(server: Server) -> str:
    """Returns the token of a watch that has caught up."""
    async with server.admin.config.watch_configs(namespace="vault") as watch:
        async for change in watch:
            if change.kind is ChangeKind.SYNCED:
                return change.resume_token
    raise AssertionError("the watch ended")


async def resumed(server: Server, token: str) -> str:
    """Returns the outcome of a watch with an earlier token."""
    async with server.admin.config.watch_configs(
        namespace="vault", resume_token=token, bookmark_period_seconds=1
    ) as watch:
        try:
            change = await anext(aiter(watch))
        except PilothouseError as error:
            return error.reason
        return "WATCH_CHANGED" if change.kind is ChangeKind.RESTARTED else "OK"
