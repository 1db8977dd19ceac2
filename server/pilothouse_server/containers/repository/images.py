"""SQL about images.

An image is registered when a container uses it; a tenant sees the images of its containers. A container uses the images
of all programs of its pods. The main program's image is in the container's row; the others are in `program_images`,
which the database writes with the container's document.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    case,
    delete,
    func,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from pilothouse_server.containers.model import Image
from pilothouse_server.containers.tables import CONTAINER_IMAGES, CONTAINERS, PROGRAM_IMAGES
from pilothouse_server.store.filtering import FilterField, FilterKind, compile_filter, filter_fields
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.image_reference import ImageReference

_STATUSES = {name.upper(): name for name in ("available", "deleted", "error")}
_WHOLE_NAME = func.concat(
    func.nullif(CONTAINER_IMAGES.c.repository, "") + "/",
    CONTAINER_IMAGES.c.name,
    func.coalesce(":" + CONTAINER_IMAGES.c.tag, "@" + CONTAINER_IMAGES.c.digest),
)
_FILTERS = {
    "image": FilterField(_WHOLE_NAME, parts=filter_fields(CONTAINER_IMAGES, "repository name tag digest")),
    "status": FilterField(CONTAINER_IMAGES.c.status, FilterKind.ENUM, _STATUSES, "IMAGE_STATUS_"),
    **filter_fields(
        CONTAINER_IMAGES, "repository name tag digest size_bytes architecture os create_time pull_time"
    ),
}
_ORDERS = {"name": OrderField(CONTAINER_IMAGES.c.name)}


async def find_image(
    transaction: ReadTransaction, reference: ImageReference, visible: Collection[int] | None
) -> Image | None:
    """Returns the image that a reference names, if a visible container uses it.

    `visible`: the ids of the visible namespaces; None: all. For a tag, it is the last image that was pulled under this
    tag.
    """
    query = (
        _images(visible, None, latest=not reference.digest)
        .where(
            CONTAINER_IMAGES.c.repository.is_not_distinct_from(reference.repository or None),
            CONTAINER_IMAGES.c.name == reference.name,
            CONTAINER_IMAGES.c.tag.is_not_distinct_from(reference.tag or None),
            *([CONTAINER_IMAGES.c.digest == reference.digest] if reference.digest else []),
        )
        .order_by(CONTAINER_IMAGES.c.pulled_at.desc())
        .limit(1)
    )
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else _image(row)


async def list_images(
    transaction: ReadTransaction,
    page: PageRequest,
    *,
    namespace_id: int | None,
    visible: Collection[int] | None,
) -> tuple[Sequence[Image], NextPage]:
    """Returns one page of the images in use, and where the next page begins.

    The images are those of one namespace, or of the `visible` ones. Each pull of a tag has its own digest; the image is
    the last pull.
    """
    query = _images(visible, namespace_id).where(compile_filter(page.filter, _FILTERS))
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=CONTAINER_IMAGES.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_image(row) for row in rows], next_page


async def count_users(transaction: ReadTransaction, image: Image) -> int:
    """Returns how many containers in the caller's scope use an image, in any pull of its tag."""
    pulls = select(CONTAINER_IMAGES.c.id).where(*_pulls_of(image))
    users = _users().subquery()
    query = select(func.count(users.c.container_id.distinct())).where(users.c.image_id.in_(pulls))
    return int((await transaction.connection.execute(query)).scalar_one())


async def delete_image(transaction: Transaction, image: Image) -> None:
    """Deletes the rows of an image and of all pulls of its tag."""
    await transaction.connection.execute(delete(CONTAINER_IMAGES).where(*_pulls_of(image)))


def _pulls_of(image: Image) -> list[ColumnElement[bool]]:
    if not image.tag:
        return [CONTAINER_IMAGES.c.id == image.id]
    return [
        CONTAINER_IMAGES.c.repository.is_not_distinct_from(image.repository or None),
        CONTAINER_IMAGES.c.name == image.name,
        CONTAINER_IMAGES.c.tag == image.tag,
    ]


def _users() -> CompoundSelect[Any]:
    """Returns the query for containers with their images; an image of several programs is returned several times."""
    others = PROGRAM_IMAGES.c
    return union_all(
        select(CONTAINERS.c.id.label("container_id"), CONTAINERS.c.namespace_id, CONTAINERS.c.image_id),
        select(others.container_id, others.namespace_id, others.image_id),
    )


def _images(visible: Collection[int] | None, namespace_id: int | None, *, latest: bool = True) -> Select[Any]:
    """Returns the query for images with the number of their containers.

    With `latest`, a tag has only its last pull. The number counts the containers of all of its pulls.
    """
    users = _users().subquery()
    using: Select[Any] = select(users)
    if namespace_id is not None:
        using = using.where(users.c.namespace_id == namespace_id)
    elif visible is not None:
        using = using.where(users.c.namespace_id.in_(visible))
    used = using.subquery()
    table = CONTAINER_IMAGES.c
    # A caller with all namespaces in scope also sees unused images.
    everything = namespace_id is None and visible is None
    pulls = (
        select(
            func.array_agg(aggregate_order_by(table.id, table.pulled_at.desc(), table.id.desc())).label(
                "ids"
            ),
            func.count(used.c.container_id.distinct()).label("containers"),
        )
        .select_from(CONTAINER_IMAGES.join(used, used.c.image_id == table.id, isouter=everything))
        .group_by(table.repository, table.name, table.tag, case((table.tag.is_(None), table.digest)))
        .subquery()
    )
    ids = pulls.c.ids
    return select(CONTAINER_IMAGES, pulls.c.containers.label("container_count")).join(
        pulls, table.id == (ids[1] if latest else func.any(ids))
    )


def _image(row: Any) -> Image:
    reference = ImageReference(
        row.repository or "", row.name, row.tag or "", "" if row.tag else row.digest or ""
    )
    return Image(
        id=row.id,
        image=str(reference),
        repository=row.repository or "",
        name=row.name,
        tag=row.tag or "",
        digest=row.digest or "",
        size_bytes=row.size_bytes or 0,
        architecture=row.architecture or "",
        os=row.os or "",
        status=row.status,
        created_at=row.created_at,
        pulled_at=row.pulled_at,
        container_count=int(row.container_count or 0),
    )
