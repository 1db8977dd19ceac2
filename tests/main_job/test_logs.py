"""Logs as the cluster has them: whole, the last lines, followed across restarts, resumed without duplicates."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import InvalidArgumentError, PilothouseError
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.main_job.command import logged_in
from tests.waiting import poll_until, within

SCRIPT = "for i in " + " ".join(map(str, range(40))) + "; do echo line $i; sleep 1; done; sleep 3600"


async def running(server: Server, name: str, script: str = SCRIPT, **fields: object) -> None:
    container = container_pb2.Container(
        name=name,
        image="busybox:1.37",
        command=["sh", "-c", script],
        **fields,  # type: ignore[arg-type]
    )
    await server.admin.containers.create(namespace="demo", container=container)

    async def runs() -> bool:
        found = await server.admin.containers.get(namespace="demo", name=name)
        return found.status == container_pb2.CONTAINER_STATUS_RUNNING

    await poll_until(runs)


async def lines(server: Server, **request: object) -> list[container_pb2.LogEntry]:
    found: list[container_pb2.LogEntry] = []
    async for answer in server.admin.containers.stream_logs(namespace="demo", **request):  # type: ignore[arg-type]
        found.extend(answer.entries)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def demo(shared_server: Server) -> Server:
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    return shared_server


async def test_the_whole_log_and_its_last_lines_are_read(demo: Server) -> None:
    await running(demo, "whole", labels={"app": "web"})

    async def written() -> list[container_pb2.LogEntry]:
        found = await lines(demo, name="whole")
        return found if len(found) >= 3 else []

    found = await poll_until(written)
    assert [entry.container for entry in found] == ["whole"] * len(found)
    times = [entry.timestamp.ToNanoseconds() for entry in found]
    assert times == sorted(times)
    last = await lines(demo, name="whole", tail_lines=1)
    assert len(last) == 1
    by_label = await lines(demo, label_selector="app=web", tail_lines=2)
    assert len(by_label) == 2


async def test_a_resumed_follow_neither_repeats_nor_misses_lines(demo: Server) -> None:
    # An endless loop: each round must find new lines.
    await running(demo, "followed", "while true; do echo tick; sleep 1; done")
    token = ""
    seen: list[tuple[str, int, bytes]] = []
    for _ in range(3):
        stream = demo.admin.containers.stream_logs(
            namespace="demo", name="followed", follow=True, resume_token=token
        )
        async with within(30), stream as answers:
            wanted = len(seen) + 4
            async for answer in answers:
                seen += [(e.pod, e.timestamp.ToNanoseconds(), e.line) for e in answer.entries]
                token = answer.resume_token
                if len(seen) >= wanted:
                    break
    assert len(set(seen)) == len(seen)
    whole = await lines(demo, name="followed")
    told = [(e.pod, e.timestamp.ToNanoseconds(), e.line) for e in whole]
    assert seen == told[: len(seen)]


async def test_logs_of_many_pods_by_label_are_resumed(server: Server) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    # An endless loop: the first pods must still write lines when the last pod has started.
    script = "while true; do echo tick; sleep 15; done"
    for number in range(2):
        container = container_pb2.Container(
            name=f"a-name-that-is-about-as-long-as-names-of-containers-get-{number}",
            image="busybox:1.37",
            command=["sh", "-c", script],
            labels={"app": "many"},
            replicas=50,
        )
        await server.admin.containers.create(namespace="demo", container=container)
    seen: set[tuple[str, int, bytes]] = set()
    token = ""
    for _ in range(2):
        lines_of: Counter[str] = Counter()
        stream = server.admin.containers.stream_logs(
            namespace="demo", label_selector="app=many", follow=True, resume_token=token
        )
        async with within(90), stream as answers:
            async for answer in answers:
                for entry in answer.entries:
                    line = (entry.pod, entry.timestamp.ToNanoseconds(), entry.line)
                    assert line not in seen
                    seen.add(line)
                    lines_of[entry.pod] += 1
                token = answer.resume_token
                if len(lines_of) == 100:
                    break
    assert len({pod for pod, _, _ in seen}) == 100


async def test_unreadable_logs_are_refused_with_a_reason(demo: Server) -> None:
    await running(demo, "unread")
    with pytest.raises(PilothouseError) as refused:
        await lines(demo, name="unread", previous=True)
    assert refused.value.reason == "CLUSTER_REFUSED"
    assert "not found" in refused.value.message
    with pytest.raises(PilothouseError) as refused:
        await lines(demo, name="unread", follow=True, previous=True)
    assert refused.value.reason == "INVALID_FIELD"
    with pytest.raises(PilothouseError) as refused:
        await lines(demo, name="nobody")
    assert refused.value.reason == "CONTAINER_NOT_FOUND"
    with pytest.raises(PilothouseError) as refused:
        await lines(demo, name="unread", resume_token="bm9ib2R5J3M=")
    assert refused.value.reason == "RESUME_TOKEN"


async def test_the_command_prints_the_last_line(demo: Server, tmp_path: Path) -> None:
    await running(demo, "commanded")
    shell = await logged_in(demo, tmp_path)

    async def shown() -> str:
        return await shell.succeed("containers", "logs", "commanded", "--namespace", "demo", "--tail", "1")

    assert (await poll_until(shown)).strip()


# A read of the log every second must find every run: at ten times the speed, short runs would end between two reads.
SLOWER = 4.0
LINES_A_RUN = 24
RUN = "for i in " + " ".join(map(str, range(LINES_A_RUN))) + "; do echo line $i; sleep 1; done; exit 1"


@pytest.fixture
async def slower(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(database, tmp_path, speed=SLOWER) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        yield server


async def restarted(server: Server, times: int) -> None:
    async def often_enough() -> bool:
        found = await server.admin.containers.get(namespace="demo", name="web")
        return found.restart_count >= times

    await poll_until(often_enough, seconds=60.0)


class Followed:
    """Collects the lines of a followed log."""

    def __init__(self) -> None:
        self.token = ""
        self.entries: list[tuple[int, bytes]] = []

    async def read(self, server: Server, until: Callable[[list[bytes]], bool], **request: Any) -> None:
        """Continues the log until `until` is true of all lines so far."""
        stream = server.admin.containers.stream_logs(
            namespace="demo", name="web", follow=True, resume_token=self.token, **request
        )
        async with within(60), stream as answers:
            async for answer in answers:
                self.entries += [(e.timestamp.ToNanoseconds(), e.line) for e in answer.entries]
                self.token = answer.resume_token
                if until(self.lines):
                    return

    @property
    def lines(self) -> list[bytes]:
        times = [time for time, _ in self.entries]
        assert times == sorted(set(times)), "a line came twice, or late"
        return [line for _, line in self.entries]


def whole_runs(count: int) -> list[bytes]:
    return [b"line %d" % number for number in range(LINES_A_RUN)] * count


@pytest.mark.full
async def test_following_across_a_restart_neither_repeats_nor_misses_lines(slower: Server) -> None:
    await running(slower, "web", RUN)
    followed = Followed()
    await followed.read(slower, lambda lines: len(lines) >= LINES_A_RUN + 5)
    assert followed.lines == whole_runs(2)[: len(followed.lines)]


@pytest.mark.full
async def test_a_resume_after_a_restart_begins_with_the_end_of_the_previous_run(slower: Server) -> None:
    await running(slower, "web", RUN)
    followed = Followed()
    await followed.read(slower, lambda lines: len(lines) >= 3)
    await restarted(slower, 1)
    await followed.read(slower, lambda lines: len(lines) >= LINES_A_RUN + 2)
    assert followed.lines == whole_runs(2)[: len(followed.lines)]


@pytest.mark.full
async def test_every_run_of_a_crash_loop_is_followed_from_the_start(slower: Server) -> None:
    container = container_pb2.Container(
        name="web", image="busybox:1.37", command=["sh", "-c", "echo begin; echo end; exit 1"]
    )
    await slower.admin.containers.create(namespace="demo", container=container)
    followed = Followed()
    # The log is requested before it exists.
    following = asyncio.create_task(followed.read(slower, lambda lines: len(lines) >= 8, tail_lines=0))
    try:
        await restarted(slower, 3)
        await following
    finally:
        following.cancel()
    assert followed.lines[:8] == [b"begin", b"end"] * 4
    found = await slower.admin.containers.get(namespace="demo", name="web")
    assert found.reason == "CrashLoopBackOff"
    assert [entry.line for entry in await lines(slower, name="web")] == [b"begin", b"end"]


@pytest.mark.full
async def test_with_tail_zero_a_log_begins_with_the_next_line(slower: Server) -> None:
    await running(slower, "web", RUN)

    async def written() -> list[container_pb2.LogEntry]:
        found = await lines(slower, name="web")
        return found if len(found) >= 3 else []

    past = await poll_until(written)
    followed = Followed()
    await followed.read(slower, lambda lines: len(lines) >= LINES_A_RUN, tail_lines=0)
    first = int(followed.lines[0].split()[1])
    assert first >= len(past)
    assert followed.lines == whole_runs(3)[first:][: len(followed.lines)]


@pytest.mark.full
async def test_the_log_of_the_run_before_a_restart_is_read(slower: Server) -> None:
    await running(slower, "web", RUN)
    await restarted(slower, 1)
    before = await lines(slower, name="web", previous=True)
    assert [entry.line for entry in before] == whole_runs(1)
    assert [entry.line for entry in await lines(slower, name="web", previous=True, tail_lines=2)] == [
        entry.line for entry in before[-2:]
    ]


async def test_only_lines_since_a_time_are_returned(demo: Server) -> None:
    await running(demo, "since", "while true; do echo tick; sleep 1; done")

    async def written() -> bool:
        return len(await lines(demo, name="since")) >= 30

    await poll_until(written)
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) - timedelta(seconds=5))
    since = [e.timestamp.ToNanoseconds() for e in await lines(demo, name="since", since_time=moment)]
    whole = [e.timestamp.ToNanoseconds() for e in await lines(demo, name="since")]
    assert 3 <= len(since) < 30
    assert since == whole[whole.index(since[0]) :][: len(since)]


async def test_a_log_is_read_backwards(demo: Server) -> None:
    await running(demo, "backwards")

    async def written() -> list[container_pb2.LogEntry]:
        found = await lines(demo, name="backwards")
        return found if len(found) >= 20 else []

    whole = await poll_until(written)
    end, pages = whole[-1].timestamp, list[list[container_pb2.LogEntry]]()
    while page := await lines(demo, name="backwards", end_time=end, tail_lines=7):
        pages.append(page)
        end = page[0].timestamp
    assert [len(page) for page in pages[:2]] == [7, 7]
    assert [entry for page in reversed(pages) for entry in page] == whole[:-1]
    assert await lines(demo, name="backwards", end_time=whole[10].timestamp) == whole[:10]
    with pytest.raises(InvalidArgumentError, match="end_time: is not allowed with follow"):
        await lines(demo, name="backwards", end_time=end, follow=True)
    with pytest.raises(InvalidArgumentError, match="tail_lines: must be at most 10000"):
        await lines(demo, name="backwards", end_time=end, tail_lines=10_001)


async def test_the_command_prints_and_filters_times(demo: Server, tmp_path: Path) -> None:
    await running(demo, "times")
    where = ("containers", "logs", "times", "--namespace", "demo")
    shell = await logged_in(demo, tmp_path)

    async def shown() -> list[str]:
        found = (await shell.succeed(*where, "--timestamps")).splitlines()
        return found if len(found) >= 2 else []

    found = await poll_until(shown)
    told = await lines(demo, name="times")
    assert found == [
        f"{entry.timestamp.ToJsonString()} {entry.line.decode()}" for entry in told[: len(found)]
    ]
    recent = (await shell.succeed(*where, "--since", "1h")).splitlines()
    assert recent[:2] == ["line 0", "line 1"]
