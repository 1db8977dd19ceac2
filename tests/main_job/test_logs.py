"""Logs as the cluster holds them: whole, the last lines, followed across restarts, resumed without duplicates."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from tests.harness import Server, eventually
from tests.main_job.command import logged_in

SCRIPT = "for i in " + " ".join(map(str, range(40))) + "; do echo line $i; sleep 1; done; sleep 3600"


async def running(server: Server, name: str, **fields: object) -> None:
    container = container_pb2.Container(
        name=name,
        image="busybox:1.37",
        command=["sh", "-c", SCRIPT],
        **fields,  # type: ignore[arg-type]
    )
    await server.admin.containers.create(namespace="demo", container=container)

    async def runs() -> bool:
        found = await server.admin.containers.get(namespace="demo", name=name)
        return found.status == container_pb2.CONTAINER_STATUS_RUNNING

    await eventually(runs)


async def lines(server: Server, **request: object) -> list[container_pb2.LogEntry]:
    found: list[container_pb2.LogEntry] = []
    async for answer in server.admin.containers.stream_logs(namespace="demo", **request):  # type: ignore[arg-type]
        found.extend(answer.entries)
    return found


@pytest.fixture
async def demo(server: Server) -> Server:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    return server


async def test_the_whole_log_and_its_end(demo: Server) -> None:
    await running(demo, "web", labels={"app": "web"})

    async def written() -> list[container_pb2.LogEntry]:
        found = await lines(demo, name="web")
        return found if len(found) >= 3 else []

    found = await eventually(written)
    assert [entry.container for entry in found] == ["web"] * len(found)
    times = [entry.timestamp.ToNanoseconds() for entry in found]
    assert times == sorted(times)
    last = await lines(demo, name="web", tail_lines=1)
    assert len(last) == 1
    by_label = await lines(demo, label_selector="app=web", tail_lines=2)
    assert len(by_label) == 2


async def test_followed_and_resumed_nothing_comes_twice_or_is_missing(demo: Server) -> None:
    await running(demo, "web")
    token = ""
    seen: list[tuple[str, int, bytes]] = []
    for _ in range(3):
        stream = demo.admin.containers.stream_logs(
            namespace="demo", name="web", follow=True, resume_token=token
        )
        async with asyncio.timeout(30), stream as answers:
            wanted = len(seen) + 4
            async for answer in answers:
                seen += [(e.pod, e.timestamp.ToNanoseconds(), e.line) for e in answer.entries]
                token = answer.resume_token
                if len(seen) >= wanted:
                    break
    assert len(set(seen)) == len(seen)
    whole = await lines(demo, name="web")
    told = [(e.pod, e.timestamp.ToNanoseconds(), e.line) for e in whole]
    assert seen == told[: len(seen)]


async def test_what_cannot_be_read_is_said(demo: Server) -> None:
    await running(demo, "web")
    with pytest.raises(PilothouseError) as refused:
        await lines(demo, name="web", previous=True)
    assert refused.value.reason == "CLUSTER_REFUSED"
    assert "not found" in refused.value.message
    with pytest.raises(PilothouseError) as refused:
        await lines(demo, name="web", follow=True, previous=True)
    assert refused.value.reason == "INVALID_FIELD"
    with pytest.raises(PilothouseError) as refused:
        await lines(demo, name="nobody")
    assert refused.value.reason == "CONTAINER_NOT_FOUND"
    with pytest.raises(PilothouseError) as refused:
        await lines(demo, name="web", resume_token="bm9ib2R5J3M=")
    assert refused.value.reason == "RESUME_TOKEN"


async def test_by_the_command(demo: Server, tmp_path: Path) -> None:
    await running(demo, "web")
    shell = await logged_in(demo, tmp_path)

    async def shown() -> str:
        return await shell.succeed("containers", "logs", "web", "--namespace", "demo", "--tail", "1")

    assert (await eventually(shown)).strip()
