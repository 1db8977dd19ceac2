"""One statement reads the facts of a change to a container, another writes it: changes in between are not missed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.containers import operations, repository
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.namespace_facts import ChangeFacts
from pilothouse_server.rpc.interceptors.audit import MOST_DRAFTS
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.unit_of_work import Actor, UnitOfWork
from tests.conftest import Database, connection
from tests.harness import Server, running_server
from tests.main_job.test_created_at_once import (
    _ANOTHER,
    _NAMESPACE,
    _NO_CHECK,
    Meanwhile,
    by_sql,
    container,
    port,
)
from tests.waiting import poll_until

_ANOTHER_WRITE = "UPDATE containers SET phase = 'Running' WHERE name = 'first'"


def many(name: str = "first") -> container_pb2.Container:
    """Returns a container with parts of every kind that is read with it."""
    return container_pb2.Container(
        name=name,
        image="registry.example:5000/team/web:1.0",
        env=[
            container_pb2.EnvVar(name="A", value="1"),
            container_pb2.EnvVar(
                name="B",
                value_from=container_pb2.ENV_VALUE_FROM_CONFIG_MAP,
                source_name="settings",
                source_key="a",
            ),
        ],
        ports=[
            container_pb2.Port(name="http", container_port=80, service_name=name),
            container_pb2.Port(name="metrics", container_port=9090, service_name=name),
        ],
        volume_mounts=[
            container_pb2.VolumeMount(volume="data", mount_path="/data"),
            container_pb2.VolumeMount(volume="data", mount_path="/more", sub_path="more"),
        ],
        resources=container_pb2.Resources(cpu_request="100m", memory_limit="1Gi"),
        labels={"app": "web"},
        annotations={"example.org/note": "ä"},
    )


async def prepare(server: Server, namespace: str = "shared") -> None:
    """Makes a namespace with a quota, a config map, a volume, and the container `first` that uses them."""
    admin = server.admin
    quota = namespace_pb2.ResourceQuota(containers=9, cpu="1")
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace, resource_quota=quota))
    for name in ("settings", "others"):
        await admin.config.create_config_map(
            namespace=namespace, config_map=config_pb2.ConfigMap(name=name, data={"a": "b"})
        )
    volume = storage_pb2.Volume(name="data", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR)
    await admin.storage.create_volume(namespace=namespace, volume=volume)
    await admin.containers.create(namespace=namespace, container=many())


def update(server: Server, *paths: str, **fields: Any) -> Callable[[], Awaitable[Any]]:
    return lambda: server.admin.containers.update(
        namespace="shared",
        name="first",
        container=container_pb2.Container(**fields),
        update_mask=FieldMask(paths=paths),
    )


def moves(server: Server) -> Mapping[str, Callable[[], Awaitable[Any]]]:
    """Returns every verb that changes a container; run in this order, each changes something."""
    named: dict[str, Any] = {"namespace": "shared", "name": "first"}
    containers = server.admin.containers
    return {
        "update": update(server, "labels", labels={"app": "other"}),
        "scale": update(server, "replicas", replicas=3),
        "stop": lambda: containers.stop(**named),
        "start": lambda: containers.start(**named),
        "pause": lambda: containers.pause(**named),
        "resume": lambda: containers.resume(**named),
        "restart": lambda: containers.restart(**named),
        "delete": lambda: containers.delete(**named),
    }


async def test_a_change_is_read_by_one_message_and_written_by_another(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in between locks rows or holds a connection.

    An update reads its sources and volumes by one more message.
    """
    messages: Counter[str] = Counter()
    read, send, begin = Draft.read, Draft._send, UnitOfWork.begin

    async def counted_read(draft: Draft, statement: Any, parameters: Mapping[str, Any]) -> Any:
        messages["read"] += 1
        return await read(draft, statement, parameters)

    async def counted_send(draft: Draft, statement: Any, parameters: Mapping[str, Any]) -> None:
        messages["sent"] += 1
        await send(draft, statement, parameters)

    async def counted_begin(unit: UnitOfWork) -> Any:
        # The server's own units of work have no caller.
        messages["transactions"] += unit._actor.user_id is not None
        return await begin(unit)

    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        monkeypatch.setattr(Draft, "read", counted_read)
        monkeypatch.setattr(Draft, "_send", counted_send)
        monkeypatch.setattr(UnitOfWork, "begin", counted_begin)
        for name, move in moves(server).items():
            messages.clear()
            await move()
            # A change that the reconciler has outdated is drafted again.
            reads = messages["sent"] * (2 if name in ("update", "scale") else 1)
            assert messages["sent"] > 0, name
            assert (messages["read"], messages["transactions"]) == (reads, 0), name


async def test_a_call_that_changes_nothing_stores_its_response_for_replays(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        request = str(uuid4())
        start = server.admin.containers.start
        answers = [await start(namespace="shared", name="first", request_id=request) for _ in range(2)]
        assert answers[0] == answers[1]
        assert answers[0].generation == 1
        async with connection(database.admin_dsn) as sql:
            kept = await sql.fetchval(
                "SELECT count(*) FROM idempotency_keys WHERE request_id = $1", UUID(request)
            )
            assert kept == 1


_CHANGES = {
    "written by another": (_ANOTHER_WRITE, "changed"),
    "being deleted": (
        "UPDATE containers SET deletion_requested_at = now() WHERE name = 'first'",
        "CONTAINER_TERMINATING",
    ),
    "gone": (
        "DELETE FROM containers WHERE name = 'first' AND namespace_id ="
        " (SELECT id FROM namespaces WHERE name = 'shared')",
        "CONTAINER_NOT_FOUND",
    ),
    "namespace deleted": (_NAMESPACE.format("deleted_at = now()"), "NAMESPACE_NOT_FOUND"),
    "less quota": (_NAMESPACE.format("""resource_quota = '{"cpu": "200m"}'"""), "QUOTA_EXCEEDED"),
    "more quota": (_NAMESPACE.format("""resource_quota = '{"cpu": "2"}'"""), "changed"),
    "quota used": (
        _ANOTHER.format(name="other", service="other")
        + "; UPDATE containers SET quota_cpu_millicores = 800 WHERE name = 'other' AND namespace_id ="
        " (SELECT id FROM namespaces WHERE name = 'shared')",
        "QUOTA_EXCEEDED",
    ),
    "service taken": (_ANOTHER.format(name="other", service="new"), "SERVICE_ALREADY_EXISTS"),
    "config map gone": ("UPDATE config_maps SET deletion_requested_at = now()", "INVALID_CONTAINER"),
    "volume gone": ("UPDATE volumes SET deletion_requested_at = now()", "INVALID_CONTAINER"),
    "volume of another type": ("UPDATE volumes SET type = 'host_path', host_path = '/srv'", "changed"),
}


async def outcome(move: Callable[[], Awaitable[Any]]) -> str:
    try:
        await move()
    except PilothouseError as error:
        return error.reason
    return "changed"


def demanding(server: Server, namespace: str = "shared") -> Callable[[], Awaitable[Any]]:
    """Returns an update that needs more of everything."""
    wanted = many()
    wanted.ports.append(port("new"))
    wanted.env[1].source_name = "others"
    wanted.replicas = 3
    return lambda: server.admin.containers.update(
        namespace=namespace,
        name="first",
        container=wanted,
        update_mask=FieldMask(paths=["ports", "env", "replicas"]),
    )


async def test_changes_after_the_read_have_the_same_result_as_if_seen(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    async with running_server(database, tmp_path, with_cluster=False) as server:
        for number, (change, (statement, expected)) in enumerate(_CHANGES.items()):
            name = f"shared-{number}"
            await prepare(server, name)
            with monkeypatch.context() as patched:
                meanwhile = Meanwhile(patched, by_sql(database, statement, name))
                found[change] = await outcome(demanding(server, name))
            # The second admission refuses without sending a draft; a success sends a second draft. The reconciler may
            # outdate a draft, too.
            assert meanwhile.sent >= (2 if expected == "changed" else 1), change
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
        assert await outcome(demanding(server)) == "changed"


async def test_a_start_in_a_namespace_that_just_became_inactive_is_refused(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        move = moves(server)
        await move["stop"]()
        Meanwhile(monkeypatch, by_sql(database, _NAMESPACE.format("status = 'inactive'")))
        assert await outcome(move["start"]) == "NAMESPACE_INACTIVE"


async def test_an_etag_outdated_by_another_change_is_refused(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = "UPDATE containers SET resource_version = resource_version + 1 WHERE name = 'first'"
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        stored = await server.admin.containers.get(namespace="shared", name="first")
        Meanwhile(monkeypatch, by_sql(database, raised))
        with pytest.raises(PilothouseError) as refused:
            await server.admin.containers.update(
                namespace="shared",
                name="first",
                container=container_pb2.Container(replicas=2),
                update_mask=FieldMask(paths=["replicas"]),
                etag=stored.etag,
            )
        assert refused.value.reason == "ETAG_MISMATCH"


async def test_a_change_outdated_again_and_again_fails_with_concurrent_change(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        meanwhile = Meanwhile(monkeypatch, by_sql(database, _ANOTHER_WRITE), times=MOST_DRAFTS)
        stop = moves(server)["stop"]
        assert await outcome(stop) == "CONCURRENT_CHANGE"
        assert meanwhile.sent == MOST_DRAFTS
        assert await outcome(stop) == "changed"


async def test_changes_by_two_servers_build_on_each_other(database: Database, tmp_path: Path) -> None:
    async with (
        running_server(database, tmp_path, with_cluster=False) as one,
        running_server(database, tmp_path, with_cluster=False) as two,
    ):
        await prepare(one)
        outcomes = Counter(
            await asyncio.gather(
                *(
                    outcome(update(server, "labels", labels={"turn": f"{number}"}))
                    for number, server in enumerate((one, two) * 8)
                )
            )
        )
        found = await one.admin.containers.get(namespace="shared", name="first")
        assert set(outcomes) <= {"changed", "CONCURRENT_CHANGE"}
        assert found.generation == 1 + outcomes["changed"] > 1


async def test_a_container_read_for_a_change_equals_the_ordinary_read(
    database: Database, tmp_path: Path
) -> None:
    """`admit_container_change` returns the same value as the statement of all other reads, for every kind of row."""
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await prepare(server)
        await server.admin.containers.create(namespace="shared", container=container("plain", env=[]))
        await server.admin.containers.restart(namespace="shared", name="first")
        store = server.application.store
        async with connection(database.admin_dsn) as sql:
            await sql.execute(
                "UPDATE containers SET phase = 'Running', started_at = now(), finished_at = '2026-01-01 00:00Z', "
                "reason = 'Why', message = 'it says', restart_count = 2, stale_since = now(), "
                """conditions = '[{"type": "Applied", "status": "True"}]' WHERE name = 'first'"""
            )
            user = await sql.fetchrow("SELECT id, username FROM users ORDER BY id LIMIT 1")
        actor = Actor(user["id"], user["username"])
        for name in ("first", "plain"):

            async def read_twice(name: str = name) -> tuple[ChangeFacts, Container]:
                draft = Draft(store, actor, uuid4(), "", None)
                _, facts = await repository.admit_change(draft, "shared", name)
                async with store.read(user["id"]) as transaction:
                    located = await operations.locate(transaction, "shared", name)
                assert facts is not None
                return facts, located

            # Between the two reads the server may write that the cluster is away.
            facts, located = await poll_until(read_twice, lambda both: both[0].stored == both[1])
            assert located.created_by == user["username"]
            others = {"first": (1, 0, 0), "plain": (1, 100, 2**30)}
            assert facts.used == others[name]
