"""The state file, which stores a simulated cluster between runs: its objects, and a line for each later change.

The first line has the format, the revision and the number of objects. It is followed by a line for each object at that
revision, and then a line for each change. A change is written before its writer gets the response, so a simulator that
is killed loses no confirmed change. A machine that loses power may lose the changes of the last `SYNC_SECONDS`, which
are not yet on the disk.

When the changes are larger than the objects, the file is rewritten under another name and renamed over the old file, so
that a kill leaves either the whole old or the whole new file. When the file is read, a truncated last change is
dropped, and so are all lines after an unreadable line. Only the owner may read the file, because it contains the values
of Secrets. A simulator holds a kernel lock on the file, so that two simulators never use the same file; the kernel
releases the lock when the process ends.

The file has no history: after a restart every older version is compacted, as in a real API server with a new watch
cache.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from pilothouse_simulator.store.custom_types import serve
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.resources import CUSTOM_RESOURCE_DEFINITIONS, ResourceType, ResourceTypes

JsonObject = dict[str, Any]
# apiVersion, kind, namespace, name
Place = tuple[str, ...]

FORMAT_VERSION = 2
SYNC_SECONDS = 5.0
# The fewest bytes of changes that cause a rewrite, even for a small cluster.
REWRITE_BYTES = 4 << 20
# How long to wait for the lock of a simulator that was just killed.
LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.01
_OBJECTS_AT_ONCE = 500

log = logging.getLogger(__name__)


class StateInUseError(OSError):
    """Another process uses this file for its cluster: stop it, or choose another file."""


@dataclass(frozen=True)
class SavedState:
    """The content of a state file. `dropped_bytes` is the number of unreadable bytes at its end."""

    revision: int
    objects: list[JsonObject]
    dropped_bytes: int = 0


def parse(body: bytes) -> SavedState:
    """Reads the contents of a file.

    Raises:
        ValueError: it is not the file of a cluster, or this release does not support its format.
    """
    first, _, rest = body.partition(b"\n")
    header = _json_object(first)
    if header is None:
        raise ValueError("it does not begin with a line of JSON")
    if header.get("format") != FORMAT_VERSION:
        raise ValueError(f"it is in format {header.get('format')}, not {FORMAT_VERSION}")
    # Bytes after the last newline are a change that a kill truncated.
    *lines, cut_off = rest.split(b"\n")
    following = iter(lines)
    objects: dict[Place, JsonObject] = {}
    for line in islice(following, int(header["objects"])):
        found = _json_object(line)
        if found is None:
            raise ValueError("an object in it cannot be read")
        objects[_place(found)] = found
    if len(objects) != header["objects"]:
        raise ValueError("objects are missing from it")
    revision, dropped = _apply_changes(following, int(header["revision"]), objects)
    return SavedState(revision, list(objects.values()), dropped + len(cut_off))


def _apply_changes(
    lines: Iterator[bytes], revision: int, objects: dict[Place, JsonObject]
) -> tuple[int, int]:
    """Applies the changes to `objects`.

    Returns the revision reached, and the bytes from the first unreadable line on.
    """
    dropped = 0
    for line in lines:
        change = None if dropped else _json_object(line)
        if change is None or change.get("revision") != revision + 1:
            dropped += len(line) + 1
            continue
        revision += 1
        if "object" in change:
            objects[_place(change["object"])] = change["object"]
        else:
            objects.pop(tuple(change["deleted"]), None)
    return revision, dropped


class StateFile:
    """The state file at `path` of a store: call `load`, then `begin`; run `run` as a task; call `close` at the end."""

    def __init__(self, path: Path, store: ObjectStore) -> None:
        self._path = path
        self._store = store
        self._stream: FileIO | None = None
        self._objects_bytes = self._changes_bytes = 0
        self._is_synced = True
        # The last line of the file may be incomplete, so that later lines would not be read.
        self._is_broken = False
        self._rewriting: asyncio.Future[tuple[FileIO, int]] | None = None
        self._changes_meanwhile: list[bytes] = []

    async def load(self, *, lock_seconds: float = LOCK_SECONDS) -> bool:
        """Locks the file and loads the store from it. Returns False if the file is empty.

        Raises:
            StateInUseError: another process still holds the lock after `lock_seconds`.
            ValueError: the file cannot be read; the text gives the reason.
            OSError: the folder cannot be created, or the file cannot be opened.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = asyncio.get_running_loop().time() + lock_seconds
        while (stream := self._try_to_take()) is None:
            if asyncio.get_running_loop().time() >= deadline:
                raise StateInUseError(f"another simulated cluster is kept in {self._path}")
            await asyncio.sleep(_POLL_SECONDS)
        self._stream = stream
        if not (body := stream.readall()):
            return False
        try:
            saved = parse(body)
            types = self._store.types
            for item in saved.objects:
                if item["kind"] == CUSTOM_RESOURCE_DEFINITIONS.kind:
                    serve(types, item)
            objects = [(_resource(types, item), item) for item in saved.objects]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path} holds no cluster that can be loaded: {error}") from error
        if saved.dropped_bytes:
            log.warning(
                "%s: its last %d bytes cannot be read and are dropped", self._path, saved.dropped_bytes
            )
        self._store.restore(saved.revision, objects)
        return True

    def begin(self) -> None:
        """Rewrites the file and stores every later change. Raises OSError if it cannot be written."""
        self._replace(*_write_anew(self._neighbour, self._store.revision, self._objects()))
        self._store.listeners.append(self._note)

    async def run(self) -> None:
        """Syncs changes to the disk and rewrites the file when it has grown, until cancelled."""
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            try:
                if self._is_broken or self._changes_bytes > max(REWRITE_BYTES, self._objects_bytes):
                    await self.rewrite()
                elif not self._is_synced:
                    await self._sync()
            except OSError as error:
                log.error("%s cannot be written, again in %g s: %s", self._path, SYNC_SECONDS, error)

    async def rewrite(self) -> None:
        """Rewrites the file in a thread, appends the changes made during the rewrite, and switches to the new file.

        Raises:
            OSError: the new file cannot be written; the old file stays in use.
        """
        # Stored objects never change, so the thread may read them.
        writing = asyncio.to_thread(_write_anew, self._neighbour, self._store.revision, self._objects())
        self._changes_meanwhile = []
        self._rewriting = asyncio.ensure_future(writing)
        try:
            rewritten = await asyncio.shield(self._rewriting)
        except OSError:
            self._rewriting = None
            raise
        self._take_rewritten(*rewritten)

    async def close(self) -> None:
        """Stops storing changes; all stored changes are on the disk when it returns. Safe to call twice."""
        if self._note in self._store.listeners:
            self._store.listeners.remove(self._note)
        if self._rewriting is not None:
            # A thread cannot be cancelled, and the next process that locks the file also writes to `_neighbour`.
            await asyncio.wait([self._rewriting])
            if self._rewriting.exception() is None:
                self._take_rewritten(*self._rewriting.result())
        stream, self._stream = self._stream, None
        if stream is not None:
            os.fsync(stream.fileno())
            stream.close()

    @property
    def _neighbour(self) -> Path:
        return self._path.with_name(self._path.name + ".new")

    def _objects(self) -> list[JsonObject]:
        return [item for _, item in self._store.objects()]

    def _try_to_take(self) -> FileIO | None:
        stream = FileIO(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return None
        # Its former holder may have renamed another file over it after this process opened it.
        if self._path.exists() and os.path.samestat(os.fstat(stream.fileno()), self._path.stat()):
            return stream
        stream.close()
        return None

    async def _sync(self) -> None:
        assert self._stream is not None
        self._is_synced = True
        try:
            await asyncio.to_thread(os.fsync, self._stream.fileno())
        except OSError:
            # The kernel drops bytes that it could not write; a rewrite writes all of them.
            self._is_broken = True
            raise

    def _note(self, event: StoreEvent) -> None:
        """Stores a change; the store calls this before the writer continues."""
        change: JsonObject = {"revision": event.resource_version}
        if event.type == "DELETED":
            change["deleted"] = _place(event.object)
        else:
            change["object"] = event.object
        line = orjson.dumps(change, option=orjson.OPT_APPEND_NEWLINE)
        if self._rewriting is not None:
            self._changes_meanwhile.append(line)
        if self._stream is not None and not self._is_broken:
            self._append(self._stream, line)

    def _append(self, stream: FileIO, lines: bytes) -> None:
        self._changes_bytes += len(lines)
        self._is_synced = False
        try:
            _write_all(stream, lines)
        except OSError as error:
            log.error("%s cannot be written: %s", self._path, error)
            self._is_broken = True

    def _take_rewritten(self, stream: FileIO, size: int) -> None:
        meanwhile, self._changes_meanwhile, self._rewriting = self._changes_meanwhile, [], None
        self._is_broken = False
        self._changes_bytes = 0
        self._append(stream, b"".join(meanwhile))
        if self._is_broken:
            stream.close()
        else:
            self._replace(stream, size)

    def _replace(self, stream: FileIO, size: int) -> None:
        self._neighbour.replace(self._path)
        if self._stream is not None:
            self._stream.close()
        self._stream, self._objects_bytes = stream, size


def _write_anew(path: Path, revision: int, objects: Sequence[JsonObject]) -> tuple[FileIO, int]:
    """Writes a whole file and syncs it to the disk. Returns the locked file and its size in bytes."""
    stream = FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")
    try:
        # A file that a killed process left may have other permissions.
        os.fchmod(stream.fileno(), 0o600)
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        header = {"format": FORMAT_VERSION, "revision": revision, "objects": len(objects)}
        _write_all(stream, _line(header))
        for start in range(0, len(objects), _OBJECTS_AT_ONCE):
            _write_all(stream, b"".join(map(_line, objects[start : start + _OBJECTS_AT_ONCE])))
        os.fsync(stream.fileno())
        return stream, stream.tell()
    except BaseException:
        stream.close()
        raise


def _write_all(stream: FileIO, body: bytes) -> None:
    rest = memoryview(body)
    while rest:
        rest = rest[stream.write(rest) :]


def _line(document: JsonObject) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _json_object(line: bytes) -> JsonObject | None:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _place(obj: JsonObject) -> Place:
    metadata = obj["metadata"]
    return obj["apiVersion"], obj["kind"], metadata.get("namespace", ""), metadata["name"]


def _resource(types: ResourceTypes, obj: JsonObject) -> ResourceType:
    resource = types.find_kind(obj["apiVersion"], obj["kind"])
    if resource is None:
        raise ValueError(f"an object of unknown kind {obj['apiVersion']} {obj['kind']}")
    return resource
