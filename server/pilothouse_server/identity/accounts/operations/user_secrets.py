"""Secrets of a user that the server must be able to read again.

These are seeds of authenticators and tokens of issuers. Each secret is a row of `user_secrets`. `encryption` encrypts
it and binds it to its row and its user, so that a ciphertext that was moved to another row or user is refused.
RotateKeys rewraps the data keys like all others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.identity.accounts.repository import user_secrets
from pilothouse_server.identity.model import SecretKind, UserId
from pilothouse_server.identity.tables import SEALED_USER_SECRETS
from pilothouse_server.store import encryption_keys
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction


@dataclass(frozen=True, slots=True)
class OpenedSecret:
    """A secret in the clear, and when it was last replaced."""

    value: bytes = field(repr=False)
    updated_at: datetime


class UserSecrets:
    """Stores and reads the secrets of users.

    `name` distinguishes secrets of one kind; '' if there is only one.
    """

    def __init__(self, envelopes: Envelopes) -> None:
        self._envelopes = envelopes

    async def keep(
        self, transaction: Transaction, user_id: UserId, kind: SecretKind, value: bytes, name: str = ""
    ) -> None:
        """Stores a secret in place of the former one of this kind and name.

        Raises:
            Unavailable: no key provider of this server has the active key.
        """
        key_id = await encryption_keys.active_key_id(transaction)
        secret_id = await user_secrets.claim(transaction, user_id, kind, name, key_id)
        binding = SEALED_USER_SECRETS.binding(str(secret_id), str(user_id))
        await user_secrets.seal(transaction, secret_id, self._envelopes.seal(value, binding, key_id))

    async def read(
        self,
        transaction: ReadTransaction,
        user_id: UserId,
        kind: SecretKind,
        name: str = "",
        *,
        lock: bool = False,
    ) -> OpenedSecret | None:
        """Returns the secret of this kind and name; None if there is none.

        `lock` locks its row.

        Raises:
            Unavailable: no key provider of this server has its key.
            FailedPrecondition: CIPHERTEXT_REFUSED, the ciphertext does not belong to this row and user.
        """
        stored = await user_secrets.find(transaction, user_id, kind, name, lock=lock)
        if stored is None:
            return None
        binding = SEALED_USER_SECRETS.binding(str(stored.id), str(user_id))
        return OpenedSecret(self._envelopes.open(stored.sealed, binding), stored.updated_at)

    async def forget(
        self, transaction: Transaction, user_id: UserId, kind: SecretKind, name: str | None = None
    ) -> int:
        """Deletes the secret of this kind and name, or all of the kind if no name is given; returns the number."""
        return await user_secrets.remove(transaction, user_id, kind, name)
