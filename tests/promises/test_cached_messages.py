"""The stored message of a row equals the row, whichever server wrote it.

Responses are made from the stored messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1.resource_pb2 import CHANGE_TYPE_SYNCED
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.store import backfill
from pilothouse_server.store.backfill import backfill_messages
from pilothouse_server.store.rendered import Rendered
from tests.conftest import Database, number_changes
from tests.harness import Server, running_server
from tests.promises.cached_messages import MESSAGES, look
from tests.promises.calling import Caller
from tests.promises.environment import Environment
from tests.promises.requests import OWN, REQUESTS, request_for, volume, workload
from tests.waiting import poll_until


async def test_stored_messages_equal_their_rows_after_every_request(full_environment: Environment) -> None:
    environment = full_environment
    application = environment.server.application
    tried = set()
    for rule in sorted(environment.rules.values(), key=lambda rule: rule.name == "DeleteNamespace"):
        if not rule.mutates:
            continue
        await environment.caller_of(rule).invoke(rule, environment.request(rule))
        found = await look(application)
        assert (found.wrong, found.missing) == ([], []), rule.name
        assert found.shown > len(application.watched)
        tried.add(rule.name)
    assert len(tried) > 30


async def _written_through_the_cluster(server: Server) -> None:
    """Makes containers that a cluster then changes in many ways.

    One runs, gets a volume, and is stopped; the other fails.
    """
    admin, cluster = server.admin, server.cluster
    assert cluster is not None
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
    await admin.storage.create_volume(
        namespace="shop",
        volume=storage_pb2.Volume(
            name="data",
            type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
            size="1Gi",
            access_mode=storage_pb2.ACCESS_MODE_READ_WRITE_ONCE,
            mount_path="/data",
        ),
    )
    for name, image in (("web", "nginx:1.27"), ("bad", "registry.invalid/none:1")):
        await admin.containers.create(
            namespace="shop", container=container_pb2.Container(name=name, image=image, replicas=1)
        )
    await admin.storage.attach_volume(namespace="shop", name="data", container="web", mount_path="/data")

    async def runs() -> bool:
        web = await admin.containers.get(namespace="shop", name="web")
        return web.status == container_pb2.CONTAINER_STATUS_RUNNING and not web.reason

    await poll_until(runs, what="that web runs")
    await admin.containers.stop(namespace="shop", name="web")
    await admin.storage.detach_volume(namespace="shop", name="data", container="web")


async def test_messages_are_stored_for_changes_by_a_cluster(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path) as server:
        await _written_through_the_cluster(server)
        application = server.application
        async with database.system() as system:

            async def settled() -> bool:
                found = await look(application)
                assert (found.wrong, found.missing) == ([], [])
                containers = await system.fetchval(
                    "SELECT count(*) FROM containers AS c JOIN rendered_messages AS m ON m.resource_type = 'container'"
                    " AND m.resource_id = c.id AND m.row_version = c.row_version WHERE c.row_version > 2"
                )
                return found.shown == 4 and containers == 2

            await poll_until(settled, what="that the observer wrote both containers")


async def test_a_message_of_a_row_that_changed_since_is_not_shown(full_environment: Environment) -> None:
    application = full_environment.server.application
    before = await look(application)
    async with full_environment.sql() as sql:
        await sql.execute("UPDATE containers SET status = 'failed' WHERE name = 'web'")
    after = await look(application)
    assert after.wrong == []
    assert after.missing == ["container web"]
    assert after.shown == before.shown - 1


@pytest.mark.full
async def test_a_stored_message_that_differs_from_its_row_is_found(full_environment: Environment) -> None:
    """Updates a row without the trigger that counts its writes.

    An outdated message would then be shown.
    """
    async with full_environment.sql() as sql:
        await sql.execute("ALTER TABLE containers DISABLE TRIGGER raise_row_version")
        await sql.execute("UPDATE containers SET status = 'failed' WHERE name = 'web'")
    found = await look(full_environment.server.application)
    assert [each.split(":")[0] for each in found.wrong] == ["container web"]


@pytest.mark.full
async def test_a_renderer_that_differs_between_write_and_read_is_found(full_environment: Environment) -> None:
    application = full_environment.server.application
    renderers = application.store.renderers
    right = renderers["container"]

    def wrong(value: object) -> Rendered:
        rendered = right(value)
        other = container_pb2.Container(name="another").SerializeToString()
        return rendered._replace(message=other, kept_bytes=len(other))

    renderers["container"] = wrong
    await full_environment.must("StopContainer", {"namespace": OWN, "name": "web"})
    assert len((await look(application)).wrong) == 1


async def test_outdated_messages_are_rendered_again_without_an_event(full_environment: Environment) -> None:
    application = full_environment.server.application
    async with full_environment.sql() as sql:
        await sql.execute("UPDATE containers SET status = 'failed' WHERE name = 'web'")
        await sql.execute("DELETE FROM rendered_messages WHERE resource_type = 'secret'")
        await sql.execute(
            "UPDATE rendered_messages SET format = 1, message = '' WHERE resource_type = 'volume'"
        )
        missing = len((await look(application)).missing)
        assert missing > 5
        events = "SELECT revision FROM stream_head"
        before = await sql.fetchval(events)
        assert await backfill_messages(application.store, application.watched) == missing
        after = await look(application)
        assert (after.wrong, after.missing) == ([], [])
        await number_changes(sql)
        assert await sql.fetchval(events) == before
    assert await backfill_messages(application.store, application.watched) == 0


async def test_many_messages_are_rendered_again_in_batches(
    full_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = full_environment.server.application
    monkeypatch.setattr(backfill, "_BATCH_ROWS", 2)
    async with full_environment.sql() as sql:
        await sql.execute("DELETE FROM rendered_messages")
    missing = len((await look(application)).missing)
    assert await backfill_messages(application.store, application.watched) == missing
    assert (await look(application)).missing == []


async def test_the_messages_of_a_newer_release_are_kept(full_environment: Environment) -> None:
    """Stores messages as a newer release would.

    An older server that runs at the same time renders the row itself for its own callers.
    """
    application = full_environment.server.application
    async with full_environment.sql() as sql:
        await sql.execute("UPDATE rendered_messages SET format = format + 1, message = 'newer'")
        assert await backfill_messages(application.store, application.watched) == 0
        kept = await sql.fetchval("SELECT count(*) FROM rendered_messages WHERE message = 'newer'")
        assert kept > 0
    assert (await look(application)).shown == 0


async def test_messages_are_deleted_with_their_rows(full_environment: Environment) -> None:
    async with full_environment.sql() as sql:
        count = "SELECT count(*) FROM rendered_messages WHERE resource_type = $1"
        for name in ("container", "volume", "config_map", "secret"):
            assert await sql.fetchval(count, name) > 0
            await sql.execute(f"DELETE FROM {name}s")
            assert await sql.fetchval(count, name) == 0
        before = await sql.fetchval(count, "namespace")
        await full_environment.must("DeleteNamespace", {"name": OWN, "cascade": True})
        assert await sql.fetchval(count, "namespace") == before


_GETS = ("GetContainer", "GetVolume", "GetConfigMap", "GetSecret", "GetNamespace")
_RUNNING = """
UPDATE containers SET status = 'running', started_at = now() - interval '1 hour', stale_since = now() WHERE name = 'web'
"""


async def _answers(environment: Environment, callers: Sequence[Caller]) -> list[Any]:
    """Returns the responses to each caller for each kind of resource.

    The uptime is removed, because it changes between two calls.
    """
    answers = []
    for caller in callers:
        for method in _GETS:
            answer = await environment.must(method, {**REQUESTS[method], **_NAMES.get(method, {})}, caller)
            if method == "GetContainer":
                assert 3600 <= answer.container.uptime.seconds < 7200
                answer.container.uptime.Clear()
            answers.append(answer)
    return answers


_NAMES = {method: {"name": "web"} for method in ("GetVolume", "GetConfigMap", "GetSecret")}


async def test_a_response_from_a_stored_message_equals_the_rendered_one(
    full_environment: Environment,
) -> None:
    """Compares the responses for several callers.

    One of them may no longer see the name of the creator.
    """
    application = full_environment.server.application
    maker = await full_environment.make_user("maker", {OWN: "admin"})
    for method, field, make in (
        ("CreateContainer", "container", workload),
        ("CreateVolume", "volume", volume),
    ):
        await full_environment.must(method, {"namespace": OWN, field: make("made")}, maker)
    await full_environment.must("AttachVolume", {**REQUESTS["AttachVolume"], "name": "web"})
    callers = [full_environment.admin, await full_environment.make_user("viewer", {OWN: "viewer"})]
    async with full_environment.sql() as sql:
        await sql.execute(_RUNNING)
        await sql.execute("UPDATE clusters SET stale_since = now()")
        await backfill_messages(application.store, application.watched)
        ready = await _answers(full_environment, callers)
        await sql.execute("DELETE FROM rendered_messages")
        assert await _answers(full_environment, callers) == ready
        assert ready[1].volume.mounted_by == ["web"]

        async def makers() -> list[str]:
            made = {"namespace": OWN, "name": "made"}
            return [
                (await full_environment.must("GetContainer", made, callers[1])).container.created_by,
                (await full_environment.must("GetVolume", made, callers[1])).volume.created_by,
            ]

        for kept in (False, True):
            if kept:
                await backfill_messages(application.store, application.watched)
            await sql.execute("UPDATE users SET deleted_at = NULL WHERE username = 'maker'")
            await full_environment.must(
                "GrantRole", {"username": "maker", "role": "viewer", "namespace": OWN}
            )
            assert await makers() == ["maker", "maker"]
            for role in ("admin", "viewer"):
                await full_environment.call(
                    "RevokeRole", {"username": "maker", "role": role, "namespace": OWN}
                )
            assert await makers() == ["", ""]


_LISTS = ("ListContainers", "ListVolumes", "ListConfigMaps", "ListSecrets", "ListNamespaces")
_WATCHES = ("WatchContainers", "WatchVolumes", "WatchConfigs", "WatchNamespaces")


def _items(answer: Any) -> Sequence[Any]:
    """Returns the resources in a page or in one message of a watch."""
    found: list[Any] = []
    for field, value in answer.ListFields():
        if field.message_type is not None:
            found += value if field.is_repeated else [value]
    return [next(iter(each.ListFields()))[1] if type(each).__name__ == "Config" else each for each in found]


async def _lists(environment: Environment, caller: Caller) -> list[Any]:
    """Returns every page of every list, and the first state of every watch."""
    answers = []
    for method in _LISTS:
        token = ""
        while True:
            page = {"pageSize": 2, "pageToken": token, "orderBy": "name desc"}
            page |= {} if method == "ListNamespaces" else {"namespace": OWN}
            answer = await environment.must(method, page, caller)
            answers.append(answer)
            if not (token := answer.next_page_token):
                break
    for method in _WATCHES:
        rule = environment.rule(method)
        where = {} if method == "WatchNamespaces" else {"namespace": OWN}
        async with caller.watching(rule, request_for(rule, where)) as watched:
            async for answer in watched:
                if answer.change_type == CHANGE_TYPE_SYNCED:
                    break
                answers.append(answer)
    for answer in answers:
        for item in _items(answer):
            if "uptime" in item.DESCRIPTOR.fields_by_name:
                item.ClearField("uptime")
    return answers


async def test_lists_and_first_states_from_stored_messages_equal_rendered_ones(
    full_environment: Environment,
) -> None:
    application = full_environment.server.application
    async with full_environment.sql() as sql:
        await sql.execute(_RUNNING)
        # Some messages are stored, some are not.
        mixed = await _lists(full_environment, full_environment.admin)
        await backfill_messages(application.store, application.watched)
        ready = await _lists(full_environment, full_environment.admin)
        await sql.execute("DELETE FROM rendered_messages")
        rendered = await _lists(full_environment, full_environment.admin)
    assert len(rendered) > 30
    assert mixed == rendered
    assert ready == rendered


async def test_responses_are_made_from_stored_messages(full_environment: Environment) -> None:
    async with full_environment.sql() as sql:
        for name in full_environment.server.application.watched:
            await sql.execute(
                "UPDATE rendered_messages SET message = $2 WHERE resource_type = $1",
                name,
                MESSAGES[name](name="kept").SerializeToString(),
            )
    for method in _GETS:
        answer = await full_environment.must(method, {**REQUESTS[method], **_NAMES.get(method, {})})
        (field,) = answer.ListFields()
        assert field[1].name == "kept"
    for answer in await _lists(full_environment, full_environment.admin):
        names = [item.name for item in _items(answer)]
        assert names == ["kept"] * len(names) != []


async def test_changes_by_another_server_are_seen_immediately(full_environment: Environment) -> None:
    async with full_environment.sql() as sql:
        for status in ("failed", "running", "stopped"):
            await sql.execute("UPDATE containers SET status = $1 WHERE name = 'web'", status)
            answer = await full_environment.must("GetContainer", REQUESTS["GetContainer"])
            assert answer.container.status == container_pb2.ContainerStatus.Value(
                f"CONTAINER_STATUS_{status.upper()}"
            )
