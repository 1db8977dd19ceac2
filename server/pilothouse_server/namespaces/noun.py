"""Assembles the noun namespaces for `app.py`; its service also serves clusters."""

from __future__ import annotations

from pilothouse_server.clusters.access import ClusterAccess
from pilothouse_server.clusters.operations.orphans import OrphanImporter
from pilothouse_server.clusters.service import WATCH_CLUSTERS
from pilothouse_server.namespaces import messages, operations
from pilothouse_server.namespaces.contents import Contents
from pilothouse_server.namespaces.guarded import PERMISSIONS, Guarded
from pilothouse_server.namespaces.service import WATCH, NamespaceService
from pilothouse_server.rpc.noun import Noun
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.store.backfill import Watched


def namespaces_noun(
    watches: WatchServer,
    page_key: bytes,
    access: ClusterAccess,
    contents: Contents,
    guarded: Guarded,
    importer: OrphanImporter,
) -> Noun:
    """Returns the noun namespaces.

    `contents`: the resources in them. `guarded`: the parts that their own administrators may not change. `importer`:
    takes over orphans of clusters.
    """
    return Noun(
        service=NamespaceService(watches, page_key, access, contents, guarded, importer),
        watches={"namespace": WATCH, "cluster": WATCH_CLUSTERS},
        watched={"namespace": Watched(operations.get_many, messages.CACHE.render, messages.CACHE.format)},
        permissions=PERMISSIONS,
    )
