"""The adapter against the responses of a real API server, repeated on a socket."""

from __future__ import annotations

import json
from contextlib import aclosing
from itertools import groupby
from typing import Any

import pytest

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    ClusterError,
    Conflict,
    Expired,
    FieldConflict,
    Forbidden,
    Invalid,
    NotFound,
    Refused,
    Unauthorized,
    Unreachable,
)
from pilothouse_server.kubernetes.exec import Ended, Output, RunningProgram, program
from pilothouse_server.kubernetes.objects import CONFIG_MAPS, DEPLOYMENTS, PODS, Resource
from pilothouse_server.kubernetes.transport import TransportLimits
from tests.kubernetes import recorded
from tests.kubernetes.recorded_server import RecordedServer, serving
from tests.waiting import patient, runs_out

_EXEC = "08b-exec-websocket"


async def _watched(
    client: ClusterClient, resource: Resource[Any], namespace: str, version: str
) -> tuple[list[tuple[str, str]], ClusterError | None]:
    """Returns types and versions of the events of a watch, and the error at its end."""
    seen: list[tuple[str, str]] = []
    events = client.watch(resource, namespace, resource_version=version)
    async with aclosing(events):
        try:
            async for event in events:
                told = (event.type, event.resource_version)
                seen.append(told)
        except ClusterError as error:
            return seen, error
    return seen, None


async def test_a_watch_cut_by_a_kill_returns_earlier_events_and_then_expires() -> None:
    async with serving(RecordedServer("11a-apiserver-killed", cut_lines=True)) as client:
        seen, error = await _watched(client, CONFIG_MAPS, "rec-down", "7196")
        assert [type_ for type_, _ in seen] == ["ADDED", "MODIFIED", "MODIFIED"]
        assert seen[-1][1] == "7199"
        assert isinstance(error, Unreachable)
        silent, broken = await _watched(client, PODS, "rec-down", "7196")
        assert silent == []
        assert isinstance(broken, Unreachable)
        seen, error = await _watched(client, CONFIG_MAPS, "rec-down", "7199")
        assert seen == []
        assert isinstance(error, Expired)


async def test_a_watch_of_a_stopped_server_ends_cleanly_with_a_bookmark() -> None:
    async with serving(RecordedServer("11a-apiserver-stopped")) as client:
        seen, error = await _watched(client, CONFIG_MAPS, "rec-down", "6743")
        assert error is None
        assert seen[-1][0] == "BOOKMARK"
        assert int(seen[-1][1]) >= int(seen[-2][1])
        assert await _watched(client, PODS, "rec-down", "6743") == ([], None)
        _, error = await _watched(client, CONFIG_MAPS, "rec-down", "6746")
        assert isinstance(error, Expired)


async def test_a_silent_watch_is_abandoned() -> None:
    """The server's storage stalls, and even bookmarks are missing.

    The server sends nothing for longer than the interval of bookmarks.
    """
    limits = TransportLimits(request_seconds=patient(5.0), watch_idle_seconds=runs_out(0.3))
    async with serving(RecordedServer("11b-storage-stalled"), limits) as client:
        seen, error = await _watched(client, CONFIG_MAPS, "rec-etcd", "7069")
        assert len(seen) == 3
        assert isinstance(error, Unreachable)


@pytest.mark.parametrize("version", ["5"])
async def test_an_old_version_is_expired_although_the_status_is_200(version: str) -> None:
    async with serving(RecordedServer("04c-expired-410")) as client:
        assert isinstance((await _watched(client, CONFIG_MAPS, "rec-gone", version))[1], Expired)


async def test_an_outage_appears_as_refused_connections_between_responses() -> None:
    told: list[str] = []
    async with serving(RecordedServer("11a-apiserver-stopped")) as client:
        for _ in range(6):
            try:
                await client.get(CONFIG_MAPS, "rec-down", "c")
                told.append("answered")
            except Unreachable:
                told.append("away")
    assert [what for what, _ in groupby(told)] == ["answered", "away", "answered"]


async def test_an_apply_that_timed_out_is_applied_again() -> None:
    server = RecordedServer("11b-storage-stalled")
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "rec-etcd"},
        "data": {"i": "9"},
    }
    async with serving(server) as client:
        with pytest.raises(Unreachable, match="within the allotted timeout") as failure:
            await client.apply(CONFIG_MAPS, manifest)
        assert failure.value.outlook == "passing"
        stored = await client.apply(CONFIG_MAPS, manifest)
    assert stored.metadata.resource_version == "7138"
    first, second = (body for method, _, _, body in server.requests if method == "PATCH")
    assert first == second


async def test_deletions_use_only_their_body_and_accept_every_response() -> None:
    server = RecordedServer("03f-deployment-delete")
    other = "00000000-0000-0000-0000-000000000000"
    async with serving(server) as client:
        with pytest.raises(Conflict) as conflict:
            await client.delete(DEPLOYMENTS, "rec-del", "pre", uid=other)
        assert (conflict.value.fields, conflict.value.already_exists) == ((), False)
        assert await client.delete(DEPLOYMENTS, "rec-del", "nosuch", uid=other) is False
        # The response is the object while its dependents are deleted, and a Status if it is deleted
        # immediately.
        assert await client.delete(DEPLOYMENTS, "rec-del", "fg", uid=other) is True
        assert await client.delete(DEPLOYMENTS, "rec-del", "bg", uid=other, propagation="Background") is True
        assert await client.find(DEPLOYMENTS, "rec-del", "bg") is None
    for method, _, query, body in server.requests:
        if method == "DELETE":
            assert query == {}
            options = json.loads(body)
            assert options["kind"] == "DeleteOptions"
            assert options["preconditions"] == {"uid": other}
            assert options["propagationPolicy"] in ("Foreground", "Background")


async def test_apply_creates_repeats_changes_and_conflicts() -> None:
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "rec-apply"},
    }
    async with serving(RecordedServer("03a-deployment-server-side-apply")) as client:
        created = await client.apply(DEPLOYMENTS, manifest)
        repeated = await client.apply(DEPLOYMENTS, manifest)
        changed = await client.apply(DEPLOYMENTS, manifest)
        assert created.metadata.uid == repeated.metadata.uid == changed.metadata.uid
        assert (created.metadata.generation, changed.metadata.generation) == (1, 2)
        await client.apply(DEPLOYMENTS, manifest)
        with pytest.raises(Conflict) as conflict:
            await client.apply(DEPLOYMENTS, manifest)
        assert conflict.value.fields == (FieldConflict("pilothouse", ".spec.replicas"),)
        assert conflict.value.outlook == "refused"
        forced = await client.apply(DEPLOYMENTS, manifest, force=True)
        assert forced.metadata.uid == created.metadata.uid
        fresh = {**manifest, "metadata": {"name": "fresh", "namespace": "rec-apply"}}
        assert "resourceVersion" not in (await client.dry_run(DEPLOYMENTS, fresh))["metadata"]
        assert await client.find(DEPLOYMENTS, "rec-apply", "fresh") is None


async def test_wrong_credentials_and_missing_rights_are_distinguished() -> None:
    async with serving(RecordedServer("07b-authentication-and-rbac")) as client:
        with pytest.raises(Unauthorized):
            await client.list(PODS, "rec-rbac")
        with pytest.raises(Forbidden) as denied:
            await client.list(PODS, "rec-rbac")
        assert denied.value.permission == "list pods"
        with pytest.raises(Forbidden) as watching:
            await anext(client.watch(PODS, "rec-rbac", resource_version=""))
        assert watching.value.permission == "watch pods"
        manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "x", "namespace": "rec-rbac"},
        }
        with pytest.raises(Forbidden) as applying:
            await client.apply(DEPLOYMENTS, manifest)
        assert applying.value.permission == "patch deployments.apps"
        assert await client.may("list", "", "pods") is False
        assert await client.may("list", "", "pods") is True


# exec


async def _said(
    client: ClusterClient, number: int, *, stdin: bool = False, tty: bool = False
) -> tuple[dict[str, bytes], Ended]:
    """Runs the recorded command with its input; returns each output, and the end."""
    exchange = recorded.exchanges(_EXEC)[number]
    pod = exchange["request"]["path"].split("/")[-2]
    command = exchange["request"]["query"]["command"]
    outputs = {"stdout": b"", "stderr": b""}
    async with program(
        client, "rec-logs", pod, container="main", command=command, stdin=stdin, tty=tty
    ) as running:
        for frame in exchange["response"]["frames"]:
            await _say(running, frame)
        async for item in running.output():
            if isinstance(item, Output):
                outputs[item.stream] += item.data
            else:
                return outputs, item
    raise AssertionError("no end")


async def _say(running: RunningProgram, frame: dict[str, Any]) -> None:
    if frame["dir"] != "sent":
        return
    if frame["channel"] == 0:
        await running.write(frame["data"].encode())
    elif frame["channel"] == 4:
        size = json.loads(frame["data"])
        await running.resize(size["Width"], size["Height"])
    else:
        await running.close_input()


@pytest.mark.parametrize(
    ("number", "stdout", "stderr", "exit_code"),
    [
        (0, b"out\n", b"err\n", 0),
        (1, b"out\n", b"err\n", 7),
        (2, b"1\n2\n3\n", b"", 0),
        (4, b"", b"", 137),
        (8, b"v4\n", b"", 3),
    ],
)
async def test_programs_end_as_recorded(number: int, stdout: bytes, stderr: bytes, exit_code: int) -> None:
    async with serving(RecordedServer(_EXEC)) as client:
        outputs, end = await _said(client, number)
    assert outputs == {"stdout": stdout, "stderr": stderr}
    assert end == Ended(exit_code)


async def test_a_program_that_cannot_start_ends_with_the_clusters_message() -> None:
    async with serving(RecordedServer(_EXEC)) as client:
        _, end = await _said(client, 3)
    assert end.exit_code == -1
    assert "no such file or directory" in end.message


async def test_input_is_sent_and_ended_as_recorded() -> None:
    server = RecordedServer(_EXEC)
    async with serving(server) as client:
        outputs, end = await _said(client, 6, stdin=True)
    assert outputs["stdout"] == b"hello\nbye\n"
    assert end == Ended(0)
    assert server.sent_frames == [b"\x00hello\n", b"\x00bye\n", b"\xff\x00"]


async def test_a_terminals_size_is_sent_as_recorded() -> None:
    server = RecordedServer(_EXEC)
    async with serving(server) as client:
        outputs, end = await _said(client, 9, stdin=True, tty=True)
    assert b"50 132\r\n" in outputs["stdout"]
    assert end == Ended(5)
    frames = recorded.exchanges(_EXEC)[9]["response"]["frames"]
    sent = [bytes([frame["channel"]]) + frame["data"].encode() for frame in frames if frame["dir"] == "sent"]
    assert [json.loads(frame[1:]) if frame[0] == 4 else frame for frame in server.sent_frames] == [
        json.loads(frame[1:]) if frame[0] == 4 else frame for frame in sent
    ]


@pytest.mark.parametrize(
    ("pod", "kind"),
    [
        ("pair", Invalid),
        ("zzz", NotFound),
        ("over", Refused),
        ("pending", NotFound),
        ("nopull", NotFound),
    ],
)
async def test_a_refused_program_raises_the_matching_error(pod: str, kind: type[Exception]) -> None:
    async with serving(RecordedServer(_EXEC)) as client:
        with pytest.raises(kind):
            async with program(
                client,
                "rec-logs",
                pod,
                container="main",
                command=["sh", "-c", "echo hi"],
                stdin=False,
                tty=False,
            ):
                pass
