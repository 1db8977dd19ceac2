"""What the noun containers hands `app.py`."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.containers import messages, operations
from pilothouse_server.containers.privileges import PRIVILEGED_PERMISSION
from pilothouse_server.containers.service import ContainerService, ImportContainers
from pilothouse_server.containers.service_annotations import FreeKeys
from pilothouse_server.rpc.noun import InNamespaces, Noun
from pilothouse_server.rpc.watch import WatchServer
from pilothouse_server.store.unready import Watched


def containers_noun(
    watches: WatchServer,
    page_key: bytes,
    connect: Connect,
    import_containers: ImportContainers,
    free: FreeKeys,
) -> Noun:
    """Returns the noun containers; `import_containers` serves the call that takes Deployments over.

    `free`: annotations of Services that every caller may set.
    """
    return Noun(
        service=ContainerService(watches, page_key, connect, import_containers, free),
        watched={"container": Watched(operations.get_many, messages.READY.render, messages.READY.format)},
        permissions=frozenset({PRIVILEGED_PERMISSION}),
        in_namespaces=InNamespaces(
            cascade=operations.delete_all, forget=operations.forget_all, held=operations.held
        ),
    )
