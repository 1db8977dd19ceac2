"""The watch of images: which images an event is about, and how its caller sees them.

An image belongs to no namespace: a caller sees those that its containers use, with the number of these containers. So
an image changes for a caller if a container comes or goes, if a container uses another one (the database puts an event
about both), or if its row changes. Each time the images are read again as the caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers import messages, operations
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.store.paging import every_page
from pilothouse_server.store.unit_of_work import Kind, ReadTransaction
from pilothouse_server.values.image_reference import ImageReference


async def _resources(
    transaction: ReadTransaction, wanted: WatchFilter, _call: Call
) -> AsyncIterator[pb.Image]:
    namespace_id, visible = wanted.namespace_id, wanted.visible
    async for image in every_page(
        lambda page: operations.list_images(transaction, page, namespace_id=namespace_id, visible=visible)
    ):
        yield messages.IMAGE.to_proto(image)


async def _reload(
    transaction: ReadTransaction, event: FeedEvent, wanted: WatchFilter, call: Call
) -> list[tuple[Kind, pb.Image]]:
    visible = wanted.visible if wanted.namespace_id is None else frozenset({wanted.namespace_id})
    found: list[tuple[Kind, pb.Image]] = []
    for name in _names(event):
        reference = ImageReference.parse(name)
        if reference.tag:
            # Of the pulls of a tag, each of which has a digest, the last is the image.
            reference = replace(reference, digest="")
        image = await operations.find_image(transaction, reference, visible)
        if image is not None:
            found.append(("modified", messages.IMAGE.to_proto(image)))
            continue
        parts = pb.Image(image=str(reference), repository=reference.repository, name=reference.name)
        parts.tag, parts.digest = reference.tag, reference.digest
        found.append(("deleted", parts))
    return found


def _names(event: FeedEvent) -> list[str]:
    """The images that an event is about."""
    if event.resource_type == "image":
        return [event.name]
    # Where a container begins to use another image, both images have events of their own.
    if event.kind == "modified":
        return []
    container = pb.Container.FromString(event.message)
    images = {container.image, *(each.image for each in container.sidecars)}
    return sorted(images.union(each.image for each in container.init_containers))


WATCH_IMAGES = NounWatch.listed(
    Watched(
        frozenset({"image", "container"}),
        _resources,
        message=pb.Image,
        reload=_reload,
        permanent=frozenset({"image", "repository", "tag"}),
    ),
    pb.DESCRIPTOR.services_by_name["ContainerService"],
    "ListImages",
)
