"""SQL about images. They are registered by being used; a tenant sees those that its containers use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, select, text

from pilothouse_server.containers.model import Image
from pilothouse_server.containers.tables import CONTAINER_IMAGES, CONTAINERS
from pilothouse_server.store.filtering import FilterField, FilterKind, compile_filter, filter_fields
from pilothouse_server.store.paging import OrderField, PageRequest, finish_page, paginate, parse_order_by
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.image_reference import ImageReference

_STATUSES = {name.upper(): name for name in ("available", "deleted", "error")}
_WHOLE_NAME = func.concat(
    func.nullif(CONTAINER_IMAGES.c.repository, "") + "/",
    CONTAINER_IMAGES.c.name,
    func.coalesce(":" + CONTAINER_IMAGES.c.tag, "@" + CONTAINER_IMAGES.c.digest),
)
_FILTERS = {
    "image": FilterField(_WHOLE_NAME),
    "status": FilterField(CONTAINER_IMAGES.c.status, FilterKind.ENUM, _STATUSES, "IMAGE_STATUS_"),
    **filter_fields(
        CONTAINER_IMAGES, "repository name tag digest size_bytes architecture os create_time pull_time"
    ),
}
_ORDERS = {"name": OrderField(CONTAINER_IMAGES.c.name)}
_REGISTER = text("SELECT register_image(:repository, :name, :tag, :digest)")


async def register_image(transaction: Transaction, reference: ImageReference) -> int:
    """The id of an image, registered if it is new."""
    found = await transaction.connection.execute(
        _REGISTER,
        {
            "repository": reference.repository or None,
            "name": reference.name,
            "tag": reference.tag or None,
            "digest": reference.digest or None,
        },
    )
    return int(found.scalar_one())


async def find_image(
    transaction: ReadTransaction, reference: ImageReference, visible: Collection[int] | None
) -> Image | None:
    """The image that a reference names, if a container among `visible` namespaces (None: all) uses it.

    Of several rows with this tag (the digests of different pulls) the one that was pulled last.
    """
    query = (
        _images(visible, None)
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
) -> tuple[Sequence[Image], str]:
    """One page of the images in use in one namespace or in those among `visible`, and the token of
    the next.
    """
    query = _images(visible, namespace_id).where(compile_filter(page.filter, _FILTERS))
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=CONTAINER_IMAGES.c.id)
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, token = finish_page(rows, order, page)
    return [_image(row) for row in rows], token


async def count_users(transaction: ReadTransaction, image_id: int) -> int:
    """How many containers, of whatever namespace the caller reaches, use an image."""
    query = select(func.count()).where(CONTAINERS.c.image_id == image_id)
    return int((await transaction.connection.execute(query)).scalar_one())


async def delete_image(transaction: Transaction, image_id: int) -> None:
    """Forgets an image."""
    await transaction.connection.execute(delete(CONTAINER_IMAGES).where(CONTAINER_IMAGES.c.id == image_id))


def _images(visible: Collection[int] | None, namespace_id: int | None) -> Select[Any]:
    users: list[ColumnElement[bool]] = [CONTAINERS.c.image_id == CONTAINER_IMAGES.c.id]
    if namespace_id is not None:
        users.append(CONTAINERS.c.namespace_id == namespace_id)
    elif visible is not None:
        users.append(CONTAINERS.c.namespace_id.in_(visible))
    count = select(func.count()).select_from(CONTAINERS).where(*users).scalar_subquery()
    query = select(CONTAINER_IMAGES, count.label("container_count"))
    # Who reaches every namespace also sees what nobody uses any more.
    if namespace_id is None and visible is None:
        return query
    return query.where(select(CONTAINERS.c.id).where(*users).exists())


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
        container_count=row.container_count,
    )
