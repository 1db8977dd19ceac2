"""The parts of the noun object for `app.py`."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.guard.model import PRIVILEGED_OBJECT, RBAC_OBJECT, Keys
from pilothouse_server.objects import messages, operations, scaling
from pilothouse_server.objects.rechecking import PERIOD_SECONDS, recheck
from pilothouse_server.objects.service import WATCH, ImportObjects, ObjectService
from pilothouse_server.rpc.noun import InNamespaces, Noun
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.store.backfill import Watched
from pilothouse_server.store.periodic import Periodic
from pilothouse_server.store.unit_of_work import Store
from pilothouse_server.values.key_patterns import KeyPatterns


def objects_noun(
    watches: WatchServer,
    page_key: bytes,
    connect: Connect,
    import_objects: ImportObjects,
    keys: Keys,
    guarded: KeyPatterns,
    store: Store,
) -> Noun:
    """Returns the noun object; `import_objects` serves the call that takes objects over.

    `keys` and `guarded` name the labels and annotations that only some callers may set.
    """
    return Noun(
        service=ObjectService(watches, page_key, connect, import_objects, keys, guarded),
        watches={"object": WATCH},
        watched={"object": Watched(operations.get_many, messages.CACHE.render, messages.CACHE.format)},
        permissions=frozenset({PRIVILEGED_OBJECT, RBAC_OBJECT}),
        in_namespaces=InNamespaces(
            cascade=operations.delete_all,
            forget=operations.forget_all,
            held=operations.held,
            refuse_cascade=operations.refuse_cascade,
        ),
        jobs=(
            Periodic("compare Roles with permissions", PERIOD_SECONDS, lambda: recheck(store)),
            Periodic("count pods of autoscalers", scaling.PERIOD_SECONDS, lambda: scaling.recount(store)),
        ),
    )
