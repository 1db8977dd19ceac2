"""Assembles the noun containers for `app.py`."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.containers import messages, operations
from pilothouse_server.containers.config_use import CONFIG_USE_PERMISSION
from pilothouse_server.containers.messages.image_watch import WATCH_IMAGES
from pilothouse_server.containers.service import WATCH, WATCH_RUNS, ContainerService, ImportContainers
from pilothouse_server.guard.model import PRIVILEGED, Keys
from pilothouse_server.rpc.noun import InNamespaces, Noun
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.store.backfill import Watched
from pilothouse_server.store.periodic import Periodic, run_as_owner
from pilothouse_server.store.rendered import Rendered
from pilothouse_server.store.unit_of_work import Store


def containers_noun(
    watches: WatchServer,
    page_key: bytes,
    connect: Connect,
    import_containers: ImportContainers,
    keys: Keys,
    store: Store,
) -> Noun:
    """Returns the noun containers; `import_containers` serves the call that takes Deployments over.

    `keys`: annotation and label keys, by the permission to set them.
    """

    async def refresh_summary() -> None:
        await run_as_owner(store, "SELECT refresh_container_summary()")

    return Noun(
        service=ContainerService(watches, page_key, connect, import_containers, keys),
        watches={"container": WATCH, "run": WATCH_RUNS, "image": WATCH_IMAGES},
        watched={"container": Watched(operations.get_many, messages.CACHE.render, messages.CACHE.format)},
        rendered={"run": lambda run: Rendered(messages.RUN.to_proto(run).SerializeToString())},
        permissions=frozenset({PRIVILEGED, CONFIG_USE_PERMISSION}),
        in_namespaces=InNamespaces(
            cascade=operations.delete_all, forget=operations.forget_all, held=operations.held
        ),
        jobs=(Periodic("refresh the container summary", 3600.0, refresh_summary),),
    )
