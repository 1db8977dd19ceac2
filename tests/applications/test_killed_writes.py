"""kill -9 at the database writes of apply, prune and rollback: each happens completely or not at all.

A trigger blocks a call at the first statement that writes a table, or, if deferred, in its COMMIT. Then the server is
killed, with four blocked calls at a time. PostgreSQL rolls back a call that is blocked before the COMMIT. A COMMIT that
has started is completed, but its response is lost. The next server receives the same calls again, with their
`request_id`. `test_killed_at_every_write` of `tests/promises` does the same with writes to the cluster.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import uuid4

import asyncpg
import pytest
from tests.applications.conftest import JsonObject, budget, config_map, deployment, given, secret, service
from tests.applications.test_killed_rollback import server, token, variables_of
from tests.conftest import Database
from tests.harness import PASSWORD, running_server
from tests.state_comparison import agree
from tests.waiting import poll_until, within

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, ChangeKind
from pilothouse_server.runtime import tasks
from pilothouse_simulator import SimulatedCluster

pytestmark = pytest.mark.full(minutes=5)

Verb = Literal["apply", "prune", "rollback"]
# The id of the advisory lock that blocked calls wait for.
_LOCK = 30
# The trigger identifies a call by the advisory lock that an apply holds for its namespace.
_STOP = f"""
CREATE TABLE stops (namespace_id bigint NOT NULL, table_name text NOT NULL, commits boolean NOT NULL);
CREATE FUNCTION stop_the_call() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = 0 AS $$ BEGIN
    IF EXISTS (SELECT FROM public.stops AS s JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.pid = pg_backend_pid()
            AND (l.classid::bigint << 32) + l.objid::bigint = hashtextextended('apply ' || s.namespace_id, 0)
            WHERE s.table_name = TG_TABLE_NAME AND s.commits = (TG_LEVEL = 'ROW')) THEN
        PERFORM pg_advisory_xact_lock_shared({_LOCK});
    END IF;
    RETURN NULL;
END $$"""
_TRIGGERS = (
    "CREATE TRIGGER stops AFTER INSERT OR UPDATE OR DELETE ON {} EXECUTE FUNCTION stop_the_call()",
    "CREATE CONSTRAINT TRIGGER stops_commits AFTER INSERT OR UPDATE ON {} DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION stop_the_call()",
)
_STOPPED = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {_LOCK} AND NOT granted"
_TURNS = (
    "SELECT count(*) FROM stops AS s JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.granted"
    " AND (l.classid::bigint << 32) + l.objid::bigint = hashtextextended('apply ' || s.namespace_id, 0)"
)
_THERE = "namespace_id = n.id AND deletion_requested_at IS NULL"
_STATE = f"""
SELECT a.revision_number,
    (SELECT max(r.number) FROM revisions AS r
     WHERE r.resource_type = 'application' AND r.resource_id = a.id) AS newest,
    (SELECT array_agg(m.kind || ' ' || m.name) FROM application_members AS m
     WHERE m.application_id = a.id) AS members,
    (SELECT array_agg(l.name) FROM (
        SELECT 'ConfigMap ' || name AS name FROM config_maps WHERE {_THERE}
        UNION ALL SELECT 'Secret ' || name FROM secrets WHERE {_THERE}
        UNION ALL SELECT 'Service ' || name FROM services WHERE {_THERE}
        UNION ALL SELECT kind || ' ' || name FROM objects WHERE {_THERE}
        UNION ALL SELECT 'Deployment ' || name FROM containers WHERE {_THERE}) AS l) AS objects
FROM namespaces AS n LEFT JOIN applications AS a ON a.namespace_id = n.id WHERE n.name = $1
"""


class Moment(NamedTuple):
    """A call, and a table.

    The call is killed at the first write to it; with `commits`, in the COMMIT after that write.
    """

    verb: Verb
    table: str
    commits: bool = False

    @property
    def namespace(self) -> str:
        table = self.table.replace("_", "-")
        return f"{self.verb}-{table}-commit" if self.commits else f"{self.verb}-{table}"

    @property
    def revision(self) -> int:
        """Returns the number of the revision that the call creates."""
        return {"apply": 1, "prune": 2, "rollback": 3}[self.verb]


# One of each kind of statement: the first and a later noun, the revision, records and events, and the COMMIT.
ROUNDS = (
    tuple(
        Moment("apply", table)
        for table in ("config_maps", "containers", "revision_values", "pending_changes")
    ),
    (
        Moment("apply", "revisions", commits=True),
        *(Moment("prune", table) for table in ("containers", "revisions")),
        Moment("prune", "containers", commits=True),
    ),
    (
        *(Moment("rollback", table) for table in ("secrets", "application_members", "pending_changes")),
        Moment("rollback", "applications", commits=True),
    ),
)
MOMENTS = tuple(moment for together in ROUNDS for moment in together)


class State(NamedTuple):
    """The application as stored: its revision, its members, and the objects of the namespace."""

    revision: int
    members: list[str]
    objects: list[str]


class Asked(NamedTuple):
    """A call, and the state before it. Each call has its own user, because a user may run one apply at a time."""

    moment: Moment
    token: str
    before: State
    request_id: str

    async def of(self, address: str) -> int:
        """Makes the call at a server. Returns the number of the revision."""
        moment = self.moment
        named: dict[str, Any] = {"namespace": moment.namespace, "name": "shop", "request_id": self.request_id}
        async with AsyncClient(address, token=self.token) as client:
            if moment.verb == "rollback":
                return (await client.applications.rollback(**named)).revision
            prune = moment.verb == "prune"
            documents = given(
                [deployment(image=f"{moment.namespace}:1")] if prune else _documents(moment, "2")
            )
            return (await client.applications.apply(**named, documents=documents, prune=prune)).revision


def _documents(moment: Moment, level: str) -> list[JsonObject]:
    # Each moment has its own images: transactions that insert the same image wait for each other.
    web, api = deployment(image=f"{moment.namespace}:{level}"), deployment("api", f"{moment.namespace}:1")
    return [config_map(level=level), secret(word=level), service(), budget(), web, api]


async def _state(sql: asyncpg.Connection[Any], moment: Moment) -> State:
    row = await sql.fetchrow(_STATE, moment.namespace)
    assert row is not None
    assert row["revision_number"] == row["newest"]
    return State(row["revision_number"] or 0, sorted(row["members"] or ()), sorted(row["objects"] or ()))


async def _asked(client: AsyncClient, sql: asyncpg.Connection[Any], moment: Moment, token: str) -> Asked:
    """Prepares the namespace of a call. Returns the call."""
    await client.namespaces.create(namespace=namespace_pb2.Namespace(name=moment.namespace))
    for level in {"apply": (), "prune": ("1",), "rollback": ("1", "2")}[moment.verb]:
        await client.applications.apply(
            namespace=moment.namespace, name="shop", documents=given(_documents(moment, level))
        )
    await sql.execute(
        "INSERT INTO stops SELECT id, $2, $3 FROM namespaces WHERE name = $1",
        moment.namespace,
        moment.table,
        moment.commits,
    )
    return Asked(moment, token, await _state(sql, moment), str(uuid4()))


async def _killed(address: str, process: Any, sql: asyncpg.Connection[Any], asked: Sequence[Asked]) -> None:
    """Kills the server when each call has reached its moment."""
    await sql.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        calls = [asyncio.create_task(each.of(address)) for each in asked]

        async def stopped() -> bool:
            for each in calls:
                assert not each.done(), f"a call was not stopped: {each.result()}"
            return bool(await sql.fetchval(_STOPPED) == len(calls))

        await poll_until(stopped, what="the calls stop at their moments")
        process.send_signal(signal.SIGKILL)
        await process.kill()
        await tasks.cancel_and_wait(*calls)
    finally:
        await sql.execute("SELECT pg_advisory_unlock($1)", _LOCK)

    async def ended() -> bool:
        return bool(await sql.fetchval(_TURNS) == 0)

    await poll_until(ended, what="PostgreSQL ends the transactions")
    await sql.execute("DELETE FROM stops")


async def _compare(sql: asyncpg.Connection[Any], asked: Asked) -> None:
    """Checks that the transaction has happened completely or not at all."""
    moment, after = asked.moment, await _state(sql, asked.moment)
    assert after.members == after.objects, moment
    if moment.commits:
        assert after.revision == moment.revision, moment
        assert len(after.objects) == (1 if moment.verb == "prune" else 6), moment
    else:
        assert after == asked.before, moment


async def _repeat(client: AsyncClient, asked: Asked) -> None:
    """Checks that a repeated call creates or returns its revision, and that log and revisions agree."""
    moment = asked.moment
    assert await asked.of(client.address) == moment.revision, moment
    where: dict[str, Any] = {"namespace": moment.namespace}
    revisions = [each async for each in client.applications.list_revisions(**where, name="shop")]
    assert [each.number for each in revisions] == list(range(moment.revision, 0, -1)), moment
    wanted = 'resource_type = "application" AND result = SUCCESS'
    records = [each async for each in client.audit.list_operations(**where, filter=wanted)]
    made = {each.operation_id for each in records if "replayed" not in each.metadata}
    assert made == {each.operation_id for each in revisions}, moment
    assert len(records) == len(revisions) + moment.commits, moment
    parts = client.audit.list_operations(
        **where, filter=f'parent_operation_id = "{revisions[0].operation_id}"'
    )
    count = {"apply": 6, "prune": 5, "rollback": 3}[moment.verb]
    assert len([part async for part in parts]) == count, moment


async def _watched(client: AsyncClient, position: str) -> None:
    """Checks that a watch from before the first call shows every revision of every application, in order."""
    left = {each.namespace: list(range(1, each.revision + 1)) for each in MOMENTS}
    seen: dict[str, list[int]] = {each: [] for each in left}
    async with client.applications.watch(resume_token=position) as changes, within(30):
        while seen != left:
            found = (await anext(changes)).resource
            numbers = seen[found.namespace]
            if found.revision not in numbers:
                numbers.append(found.revision)
            assert left[found.namespace][: len(numbers)] == numbers, found.namespace


async def test_a_killed_call_happens_completely_or_not_at_all(database: Database, tmp_path: Path) -> None:
    async with SimulatedCluster(speed=10.0) as cluster, database.owner() as sql:
        variables = variables_of(database, cluster, tmp_path)
        await sql.execute(_STOP)
        for table in sorted({each.table for each in MOMENTS}):
            for trigger in _TRIGGERS:
                await sql.execute(trigger.format(table))
        asked: list[Asked] = []
        tokens: list[str] = []
        position = ""
        for moments in ROUNDS:
            async with server(variables) as (client, process):
                if not tokens:
                    tokens = [await _user(client, name) for name in ("ada", "ben", "cleo", "dan")]
                    async with client.applications.watch() as changes:
                        assert (await anext(changes)).kind is ChangeKind.SYNCED
                        position = changes.resume_token
                for each in asked:
                    await _repeat(client, each)
                asked = [
                    await _asked(client, sql, moment, token)
                    for moment, token in zip(moments, tokens, strict=True)
                ]
                await _killed(client.address, process, sql, asked)
            for each in asked:
                await _compare(sql, each)
        async with running_server(database, Path(variables["PILOTHOUSE_DATA_DIR"]), cluster=cluster) as last:
            for each in asked:
                await _repeat(last.admin, each)
            await _watched(last.admin, position)

            async def healthy() -> bool:
                found = [each async for each in last.admin.applications.list()]
                return all(each.status == pb.APPLICATION_STATUS_HEALTHY for each in found)

            await poll_until(healthy, seconds=30.0, what="all applications are healthy")
            await agree(
                last.application.store,
                cluster.kubeconfig(),
                envelopes=last.application.envelopes,
                seconds=30.0,
            )


async def _user(client: AsyncClient, name: str) -> str:
    """Creates an administrator. Returns an access token."""
    await client.identity.create_user(
        user=identity_pb2.User(username=name, email=f"{name}@example.org"), password=PASSWORD
    )
    await client.identity.grant_role(username=name, role="admin")
    return await token(client, name)
