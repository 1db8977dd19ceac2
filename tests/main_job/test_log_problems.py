"""Unreadable logs are reported immediately, or waited for with a message, and do not block readable ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError, RetryPolicy
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.main_job.legacy import Kubectl
from tests.waiting import patient, poll_until, within

pytestmark = pytest.mark.full

BEHAVIOR = "simulate.pilothouse.dev/behavior"
LOGS = ("containers", "logs", "--namespace", "demo")


@pytest.fixture
async def demo(server: Server) -> Server:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    return server


async def make(server: Server, name: str, behavior: str = "", **fields: object) -> None:
    container = pb.Container(
        name=name,
        image="busybox:1.37",
        command=["sh", "-c", f"echo this is {name}; sleep 3600"],
        labels={"app": "many"},
        annotations={BEHAVIOR: behavior} if behavior else {},
        **fields,  # type: ignore[arg-type]
    )
    await server.admin.containers.create(namespace="demo", container=container)

    async def there() -> bool:
        found = await server.admin.containers.get(namespace="demo", name=name)
        # A container whose image cannot be pulled gets no further.
        return found.status == pb.CONTAINER_STATUS_RUNNING or found.reason == "ImagePullBackOff"

    await poll_until(there)


async def read(server: Server, **request: object) -> list[pb.StreamLogsResponse]:
    return [answer async for answer in server.admin.containers.stream_logs(namespace="demo", **request)]  # type: ignore[arg-type]


async def test_a_container_without_a_log_does_not_block_the_others(demo: Server, tmp_path: Path) -> None:
    await make(demo, "broken", "image-pull-error")
    await make(demo, "web")
    await make(demo, "zebra")
    answers = await read(demo, label_selector="app=many")
    assert {entry.line for answer in answers for entry in answer.entries} == {
        b"this is web",
        b"this is zebra",
    }
    (problem,) = [problem for answer in answers for problem in answer.problems]
    assert (problem.container, problem.reason) == ("broken", "CLUSTER_REFUSED")
    # The rest of the message alternates: the pull is retried, with a pause in between.
    told = problem.message.rpartition(": ")[0]
    assert told.endswith("is waiting to start")
    # If it is the only log of the call, its problem fails the call.
    with pytest.raises(PilothouseError) as refused:
        await read(demo, name="broken")
    assert refused.value.reason == "CLUSTER_REFUSED"
    assert refused.value.message.startswith(told)

    shell = await logged_in(demo, tmp_path)
    shown = await shell.run(*LOGS, "--selector", "app=many")
    assert shown.code == 7
    assert [line.partition("/")[0] for line in shown.output.splitlines()] == ["web", "zebra"]
    assert shown.errors.startswith(f"error: broken/{problem.pod}: {told}: ")
    # A followed log is waited for, with a message.
    process = await shell.start(*LOGS, "broken", "--follow")
    assert process.stderr is not None
    try:
        line = await asyncio.wait_for(process.stderr.readline(), patient(60))
        assert line.decode().startswith(f"waiting for broken/{problem.pod}: {told}: ")
    finally:
        process.terminate()
        await process.wait()


async def test_a_deleted_pod_whose_program_never_started_is_left_out(demo: Server) -> None:
    """A rollback deletes such pods, and the logs of the others are all that there will be."""
    await make(demo, "broken", "image-pull-error")
    await make(demo, "web")
    kubectl = Kubectl(demo)
    pods = "/api/v1/namespaces/demo/pods"
    (pod,) = [
        found["metadata"]["name"]
        for found in (await kubectl.ask("GET", pods))["items"]
        if found["metadata"]["name"].startswith("broken-")
    ]
    # Without a finalizer, the cluster deletes the pod within a second.
    held = {"metadata": {"finalizers": ["tests.example/held"]}}
    await kubectl.ask("PATCH", f"{pods}/{pod}", held, "merge-patch+json")
    await demo.admin.containers.stop(namespace="demo", name="broken")

    async def deleting() -> bool:
        found = [each async for each in demo.admin.containers.list_pods(namespace="demo", name="broken")]
        return [each.phase for each in found] == ["Terminating"]

    await poll_until(deleting)
    answers = await read(demo, label_selector="app=many")
    assert [entry.line for answer in answers for entry in answer.entries] == [b"this is web"]
    assert not [problem for answer in answers for problem in answer.problems]
    # Of this pod alone, the caller is shown why there is no log.
    with pytest.raises(PilothouseError) as refused:
        await read(demo, name="broken")
    assert refused.value.reason == "CLUSTER_REFUSED"
    await kubectl.ask("PATCH", f"{pods}/{pod}", {"metadata": {"finalizers": None}}, "merge-patch+json")


async def test_lines_of_several_pods_name_their_pod(demo: Server, tmp_path: Path) -> None:
    await make(demo, "one")
    await make(demo, "two", replicas=2)
    shell = await logged_in(demo, tmp_path)
    assert await shell.succeed(*LOGS, "one") == "this is one\n"
    assert (await shell.succeed(*LOGS, "one", "--prefix")).startswith("one/one-")
    lines = (await shell.succeed(*LOGS, "two")).splitlines()
    pods = {line.removesuffix(" this is two") for line in lines}
    assert len(pods) == len(lines) == 2
    assert all(pod.startswith("two/two-") for pod in pods)
    assert await shell.succeed(*LOGS, "two", "--no-prefix") == "this is two\n" * 2
    # It may have two pods soon, so even the first line has a prefix.
    await demo.admin.containers.scale(namespace="demo", name="one", replicas=2)
    assert (await shell.succeed(*LOGS, "one")).startswith("one/one-")
    pod = pods.pop().partition("/")[2]
    assert await shell.succeed(*LOGS, "two", "--pod", pod) == "this is two\n"
    missing = await shell.run(*LOGS, "two", "--pod", "nobody")
    assert (missing.code, missing.errors) == (6, 'error: pod "nobody" not found [POD_NOT_FOUND]\n')


async def test_logs_of_an_unreachable_cluster_fail_or_are_waited_for(demo: Server, tmp_path: Path) -> None:
    await make(demo, "web")
    shell = await logged_in(demo, tmp_path)
    assert demo.cluster is not None
    demo.cluster.faults.refuse_connections = True
    hasty = demo.admin.with_options(retry=RetryPolicy(attempts=2))
    with pytest.raises(PilothouseError) as refused:
        async for _ in hasty.containers.stream_logs(namespace="demo", name="web"):
            pass
    assert refused.value.reason == "CLUSTER_UNAVAILABLE"
    shown = await shell.run("--timeout", "4", *LOGS, "web")
    assert shown.code == 9
    assert 'error: cluster "local" is not available' in shown.errors
    process = await shell.start(*LOGS, "web", "--follow")
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = await asyncio.wait_for(process.stderr.readline(), patient(60))
        assert b"waiting for web/web-" in line
        assert b'cluster "local" is not available' in line
        demo.cluster.faults.clear()
        assert await asyncio.wait_for(process.stdout.readline(), patient(60)) == b"this is web\n"
    finally:
        process.terminate()
        await process.wait()


async def test_a_watching_command_reports_that_its_server_has_stopped(demo: Server, tmp_path: Path) -> None:
    await make(demo, "web")
    shell = await logged_in(demo, tmp_path)
    process = await shell.start("containers", "list", "--namespace", "demo", "--watch")
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with within(60):
            while b"web" not in await process.stdout.readline():
                continue
        await demo.application.stop()
        line = await asyncio.wait_for(process.stderr.readline(), patient(60))
        # A repeated request may still reach the server that is stopping.
        assert line.startswith(
            (
                b"interrupted, trying to reconnect: no server responds at ",
                b"interrupted, trying to reconnect: this server is shutting down",
                b"interrupted, trying to reconnect: CANCELLED",
            )
        )
        # A watch that begins now fails.
        late = await shell.run("--timeout", "4", "containers", "list", "--namespace", "demo", "--watch")
        assert late.code == 9
        assert "error: no server responds at " in late.errors
    finally:
        process.terminate()
        await process.wait()
