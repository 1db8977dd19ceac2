"""Watches resume after cuts without gaps or duplicates, and report when they cannot."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from pilothouse.container.v1.container_pb2 import Container
from pilothouse_client import (
    AsyncClient,
    Change,
    ChangeKind,
    Client,
    InternalError,
    PilothouseError,
    UnavailableError,
)
from pilothouse_client.iterators import AsyncWatch
from tests.client.conftest import PASSWORD, QUICK
from tests.client.fake_server import FakeServer
from tests.waiting import within


async def _put(fake: FakeServer, name: str) -> None:
    await fake.commit("container", ("shop", name), Container(namespace="shop", name=name))


async def _next(watch: AsyncWatch[Change[Container]]) -> tuple[ChangeKind, str]:
    """Returns the next change that is not a bookmark."""
    async with within(10):
        async for change in watch:
            if change.kind is not ChangeKind.BOOKMARK:
                return change.kind, change.resource.name
    raise AssertionError("the watch has ended")


async def test_a_watch_sends_state_then_synced_then_changes(fake: FakeServer, client: AsyncClient) -> None:
    await _put(fake, "a")
    async with client.containers.watch(namespace="shop") as watch:
        assert await _next(watch) == (ChangeKind.ADDED, "a")
        assert watch.resume_token == ""
        assert await _next(watch) == (ChangeKind.SYNCED, "")
        assert watch.resume_token == "1"
        await _put(fake, "b")
        assert await _next(watch) == (ChangeKind.ADDED, "b")


async def test_a_cut_is_invisible_to_the_reader(fake: FakeServer, client: AsyncClient) -> None:
    await _put(fake, "a")
    async with client.containers.watch() as watch:
        assert [await _next(watch) for _ in range(2)] == [(ChangeKind.ADDED, "a"), (ChangeKind.SYNCED, "")]
        seen = []
        for number in range(5):
            await fake.cut_watches()
            await _put(fake, f"b{number}")
            seen.append(await _next(watch))
        assert seen == [(ChangeKind.ADDED, f"b{number}") for number in range(5)]
        await fake.commit("container", ("shop", "a"), None)
        assert await _next(watch) == (ChangeKind.DELETED, "a")


async def test_bookmarks_carry_a_token(fake: FakeServer, client: AsyncClient) -> None:
    async with client.containers.watch() as watch, within(10):
        change = await anext(watch)
        while change.kind is not ChangeKind.BOOKMARK:
            change = await anext(watch)
        assert change.resume_token == watch.resume_token == "0"


async def test_a_watch_with_an_old_token_restarts_and_reports_it(
    fake: FakeServer, client: AsyncClient
) -> None:
    await _put(fake, "a")
    async with client.containers.watch() as watch:
        assert [await _next(watch) for _ in range(2)] == [(ChangeKind.ADDED, "a"), (ChangeKind.SYNCED, "")]
        await _put(fake, "b")
        assert await _next(watch) == (ChangeKind.ADDED, "b")
        await fake.stop()
        await _put(fake, "c")
        await fake.forget_history()
        await fake.start(fake.address)
        seen = [await _next(watch) for _ in range(5)]
        assert seen[0] == (ChangeKind.RESTARTED, "")
        assert set(seen[1:4]) == {(ChangeKind.ADDED, name) for name in "abc"}
        assert seen[4] == (ChangeKind.SYNCED, "")


async def test_a_cut_before_synced_restarts_the_watch_and_reports_it(
    fake: FakeServer, client: AsyncClient
) -> None:
    await _put(fake, "a")
    await _put(fake, "b")
    fake.fail("WatchContainers", grpc.StatusCode.UNAVAILABLE, after_answers=1)
    async with client.containers.watch() as watch:
        kinds = [(await _next(watch))[0] for _ in range(5)]
    added, restarted, synced = ChangeKind.ADDED, ChangeKind.RESTARTED, ChangeKind.SYNCED
    assert kinds == [added, restarted, added, added, synced]


async def test_a_failure_before_the_first_message_is_not_reported(
    fake: FakeServer, client: AsyncClient
) -> None:
    fake.fail("WatchContainers", grpc.StatusCode.UNAVAILABLE, times=3)
    async with client.containers.watch() as watch:
        assert await _next(watch) == (ChangeKind.SYNCED, "")
    assert len(fake.calls_of("WatchContainers")) == 4


async def test_a_server_that_stops_during_a_resume_does_not_end_the_watch(
    fake: FakeServer, client: AsyncClient
) -> None:
    fake.fail("WatchContainers", grpc.StatusCode.UNAVAILABLE, after_answers=1)
    fake.fail("WatchContainers", grpc.StatusCode.CANCELLED, times=2)
    async with client.containers.watch() as watch:
        assert await _next(watch) == (ChangeKind.SYNCED, "")
        await _put(fake, "a")
        assert await _next(watch) == (ChangeKind.ADDED, "a")
    assert len(fake.calls_of("WatchContainers")) == 4


async def test_a_slow_reader_resumes(fake: FakeServer, client: AsyncClient) -> None:
    fake.fail("WatchContainers", grpc.StatusCode.RESOURCE_EXHAUSTED, reason="SLOW_CONSUMER", after_answers=1)
    async with client.containers.watch() as watch:
        assert await _next(watch) == (ChangeKind.SYNCED, "")
        await _put(fake, "a")
        assert await _next(watch) == (ChangeKind.ADDED, "a")
    assert [call.request.resume_token for call in fake.calls_of("WatchContainers")] == ["", "0"]


async def test_an_expired_token_is_renewed_and_the_watch_continues(
    fake: FakeServer, client: AsyncClient
) -> None:
    async with client.containers.watch() as watch:
        assert await _next(watch) == (ChangeKind.SYNCED, "")
        fake.expire_access_tokens()
        await fake.cut_watches()
        await _put(fake, "a")
        assert await _next(watch) == (ChangeKind.ADDED, "a")
    assert len(fake.calls_of("RefreshSession")) == 1


async def test_a_fault_of_the_server_is_raised(fake: FakeServer, client: AsyncClient) -> None:
    fake.fail("WatchContainers", grpc.StatusCode.INTERNAL, reason="BUG", after_answers=1)
    async with client.containers.watch() as watch:
        assert await _next(watch) == (ChangeKind.SYNCED, "")
        with pytest.raises(InternalError):
            await _next(watch)


async def test_a_watch_fails_when_its_patience_is_exhausted(fake: FakeServer) -> None:
    from pilothouse_client import RetryPolicy

    hasty = RetryPolicy(initial_delay=0.001, greatest_delay=0.01, watch_patience=0.05)
    async with AsyncClient(fake.address, username="admin", password=PASSWORD, retry=hasty) as client:
        fake.fail("WatchContainers", grpc.StatusCode.UNAVAILABLE, after_answers=1)
        fake.fail("WatchContainers", grpc.StatusCode.UNAVAILABLE, times=10_000, reason="SHUTTING_DOWN")
        watch = client.containers.watch()
        assert await _next(watch) == (ChangeKind.SYNCED, "")
        with pytest.raises(UnavailableError):
            await _next(watch)


async def test_a_watch_that_never_started_is_retried_like_a_call(
    fake: FakeServer, client: AsyncClient
) -> None:
    fake.fail(
        "WatchContainers",
        grpc.StatusCode.UNAVAILABLE,
        times=10_000,
        reason="CLUSTER_UNAVAILABLE",
        message="away",
    )
    with pytest.raises(UnavailableError, match="away"):
        await _next(client.containers.watch(resume_token="1"))
    assert len(fake.calls_of("WatchContainers")) == QUICK.attempts


async def test_an_interruption_is_reported_with_its_cause_and_its_end(fake: FakeServer) -> None:
    heard: list[str] = []

    def hear(error: PilothouseError | None) -> None:
        heard.append("" if error is None else error.message)

    fake.fail("WatchContainers", grpc.StatusCode.UNAVAILABLE, after_answers=1)
    async with AsyncClient(
        fake.address, username="admin", password=PASSWORD, retry=QUICK, on_interruption=hear
    ) as client:
        watch = client.containers.watch()
        assert await _next(watch) == (ChangeKind.SYNCED, "")
        await _put(fake, "a")
        # The first attempt succeeded, so nothing is reported.
        assert await _next(watch) == (ChangeKind.ADDED, "a")
        assert heard == []
        fake.fail("WatchContainers", grpc.StatusCode.UNAVAILABLE, times=4, reason="AWAY", message="away")
        await fake.cut_watches()
        await _put(fake, "b")
        assert await _next(watch) == (ChangeKind.ADDED, "b")
        assert heard == ["away", ""]


async def test_a_cut_usage_stream_is_reopened(fake: FakeServer, client: AsyncClient) -> None:
    async with client.metrics.watch_usage(namespace="shop") as stream, within(10):
        assert (await anext(stream)).samples[0].container == "web"
        await fake.cut_watches()
        assert (await anext(stream)).samples[0].container == "web"
    assert len(fake.calls_of("WatchUsage")) == 2


async def test_a_blocking_watch_resumes_and_can_be_closed_by_another_thread(fake: FakeServer) -> None:
    loop = asyncio.get_running_loop()
    synced = threading.Event()
    seen: list[tuple[ChangeKind, str]] = []

    def use(client: Client) -> None:
        watch = client.containers.watch()
        for change in watch:
            if change.kind is ChangeKind.SYNCED:
                synced.set()
            elif change.kind is ChangeKind.ADDED:
                seen.append((change.kind, change.resource.name))
                # Called by the event loop's thread while this thread waits for the next change.
                loop.call_soon_threadsafe(watch.close)

    with Client(fake.address, username="admin", password=PASSWORD, retry=QUICK) as client:
        thread = asyncio.create_task(asyncio.to_thread(use, client))
        assert await asyncio.to_thread(synced.wait, 10)
        await fake.cut_watches()
        await _put(fake, "a")
        async with within(10):
            await thread
    assert seen == [(ChangeKind.ADDED, "a")]
