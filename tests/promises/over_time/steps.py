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
from tests.promises.over_time.environment import SPACE, Environment, clock
from tests.reconcile.unseen import Others, core, deployment, service
from tests.store.going_back import NAME, Standby, copy_files, point, send_to_all
from tests.waiting import poll_until

Fault = Callable[[Environment, random.Random], Awaitable[None]]
_IMAGES = ("nginx:1.27", "nginx:1.28", "nginx:1.29")
_CONFIG = "settings"


async def work(environment: Environment, choice: random.Random) -> None:
    """Makes acknowledged mutations: creations, updates, and a deletion at times."""
    for _ in range(3):
        name, image = f"web-{next(environment.numbers)}", choice.choice(_IMAGES)
        port = {"containerPort": 80, "serviceName": name, "servicePort": 80}
        container = {"name": name, "image": image, "ports": [port]}
        await _once(environment, "CreateContainer", {"namespace": SPACE, "container": container})
        environment.expected[name] = image
    changed, gone = choice.sample(sorted(environment.expected), 2)
    environment.expected[changed] = choice.choice(_IMAGES)
    change = {"container": {"image": environment.expected[changed]}, "updateMask": "image"}
    await _once(environment, "UpdateContainer", {"namespace": SPACE, "name": changed, **change})
    if len(environment.expected) > 8:
        await _once(environment, "DeleteContainer", {"namespace": SPACE, "name": gone})
        del environment.expected[gone]
    data = {"data": {"round": str(next(environment.numbers))}}
    found = await environment.certainly("GetConfigMap", {"namespace": SPACE, "name": _CONFIG})
    if found.code == "NOT_FOUND":
        await _once(
            environment, "CreateConfigMap", {"namespace": SPACE, "configMap": {"name": _CONFIG, **data}}
        )
    else:
        await _once(
            environment,
            "UpdateConfigMap",
            {"namespace": SPACE, "name": _CONFIG, "configMap": data, "updateMask": "data"},
        )


async def _once(environment: Environment, name: str, fields: dict[str, Any]) -> None:
    await environment.must(name, {**fields, "requestId": str(uuid4())})


async def _meddle(environment: Environment, choice: random.Random) -> None:
    """Edits and deletes the namespace's objects on the cluster, as another client."""
    others = Others(environment.cluster)
    edited, scaled, deleted, severed = choice.sample(sorted(environment.expected), 4)
    await others.image(edited)
    await others.patch(deployment(scaled), {"spec": {"replicas": 3}})
    await others.delete(deployment(deleted))
    await others.delete(service(severed))
    await others.merge(core("configmaps", _CONFIG), {"data": {"round": "theirs", "more": "x"}})


async def _standing(environment: Environment) -> None:
    """Waits until the cluster has the objects that another client will change."""
    assert await environment.faults() == [], "before the fault"


async def restart(environment: Environment, choice: random.Random) -> None:
    """Stops a server properly, and starts it again."""
    server = choice.choice(environment.servers)
    await server.stop()
    await server.start()


async def power_cut(environment: Environment, choice: random.Random) -> None:
    """Kills a server during its work, and starts it again."""
    server = choice.choice(environment.servers)
    await work(environment, choice)
    await server.kill()
    await server.start()


async def unseen(environment: Environment, choice: random.Random) -> None:
    """Changes the cluster as another client while no server runs."""
    await _standing(environment)
    await environment.stop(outright=choice.random() < 0.5)
    await _meddle(environment, choice)
    await environment.start()


async def hand_over(environment: Environment, choice: random.Random) -> None:
    """Freezes the leader while another client changes the cluster.

    The leader wakes up when another server leads.
    """
    await _standing(environment)
    async with connection(environment.database.admin_dsn) as sql:
        epoch = "SELECT epoch FROM leases WHERE name = 'observe/local'"
        before = await sql.fetchval(epoch)
        frozen = environment.servers[0]
        frozen.freeze()
        try:
            await _meddle(environment, choice)
            if await _leads_still(environment, sql):
                # The second server is the leader, so it is frozen instead, until the first one has the lease.
                frozen.thaw()
                frozen = environment.servers[1]
                frozen.freeze()
            await poll_until(
                lambda: sql.fetchval(epoch), lambda now: now != before, seconds=30, what="a new leader"
            )
        finally:
            frozen.thaw()


async def _leads_still(environment: Environment, sql: Any) -> bool:
    """Returns whether the lease is renewed although the first server is frozen."""
    query = "SELECT expires_at FROM leases WHERE name = 'observe/local'"
    before = await sql.fetchval(query)
    try:
        await poll_until(lambda: sql.fetchval(query), lambda now: now != before, seconds=1.0)
    except AssertionError:
        return False
    return True


async def older_cluster(environment: Environment, choice: random.Random) -> None:
    """Puts the cluster back to an older state, as from a backup of its etcd."""
    await environment.restart_cluster()
    copy = environment.folder / "older"
    shutil.copy(environment.folder / "cluster", copy)
    await work(environment, choice)
    await _standing(environment)
    await environment.restart_cluster(copy)


async def restored_dump(environment: Environment, choice: random.Random) -> None:
    """Recreates the database from a dump.

    The later changes are lost, and the cluster is ahead.
    """
    dump = environment.folder / f"dump-{next(environment.numbers)}"
    async with connection(environment.database.admin_dsn) as sql:
        await number_changes(sql)
    await _run("pg_dump", "--format=custom", f"--file={dump}", environment.postgres.dsn(NAME))
    kept = dict(environment.expected)
    await work(environment, choice)
    await environment.stop(outright=True)
    async with connection(environment.postgres.dsn()) as admin:
        await admin.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {NAME} TEMPLATE template0")
        await admin.execute(f"REVOKE ALL ON DATABASE {NAME} FROM PUBLIC")
        for role in ("owner", "app", "system", "maintenance"):
            await admin.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {NAME} TO pilothouse_{role}")
    await _run("pg_restore", "--single-transaction", f"--dbname={environment.postgres.dsn(NAME)}", str(dump))
    environment.expected = kept
    await environment.start()


async def _run(name: str, *words: str) -> None:
    code, _, errors = await finished(str(program(name)), *words)
    assert code == 0, errors


async def older_files(environment: Environment, choice: random.Random) -> None:
    """Puts the files of the database back to slightly older ones.

    Neither the servers nor PostgreSQL run while the files are replaced.
    """
    await environment.stop(outright=True)
    await environment.postgres.stop()
    older = environment.another()
    copy_files(environment.postgres.directory, older.directory)
    await environment.restart_postgres()
    await environment.start()
    kept = dict(environment.expected)
    await work(environment, choice)
    await environment.stop(outright=True)
    await environment.postgres.stop()
    await environment.serve_from(older)
    environment.expected = kept
    await environment.start()


async def fail_over(environment: Environment, choice: random.Random) -> None:
    """Replaces the primary by a standby with all acknowledged changes.

    The servers continue.
    """
    await _fail_over(environment, choice, loses=False)


async def lossy_fail_over(environment: Environment, choice: random.Random) -> None:
    """Replaces the primary by a standby that lacks the last changes.

    The servers continue.
    """
    await _fail_over(environment, choice, loses=True)


async def _fail_over(environment: Environment, choice: random.Random, *, loses: bool) -> None:
    # The database is unavailable for a moment while the standby is created.
    await environment.postgres.stop()
    standby = Standby.of(
        environment.postgres,
        environment.postgres.directory,
        environment.folder / f"standby-{next(environment.numbers)}",
    )
    await environment.restart_postgres()
    primary = environment.postgres
    await standby.start()
    await work(environment, choice)

    async def has_all() -> bool:
        async with connection(primary.dsn()) as one, connection(standby.dsn()) as other:
            written = await one.fetchval("SELECT pg_current_wal_lsn()")
            return bool(await other.fetchval("SELECT pg_last_wal_replay_lsn() >= $1", written))

    kept = dict(environment.expected)
    await poll_until(has_all, what="the standby has all")
    if loses:
        await standby.follow_no_longer()
        await work(environment, choice)
    send_to_all(primary, signal.SIGKILL)
    await standby.take_over()
    async with connection(standby.dsn()) as admin:
        # From now on it is a primary like any other.
        await admin.execute("ALTER SYSTEM RESET ALL")
    environment.postgres = standby
    point(environment.address, standby)
    await primary.stop()
    environment.expected = kept


async def wrong_clock(environment: Environment, choice: random.Random) -> None:
    """Sets the database's clock two years ahead for a while.

    The servers are killed before the clock is right again.
    """
    environment.clock_was_wrong = True
    await environment.restart_postgres(days_ahead=730)
    soon = datetime.now(UTC) + timedelta(days=30)

    async def years_away() -> bool:
        async with connection(environment.database.admin_dsn) as sql:
            query = "SELECT count(*) FROM leases WHERE name = 'observe/local' AND expires_at > $1"
            return bool(await sql.fetchval(query, soon))

    await poll_until(years_away, seconds=30, what="a lease that ends years away")
    await environment.stop(outright=True)
    await environment.restart_postgres()
    await environment.start()


async def wrong_clock_of_a_server(environment: Environment, choice: random.Random) -> None:
    """Sets a server's clock two years ahead or behind for a while.

    During that time it receives calls like any other server.
    """
    environment.clock_was_wrong = True
    server = choice.choice(environment.servers)
    await server.stop()
    await server.start(**clock(choice.choice((730, -730))))
    await work(environment, choice)
    await work(environment, choice)
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
