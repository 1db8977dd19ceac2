"""The steps of the campaign: the work in between, and the faults of time."""

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
    """Some mutations of every kind, each acknowledged."""
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
    """Edits and deletes our objects on the cluster, as another client."""
    others = Others(site.cluster)
    edited, scaled, deleted, severed = choice.sample(sorted(site.expected), 4)
    await others.image(edited)
    await others.patch(deployment(scaled), {"spec": {"replicas": 3}})
    await others.delete(deployment(deleted))
    await others.delete(service(severed))
    await others.merge(core("configmaps", _CONFIG), {"data": {"round": "theirs", "more": "x"}})


async def _standing(site: Site) -> None:
    """Waits until the cluster has the objects that others are to meddle with."""
    assert await site.faults() == [], "before the fault"


async def restart(site: Site, choice: random.Random) -> None:
    """A server ends as it should, and starts again."""
    server = choice.choice(site.servers)
    await server.stop()
    await server.start()


async def power_cut(site: Site, choice: random.Random) -> None:
    """A server is killed in the middle of its work, and starts again."""
    server = choice.choice(site.servers)
    await work(site, choice)
    await server.kill()
    await server.start()


async def unseen(site: Site, choice: random.Random) -> None:
    """Others change the cluster while no server runs."""
    await _standing(site)
    await site.stop(outright=choice.random() < 0.5)
    await _meddle(site, choice)
    await site.start()


async def hand_over(site: Site, choice: random.Random) -> None:
    """The leader is frozen while others change the cluster; it wakes up when another one leads."""
    await _standing(site)
    async with connection(site.database.admin_dsn) as sql:
        epoch = "SELECT epoch FROM leases WHERE name = 'observe/local'"
        before = await sql.fetchval(epoch)
        frozen = site.servers[0]
        frozen.freeze()
        try:
            await _meddle(site, choice)
            if await _leads_still(site, sql):
                # It was the other one that led: then that one is frozen, too, until its lease is another's.
                frozen.thaw()
                frozen = site.servers[1]
                frozen.freeze()
            await poll_until(
                lambda: sql.fetchval(epoch), lambda now: now != before, seconds=30, what="a new leader"
            )
        finally:
            frozen.thaw()


async def _leads_still(site: Site, sql: Any) -> bool:
    """Whether the lease is renewed although the first server is frozen."""
    query = "SELECT expires_at FROM leases WHERE name = 'observe/local'"
    before = await sql.fetchval(query)
    try:
        await poll_until(lambda: sql.fetchval(query), lambda now: now != before, seconds=1.0)
    except AssertionError:
        return False
    return True


async def older_cluster(site: Site, choice: random.Random) -> None:
    """The cluster is put back to an older state, as from a backup of its etcd."""
    await site.restart_cluster()
    copy = site.folder / "older"
    shutil.copy(site.folder / "cluster", copy)
    await work(site, choice)
    await _standing(site)
    await site.restart_cluster(copy)


async def restored_dump(site: Site, choice: random.Random) -> None:
    """Recreates the database from a dump: the changes after it are gone, and the cluster is ahead."""
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
    """The files of the database are put back to those of a moment ago, while nothing runs."""
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
    """A standby takes the place of the primary and has all that was acknowledged; the servers go on."""
    await _fail_over(site, choice, loses=False)


async def lossy_fail_over(site: Site, choice: random.Random) -> None:
    """A standby takes the place of the primary that had not got the last changes; the servers go on."""
    await _fail_over(site, choice, loses=True)


async def _fail_over(site: Site, choice: random.Random, *, loses: bool) -> None:
    # The database is away for a moment while the standby is made.
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
        # It is a primary like any other from now on.
        await admin.execute("ALTER SYSTEM RESET ALL")
    site.postgres = standby
    point(site.address, standby)
    await primary.stop()
    site.expected = kept


async def wrong_clock(site: Site, choice: random.Random) -> None:
    """The database's clock is two years ahead for a while; the servers are killed before it is right again."""
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
    """A server's clock is two years ahead, or behind, for a while, in which it is asked for things like any other."""
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
