"""Promise 3: a watch does not repeat changes that its first state has shown.

Such changes were committed and not yet numbered when the watch began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.rpc import watch
from pilothouse_server.store.feed import StreamHead, stream_begins
from pilothouse_server.store.unit_of_work import ReadTransaction
from tests.conftest import connection
from tests.promises.environment import Environment
from tests.promises.requests import OWN, request_for
from tests.waiting import runs_out, within

WATCH = "WatchContainers"


@contextmanager
def numbering_held(environment: Environment) -> Iterator[None]:
    """Prevents this server from numbering commits until the end of the block."""
    feed = environment.server.application.feed
    sequence, goes_on = feed._sequence, asyncio.Event()

    async def held() -> Any:
        await goes_on.wait()
        return await sequence()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "_sequence", held)
        yield
    goes_on.set()


async def create(environment: Environment, name: str) -> None:
    """Creates a container in the namespace `own`."""
    await environment.must(
        "CreateContainer", {"namespace": OWN, "container": {"name": name, "image": "nginx"}}
    )


async def relabel(environment: Environment, name: str) -> None:
    """Changes a container."""
    fields = {"namespace": OWN, "name": name, "container": {"labels": {"a": "b"}}, "updateMask": "labels"}
    await environment.must("UpdateContainer", fields)


async def answers_until(environment: Environment, fields: dict[str, Any], last: tuple[str, str]) -> list[Any]:
    """Returns the messages of a watch up to the one with kind and name `last`."""
    rule = environment.rule(WATCH)
    found: list[Any] = []
    async with (
        within(20),
        environment.admin.watching(rule, request_for(rule, {"namespace": OWN, **fields})) as stream,
    ):
        async for answer in stream:
            found.append(answer)
            if shown(answer) == last:
                return found
    raise AssertionError("the watch ended too early")


def shown(answer: Any) -> tuple[str, str]:
    """Returns the kind of change and the name of a message."""
    return resource.ChangeType.Name(answer.change_type).removeprefix("CHANGE_TYPE_"), answer.container.name


async def told_while_held(environment: Environment) -> list[tuple[str, str]]:
    """Returns the events of a watch that begins before a commit is numbered.

    The commit is a creation. The events are those up to the next change.
    """
    rule = environment.rule(WATCH)
    synced = asyncio.Event()
    found: list[tuple[str, str]] = []

    async def follow() -> None:
        async with environment.admin.watching(rule, request_for(rule, {"namespace": OWN})) as stream:
            async for answer in stream:
                found.append(shown(answer))
                if found[-1][0] == "SYNCED":
                    synced.set()
                if found[-1] == ("MODIFIED", "web"):
                    return

    async with within(20):
        with numbering_held(environment):
            await create(environment, "web")
            following = asyncio.create_task(follow())
            await synced.wait()
        await relabel(environment, "web")
        await following
    return found


async def test_a_change_in_the_first_state_is_not_sent_again(environment: Environment) -> None:
    assert await told_while_held(environment) == [("ADDED", "web"), ("SYNCED", ""), ("MODIFIED", "web")]


@pytest.mark.full
async def test_a_watch_that_does_not_skip_the_change_sends_it_twice(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control of the test above."""

    async def none(transaction: ReadTransaction) -> tuple[StreamHead, tuple[int, ...]]:
        head, _ = await stream_begins(transaction)
        return head, ()

    monkeypatch.setattr(watch, "stream_begins", none)
    assert (await told_while_held(environment)).count(("ADDED", "web")) == 2


async def test_a_resumed_watch_does_not_send_the_change_either(environment: Environment) -> None:
    with numbering_held(environment):
        await create(environment, "web")
        first = await answers_until(environment, {}, ("SYNCED", ""))
    await relabel(environment, "web")
    resumed = await answers_until(environment, {"resumeToken": first[-1].resume_token}, ("MODIFIED", "web"))
    assert [shown(answer) for answer in resumed] == [("MODIFIED", "web")]
    # The token contains the ids until the watch has passed their events, and no longer.
    assert len(resumed[-1].resume_token) < len(first[-1].resume_token)


async def test_a_first_state_waits_for_the_numbering_of_too_many_changes(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MOST_PENDING_IDS", 0)
    begun = asyncio.Event()

    async def noticed(transaction: ReadTransaction) -> tuple[StreamHead, tuple[int, ...]]:
        found = await stream_begins(transaction)
        begun.set()
        return found

    monkeypatch.setattr(watch, "stream_begins", noticed)
    async with within(20):
        with numbering_held(environment):
            await create(environment, "web")
            first = asyncio.create_task(answers_until(environment, {}, ("SYNCED", "")))
            await begun.wait()
            assert not first.done()
        assert [shown(answer) for answer in await first] == [("ADDED", "web"), ("SYNCED", "")]


async def test_a_first_state_waits_for_numbering_if_its_token_is_too_long(environment: Environment) -> None:
    """Makes ids that lie far apart.

    Such ids need more space in a token than requests allow.
    """
    apart = (
        "SELECT setval('pending_changes_id_seq', last_value + 1000000000000000) FROM pending_changes_id_seq"
    )
    async with within(60), connection(environment.server.database.admin_dsn) as sql:
        with numbering_held(environment):
            for number in range(60):
                await create(environment, f"c{number}")
                await sql.execute(apart)
            first = asyncio.create_task(answers_until(environment, {}, ("SYNCED", "")))
            done, _ = await asyncio.wait([first], timeout=runs_out(0.3))
            assert not done
        token = (await first)[-1].resume_token
        await relabel(environment, "c0")
        resumed = await answers_until(environment, {"resumeToken": token}, ("MODIFIED", "c0"))
    assert [shown(answer) for answer in resumed] == [("MODIFIED", "c0")]
