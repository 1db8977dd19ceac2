"""A watcher is woken by the events that it watches, and not by others (promise 4).

It loses no event by that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.watch.hub import Hub
from tests.virtual_time import pass_time, virtual_time

_LATEST = 10.0


def event(revision: int, namespace_id: int | None) -> FeedEvent:
    """Returns an event of a namespace."""
    return FeedEvent(
        revision, "container", namespace_id, "web", "modified", b"", {}, "RUNNING", {}, "RUNNING"
    )


class Watcher:
    """Reads published events as a watch does; records the events it saw, and how often it was woken."""

    def __init__(self, hub: Hub, namespace_id: int | None) -> None:
        self.hub = hub
        self.namespace_id = namespace_id
        self.seen: list[int] = []
        self.woken = 0
        self.revision = hub.newest

    async def watch(self) -> None:
        """Reads events until it is cancelled."""
        while True:
            if await self.hub.beyond(self.revision, _LATEST, self.namespace_id):
                self.woken += 1
                found = self.hub.since(self.revision)
                assert found is not None, "it fell out of the ring"
                self.revision = self.hub.newest
                self.seen += [
                    each.revision for each in found if self.namespace_id in (None, each.namespace_id)
                ]


async def _watching(
    hub: Hub, namespaces: Sequence[int | None], publish: Sequence[Sequence[int | None]]
) -> list[Watcher]:
    watchers = [Watcher(hub, each) for each in namespaces]
    tasks = [asyncio.create_task(each.watch()) for each in watchers]
    await pass_time(0.001)
    for group in publish:
        first = hub.newest + 1
        hub.publish([event(first + place, each) for place, each in enumerate(group)], hub.newest + len(group))
        await pass_time(0.001)
    # Delayed wake-ups have happened by now.
    await pass_time(_LATEST + 1.0)
    await cancel_and_wait(*tasks)
    return watchers


@virtual_time
async def test_a_watcher_of_a_namespace_sleeps_through_the_events_of_others() -> None:
    hub = Hub(1000)
    own, other, every = await _watching(hub, [1, 2, None], [[1]] * 30)
    assert (own.woken, every.woken) == (30, 30)
    # It is woken once, when its wait ends.
    assert other.woken == 1
    assert own.seen == every.seen == list(range(1, 31))


@virtual_time
async def test_a_sleeping_watcher_is_woken_before_it_falls_out_of_the_ring() -> None:
    hub = Hub(1000)
    (other,) = await _watching(hub, [2], [[1]] * 1_000)
    assert 10 <= other.woken <= 20


@virtual_time
async def test_a_sleeping_watcher_stays_within_a_small_ring() -> None:
    hub = Hub(8)
    (other,) = await _watching(hub, [2], [[1]] * 100)
    assert other.revision == 100


@virtual_time
@pytest.mark.parametrize("what", ["wake", "begin", "gap"])
async def test_global_changes_wake_every_watcher(what: str) -> None:
    hub = Hub(1000)
    hub.begin(5, 1, "one")
    waiting = [asyncio.create_task(hub.beyond(5, _LATEST, each)) for each in (1, 2, None)]
    await pass_time(0.001)
    if what == "wake":
        hub.wake()
    elif what == "begin":
        hub.begin(9, 1, "two")
    else:
        # Another server numbered some events, and this one has none of them.
        hub.publish([], 7)
    await pass_time(0.001)
    assert all(each.done() for each in waiting)


_GROUPS = st.lists(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=5), max_size=40)


@given(_GROUPS, st.sampled_from([16, 1000]))
def test_no_watcher_loses_an_event_of_its_namespace(groups: list[list[int | None]], capacity: int) -> None:
    published = [each for group in groups for each in group]

    @virtual_time
    async def run() -> None:
        for watcher in await _watching(Hub(capacity), [1, 2, None], groups):
            about = watcher.namespace_id
            shown = [place for place, each in enumerate(published, 1) if about in (None, each)]
            assert watcher.seen == shown

    run()
