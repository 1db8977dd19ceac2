"""The state file of a simulated cluster: immediate writes, truncated ends, rewrites, one user at a time."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.admission.strategy import KindStrategies
from pilothouse_simulator.store.state_file import (
    SavedState,
    StateFile,
    StateInUseError,
    parse,
)
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.resources import CONFIG_MAPS, NAMESPACES
from tests.virtual_time import virtual_time
from tests.waiting import poll_until

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]


def _store() -> ObjectStore:
    return ObjectStore(KindStrategies())


async def _kept(path: Path) -> tuple[StateFile, ObjectStore]:
    """Returns a store with the namespace `default` and its state file."""
    store = _store()
    file = StateFile(path, store)
    if not await file.load():
        store.create(NAMESPACES, {"metadata": {"name": "default"}})
    file.begin()
    return file, store


def _write(store: ObjectStore, name: str, value: str = "") -> JsonObject:
    return store.create(
        CONFIG_MAPS, {"metadata": {"name": name, "namespace": "default"}, "data": {"key": value}}
    )


def _names(saved: SavedState) -> set[str]:
    """Returns the names of the config maps that a test wrote, without those of the namespace controller."""
    found = {obj["metadata"]["name"] for obj in saved.objects if obj["kind"] == CONFIG_MAPS.kind}
    return found - {"kube-root-ca.crt"}


async def test_each_change_is_in_the_file_when_the_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    file, store = await _kept(path)
    try:
        first, second = _write(store, "a"), _write(store, "b")
        assert parse(path.read_bytes()) == SavedState(store.revision, _objects(store))
        store.update(CONFIG_MAPS, {**first, "data": {"key": "new"}})
        assert parse(path.read_bytes()) == SavedState(store.revision, _objects(store))
        store.delete(CONFIG_MAPS, "default", second["metadata"]["name"])
        assert parse(path.read_bytes()) == SavedState(store.revision, _objects(store))
    finally:
        await file.close()


def _objects(store: ObjectStore) -> list[JsonObject]:
    return [obj for _, obj in store.objects()]


async def test_a_truncated_change_is_dropped_and_later_ones_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    file, store = await _kept(path)
    _write(store, "whole")
    reached = store.revision
    whole = path.stat().st_size
    _write(store, "cut")
    await file.close()
    body = path.read_bytes()
    for end in range(whole, len(body)):
        saved = parse(body[:end])
        assert (saved.revision, _names(saved), saved.dropped_bytes) == (reached, {"whole"}, end - whole)
    path.write_bytes(body[:-1])
    file, store = await _kept(path)
    assert store.revision == reached
    _write(store, "after")
    await file.close()
    assert _names(parse(path.read_bytes())) == {"whole", "after"}


async def test_changes_after_an_unreadable_change_are_dropped(tmp_path: Path) -> None:
    """After a power failure, a later part of the file may be on the disk without an earlier part."""
    path = tmp_path / "cluster.json"
    file, store = await _kept(path)
    _write(store, "whole")
    damaged = path.stat().st_size
    _write(store, "damaged")
    _write(store, "later")
    await file.close()
    body = bytearray(path.read_bytes())
    body[damaged : damaged + 8] = bytes(8)
    saved = parse(bytes(body))
    assert (_names(saved), saved.dropped_bytes) == ({"whole"}, len(body) - damaged)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"no cluster", "begin with a line of JSON"),
        (b'{"format": 99}', "format 99"),
        (b'{"format": 1, "revision": 3, "items": []}', "format 1, not 2"),
        (b'{"format": 2, "revision": 3, "objects": 1}\n', "objects are missing"),
        (b'{"format": 2, "revision": 3, "objects": 1}\nno object\n', "cannot be read"),
        (b'{"format": 2, "revision": 3}\n', "objects"),
        (b'{"format": 2, "revision": 3, "objects": 1}\n{"kind": "Odd"}\n', "metadata"),
    ],
)
async def test_a_file_without_a_cluster_is_refused_and_left_unchanged(
    tmp_path: Path, body: bytes, why: str
) -> None:
    path = tmp_path / "cluster.json"
    path.write_bytes(body)
    with pytest.raises(ValueError, match=why):
        await SimulatedCluster(state_path=path).start()
    assert path.read_bytes() == body


async def test_changes_made_during_a_rewrite_are_in_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    file, store = await _kept(path)
    _write(store, "before", "x" * 100_000)
    store.delete(CONFIG_MAPS, "default", "before")
    grown, inode = path.stat().st_size, path.stat().st_ino
    rewriting = asyncio.create_task(file.rewrite())
    await asyncio.sleep(0)
    _write(store, "meanwhile")
    assert _names(parse(path.read_bytes())) == {"meanwhile"}
    await rewriting
    assert path.stat().st_ino != inode
    assert path.stat().st_size < grown
    assert parse(path.read_bytes()) == SavedState(store.revision, _objects(store))
    _write(store, "after")
    await file.close()
    assert _names(parse(path.read_bytes())) == {"meanwhile", "after"}


async def test_a_file_closed_during_a_rewrite_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    file, store = await _kept(path)
    rewriting = asyncio.create_task(file.rewrite())
    await asyncio.sleep(0)
    _write(store, "meanwhile")
    rewriting.cancel()
    await asyncio.wait([rewriting])
    await file.close()
    assert parse(path.read_bytes()) == SavedState(store.revision, _objects(store))


@virtual_time
async def test_a_file_grown_by_changes_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    async with SimulatedCluster(nodes=1, state_path=path) as cluster:
        stored = _write(cluster.store, "often")
        for number in range(60):
            stored = cluster.store.update(CONFIG_MAPS, {**stored, "data": {"key": f"{number}" * 50_000}})
        grown = path.stat().st_size

        async def size() -> int:
            return path.stat().st_size

        await poll_until(size, lambda now: now < grown, seconds=60.0)
        assert parse(path.read_bytes()).revision == cluster.store.revision


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Limits the size of every file of this process to about the size of `path`, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@virtual_time
async def test_changes_missed_on_a_full_disk_are_written_later(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    async with SimulatedCluster(nodes=1, state_path=path) as cluster:
        with _full_disk(path):
            _write(cluster.store, "missed")
        _write(cluster.store, "later")
        torn = parse(path.read_bytes())
        assert torn.dropped_bytes > 0
        assert not _names(torn)

        async def names() -> set[str]:
            return set(_names(parse(path.read_bytes())))

        await poll_until(names, lambda found: found == {"missed", "later"}, seconds=60.0)


async def test_only_one_state_file_object_uses_a_file_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    file, store = await _kept(path)
    with pytest.raises(StateInUseError, match="another simulated cluster"):
        await StateFile(path, _store()).load(lock_seconds=0)
    await file.rewrite()
    with pytest.raises(StateInUseError):
        await StateFile(path, _store()).load(lock_seconds=0)
    other = StateFile(path, _store())
    waiting = asyncio.create_task(other.load(lock_seconds=60))
    _write(store, "last")
    await file.close()
    assert await waiting
    await other.close()
    assert _names(parse(path.read_bytes())) == {"last"}
