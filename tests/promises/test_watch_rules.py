"""Promise 3, the rules of one watch.

They concern filters, tokens, the horizon, bookmarks, slow readers and restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.rpc import error_details_pb2

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_client.streams import ChangeKind
from pilothouse_server.rpc import pipeline
from tests.conftest import Database, connection
from tests.harness import running_server
from tests.promises.calling import Caller, Outcome, failed, token_of
from tests.promises.environment import FOREIGN, Environment, quiet_environment
from tests.promises.requests import OWN, request_for
from tests.waiting import patient, poll_until, within

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"


async def take(stream: AsyncIterator[Any], count: int) -> list[tuple[str, str]]:
    """Returns the next messages of a watch: kind of change, and name."""
    async with within(10):
        return [_short(await anext(stream)) for _ in range(count)]


def _short(answer: Any) -> tuple[str, str]:
    kind = resource.ChangeType.Name(answer.change_type).removeprefix("CHANGE_TYPE_")
    return kind, answer.container.name


async def make(environment: Environment, name: str, **fields: Any) -> None:
    """Creates a container in the namespace `own`."""
    container = {"name": name, "image": "nginx:1.27", **fields}
    await environment.must("CreateContainer", {"namespace": OWN, "container": container})


async def relabel(environment: Environment, name: str, labels: Mapping[str, str]) -> None:
    """Replaces the labels of a container."""
    fields = {"namespace": OWN, "name": name, "container": {"labels": dict(labels)}, "updateMask": "labels"}
    await environment.must("UpdateContainer", fields)


async def resumed(environment: Environment, caller: Caller, token: str, **fields: Any) -> Outcome:
    """Returns the outcome of a watch that resumes with a token."""
    rule = environment.rule("WatchContainers")
    request = {"namespace": OWN, "bookmarkPeriodSeconds": 1, "resumeToken": token, **fields}
    return await caller.invoke(rule, request_for(rule, request))


async def token_now(environment: Environment, **fields: Any) -> str:
    """Returns the resume token of a watch that begins now."""
    rule = environment.rule("WatchContainers")
    async with (
        environment.admin.watching(rule, request_for(rule, {"namespace": OWN, **fields})) as stream,
        within(10),
    ):
        async for answer in stream:
            if answer.resume_token:
                return str(answer.resume_token)
    raise AssertionError("the watch ended before it was in step")


async def open_watch(
    environment: Environment, caller: Caller, fields: Mapping[str, Any], method: str = "WatchContainers"
) -> tuple[asyncio.Task[Outcome], asyncio.Event]:
    """Opens a watch that is read to its end.

    Returns its task, and an event that is set by SYNCED.
    """
    rule = environment.rule(method)
    synced = asyncio.Event()

    async def read() -> Outcome:
        async with caller.watching(rule, request_for(rule, dict(fields))) as stream:
            try:
                async for answer in stream:
                    if answer.change_type == resource.CHANGE_TYPE_SYNCED:
                        synced.set()
            except grpc.aio.AioRpcError as error:
                return failed(error)
        return Outcome("OK")

    return asyncio.create_task(read()), synced


async def test_an_object_that_leaves_the_filter_is_deleted_for_its_watcher(environment: Environment) -> None:
    await make(environment, "a", labels={"tier": "front"})
    await make(environment, "b")
    rule = environment.rule("WatchContainers")
    by_label = request_for(rule, {"namespace": OWN, "labelSelector": "tier=front"})
    by_status = request_for(rule, {"namespace": OWN, "status": "CONTAINER_STATUS_STOPPED"})
    by_name = request_for(rule, {"namespace": OWN, "name": "b"})
    async with (
        environment.admin.watching(rule, by_label) as labelled,
        environment.admin.watching(rule, by_status) as stopped,
        environment.admin.watching(rule, by_name) as named,
    ):
        assert await take(labelled, 2) == [(ADDED, "a"), ("SYNCED", "")]
        assert await take(stopped, 1) == [("SYNCED", "")]
        assert await take(named, 2) == [(ADDED, "b"), ("SYNCED", "")]
        await relabel(environment, "b", {"tier": "front"})
        await relabel(environment, "a", {"tier": "back"})
        await relabel(environment, "b", {"tier": "front", "x": "y"})
        await environment.must("StopContainer", {"namespace": OWN, "name": "a"})
        await environment.must("StartContainer", {"namespace": OWN, "name": "a"})
        assert await take(labelled, 3) == [(ADDED, "b"), (DELETED, "a"), (MODIFIED, "b")]
        assert await take(stopped, 2) == [(ADDED, "a"), (DELETED, "a")]
        assert await take(named, 2) == [(MODIFIED, "b"), (MODIFIED, "b")]


async def test_a_token_belongs_to_its_caller_and_filter(environment: Environment) -> None:
    token = await token_now(environment)
    assert (await resumed(environment, environment.admin, token)).code == "OK"
    other = await environment.make_user("other", {OWN: "viewer"})
    for outcome in (
        await resumed(environment, other, token),
        await resumed(environment, environment.admin, token, labelSelector="a=b"),
        await resumed(environment, environment.admin, token, namespace=FOREIGN),
        await resumed(environment, environment.admin, token, name="web"),
        await resumed(environment, environment.admin, "nonsense"),
        await resumed(environment, environment.admin, token[:-1] + "~"),
    ):
        assert (outcome.code, outcome.reason) == ("INVALID_ARGUMENT", "RESUME_TOKEN")


async def test_a_token_below_the_horizon_or_of_another_history_is_out_of_range(
    environment: Environment,
) -> None:
    token = await token_now(environment)
    for name in ("a", "b", "c"):
        await make(environment, name)
    async with environment.sql() as sql:
        await sql.execute("UPDATE stream_head SET oldest_revision = revision")
        oldest = await sql.fetchval("SELECT oldest_revision FROM stream_head")
        outcome = await resumed(environment, environment.admin, token)
        assert (outcome.code, outcome.reason) == ("OUT_OF_RANGE", "WATCH_HORIZON")
        assert str(oldest) in outcome.message
        fresh = await token_now(environment)
        watches = [
            await open_watch(environment, environment.admin, {"namespace": OWN}, method)
            for method in ("WatchContainers", "WatchOperations")
        ]
        for _, synced in watches:
            await asyncio.wait_for(synced.wait(), patient(10))
        await sql.execute("SET ROLE pilothouse_owner")
        await sql.fetchval("SELECT begin_new_history()")
    # Open watches end by themselves, and an older token is refused.
    for watching, _ in watches:
        outcome = await asyncio.wait_for(watching, patient(5))
        assert (outcome.code, outcome.reason) == ("OUT_OF_RANGE", "WATCH_CHANGED")
    outcome = await resumed(environment, environment.admin, fresh)
    assert (outcome.code, outcome.reason) == ("OUT_OF_RANGE", "WATCH_CHANGED")


async def test_a_token_of_a_diverged_copy_is_out_of_range(environment: Environment) -> None:
    """Simulates a restored copy, which keeps the history's id.

    The events that the copy writes from then on have other marks.
    """
    await make(environment, "a")
    token = await token_now(environment)
    assert (await resumed(environment, environment.admin, token, bookmarkPeriodSeconds=1)).code == "OK"
    await make(environment, "b")
    async with environment.sql() as sql:
        # This replaces the marks of the token's own change and of all others before the head.
        mark = (
            "UPDATE events SET mark = $1 WHERE revision < (SELECT revision FROM stream_head) RETURNING mark"
        )
        assert await sql.fetchval(mark, b"another!") == b"another!"
    outcome = await resumed(environment, environment.admin, token)
    assert (outcome.code, outcome.reason) == ("OUT_OF_RANGE", "WATCH_CHANGED")


async def test_changed_grants_end_a_watch_over_all_visible_namespaces(environment: Environment) -> None:
    somebody = await environment.make_user("somebody", {OWN: "viewer", FOREIGN: "viewer"})
    rule = environment.rule("WatchContainers")
    request = request_for(rule, {"bookmarkPeriodSeconds": 1})
    # Nothing happens, and no bookmark is due: the watch itself must notice that the grants have changed.
    watching, synced = await open_watch(environment, somebody, {"bookmarkPeriodSeconds": 300})
    await asyncio.wait_for(synced.wait(), patient(10))
    async with somebody.watching(rule, request) as stream:
        token = (await anext(stream)).resume_token
    await environment.must("RevokeRole", {"username": "somebody", "role": "viewer", "namespace": FOREIGN})
    outcome = await asyncio.wait_for(watching, patient(5))
    assert (outcome.code, outcome.reason) == ("OUT_OF_RANGE", "WATCH_CHANGED")

    async def refused() -> bool:
        return (await resumed(environment, somebody, token, namespace="")).reason == "WATCH_CHANGED"

    await poll_until(refused, seconds=2)


async def test_an_idle_watch_sends_bookmarks_that_can_be_resumed(environment: Environment) -> None:
    rule = environment.rule("WatchContainers")
    request = request_for(rule, {"namespace": OWN, "bookmarkPeriodSeconds": 1})
    async with environment.admin.watching(rule, request) as stream:
        assert await take(stream, 1) == [("SYNCED", "")]
        # Changes in other namespaces move the bookmark on, but send no message of their own.
        fields = {"namespace": FOREIGN, "container": {"name": "far", "image": "nginx"}}
        await environment.must("CreateContainer", fields)
        async with environment.sql() as sql:
            head = await sql.fetchval("SELECT revision FROM stream_head")
        async with within(5):
            # A bookmark that was due before the change has an older revision.
            while (bookmark := await anext(stream)).revision < head:
                assert _short(bookmark) == ("BOOKMARK", "")
    assert _short(bookmark) == ("BOOKMARK", "")
    async with environment.sql() as sql:
        assert bookmark.revision == await sql.fetchval("SELECT revision FROM stream_head")
    await make(environment, "later")
    outcome = await resumed(environment, environment.admin, bookmark.resume_token)
    assert _short(outcome.answer) == (ADDED, "later")


async def test_a_watch_resumes_after_a_restart_of_the_server(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quiet_environment(database, tmp_path, monkeypatch) as environment:
        token = await token_now(environment)
        await make(environment, "while-away")
        session = token_of(environment.admin)
    async with running_server(database, tmp_path, with_cluster=False) as server:
        again = Environment(server, environment.rules, Caller(server.channel(), session))
        assert _short((await resumed(again, again.admin, token)).answer) == (ADDED, "while-away")


async def test_a_slow_reader_receives_a_token_to_resume_with(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "WRITE_TIMEOUT_SECONDS", 0.3)
    rule = environment.rule("WatchContainers")
    # The flow-control window does not grow, so that little data fills it.
    narrow = grpc.aio.insecure_channel(
        environment.server.address,
        options=(("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)),
    )
    reader = Caller(narrow, token_of(environment.admin))
    seen: list[int] = []
    outcome = Outcome("OK")
    async with reader.watching(rule, request_for(rule, {"namespace": OWN})) as stream:
        assert (await take(stream, 1)) == [("SYNCED", "")]
        for number in range(12):
            await make(
                environment, f"big-{number}", annotations={f"p{part}": "x" * 30_000 for part in range(4)}
            )

        async def ended() -> bool:
            async with environment.sql() as sql:
                count = "SELECT count(*) FROM operation_logs WHERE error_code = 'RESOURCE_EXHAUSTED'"
                return bool(await sql.fetchval(count))

        await poll_until(ended, seconds=10)
        try:
            async with within(10):
                async for answer in stream:
                    seen += [answer.revision]
        except grpc.aio.AioRpcError as error:
            outcome = failed(error)
    await narrow.close()
    assert (outcome.code, outcome.reason) == ("RESOURCE_EXHAUSTED", "SLOW_CONSUMER")
    info = outcome.detail(error_details_pb2.ErrorInfo)
    assert info is not None
    async with environment.sql() as sql:
        rows = await sql.fetch("SELECT revision FROM events WHERE resource_type = 'container' ORDER BY 1")
    everything = [row["revision"] for row in rows]
    assert len(seen) < len(everything)
    again = request_for(rule, {"namespace": OWN, "resumeToken": info.metadata["resume_token"]})
    rest = await environment.admin.invoke(rule, again, most=len(everything) - len(seen))
    assert seen + [answer.revision for answer in rest.answers] == everything


async def test_a_watch_from_before_the_first_event_resumes(database: Database, tmp_path: Path) -> None:
    """A new installation has events of the first user, grant and cluster only."""
    async with running_server(database, tmp_path, with_cluster=False) as server:
        async with server.admin.namespaces.watch() as changes:
            assert (await anext(changes)).kind is ChangeKind.SYNCED
            token = changes.resume_token
        async with connection(database.admin_dsn) as sql:
            head = "SELECT revision FROM stream_head"
            began = await sql.fetchval(head)
            kinds = await sql.fetch("SELECT DISTINCT resource_type FROM events")
            assert {row[0] for row in kinds} <= {"user", "grant", "cluster"}
            await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="first"))
            await poll_until(
                lambda: sql.fetchval(head), lambda found: found > began, what="the first event is numbered"
            )
        async with server.admin.namespaces.watch(resume_token=token) as changes, within(10):
            change = await anext(changes)
            assert (change.kind, change.resource.name) == (ChangeKind.ADDED, "first")


async def test_server_time_of_messages_is_comparable_to_the_times_of_rows(environment: Environment) -> None:
    rule = environment.rule("WatchContainers")
    request = request_for(rule, {"namespace": OWN, "bookmarkPeriodSeconds": 1})
    async with environment.admin.watching(rule, request) as stream, within(20):
        answer = await anext(stream)
        while answer.change_type != resource.CHANGE_TYPE_SYNCED:
            assert not answer.HasField("server_time")
            answer = await anext(stream)
        synced = answer.server_time.ToDatetime()
        await make(environment, "timed")
        while answer.container.name != "timed":
            answer = await anext(stream)
        made = answer.container.create_time.ToDatetime()
        # The time advances while nothing changes.
        while answer.change_type != resource.CHANGE_TYPE_BOOKMARK or answer.server_time.ToDatetime() < made:
            answer = await anext(stream)
    # A resource that was made after the first state is not in it.
    assert synced <= made
