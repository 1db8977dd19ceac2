"""The parts of the noun service for `app.py`."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.guard.model import PRIVILEGED_OBJECT, Keys
from pilothouse_server.network import messages, operations
from pilothouse_server.network.service import WATCH, ImportServices, NetworkService
from pilothouse_server.rpc.noun import InNamespaces, Noun
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.store.backfill import Watched
from pilothouse_server.values.key_patterns import KeyPatterns


def network_noun(
    watches: WatchServer,
    page_key: bytes,
    connect: Connect,
    import_services: ImportServices,
    keys: Keys,
    guarded: KeyPatterns,
) -> Noun:
    """Returns the noun service; `import_services` serves the call that takes Services over.

    `keys` and `guarded` name the labels and annotations that only some callers may set.
    """
    return Noun(
        service=NetworkService(watches, page_key, connect, import_services, keys, guarded),
        watches={"service": WATCH},
        watched={"service": Watched(operations.get_many, messages.CACHE.render, messages.CACHE.format)},
        permissions=frozenset({PRIVILEGED_OBJECT}),
        in_namespaces=InNamespaces(
            cascade=operations.delete_all, forget=operations.forget_all, held=operations.held
        ),
    )
