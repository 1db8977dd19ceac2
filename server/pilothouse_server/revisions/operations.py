"""The operations on revisions for other nouns, and the encryption of the secret values of revisions."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.revisions import repository
from pilothouse_server.revisions.model import RevisedResource
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store import encryption_keys
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

write_revision = repository.write_revision
newest_revision = repository.newest_revision
newest_revisions = repository.newest_revisions
read_revision = repository.read_revision
list_revisions = repository.list_revisions
purge_values = repository.purge_values


async def keep_values(
    transaction: Transaction,
    of: RevisedResource,
    number: int,
    secret_name: str,
    values: bytes,
    envelopes: Envelopes,
) -> None:
    """Encrypts the values of a secret and stores them with a revision; does nothing if the revision is not stored.

    Raises:
        Unavailable: no key provider of this server has the active key.
    """
    key_id = await encryption_keys.active_key_id(transaction)
    sealed = envelopes.seal(values, repository.values_binding(of, number, secret_name), key_id)
    await repository.keep_values(transaction, of, number, secret_name, sealed)


class ValuesToKeep(msgspec.Struct, frozen=True):
    """The values of a secret that are to be stored with a revision of a resource."""

    of: RevisedResource
    number: int
    secret_name: str
    values: bytes

    def __repr__(self) -> str:
        return f"ValuesToKeep({self.secret_name!r})"


async def keep_many_values(
    transaction: Transaction, wanted: Sequence[ValuesToKeep], envelopes: Envelopes
) -> None:
    """Stores values as `keep_values` does, with one statement."""
    if not wanted:
        return
    key_id = await encryption_keys.active_key_id(transaction)
    sealed: list[repository.SealedToKeep] = []
    async for each in cooperatively(wanted):
        place = repository.values_binding(each.of, each.number, each.secret_name)
        values = envelopes.seal(each.values, place, key_id)
        sealed.append(repository.SealedToKeep(each.of, each.number, each.secret_name, values))
    await repository.keep_many_values(transaction, sealed)


async def kept_values(
    transaction: ReadTransaction, of: RevisedResource, number: int, secret_name: str, envelopes: Envelopes
) -> tuple[int, bytes | None] | None:
    """Returns the secret values stored with the first revision from `number` on that has any, and its number.

    None if no such revision has values. Values that are None were purged.

    Raises:
        FailedPrecondition: the ciphertext does not belong to this revision.
        Unavailable: no key provider of this server has the key.
    """
    kept = await repository.find_values(transaction, of, number, secret_name)
    if kept is None:
        return None
    if kept.sealed is None:
        return kept.number, None
    return kept.number, envelopes.open(kept.sealed, repository.values_binding(of, kept.number, secret_name))
