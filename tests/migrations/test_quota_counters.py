"""`quota_counters` against a recount: the sums equal those of the rows.

That holds after all writes and rollbacks, and with open transactions.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest

from tests import deadlocks
from tests.conftest import Database
from tests.migrations.filling import user_of

_KEPT = """SELECT namespace_id, sum(containers) AS containers, sum(cpu_millicores) AS cpu, sum(memory_bytes) AS memory
    FROM quota_counters GROUP BY namespace_id ORDER BY namespace_id"""
_RECOUNT = """SELECT n.id AS namespace_id, count(c.id) AS containers,
    coalesce(sum(c.quota_cpu_millicores), 0) AS cpu, coalesce(sum(c.quota_memory_bytes), 0) AS memory
    FROM namespaces AS n LEFT JOIN containers AS c ON c.namespace_id = n.id AND c.deletion_requested_at IS NULL
    GROUP BY n.id ORDER BY n.id"""
_INSERT = """INSERT INTO containers
    (name, namespace_id, image_id, kubernetes_name, quota_cpu_millicores, quota_memory_bytes)
    SELECT gen_random_uuid()::text, 1 + i % $2, 1, 'web', i * 10, 1::bigint << (i % 63)
    FROM generate_series(1, $1::integer) AS i"""
_PICKED = "(SELECT id FROM containers ORDER BY md5(id::text || $1) LIMIT 3)"
# Each is one statement of a transaction.
_OPERATIONS = (
    lambda c, n: c.execute(_INSERT, n % 9, 1 + n % 2),
    lambda c, n: c.execute(
        f"UPDATE containers SET quota_cpu_millicores = length($1) * 7, quota_memory_bytes = 3 WHERE id IN {_PICKED}",
        str(n),
    ),
    lambda c, n: c.execute(
        f"UPDATE containers SET deletion_requested_at = now() WHERE id IN {_PICKED}", str(n)
    ),
    lambda c, n: c.execute(
        f"UPDATE containers SET deletion_requested_at = NULL, quota_cpu_millicores = 1 WHERE id IN {_PICKED}", str(n)
    ),
    # Only containers without parts: the foreign key of a part ties its container to its namespace.
    lambda c, n: c.execute(
        f"UPDATE containers SET namespace_id = 3 - namespace_id WHERE id > 2 AND id IN {_PICKED}", str(n)
    ),
    lambda c, n: c.execute(f"UPDATE containers SET status = 'failed' WHERE id IN {_PICKED}", str(n)),
    # Deletes the parts as well, by ON DELETE CASCADE.
    lambda c, n: c.execute(f"DELETE FROM containers WHERE id IN {_PICKED}", str(n)),
    lambda c, n: c.execute("SELECT fold_quota_changes(1 + $1::bigint % 2)", n),
)  # fmt: skip
Step = Callable[[asyncpg.Connection, int], Awaitable[object]]


async def _differences(opened: asyncpg.Connection) -> list[tuple[asyncpg.Record, asyncpg.Record]]:
    """Returns pairs of stored and counted sums that differ; both are read from one snapshot."""
    async with opened.transaction(isolation="repeatable_read"):
        kept, counted = await opened.fetch(_KEPT), await opened.fetch(_RECOUNT)
    assert len(kept) == len(counted) >= 2
    return [pair for pair in zip(kept, counted, strict=True) if tuple(pair[0]) != tuple(pair[1])]


async def _undone(opened: asyncpg.Connection, work: Callable[[], Awaitable[None]], *, undo: bool) -> None:
    transaction = opened.transaction()
    await transaction.start()
    try:
        await work()
    except asyncpg.PostgresError:
        await transaction.rollback()
        raise
    await (transaction.rollback() if undo else transaction.commit())


async def _random_work(opened: asyncpg.Connection, choose: random.Random, steps: int) -> None:
    """Runs transactions of a few operations, some in savepoints.

    A third of the transactions are rolled back.
    """

    async def operate() -> None:
        operation: Step = choose.choice(_OPERATIONS)
        await operation(opened, choose.randrange(1000))

    async def several() -> None:
        for _ in range(choose.randint(1, 3)):
            if choose.random() < 0.5:
                await _undone(opened, operate, undo=choose.random() < 0.4)
            else:
                await operate()

    for _ in range(steps):
        await _undone(opened, several, undo=choose.random() < 0.3)


@pytest.mark.parametrize("seed", range(3))
async def test_the_sums_equal_a_recount_after_every_transaction(tenants: Database, seed: int) -> None:
    choose = random.Random(seed)
    async with tenants.owner() as owner:
        for _ in range(60):
            await _random_work(owner, choose, 1)
            assert await _differences(owner) == []
        # The ids of a filled database continue from 1000.
        assert await owner.fetchval("SELECT last_value FROM containers_id_seq") > 1020


@pytest.mark.full
async def test_the_sums_are_right_in_every_snapshot_under_several_writers(tenants: Database) -> None:
    deadlocks.EXPECTED.add(tenants.name)

    async def write(seed: int) -> None:
        choose = random.Random(seed)
        async with tenants.owner() as owner:
            for _ in range(60):
                # Two writers sometimes lock the same containers in different orders.
                with suppress(asyncpg.DeadlockDetectedError):
                    await _random_work(owner, choose, 1)

    async with tenants.owner() as reader:
        writers = [asyncio.create_task(write(seed)) for seed in range(4)]
        looks = 0
        while not all(task.done() for task in writers):
            assert await _differences(reader) == []
            looks += 1
        await asyncio.gather(*writers)
        assert looks > 10
        assert await _differences(reader) == []


@pytest.mark.parametrize("missing", ["insert", "update", "delete"])
async def test_a_missing_trigger_is_detected(tenants: Database, missing: str) -> None:
    """The positive control of the tests above."""
    async with tenants.owner() as owner:
        await owner.execute(f"ALTER TABLE containers DISABLE TRIGGER count_container_{missing}")
        await _random_work(owner, random.Random(0), 40)
        assert await _differences(owner) != []


async def test_folding_leaves_one_row_and_the_same_sums(tenants: Database) -> None:
    async with tenants.owner() as owner:
        for _ in range(5):
            await owner.execute(_INSERT, 4, 1)
        before = await owner.fetch(_KEPT)
        assert await owner.fetchval("SELECT fold_quota_changes(1)")
        assert await owner.fetchval("SELECT count(*) FROM quota_counters WHERE namespace_id = 1") == 1
        assert await owner.fetch(_KEPT) == before
        assert await _differences(owner) == []


async def test_differences_are_folded_over_time(tenants: Database) -> None:
    """A namespace's rows stay few, also if no call reads its quota."""
    async with tenants.system() as system, tenants.owner() as owner:
        for _ in range(600):
            await system.execute(_INSERT, 1, 1)
        # With a chance of 1/32 each, not folding once in 400 writes happens once in 300,000 runs.
        assert await owner.fetchval("SELECT count(*) FROM quota_counters") < 400


async def test_writers_do_not_wait_for_folding_or_counting(tenants: Database) -> None:
    """One transaction has folded, another has added; deletions and creates next to them continue."""
    async with tenants.owner() as folder, tenants.system() as adder, tenants.system() as writer:
        await adder.execute(_INSERT, 4, 1)
        async with folder.transaction(), adder.transaction():
            assert await folder.fetchval("SELECT fold_quota_changes(1)")
            await adder.execute(_INSERT, 4, 1)
            await writer.execute("SET lock_timeout = '1ms'")
            for _ in range(100):
                await writer.execute(_INSERT, 1, 1)
            await writer.execute("UPDATE containers SET deletion_requested_at = now() WHERE id = 1")
            await writer.execute("DELETE FROM containers WHERE id = 1")
            async with tenants.owner() as second:
                await second.execute("SET lock_timeout = '1ms'")
                assert not await second.fetchval("SELECT fold_quota_changes(1)")
        assert await _differences(folder) == []


async def test_the_counter_is_created_and_deleted_with_its_namespace(tenants: Database) -> None:
    async with tenants.owner() as owner:
        new = await owner.fetchval(
            "INSERT INTO namespaces (name, kubernetes_name, cluster_name) VALUES ('new', 'new', 'alpha-cluster')"
            " RETURNING id"
        )
        rows = "SELECT count(*) FROM quota_counters WHERE namespace_id = $1 AND id = 0"
        assert await owner.fetchval(rows, new) == 1
        await owner.execute("DELETE FROM namespaces WHERE id = $1", new)
        assert await owner.fetchval(rows, new) == 0


async def test_only_the_triggers_write_the_counters(tenants: Database) -> None:
    for statement in (
        "UPDATE quota_counters SET containers = 0",
        "DELETE FROM quota_counters",
        "INSERT INTO quota_counters VALUES (1, 5, 0, 0, 0)",
        "SELECT fold_quota_changes(1)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with tenants.app(user_of(1)) as app:
                await app.execute(statement)
        async with tenants.system() as system:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await system.execute(statement)
