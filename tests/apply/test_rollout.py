"""The wait of `apply` until containers run, and the reasons that it gives."""

from __future__ import annotations

import asyncio

import pytest_asyncio
from tests.apply.conftest import Settle
from tests.client.fake_server import FakeServer
from tests.translator.manifests import NAMESPACE
from tests.waiting import within

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client import Client
from pilothouse_client.apply.rollout import wait
from pilothouse_client.waiting import DEFAULT_PATIENCE


class Waiting:
    """One wait and its output."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()
        self.said: list[str] = []
        self.complained: list[str] = []
        self.counted: list[tuple[int, int]] = []

    async def says(self, part: str) -> None:
        """Returns when a line with this part has been reported. Fails after ten seconds."""
        async with within(10):
            while not any(part in line for line in self.said):
                self._heard.clear()
                await self._heard.wait()

    def _say(self, line: str) -> None:
        # Called by the thread of the wait.
        self.said.append(line)
        self._loop.call_soon_threadsafe(self._heard.set)

    async def __call__(self, *containers: pb.Container, seconds: float = 30.0) -> bool:
        return await asyncio.to_thread(
            wait,
            self._client,
            NAMESPACE,
            containers,
            seconds,
            DEFAULT_PATIENCE,
            self._say,
            self.complained.append,
            lambda done, total: self.counted.append((done, total)),
        )


@pytest_asyncio.fixture
async def waiting(client: Client) -> Waiting:
    return Waiting(client)


async def made(fake: FakeServer, *names: str) -> list[pb.Container]:
    """Returns containers that the cluster has not observed yet."""
    found = [pb.Container(name=name, namespace=NAMESPACE, generation=1, replicas=1) for name in names]
    for each in found:
        each.status = pb.CONTAINER_STATUS_PENDING
        await fake.commit("container", (NAMESPACE, each.name), each)
    return found


async def test_the_wait_ends_when_all_containers_run(
    fake: FakeServer, waiting: Waiting, settle: Settle
) -> None:
    waited = asyncio.create_task(waiting(*await made(fake, "first", "second")))
    await waiting.says("second pending")
    await settle("first", ready_replicas=1)
    await settle("second", pb.CONTAINER_STATUS_PENDING, reason="ImagePullBackOff", message="no such tag")
    await waiting.says("ImagePull")
    await settle("second", ready_replicas=1)
    assert await waited
    progress = [line for line in waiting.said if "pending" not in line or "ImagePull" in line]
    assert sorted(progress) == [
        "container/first running (1 ready)",
        "container/second pending (0/1 ready): ImagePullBackOff: no such tag",
        "container/second running (1 ready)",
    ]
    assert (waiting.counted[0], waiting.counted[-1]) == ((0, 2), (2, 2))


async def test_a_timed_out_wait_reports_missing_containers_and_reasons(
    fake: FakeServer, waiting: Waiting, settle: Settle
) -> None:
    containers = await made(fake, "first", "second")
    await settle("first")
    await settle("second", pb.CONTAINER_STATUS_PENDING, reason="FailedMount", message="no disk")
    # Long enough that both states arrive before.
    assert not await waiting(*containers, seconds=2.5)
    assert waiting.complained == [
        "not all containers were running after 2.5 seconds:",
        "  container/second pending (0/1 ready): FailedMount: no disk",
    ]


async def test_one_failed_container_ends_the_wait_for_all(
    fake: FakeServer, waiting: Waiting, settle: Settle
) -> None:
    waited = asyncio.create_task(waiting(*await made(fake, "first", "second")))
    await waiting.says("second pending")
    await settle("second", pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF, reason="Error", message="exit code 1")
    assert not await waited
    assert waiting.complained[0] == "not all containers run as they should:"
    assert (
        waiting.complained[-1] == "  container/second crash_loop_back_off: a newest pod restarts: exit code 1"
    )


async def test_a_stopped_container_is_not_waited_for(
    fake: FakeServer, waiting: Waiting, settle: Settle
) -> None:
    containers = await made(fake, "web")
    await settle(status=pb.CONTAINER_STATUS_STOPPED)
    assert await waiting(*containers)
    assert waiting.said == ["container/web stopped: not waited for, apply does not start it"]


async def test_a_container_deleted_during_the_wait_ends_it(fake: FakeServer, waiting: Waiting) -> None:
    waited = asyncio.create_task(waiting(*await made(fake, "web")))
    await waiting.says("pending")
    await fake.commit("container", (NAMESPACE, "web"), None)
    assert not await waited
    assert "container/web was deleted" in waiting.said


async def test_a_cut_watch_does_not_end_the_wait(fake: FakeServer, waiting: Waiting, settle: Settle) -> None:
    waited = asyncio.create_task(waiting(*await made(fake, "web")))
    await waiting.says("pending")
    await fake.forget_history()
    await settle()
    assert await waited
    assert len(fake.calls_of("WatchContainers")) == 2
