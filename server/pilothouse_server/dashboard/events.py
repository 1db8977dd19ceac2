"""Kubernetes Events of a namespace, read from its cluster while a caller watches them.

Nothing is stored: the cluster keeps each event for about an hour. A list returns the present events, a watch returns
later ones. If the cluster no longer has the changes after the list, the events are listed again, and older ones are not
repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError, Expired
from pilothouse_server.kubernetes.events import KubernetesEvent, shown
from pilothouse_server.kubernetes.namespace_ownership import refuse_foreign
from pilothouse_server.kubernetes.objects import EVENTS, EventObject
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.values.resources import NamespaceRef

MOST_EVENTS = 500
KEEPALIVE_SECONDS = 10.0
_BEGIN = datetime.min.replace(tzinfo=UTC)
_CONTAINER, _SERVICE, _CLAIM, _OTHER = "container.watch", "service.watch", "storage.watch", "object.watch"
PERMISSIONS = (_CONTAINER, _SERVICE, _CLAIM, _OTHER)
_BY_KIND = {
    **dict.fromkeys(
        ("Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob"), _CONTAINER
    ),
    **dict.fromkeys(("Service", "Endpoints", "EndpointSlice"), _SERVICE),
    "PersistentVolumeClaim": _CLAIM,
}


def permission_of(event: KubernetesEvent) -> str:
    """Returns the permission to see an event, by the kind of its object."""
    return _BY_KIND.get(event.kind, _OTHER)


async def follow(
    connect: Connect, namespace_ref: NamespaceRef, name: str, *, once: bool
) -> AsyncGenerator[Sequence[KubernetesEvent], None]:
    """Yields the present events, then each new one; an empty batch every 10 s while there is none.

    Raises:
        Unavailable, FailedPrecondition: the cluster does not respond, or denies the request.
    """
    reading = _read(connect, namespace_ref, name, once=once)
    pending: asyncio.Task[Any] | None = None
    try:
        while True:
            pending = pending or asyncio.create_task(_next(reading), name="events of a cluster")
            done, _ = await asyncio.wait([pending], timeout=KEEPALIVE_SECONDS)
            if not done:
                yield ()
                continue
            found, pending = pending.result(), None
            if found is None:
                return
            yield found
    except ClusterError as error:
        raise refusal(error, namespace_ref.cluster_name) from None
    finally:
        if pending is not None:
            await cancel_and_wait(pending)
        await reading.aclose()


async def _next(
    reading: AsyncGenerator[Sequence[KubernetesEvent], None],
) -> Sequence[KubernetesEvent] | None:
    return await anext(reading, None)


async def _read(
    connect: Connect, namespace_ref: NamespaceRef, name: str, *, once: bool
) -> AsyncGenerator[Sequence[KubernetesEvent], None]:
    async def connected() -> ClusterClient:
        client = await connect(namespace_ref.cluster_name)
        await refuse_foreign(client, namespace_ref)
        return client

    client = await within(connected(), namespace_ref.cluster_name)
    newest = _BEGIN
    while True:
        page = await client.list(EVENTS, namespace_ref.kubernetes_name)
        listed = sorted(page.items, key=lambda each: each.time or _BEGIN)
        there = [each for each in listed if _is_of(each, name) and (each.time or _BEGIN) > newest]
        yield [shown(each) for each in there[-MOST_EVENTS:]]
        if once:
            return
        newest = max([newest, *(each.time or _BEGIN for each in listed)])
        version = page.resource_version
        try:
            while True:
                watch = client.watch(EVENTS, namespace_ref.kubernetes_name, resource_version=version)
                async with aclosing(watch) as changes:
                    async for change in changes:
                        version = change.resource_version or version
                        if change.type in ("ADDED", "MODIFIED") and _is_of(change.object, name):
                            newest = max(newest, change.object.time or _BEGIN)
                            yield [shown(change.object)]
        except Expired:
            continue


def _is_of(event: EventObject, name: str) -> bool:
    about = event.involved_object.name
    return not name or about == name or about.startswith(f"{name}-")
