"""The parts of the noun storage for `app.py`."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.rpc.noun import InNamespaces, Noun
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.storage import messages, operations
from pilothouse_server.storage.mounter import VolumeMounter
from pilothouse_server.storage.rules import HOST_PATH_PERMISSION
from pilothouse_server.storage.service import WATCH, StorageService
from pilothouse_server.store.backfill import Watched
from pilothouse_server.values.key_patterns import KeyPatterns


def storage_noun(
    watches: WatchServer, page_key: bytes, connect: Connect, mounter: VolumeMounter, guarded: KeyPatterns
) -> Noun:
    """Returns the noun storage. `guarded`: keys of claims that only some callers may set."""
    return Noun(
        service=StorageService(watches, page_key, connect, mounter, guarded),
        watches={"volume": WATCH},
        watched={"volume": Watched(operations.get_many, messages.CACHE.render, messages.CACHE.format)},
        permissions=frozenset({HOST_PATH_PERMISSION}),
        in_namespaces=InNamespaces(
            cascade=operations.delete_all, forget=operations.forget_all, held=operations.held
        ),
    )
