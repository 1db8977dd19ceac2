"""An informer against a scripted API: its state after ended and broken watches, and after expired versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from pilothouse_server.kubernetes.client import Page
from pilothouse_server.kubernetes.errors import ClusterError, Expired, Unreachable
from pilothouse_server.kubernetes.objects import PODS, ObjectMeta, Pod, PodSpec
from pilothouse_server.kubernetes.transport import TransportLimits
from pilothouse_server.kubernetes.watch_stream import WatchEvent
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.waiting import poll_until


def pod(name: str, version: int, uid: str = "") -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="n", uid=uid or name, resource_version=str(version)))


class Script:
    """A client that returns lists and watches in the given order; the last watch stays open."""

    def __init__(self, lists: list[list[Pod]], watches: list[list[Any]]) -> None:
        self._lists = lists
        self._watches = watches
        self.listed = 0
        self.watched_from: list[str] = []
        self.limits = TransportLimits()
        # The results of `newest_version`, in order; then always "1000".
        self.newest: list[str] = []
        # The objects that the second and later lists leave out.
        self.left_out: tuple[tuple[str, str], ...] = ()

    async def newest_version(self, *_: Any) -> str:
        return self.newest.pop(0) if self.newest else "1000"

    async def pages(self, resource: Any, _: str | None, **__: Any) -> AsyncGenerator[Page[Pod], None]:
        items = self._lists[self.listed]
        self.listed += 1
        middle = len(items) // 2
        yield Page(tuple(items[:middle]), "", "more")
        left_out = self.left_out if self.listed > 1 else ()
        yield Page(tuple(items[middle:]), str(100 * self.listed), left_out=left_out)

    async def watch(
        self, resource: Any, _: str | None, *, resource_version: str, **__: Any
    ) -> AsyncGenerator[WatchEvent[Pod], None]:
        self.watched_from.append(resource_version)
        if not self._watches:
            await asyncio.Event().wait()
        for step in self._watches.pop(0):
            if isinstance(step, ClusterError):
                raise step
            yield WatchEvent(step[0], step[1])


class Told:
    """Records the reports of an informer, in order."""

    def __init__(self, script: Script) -> None:
        self.changes: list[tuple[str | None, str | None]] = []
        self.failures: list[ClusterError] = []
        self.listings = 0
        self.informer: Informer[Pod] = Informer(
            script,  # type: ignore[arg-type]
            PODS,
            "a=b",
            self.changed,
            self.failures.append,
        )
        self.informer.on_listed = self.listed

    def listed(self) -> None:
        self.listings += 1

    def changed(self, old: Pod | None, new: Pod | None) -> None:
        self.changes.append((_shown(old), _shown(new)))


def _shown(thing: Pod | None) -> str | None:
    return None if thing is None else f"{thing.metadata.uid}@{thing.metadata.resource_version}"


async def follow(script: Script, watches: int) -> Told:
    """Runs an informer until it has opened `watches` watches, the last of which is silent."""
    told = Told(script)
    running = asyncio.ensure_future(told.informer.run())

    async def opened() -> int:
        return len(script.watched_from)

    try:
        await poll_until(opened, lambda count: count >= watches)
        await asyncio.sleep(0)
    finally:
        await cancel_and_wait(running)
    return told


async def test_an_ended_watch_continues_from_its_last_version() -> None:
    script = Script(
        [[pod("a", 1), pod("b", 2)]],
        [[("MODIFIED", pod("a", 101)), ("BOOKMARK", pod("", 105))]],
    )
    told = await follow(script, 2)
    assert script.watched_from == ["100", "105"]
    assert script.listed == 1
    assert told.changes == [(None, "a@1"), (None, "b@2"), ("a@1", "a@101")]


async def test_a_broken_watch_continues_and_is_reported() -> None:
    script = Script([[pod("a", 1)]], [[("DELETED", pod("a", 101)), Unreachable("cut")]])
    told = await follow(script, 2)
    assert script.watched_from == ["100", "101"]
    assert [str(failure) for failure in told.failures] == ["cut"]
    assert told.informer.objects == {}


async def test_an_expired_version_is_relisted_and_deletions_are_reported() -> None:
    script = Script(
        [[pod("a", 1), pod("b", 2), pod("c", 3)], [pod("b", 2), pod("c", 150)]],
        [[("ADDED", pod("d", 101)), Expired("too old")]],
    )
    told = await follow(script, 2)
    assert script.watched_from == ["100", "200"]
    assert set(told.changes[4:]) == {("c@3", "c@150"), ("a@1", None), ("d@101", None)}
    assert told.failures == []


async def test_an_object_that_can_no_longer_be_read_keeps_its_last_state() -> None:
    script = Script([[pod("a", 1), pod("b", 2), pod("c", 3)], [pod("c", 3)]], [[Expired("too old")]])
    script.left_out = (("n", "b"), ("n", "never seen"))
    told = await follow(script, 2)
    assert {name for _, name in told.informer.objects} == {"b", "c"}
    assert told.changes[3:] == [("a@1", None)]


async def test_a_rewound_cluster_is_listed_again() -> None:
    script = Script(
        [[pod("a", 1), pod("b", 2)], [pod("a", 1)]],
        [[("MODIFIED", pod("a", 101))], [("MODIFIED", pod("a", 90))]],
    )
    script.newest = ["101", "50"]
    told = await follow(script, 3)
    assert script.watched_from == ["100", "101", "200"]
    assert told.changes[-2:] == [("a@90", "a@1"), ("b@2", None)]
    assert told.listings == 2


async def test_a_cluster_that_was_away_for_long_is_listed_again() -> None:
    """It may have been rewound in between, and be ahead again."""
    script = Script([[pod("a", 1)], [pod("a", 1)]], [[Unreachable("cut")], [Unreachable("again")]])
    told = await follow(script, 3)
    assert script.watched_from == ["100", "100", "200"]
    assert told.listings == 2


async def test_an_object_made_again_under_its_name_is_deleted_and_added() -> None:
    script = Script([[pod("a", 1, "first")]], [[("MODIFIED", pod("a", 101, "second"))]])
    told = await follow(script, 2)
    assert told.changes == [(None, "first@1"), ("first@1", None), (None, "second@101")]


async def test_another_state_with_the_same_version_is_reported() -> None:
    """For example on a cluster that was restored and has reached the same version again."""
    other = msgspec.structs.replace(pod("a", 1), spec=PodSpec(node_name="another"))
    script = Script([[pod("a", 1), pod("b", 1)], [other, pod("b", 1)]], [[Expired("too old")]])
    told = await follow(script, 2)
    assert told.changes == [(None, "a@1"), (None, "b@1"), ("a@1", "a@1")]
    assert told.informer.objects["n", "a"] == other


async def test_the_same_version_is_not_reported_again() -> None:
    script = Script([[pod("a", 1)]], [[("MODIFIED", pod("a", 1))]])
    told = await follow(script, 2)
    assert told.changes == [(None, "a@1")]
