"""The steps of the campaign: the work between faults, and the faults."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pilothouse_server.launch.embedded.postgres import program
from tests.conftest import connection, number_changes
from tests.processes import finished
from tests.promises.over_time.site import SPACE, Site, clock
from tests.reconcile.unseen import Others, core, deployment, service
from tests.store.going_back import NAME, Standby, copy_files, point, send_to_all
from tests.waiting import poll_until

Fault = Callable[[Site, random.Random], Awaitable[None]]
_IMAGES = ("nginx:1.27", "nginx:1.28", "nginx:1.29")
_CONFIG = "settings"


async def work(site: Site, choice: random.Random) -> None:
    """Makes acknowledged mutations: creations, updates, and a deletion at times."""
    for _ in range(3):
        name, image = f"web-{next(site.numbers)}", choice.choice(_IMAGES)
        port = {"containerPort": 80, "serviceName": name, "servicePort": 80}
        container = {"name": name, "image": image, "ports": [port]}
        await _once(site, "CreateContainer", {"namespace": SPACE, "container": container})
        site.expected[name] = image
    changed, gone = choice.sample(sorted(site.expected), 2)
    site.expected[changed] = choice.choice(_IMAGES)
    change = {"container": {"image": site.expected[changed]}, "updateMask": "image"}
    await _once(site, "UpdateContainer", {"namespace": SPACE, "name": changed, **change})
    if len(site.expected) > 8:
        await _once(site, "DeleteContainer", {"namespace": SPACE, "name": gone})
        del site.expected[gone]
    data = {"data": {"round": str(next(site.numbers))}}
    found = await site.certainly("GetConfigMap", {"namespace": SPACE, "name": _CONFIG})
    if found.code == "NOT_FOUND":
        await _once(site, "CreateConfigMap", {"namespace": SPACE, "configMap": {"name": _CONFIG, **data}})
    else:
        await _once(
            site,
            "UpdateConfigMap",
            {"namespace": SPACE, "name": _CONFIG, "configMap": data, "updateMask": "data"},
        )


async def _once(site: Site, name: str, fields: dict[str, Any]) -> None:
    await site.must(name, {**fields, "requestId": str(uuid4())})


async def _meddle(site: Site, choice: random.Random) -> None:
    """Edits and deletes the namespace's objects on the cluster, as another client."""
    others = Others(site.cluster)
    edited, scaled, deleted, severed = choice.sample(sorted(site.expected), 4)
    await others.image(edited)
    await others.patch(deployment(scaled), {"spec": {"replicas": 3}})
    await others.delete(deployment(deleted))
    await others.delete(service(severed))
    await others.merge(core("configmaps", _CONFIG), {"data": {"round": "theirs", "more": "x"}})


async def _standing(site: Site) -> None:
    """Waits until the cluster has the objects that another client will change."""
    assert await site.faults() == [], "before the fault"


async def restart(site: Site, choice: random.Random) -> None:
    """Stops a server properly, and starts it again."""
    server = choice.choice(site.servers)
    await server.stop()
    await server.start()


async def power_cut(site: Site, choice: random.Random) -> None:
    """Kills a server during its work, and starts it again."""
    server = choice.choice(site.servers)
    await work(site, choice)
    await server.kill()
    await server.start()


async def unseen(site: Site, choice: random.Random) -> None:
    """Changes the cluster as another client while no server runs."""
    await _standing(site)
    await site.stop(outright=choice.random() < 0.5)
    await _meddle(site, choice)
    await site.start()


async def hand_over(site: Site, choice: random.Random) -> None:
    """Freezes the leader while another client changes the cluster.

    The leader wakes up when another server leads.
    """
    await _standing(site)
    async with connection(site.database.admin_dsn) as sql:
        epoch = "SELECT epoch FROM leases WHERE name = 'observe/local'"
        before = await sql.fetchval(epoch)
        frozen = site.servers[0]
        frozen.freeze()
        try:
            await _meddle(site, choice)
            if await _leads_still(site, sql):
                # The second server is the leader, so it is frozen instead, until the first one has the lease.
                frozen.thaw()
                frozen = site.servers[1]
                frozen.freeze()
            await poll_until(
                lambda: sql.fetchval(epoch), lambda now: now != before, seconds=30, what="a new leader"
            )
        finally:
            frozen.thaw()


async def _leads_still(site: Site, sql: Any) -> bool:
    """Returns whether the lease is renewed although the first server is frozen."""
    query = "SELECT expires_at FROM leases WHERE name = 'observe/local'"
    before = await sql.fetchval(query)
    try:
        await poll_until(lambda: sql.fetchval(query), lambda now: now != before, seconds=1.0)
    except AssertionError:
        return False
    return True


async def older_cluster(site: Site, choice: random.Random) -> None:
    """Puts the cluster back to an older state, as from a backup of its etcd."""
    await site.restart_cluster()
    copy = site.folder / "older"
    shutil.copy(site.folder / "cluster", copy)
    await work(site, choice)
    await _standing(site)
    await site.restart_cluster(copy)


async def restored_dump(site: Site, choice: random.Random) -> None:
    """Recreates the database from a dump.

    The later changes are lost, and the cluster is ahead.
    """
    dump = site.folder / f"dump-{next(site.numbers)}"
    async with connection(site.database.admin_dsn) as sql:
        await number_changes(sql)
    await _run("pg_dump", "--format=custom", f"--file={dump}", site.postgres.dsn(NAME))
    kept = dict(site.expected)
    await work(site, choice)
    await site.stop(outright=True)
    async with connection(site.postgres.dsn()) as admin:
        await admin.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {NAME} TEMPLATE template0")
        await admin.execute(f"REVOKE ALL ON DATABASE {NAME} FROM PUBLIC")
        for role in ("owner", "app", "system", "maintenance"):
            await admin.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {NAME} TO pilothouse_{role}")
    await _run("pg_restore", "--single-transaction", f"--dbname={site.postgres.dsn(NAME)}", str(dump))
    site.expected = kept
    await site.start()


async def _run(name: str, *words: str) -> None:
    code, _, errors = await finished(str(program(name)), *words)
    assert code == 0, errors


async def older_files(site: Site, choice: random.Random) -> None:
    """Puts the files of the database back to slightly older ones.

    Neither the servers nor PostgreSQL run while the files are replaced.
    """
    await site.stop(outright=True)
    await site.postgres.stop()
    older = site.another()
    copy_files(site.postgres.directory, older.directory)
    await site.restart_postgres()
    await site.start()
    kept = dict(site.expected)
    await work(site, choice)
    await site.stop(outright=True)
    await site.postgres.stop()
    await site.serve_from(older)
    site.expected = kept
    await site.start()


async def fail_over(site: Site, choice: random.Random) -> None:
    """Replaces the primary by a standby with all acknowledged changes.

    The servers continue.
    """
    await _fail_over(site, choice, loses=False)


async def lossy_fail_over(site: Site, choice: random.Random) -> None:
    """Replaces the primary by a standby that lacks the last changes.

    The servers continue.
    """
    await _fail_over(site, choice, loses=True)


async def _fail_over(site: Site, choice: random.Random, *, loses: bool) -> None:
    # The database is unavailable for a moment while the standby is created.
    await site.postgres.stop()
    standby = Standby.of(
        site.postgres, site.postgres.directory, site.folder / f"standby-{next(site.numbers)}"
    )
    await site.restart_postgres()
    primary = site.postgres
    await standby.start()
    await work(site, choice)

    async def has_all() -> bool:
        async with connection(primary.dsn()) as one, connection(standby.dsn()) as other:
            written = await one.fetchval("SELECT pg_current_wal_lsn()")
            return bool(await other.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", written))

    kept = dict(site.expected)
    await poll_until(has_all, what="the standby has all")
    if loses:
        await standby.follow_no_longer()
        await work(site, choice)
    send_to_all(primary, signal.SIGKILL)
    await standby.take_over()
    async with connection(standby.dsn()) as admin:
        # From now on it is a primary like any other.
        await admin.execute("ALTER SYSTEM RESET ALL")
    site.postgres = standby
    point(site.address, standby)
    await primary.stop()
    site.expected = kept


async def wrong_clock(site: Site, choice: random.Random) -> None:
    """Sets the database's clock two years ahead for a while.

    The servers are killed before the clock is right again.
    """
    site.clock_was_wrong = True
    await site.restart_postgres(days_ahead=730)
    soon = datetime.now(UTC) + timedelta(days=30)

    async def years_away() -> bool:
        async with connection(site.database.admin_dsn) as sql:
            query = "SELECT count(*) FROM leases WHERE name = 'observe/local' AND expires_at > $1"
            return bool(await sql.fetchval(query, soon))

    await poll_until(years_away, seconds=30, what="a lease that ends years away")
    await site.stop(outright=True)
    await site.restart_postgres()
    await site.start()


async def wrong_clock_of_a_server(site: Site, choice: random.Random) -> None:
    """Sets a server's clock two years ahead or behind for a while.

    During that time it receives calls like any other server.
    """
    site.clock_was_wrong = True
    server = choice.choice(site.servers)
    await server.stop()
    await server.start(**clock(choice.choice((730, -730))))
    await work(site, choice)
    await work(site, choice)
    await server.stop()
    await server.start()


FAULTS: tuple[Fault, ...] = (
    restart,
    power_cut,
    unseen,
    hand_over,
    older_cluster,
    restored_dump,
    older_files,
    fail_over,
    lossy_fail_over,
    wrong_clock,
    wrong_clock_of_a_server,
)
