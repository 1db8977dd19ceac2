"""SQL for revisions: writing and reading them, and the encrypted values of secrets stored with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar
from uuid import UUID

import msgspec
import orjson
from sqlalchemy import func, select, text

from pilothouse_server.encryption.envelopes import Binding, Sealed
from pilothouse_server.revisions.model import KeptValues, RevisedResource, Revision
from pilothouse_server.revisions.tables import REVISION_VALUES, REVISIONS, SEALED_VALUES
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.references import USERS
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

D = TypeVar("D")

_READ = text("SELECT read_revision(:user_id, :resource_type, :resource_id, :number) AS document")
_WRITE = text(
    "SELECT write_revision(:resource_type, :resource_id, :namespace_id, CAST(CAST(:revision AS text) AS jsonb))"
)
_KEEP_VALUES = text(
    "INSERT INTO revision_values (revision_id, namespace_id, secret_name, place, ciphertext, data_key, key_id) "
    "SELECT r.id, r.namespace_id, :secret_name, :place, :ciphertext, :data_key, :key_id FROM revisions AS r "
    "WHERE r.resource_type = :resource_type AND r.resource_id = :resource_id AND r.number = :number"
)
_KEEP_MANY_VALUES = text("""
INSERT INTO revision_values (revision_id, namespace_id, secret_name, place, ciphertext, data_key, key_id)
SELECT r.id, r.namespace_id, v.secret_name, v.place, v.ciphertext, v.data_key, v.key_id
FROM unnest(CAST(:types AS text[]), CAST(:ids AS bigint[]), CAST(:numbers AS integer[]), CAST(:names AS text[]),
    CAST(:places AS text[]), CAST(:ciphertexts AS bytea[]), CAST(:data_keys AS bytea[]), CAST(:key_ids AS text[]))
    AS v(resource_type, resource_id, number, secret_name, place, ciphertext, data_key, key_id)
JOIN revisions AS r USING (resource_type, resource_id, number)
""")
_PURGE = text(
    "UPDATE revision_values SET ciphertext = NULL, data_key = NULL, key_id = NULL "
    "WHERE namespace_id = :namespace_id AND secret_name = :secret_name AND ciphertext IS NOT NULL "
    "RETURNING id"
)


async def write_revision(
    transaction: Transaction,
    of: RevisedResource,
    document: bytes,
    *,
    operation_id: UUID,
    kept: int,
    origin: int | None = None,
) -> None:
    """Adds the newest revision of a resource whose row the transaction has locked; `document` is JSON.

    `kept`: number of revisions that remain, including the newest. `origin`: number of the revision that it restores.
    """
    revision = {
        "document": orjson.Fragment(document),
        "operation_id": str(operation_id),
        "kept": kept,
        "origin": origin,
    }
    values = {"namespace_id": of.namespace_id, "revision": orjson.dumps(revision).decode()}
    await transaction.connection.execute(_WRITE, _named(of) | values)


async def newest_revision(transaction: ReadTransaction, of: RevisedResource) -> int:
    """Returns the number of the newest revision of a resource; 0 if it has none."""
    query = select(func.coalesce(func.max(REVISIONS.c.number), 0)).where(
        REVISIONS.c.resource_type == of.resource_type, REVISIONS.c.resource_id == of.id
    )
    return int((await transaction.connection.execute(query)).scalar_one())


async def newest_revisions(transaction: ReadTransaction, of: Sequence[RevisedResource]) -> dict[int, int]:
    """Returns the numbers of the newest revisions of resources of one type, by resource id; those that have one."""
    if not of:
        return {}
    query = (
        select(REVISIONS.c.resource_id, func.max(REVISIONS.c.number).label("number"))
        .where(
            REVISIONS.c.resource_type == of[0].resource_type,
            REVISIONS.c.resource_id.in_([each.id for each in of]),
        )
        .group_by(REVISIONS.c.resource_id)
    )
    return {row.resource_id: row.number for row in (await transaction.connection.execute(query)).all()}


async def read_revision(
    target: Draft | Transaction, of: RevisedResource, number: int, document: type[D]
) -> D | None:
    """Returns the state of one revision; None if it is not stored."""
    (row,) = await target.read(_READ, _named(of) | {"number": number})
    found = row["document"]
    return None if found is None else msgspec.json.decode(found, type=document)


async def list_revisions(
    transaction: ReadTransaction, of: RevisedResource, document: type[D], page: PageRequest, number: int = 0
) -> tuple[Sequence[Revision[D]], NextPage]:
    """Returns one page of the revisions of a resource, newest first, and where the next page begins.

    `number` restricts the page to one revision; 0: all.
    """
    before = func.lag(REVISIONS.c.document).over(order_by=REVISIONS.c.number).label("before")
    every = (
        select(REVISIONS, before, USERS.c.username)
        .select_from(REVISIONS.outerjoin(USERS, USERS.c.id == REVISIONS.c.created_by))
        .where(REVISIONS.c.resource_type == of.resource_type, REVISIONS.c.resource_id == of.id)
        .subquery()
    )
    query = select(every).where(every.c.number == number) if number else select(every)
    order = parse_order_by(
        "", {"number": OrderField(every.c.number)}, default="number desc", unique=every.c.id
    )
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [
        Revision(
            number=row.number,
            desired=msgspec.convert(row.document, document),
            before=None if row.before is None else msgspec.convert(row.before, document),
            created_at=row.created_at,
            origin=row.origin,
            operation_id=str(row.operation_id) if row.operation_id else "",
            created_by=row.username or "",
        )
        for row in rows
    ], next_page


def values_binding(of: RevisedResource, number: int, secret_name: str) -> Binding:
    """Returns the data that binds the values of a secret to the revision `number` of a resource."""
    return SEALED_VALUES.binding(f"{of.uid}/{number}/{secret_name}", str(of.namespace_id))


async def keep_values(
    transaction: Transaction, of: RevisedResource, number: int, secret_name: str, sealed: Sealed
) -> None:
    """Stores secret values, encrypted by `values_binding`, with a revision; does nothing if it is not stored."""
    values = {
        "number": number,
        "secret_name": secret_name,
        "place": values_binding(of, number, secret_name).row,
        "ciphertext": sealed.ciphertext,
        "data_key": sealed.data_key,
        "key_id": sealed.key_id,
    }
    await transaction.connection.execute(_KEEP_VALUES, _named(of) | values)


class SealedToKeep(NamedTuple):
    """The values of a secret, encrypted by `values_binding`, and the revision that they are stored with."""

    of: RevisedResource
    number: int
    secret_name: str
    sealed: Sealed


async def keep_many_values(transaction: Transaction, wanted: Sequence[SealedToKeep]) -> None:
    """Stores values as `keep_values` does, with one statement."""
    columns = {
        "types": [each.of.resource_type for each in wanted],
        "ids": [each.of.id for each in wanted],
        "numbers": [each.number for each in wanted],
        "names": [each.secret_name for each in wanted],
        "places": [values_binding(each.of, each.number, each.secret_name).row for each in wanted],
        "ciphertexts": [each.sealed.ciphertext for each in wanted],
        "data_keys": [each.sealed.data_key for each in wanted],
        "key_ids": [each.sealed.key_id for each in wanted],
    }
    await transaction.connection.execute(_KEEP_MANY_VALUES, columns)


async def find_values(
    transaction: ReadTransaction, of: RevisedResource, number: int, secret_name: str
) -> KeptValues | None:
    """Returns the secret values stored with the first revision from `number` on that has any; None if none has."""
    query = (
        select(
            REVISIONS.c.number,
            REVISION_VALUES.c.ciphertext,
            REVISION_VALUES.c.data_key,
            REVISION_VALUES.c.key_id,
        )
        .join(REVISIONS, REVISIONS.c.id == REVISION_VALUES.c.revision_id)
        .where(
            REVISIONS.c.resource_type == of.resource_type,
            REVISIONS.c.resource_id == of.id,
            REVISIONS.c.number >= number,
            REVISION_VALUES.c.secret_name == secret_name,
        )
        .order_by(REVISIONS.c.number)
        .limit(1)
    )
    row = (await transaction.connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.ciphertext is None:
        return KeptValues(row.number, None)
    return KeptValues(row.number, Sealed(bytes(row.ciphertext), bytes(row.data_key), row.key_id))


async def purge_values(transaction: Transaction, namespace_id: int, secret_name: str) -> int:
    """Purges the values of a secret from all revisions of a namespace; returns the number of purged values."""
    values = {"namespace_id": namespace_id, "secret_name": secret_name}
    return len((await transaction.connection.execute(_PURGE, values)).all())


def _named(of: RevisedResource) -> dict[str, object]:
    return {"resource_type": of.resource_type, "resource_id": of.id}
