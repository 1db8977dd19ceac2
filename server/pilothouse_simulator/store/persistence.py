"""Saving the store to a JSON file and loading it again, so that a restarted simulator finds its cluster.

The file is written to a neighbour first and renamed over the old one, so that a crash leaves one whole state or
the other. Only its owner may read it, for it holds the values of Secrets. History is not kept: after a restart
every older version is compacted, as in a real API server whose watch cache is new.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson

from pilothouse_simulator.store.store import Store
from pilothouse_simulator.values.resources import find_kind

JsonObject = dict[str, Any]

FORMAT_VERSION = 1
SAVE_PERIOD_SECONDS = 5.0


def snapshot(store: Store) -> bytes:
    """The whole state as JSON."""
    items = [obj for _, obj in store.objects()]
    return orjson.dumps({"format": FORMAT_VERSION, "revision": store.revision, "items": items})


def write_file(path: Path, body: bytes) -> None:
    """Replaces the file in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    neighbour = path.with_name(path.name + ".new")
    with os.fdopen(os.open(neighbour, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        # One that a crash left may have been made with other rights.
        os.fchmod(stream.fileno(), 0o600)
        stream.write(body)
        stream.flush()
        os.fsync(stream.fileno())
    neighbour.replace(path)


def load(store: Store, path: Path) -> bool:
    """Fills the store from the file; False when there is none. Raises ValueError for a file it cannot read."""
    if not path.exists():
        return False
    document = orjson.loads(path.read_bytes())
    if document.get("format") != FORMAT_VERSION:
        raise ValueError(f"{path} holds a cluster in format {document.get('format')}, not {FORMAT_VERSION}")
    objects = []
    for item in document["items"]:
        resource = find_kind(item["apiVersion"], item["kind"])
        if resource is None:
            raise ValueError(f"{path} holds an object of unknown kind {item['apiVersion']} {item['kind']}")
        objects.append((resource, item))
    store.restore(int(document["revision"]), objects)
    return True


async def save_periodically(store: Store, path: Path) -> None:
    """Saves every few seconds while anything changed, and once more when cancelled."""
    saved = -1
    writing: asyncio.Future[None] | None = None
    try:
        while True:
            if store.revision != saved:
                body, revision = snapshot(store), store.revision
                writing = asyncio.ensure_future(asyncio.to_thread(write_file, path, body))
                await asyncio.shield(writing)
                saved = revision
            await asyncio.sleep(SAVE_PERIOD_SECONDS)
    finally:
        if writing is not None:
            # A thread cannot be cancelled; the last state must not be written beside an older one.
            await writing
        if store.revision != saved:
            write_file(path, snapshot(store))
