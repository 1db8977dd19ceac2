"""Work is leased fairly: each namespace has its share of a cluster, and new work goes before deletions."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
import pytest_asyncio

from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.reconcile.repository.work_queue import Work
from tests.reconcile.environment import Environment
from tests.waiting import poll_until, within

MOST = 16
# The smallest number of workers of which two namespaces leave one free.
FEW = 9
MANY = 300


class Queue:
    """Rows of work without resources: they are leased, but no worker executes them."""

    def __init__(self, here: Environment, namespace_ownership: dict[str, int]) -> None:
        self._here, self._homes, self._made = here, namespace_ownership, 0

    async def put(self, namespace: str, count: int, *, seconds_ago: float, going: bool = False) -> None:
        """Adds rows that have been due for `seconds_ago`, each a little less than the one before."""
        async with self._here.database.system() as sql:
            await sql.execute(
                "INSERT INTO reconcile_work (resource_type, resource_id, cluster_name, namespace_id, going, due_at) "
                "SELECT 'config_map', n, 'local', $1, $2, "
                "clock_timestamp() - make_interval(secs => $3::float8 - n / 1e6::float8) "
                "FROM generate_series($4::bigint + 1, $4::bigint + $5) AS n",
                self._homes[namespace],
                going,
                seconds_ago,
                self._made,
                count,
            )
        self._made += count

    async def lease(self, most: int = MOST) -> list[Work]:
        async with self._here.store.system_call() as connection:
            found = await work_queue.lease(connection, owner="test", lease_seconds=60.0, most=most)
        return found.works

    async def lease_into(self, held: Counter[int], workers: int = MOST) -> Counter[str]:
        """Leases work for the free workers, adds it to `held`, and returns the number of items per namespace."""
        async with self._here.store.system_call() as connection:
            found = await work_queue.lease(
                connection,
                owner="test",
                lease_seconds=60.0,
                most=workers,
                free={"local": workers - held.total()},
                held=held,
            )
        held.update(work.namespace_id or 0 for work in found.works)
        return self.by_namespace(found.works)

    def by_namespace(self, works: list[Work]) -> Counter[str]:
        """Returns the number of items per namespace."""
        names = {number: name for name, number in self._homes.items()}
        return Counter(names[work.namespace_id or 0] for work in works)


@pytest_asyncio.fixture(loop_scope="session")
async def queue(here: Environment) -> Queue:
    namespace_ownership = {}
    for name in ("busy", "quiet", "third"):
        await here.namespace(name)
        namespace_ownership[name] = (await here.rows("SELECT id FROM namespaces WHERE name = $1", name))[0][
            "id"
        ]
    async with here.database.system() as sql:
        # The namespaces' own rows are not part of these tests.
        await sql.execute("UPDATE reconcile_work SET due_at = clock_timestamp() + interval '1 day'")
    return Queue(here, namespace_ownership)


async def test_deletions_in_one_namespace_do_not_delay_a_new_container_elsewhere(queue: Queue) -> None:
    await queue.put("busy", MANY, seconds_ago=20.0, going=True)
    await queue.put("quiet", 1, seconds_ago=0.1)
    assert queue.by_namespace(await queue.lease()) == {"quiet": 1, "busy": MOST - 1}


async def test_changes_in_one_namespace_leave_the_others_their_share(queue: Queue) -> None:
    await queue.put("busy", MANY, seconds_ago=20.0)
    await queue.put("quiet", MANY, seconds_ago=0.1)
    assert queue.by_namespace(await queue.lease()) == {"busy": MOST // 2, "quiet": MOST // 2}
    await queue.put("third", 3, seconds_ago=0.1)
    found = queue.by_namespace(await queue.lease())
    assert found["third"] == 3
    assert min(found["busy"], found["quiet"]) >= MOST // 3 - 1
    assert found.total() == MOST


async def test_new_work_goes_before_deletions_but_does_not_starve_them(queue: Queue) -> None:
    await queue.put("busy", MANY, seconds_ago=20.0, going=True)
    await queue.put("busy", MANY, seconds_ago=0.1)
    leased = await queue.lease()
    gone = [work.resource_id for work in leased if work.resource_id <= MANY]
    assert (len(leased), len(gone)) == (MOST, MOST // 5)
    # Work that has waited for half a minute no longer yields.
    await queue.put("busy", MANY, seconds_ago=60.0, going=True)
    old = [work for work in await queue.lease() if work.resource_id > 2 * MANY]
    assert len(old) >= MOST // 3


async def test_all_due_work_is_leased_if_there_is_room(queue: Queue) -> None:
    await queue.put("busy", 5, seconds_ago=20.0, going=True)
    await queue.put("quiet", 5, seconds_ago=0.1)
    assert queue.by_namespace(await queue.lease()) == {"busy": 5, "quiet": 5}
    assert await queue.lease() == []


async def test_repeated_leases_return_each_item_once(queue: Queue) -> None:
    for name in ("busy", "quiet", "third"):
        await queue.put(name, 40, seconds_ago=20.0, going=name == "busy")
        await queue.put(name, 10, seconds_ago=50.0)
    seen: list[Any] = []
    for _ in range(150 // MOST + 1):
        seen += [work.resource_id for work in await queue.lease()]
    assert sorted(seen) == list(range(1, 151))


async def test_a_namespace_whose_work_hangs_leaves_workers_to_the_others(queue: Queue) -> None:
    held: Counter[int] = Counter()
    await queue.put("busy", MANY, seconds_ago=20.0)
    assert await queue.lease_into(held) == {"busy": MOST * 3 // 4}
    assert await queue.lease_into(held) == {}
    await queue.put("quiet", 1, seconds_ago=0.1)
    assert await queue.lease_into(held) == {"quiet": 1}
    # If the second namespace hangs too, there is still room for a third.
    await queue.put("quiet", MANY, seconds_ago=0.1)
    while await queue.lease_into(held):
        pass
    await queue.put("third", 1, seconds_ago=0.1)
    assert await queue.lease_into(held) == {"third": 1}


async def test_two_hanging_namespaces_leave_room_for_a_third(queue: Queue) -> None:
    held: Counter[int] = Counter()
    for name in ("busy", "quiet"):
        await queue.put(name, MANY, seconds_ago=20.0)
    assert await queue.lease_into(held) == dict.fromkeys(("busy", "quiet"), MOST * 3 // 7 + 1)
    assert await queue.lease_into(held) == {}
    await queue.put("third", MANY, seconds_ago=0.1)
    assert (await queue.lease_into(held))["third"] >= 1


async def test_small_amounts_are_leased_immediately_despite_held_work(queue: Queue) -> None:
    held: Counter[int] = Counter()
    for _ in range(3):
        await queue.put("busy", 2, seconds_ago=1.0)
        assert await queue.lease_into(held) == {"busy": 2}


# The policy lets a set number of rows pass; then the lease waits at the next row until the advisory lock is released.
# Each of its statements sees what was committed before the statement began.
_GATE = """
CREATE SEQUENCE public.passed MINVALUE -1000;
CREATE FUNCTION public.pass_gate() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER VOLATILE AS $$
BEGIN
    IF nextval('public.passed') > 0 THEN
        PERFORM pg_advisory_xact_lock_shared(4711);
    END IF;
    RETURN true;
END $$;
GRANT EXECUTE ON FUNCTION public.pass_gate() TO pilothouse_system;
CREATE POLICY gate ON public.reconcile_work AS RESTRICTIVE FOR SELECT TO pilothouse_system
    USING (public.pass_gate());
"""
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"


@pytest.mark.parametrize("before", [1, FEW + 1])
async def test_work_committed_during_a_lease_leaves_workers_to_the_others(
    queue: Queue, here: Environment, before: int
) -> None:
    async with here.database.owner() as sql:
        await sql.execute(_GATE)
        for passes in range(10 * FEW):
            await sql.execute("TRUNCATE public.reconcile_work")
            await sql.execute(f"ALTER SEQUENCE public.passed RESTART WITH {1 - passes}")
            await queue.put("busy", before, seconds_ago=20.0)
            await sql.execute("SELECT pg_advisory_lock(4711)")
            held: Counter[int] = Counter()
            leasing = asyncio.ensure_future(queue.lease_into(held, FEW))
            waited = await poll_until(
                lambda: sql.fetchval(_WAITING),
                lambda waiting: waiting or leasing.done(),  # noqa: B023 - awaited
            )
            for name in ("quiet", "busy"):
                await queue.put(name, FEW, seconds_ago=1.0)
            await sql.execute("SELECT pg_advisory_unlock(4711)")
            leased = await leasing
            assert leased.total() < FEW, f"of {leased}, after {passes} rows"
            if not waited:
                break
        else:
            raise AssertionError("the lease reads more rows than the test lets pass")
        assert passes > 2


async def test_work_of_a_deleted_container_is_marked_as_a_deletion(here: Environment) -> None:
    await here.namespace("shop")
    await here.create()
    going = "SELECT going FROM reconcile_work WHERE resource_type = 'container'"
    assert [row["going"] for row in await here.rows(going)] == [False]
    await here.delete()
    assert [row["going"] for row in await here.rows(going)] == [True]


async def test_requeueing_a_recovered_cluster_does_not_wait_for_locked_rows(
    queue: Queue, here: Environment
) -> None:
    """Other transactions lock several rows in an order of their own."""
    await queue.put("busy", 3, seconds_ago=-60)
    async with here.database.system() as sql:
        await sql.execute("UPDATE reconcile_work SET attempts = 3")
        async with sql.transaction():
            locked = await sql.fetchval("SELECT resource_id FROM reconcile_work LIMIT 1 FOR UPDATE")
            async with within(10), here.store.system_write("test") as transaction:
                await work_queue.requeue_failed(transaction, "local")
    waiting = await here.rows("SELECT resource_id FROM reconcile_work WHERE attempts = 3")
    assert [row["resource_id"] for row in waiting] == [locked]
