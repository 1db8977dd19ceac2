"""Calls that wait for a cluster hold no transaction and no lock.

They do not wait for a cluster that is known to be unavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import AsyncClient, PilothouseError, errors
from pilothouse_server.rpc.method_rules import Rule
from tests.clusters.given import QUICK
from tests.conftest import Database
from tests.harness import PASSWORD, running_server
from tests.promises.environment import Environment, prepare, quiet_environment
from tests.promises.requests import OWN, Fields
from tests.waiting import patient, poll_until, within

OPEN_TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""
# Methods with a dry run that sends no request to a cluster.
_ASKS_NOBODY = {
    "PurgeSecret",
    "DeregisterCluster",
    "ResolveOrphans",
    *(f"{verb}Application" for verb in ("Delete", "Pause", "Resume")),
}
# Methods that send requests to a cluster, in addition to all methods with `validate_only`.
_ASKING: dict[str, Fields] = {
    "ImportContainers": {"namespace": OWN, "names": []},
    "ImportServices": {"namespace": OWN, "names": []},
    "ImportObjects": {"namespace": OWN, "apiVersion": "v1", "kind": "ServiceAccount", "names": []},
    "ListObjectKinds": {"namespace": OWN},
    "GetContainer": {"namespace": OWN, "name": "web", "includeEvents": True},
    "GetVolume": {"namespace": OWN, "name": "web", "includeEvents": True},
    "StreamLogs": {"namespace": OWN, "name": "web"},
    "Exec": {"start": {"namespace": OWN, "name": "web", "command": ["true"]}},
    "PortForward": {"start": {"namespace": OWN, "name": "web", "port": 80}},
    "CopyFrom": {"namespace": OWN, "name": "web", "path": "/etc/hosts"},
    "CopyTo": {"start": {"namespace": OWN, "name": "web", "path": "/tmp"}},
    "GetRequiredRights": {"name": "local"},
    "WatchEvents": {"namespace": OWN},
}


@pytest_asyncio.fixture(loop_scope="session")
async def environment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Environment]:
    """Yields a server with a resource of every kind, and a ready pod."""
    async with quiet_environment(database, tmp_path, monkeypatch) as made:
        await prepare(made)
        async with made.sql() as sql:
            await sql.execute(
                "INSERT INTO container_pods (container_id, namespace_id, pod_name, uid, phase, ready) "
                "SELECT id, namespace_id, 'pod', gen_random_uuid()::text, 'Running', true FROM containers "
                "WHERE name = 'web'"
            )
        yield made


def _asking(environment: Environment) -> dict[str, Fields]:
    found = dict(_ASKING)
    of_clusters = {*environment.server.application.reconcilers, "cluster"}
    for rule in environment.rules.values():
        if rule.has_validate_only and rule.resource_type in of_clusters and rule.name not in _ASKS_NOBODY:
            found[rule.name] = {**_fields(environment, rule), "validateOnly": True}
    assert len(found) > 20
    return found


def _fields(environment: Environment, rule: Rule) -> Fields:
    fields: Fields = MessageToDict(environment.request(rule))
    if rule.name == "UpdateCluster":
        # The call sends a request to a cluster only if it has new credentials. The credentials of the usual
        # cluster come from the server's configuration.
        return {
            **fields,
            "name": "unconfigured",
            "credentials": environment.fields["RegisterCluster"]["credentials"],
        }
    return fields


async def _is_free(sql: asyncpg.Connection, what: str) -> None:
    """Fails if a transaction stays open, or if a row of a resource stays locked."""

    async def transactions() -> int:
        return int(await sql.fetchval(OPEN_TRANSACTIONS))

    # The server's own transactions, and rollbacks of the previous call, end soon. The transaction of a waiting
    # call would not.
    await poll_until(transactions, lambda count: count == 0, seconds=3.0, what=f"no transaction of {what}")
    for table in (
        "clusters",
        "namespaces",
        "containers",
        "services",
        "objects",
        "volumes",
        "config_maps",
        "secrets",
    ):
        async with sql.transaction():
            await sql.execute(f"SET LOCAL lock_timeout = '{patient(3.0):g}s'")
            await sql.execute(f"SELECT FROM {table} FOR UPDATE")


@pytest.mark.full
async def test_no_call_holds_a_transaction_or_lock_while_it_waits_for_a_cluster(
    environment: Environment,
) -> None:
    assert environment.server.cluster is not None
    faults = environment.server.cluster.faults
    async with environment.sql() as sql:
        await sql.execute(
            "INSERT INTO clusters (name, api_server) VALUES ('unconfigured', 'http://127.0.0.1:1')"
        )
        for name, fields in _asking(environment).items():
            asked = asyncio.Event()
            faults.on_request = lambda _method, _path, asked=asked: asked.set()
            faults.latency_seconds = 3600.0
            call = asyncio.create_task(environment.call(name, fields))
            reached = asyncio.create_task(asked.wait())
            async with within(10.0):
                await asyncio.wait([call, reached], return_when=asyncio.FIRST_COMPLETED)
            assert not call.done(), f"{name}: {call.result().shown}"
            await _is_free(sql, name)
            call.cancel()
            await asyncio.wait([call])


@pytest.mark.full
async def test_calls_to_an_unavailable_cluster_fail_without_waiting(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, reconciler=QUICK) as server:
        assert server.cluster is not None
        await server.admin.namespaces.create(namespace=pb.Namespace(name="shop"))
        await server.admin.containers.create(
            namespace="shop", container=containers.Container(name="web", image="nginx:1.27")
        )
        server.cluster.faults.latency_seconds = 3600.0

        async def known() -> str:
            return (await server.admin.namespaces.get_cluster(name="local")).reason

        await poll_until(known, lambda reason: reason == "Unreachable", seconds=60.0)
        retried: list[PilothouseError] = []
        admin = AsyncClient(
            server.address,
            username="admin",
            password=PASSWORD,
            on_retry=lambda error, _failures: retried.append(error),
        )
        made = containers.Container(name="new", image="nginx:1.27")

        async def refused() -> errors.UnavailableError:
            with pytest.raises(errors.UnavailableError) as raised:
                await admin.containers.create(namespace="shop", container=made, validate_only=True)
            return raised.value

        # The server reads the rows of clusters periodically.
        error = await poll_until(refused, lambda error: error.metadata.get("away"), seconds=30.0)
        retried.clear()
        asked: list[str] = []
        server.cluster.faults.on_request = lambda _method, path: asked.append(path)
        error = await refused()
        assert (error.reason, error.metadata["cluster"]) == ("CLUSTER_UNAVAILABLE", "local")
        assert 'cluster "local" is not available' in error.message
        assert retried == []
        assert not any("/deployments/" in path for path in asked)
        server.cluster.faults.latency_seconds = 0.0

        async def answered() -> bool:
            try:
                await admin.containers.create(namespace="shop", container=made, validate_only=True)
            except errors.UnavailableError:
                return False
            return True

        await poll_until(answered, seconds=60.0, what="the cluster that is back is asked again")
        await admin.close()
