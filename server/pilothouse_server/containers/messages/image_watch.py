"""The watch of images: the images of an event, as the caller sees them.

An image belongs to no namespace. A caller sees the images that visible containers use, with the number of these
containers. So an image changes for a caller if a container is created or deleted, if a container changes to another
image (the database writes an event for each of the two), or if the image's row changes. Each time, the images are read
again with the caller's rights.
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
            # Each pull of a tag has its own digest; the image is the last pull.
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
    """Returns the images that an event is about."""
    if event.resource_type == "image":
        return [event.name]
    # If a container changes to another image, both images have their own events.
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
