"""Responses of a stream: assembled from parts that all its watchers share, and written within a time limit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.rpc import pipeline
from pilothouse_server.rpc.pipeline import WRITE_TIMEOUT_SECONDS
from pilothouse_server.rpc.watch_answers import SharedAnswers
from pilothouse_server.store.feed import FeedEvent
from tests.virtual_time import pass_time, virtual_time

TIME = datetime(2026, 11, 24, 14, 30, 0, 123_456, UTC)
ADDED, MODIFIED = resource.CHANGE_TYPE_ADDED, resource.CHANGE_TYPE_MODIFIED


def event(revision: int, name: str) -> FeedEvent:
    message = pb.Container(name=name).SerializeToString()
    return FeedEvent(revision, "container", 1, name, "modified", message, {}, "running", {}, "running")


def shown(answer: bytes) -> tuple[int, str, int, str]:
    read = pb.WatchContainersResponse.FromString(answer)
    assert read.server_time.ToDatetime(UTC) == TIME
    return read.change_type, read.container.name, read.revision, read.resume_token


def test_each_watcher_has_its_own_token_and_kind_of_change() -> None:
    answers = SharedAnswers(kept=2)
    events = [event(revision, f"web-{revision}") for revision in range(1, 6)]
    for each in events:
        for change in (ADDED, MODIFIED):
            for token in ("one", "another" * 30):
                expected = (change, each.name, each.revision, token)
                assert shown(answers.answer(change, each, token, TIME)) == expected


def test_an_event_of_another_history_with_the_same_revision_differs() -> None:
    answers = SharedAnswers()
    assert shown(answers.answer(MODIFIED, event(7, "before"), "t", TIME))[1] == "before"
    assert shown(answers.answer(MODIFIED, event(7, "after"), "t", TIME))[1] == "after"


@virtual_time
async def test_one_write_that_takes_too_long_ends_a_long_stream() -> None:
    limit = asyncio.timeout(None)
    writing = pipeline._Writing(limit)
    written = 0

    async def write(*times: float) -> None:
        nonlocal written
        for seconds in times:
            writing.began()
            await pass_time(seconds)
            writing.ended()
            written += 1
            # The stream is idle for longer than the limit between two writes.
            await pass_time(45.0)

    async def writes() -> None:
        async with limit:
            await write(20.0, 1.0, 29.0, 29.0, WRITE_TIMEOUT_SECONDS + 1.0)

    with pytest.raises(TimeoutError):
        await writes()
    writing.close()
    assert written == 4
    assert limit.expired()
