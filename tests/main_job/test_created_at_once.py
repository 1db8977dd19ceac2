"""A container is admitted by one statement and written by another: changes between the two are not missed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.errors import Aborted
from pilothouse_server.rpc.interceptors.audit import MOST_DRAFTS
from pilothouse_server.store.draft import Draft
from tests.conftest import Database, connection, number_changes
from tests.harness import IDLE, Server, running_server
from tests.waiting import poll_until

_NAMESPACE = "UPDATE namespaces SET {} WHERE name = 'shared'"
_NO_CHECK = """
CREATE OR REPLACE FUNCTION refuse_outdated(p_what text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN END $$
"""


def container(name: str = "web", **fields: Any) -> container_pb2.Container:
    env = [
        container_pb2.EnvVar(
            name="A",
            value_from=container_pb2.ENV_VALUE_FROM_CONFIG_MAP,
            source_name="settings",
            source_key="a",
        )
    ]
    return container_pb2.Container(name=name, image="nginx:1.27", **({"env": env} | fields))


def port(service: str) -> container_pb2.Port:
    return container_pb2.Port(container_port=80, service_name=service)


async def prepare(server: Server, name: str = "shared") -> None:
    """Makes a namespace with a quota of two containers, one container and a config map."""
    admin = server.admin
    quota = namespace_pb2.ResourceQuota(containers=2)
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name, resource_quota=quota))
    await admin.config.create_config_map(
        namespace=name, config_map=config_pb2.ConfigMap(name="settings", data={"a": "b"})
    )
    await admin.containers.create(namespace=name, container=container("first", ports=[port("first")]))


class Meanwhile:
    """Runs `happens` between admission and write of the first `times` drafts; counts the drafts that were sent."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[object]], times: int = 1
    ) -> None:
        self.sent = 0
        self.parameters: list[Mapping[str, Any]] = []
        send = Draft._send

        async def after(draft: Draft, statement: Any, parameters: Mapping[str, Any]) -> None:
            self.sent += 1
            self.parameters.append(parameters)
            if self.sent <= times:
                await happens()
            await send(draft, statement, parameters)

        monkeypatch.setattr(Draft, "_send", after)


async def outcome(server: Server, wanted: container_pb2.Container, namespace: str = "shared") -> str:
    try:
        await server.admin.containers.create(namespace=namespace, container=wanted)
    except PilothouseError as error:
        return error.reason
    return "created"


def by_sql(database: Database, statement: str, namespace: str = "shared") -> Callable[[], Awaitable[object]]:
    """Returns a function that runs a statement, in which `shared` stands for the namespace."""

    async def run() -> object:
        async with connection(database.admin_dsn) as sql:
            return await sql.execute(statement.replace("'shared'", f"'{namespace}'"))

    return run


_ANOTHER = """
WITH made AS (
    INSERT INTO containers (name, namespace_id, image_id, kubernetes_name, spec)
    SELECT '{name}', namespace_id, image_id, '{name}', spec FROM containers
    WHERE name = 'first' AND namespace_id = (SELECT id FROM namespaces WHERE name = 'shared')
    RETURNING id, namespace_id)
INSERT INTO port_mappings (container_id, namespace_id, container_port, service_name, service_port)
SELECT id, namespace_id, 80, '{service}', 80 FROM made
"""
_CHANGES = {
    "inactive": (_NAMESPACE.format("status = 'inactive'"), "NAMESPACE_INACTIVE"),
    "deleted": (_NAMESPACE.format("deleted_at = now()"), "NAMESPACE_NOT_FOUND"),
    "being deleted": (_NAMESPACE.format("deletion_requested_at = now()"), "NAMESPACE_TERMINATING"),
    "less quota": (_NAMESPACE.format("""resource_quota = '{"containers": 1}'"""), "QUOTA_EXCEEDED"),
    "more quota": (_NAMESPACE.format("""resource_quota = '{"containers": 9}'"""), "created"),
    "quota used": (_ANOTHER.format(name="other", service="other"), "QUOTA_EXCEEDED"),
    "name taken": (
        _NAMESPACE.format("resource_quota = NULL") + ";" + _ANOTHER.format(name="web", service="other"),
        "CONTAINER_ALREADY_EXISTS",
    ),
    "service taken": (
        _NAMESPACE.format("resource_quota = NULL") + ";" + _ANOTHER.format(name="other", service="web"),
        "SERVICE_ALREADY_EXISTS",
    ),
    "config map gone": ("UPDATE config_maps SET deletion_requested_at = now()", "INVALID_CONTAINER"),
    "secret gone": ("DELETE FROM secrets", "INVALID_CONTAINER"),
    "volume gone": ("DELETE FROM volumes", "INVALID_CONTAINER"),
    "volume being deleted": ("UPDATE volumes SET deletion_requested_at = now()", "INVALID_CONTAINER"),
    "volume of another type": ("UPDATE volumes SET type = 'host_path', host_path = '/srv'", "created"),
}


async def test_changes_after_admission_have_the_same_result_as_if_seen(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    # A running reconciler would write the namespace's row, which outdates a draft as well.
    async with running_server(database, tmp_path, with_cluster=False, reconciler=IDLE) as server:
        for number, (change, (statement, expected)) in enumerate(_CHANGES.items()):
            name, wanted = f"shared-{number}", container(ports=[port("web")])
            await prepare(server, name)
            if change == "secret gone":
                await server.admin.config.create_secret(
                    namespace=name,
                    secret=config_pb2.Secret(
                        name="pull", type="kubernetes.io/dockercfg", string_data={".dockercfg": "{}"}
                    ),
                )
                wanted.image_pull_secrets.append("pull")
            if change.startswith("volume"):
                volume = storage_pb2.Volume(name="data", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR)
                await server.admin.storage.create_volume(namespace=name, volume=volume)
                wanted.volume_mounts.add(volume="data", mount_path="/data")
            with monkeypatch.context() as patched:
                meanwhile = Meanwhile(patched, by_sql(database, statement, name))
                found[change] = await outcome(server, wanted, name)
            # The second admission refuses without sending a draft; a success sends a second draft.
            assert meanwhile.sent == (2 if expected == "created" else 1), change
    assert found == {change: expected for change, (_, expected) in _CHANGES.items()}


@pytest.mark.full
@pytest.mark.parametrize("change", ["quota used", "config map gone"])
async def test_without_the_check_at_the_write_the_change_would_be_missed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The positive control."""
    statement, _ = _CHANGES[change]
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        await by_sql(database, _NO_CHECK)()
        Meanwhile(monkeypatch, by_sql(database, statement))
        assert await outcome(server, container()) == "created"


async def test_a_create_outdated_again_and_again_fails_with_concurrent_change(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = _NAMESPACE.format(
        "resource_quota = jsonb_build_object('containers', (resource_quota ->> 'containers')::int + 1)"
    )
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        meanwhile = Meanwhile(monkeypatch, by_sql(database, raised), times=MOST_DRAFTS)
        assert await outcome(server, container()) == "CONCURRENT_CHANGE"
        assert meanwhile.sent == MOST_DRAFTS
        assert await outcome(server, container()) == "created"
        async with connection(database.admin_dsn) as sql:
            await number_changes(sql)
            codes = await sql.fetch(
                "SELECT error_code FROM operation_logs WHERE resource_name = 'web' ORDER BY sequence"
            )
        assert [row["error_code"] for row in codes] == ["ABORTED", None]


async def test_a_draft_is_written_only_in_the_name_of_its_caller(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A reconciler's write to the namespace would outdate the draft.
    async with running_server(database, tmp_path, with_cluster=False, reconciler=IDLE) as server:
        await prepare(server)
        await server.user("stranger", {})
        await server.user("other", {"": "admin"})
        statements: list[Any] = []
        send = Draft._send

        async def keep(draft: Draft, statement: Any, parameters: Mapping[str, Any]) -> None:
            statements.append((draft, statement, parameters))
            await send(draft, statement, parameters)

        monkeypatch.setattr(Draft, "_send", keep)
        assert await outcome(server, container()) == "created"
        draft, statement, sent = statements[0]
        async with connection(database.admin_dsn) as sql:
            ids = {row["username"]: row["id"] for row in await sql.fetch("SELECT username, id FROM users")}
            await sql.execute("DELETE FROM containers WHERE name = 'web'; DELETE FROM idempotency_keys")
            await sql.execute("DELETE FROM reconcile_work; DELETE FROM operations")
        call = server.application.store.call
        # A caller without access to the namespace does not find it.
        with pytest.raises(Aborted):
            await call(ids["stranger"], statement, sent)
        # The audit record names another user.
        with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
            await call(ids["other"], statement, sent)
        assert "own name only" in str(refused.value)
        # Nothing was written, and its own caller may still write it.
        async with connection(database.admin_dsn) as sql:
            assert await sql.fetchval("SELECT count(*) FROM containers WHERE name = 'web'") == 0
        await call(draft.user_id, statement, sent)


async def test_two_servers_make_one_container_for_a_request_id(database: Database, tmp_path: Path) -> None:
    async with (
        running_server(database, tmp_path, with_cluster=False) as one,
        running_server(database, tmp_path, with_cluster=False) as two,
    ):
        await prepare(one)
        request = str(uuid4())
        made = await asyncio.gather(
            *(
                server.admin.containers.create(namespace="shared", container=container(), request_id=request)
                for server in (one, two) * 10
            )
        )
        assert len({item.uid for item in made}) == 1
        async with connection(database.admin_dsn) as sql:
            await number_changes(sql)
            assert (
                await sql.fetchval(
                    "SELECT count(*) FROM events WHERE resource_name = 'web' AND kind = 'added'"
                )
                == 1
            )


_BARRIER = 8_000_000


async def race(database: Database, tmp_path: Path, *, locked: bool) -> list[str]:
    """Sends two creates to two servers when the quota has room for one.

    Without the lock, both count before either container is stored.
    """
    async with (
        running_server(database, tmp_path, with_cluster=False) as one,
        running_server(database, tmp_path, with_cluster=False) as two,
        connection(database.admin_dsn) as sql,
    ):
        await prepare(one)
        if not locked:
            source = await sql.fetchval("SELECT pg_get_functiondef('lock_facts'::regproc)")
            lock = "PERFORM pg_advisory_xact_lock(hashtextextended('quota/' || p_namespace_id, 0));"
            assert lock in source
            barrier = f"PERFORM pg_advisory_xact_lock_shared({_BARRIER});"
            before = "    -- An expression"
            await sql.execute(source.replace(lock, "").replace(before, f"{barrier}\n{before}", 1))
        await sql.execute(f"SELECT pg_advisory_lock({_BARRIER})")

        async def waiting() -> int:
            found: int = await sql.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            )
            return found

        calls = [
            asyncio.create_task(outcome(server, container(name)))
            for server, name in ((one, "web-a"), (two, "web-b"))
        ]
        if not locked:
            await poll_until(waiting, lambda count: count == 2)
        await sql.execute(f"SELECT pg_advisory_unlock({_BARRIER})")
        return sorted(await asyncio.gather(*calls))


async def test_only_one_of_two_servers_fills_the_quota(database: Database, tmp_path: Path) -> None:
    assert await race(database, tmp_path, locked=True) == ["QUOTA_EXCEEDED", "created"]


@pytest.mark.full
async def test_without_the_lock_two_creates_would_exceed_the_quota(
    database: Database, tmp_path: Path
) -> None:
    """The positive control."""
    assert await race(database, tmp_path, locked=False) == ["created", "created"]
