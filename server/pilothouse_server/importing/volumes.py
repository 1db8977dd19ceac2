"""Volumes of imported containers: claims on the cluster, and config maps or secrets that pods show.

A claim stays as it is. Its row records its observed state and its uid; the reconciler sets the platform's label on it.
"""

from __future__ import annotations

from itertools import count

import msgspec

from pilothouse_server.errors import not_found
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.storage import repository, rules
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.operations import changed, check_source, refuse_deleting
from pilothouse_server.store.unit_of_work import Transaction

_LONGEST_NAME = 63


async def take_over(
    transaction: Transaction, namespace: Namespace, wanted: Volume, *, may_make: bool
) -> tuple[Volume, bool]:
    """Returns the namespace's volume for this claim or source, and whether it was created now.

    An existing volume keeps its name. A new one whose name is taken gets a number appended. The caller must have locked
    the namespace.

    Raises:
        NotFound: the volume does not exist and may not be created.
        InvalidArgument: a rule between fields is broken, or the source does not exist.
        FailedPrecondition: the volume of this claim is being deleted.
    """
    names: set[str] = set()
    async for stored in repository.stream_volumes(transaction, namespace_id=namespace.id):
        if is_same(stored, wanted):
            refuse_deleting(stored)
            return stored, False
        names.add(stored.name)
    if not may_make:
        raise not_found("volume", wanted.name)
    wanted = rules.checked(wanted)
    await check_source(transaction, namespace.name, wanted)
    created = await repository.insert_volume(
        transaction,
        msgspec.structs.replace(
            wanted,
            name=_free(wanted.name, names),
            namespace_ref=namespace.ref,
        ),
    )
    await changed(transaction, created, "added")
    return created, True


def is_same(stored: Volume, wanted: Volume) -> bool:
    """Returns whether two volumes are the same claim, or show the same config map or secret."""
    return (stored.type, stored.kubernetes_name, stored.source_name, stored.optional) == (
        wanted.type,
        wanted.kubernetes_name,
        wanted.source_name,
        wanted.optional,
    )


def _free(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    numbered = (f"{name[: _LONGEST_NAME - 4].rstrip('-')}-{number}" for number in count(2))
    return next(each for each in numbered if each not in taken)
