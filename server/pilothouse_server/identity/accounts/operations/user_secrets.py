"""Secrets of a user that the server must be able to read again: seeds of authenticators, tokens of issuers.

Each is a row of `user_secrets`, sealed by `encryption` and bound to its row and its user, so that one that is moved
to another row or user is refused. RotateKeys wraps their data keys again like all others.
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
    """Keeps and reads the secrets of users. `name` distinguishes several of a kind; '' if there is one."""

    def __init__(self, envelopes: Envelopes) -> None:
        self._envelopes = envelopes

    async def keep(
        self, transaction: Transaction, user_id: UserId, kind: SecretKind, value: bytes, name: str = ""
    ) -> None:
        """Stores a secret in place of the former one of this kind and name.

        Raises:
            Unavailable: the active key is held by no key provider of this server.
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
        """The secret of this kind and name; None where there is none. `lock` holds its row.

        Raises:
            Unavailable: its key is held by no key provider of this server.
            FailedPrecondition: CIPHERTEXT_REFUSED, it does not belong where it stands.
        """
        stored = await user_secrets.find(transaction, user_id, kind, name, lock=lock)
        if stored is None:
            return None
        binding = SEALED_USER_SECRETS.binding(str(stored.id), str(user_id))
        return OpenedSecret(self._envelopes.open(stored.sealed, binding), stored.updated_at)

    async def forget(
        self, transaction: Transaction, user_id: UserId, kind: SecretKind, name: str | None = None
    ) -> int:
        """Deletes the secret of this kind and name, or all of the kind without one; returns how many there were."""
        return await user_secrets.remove(transaction, user_id, kind, name)
