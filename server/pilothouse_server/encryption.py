"""Envelope encryption of what the database must not be able to read.

Each stored value is encrypted with AES-256-GCM under a data key of its own; the data key is wrapped, also with
AES-256-GCM, by a key-encryption key that stays in the server's key file (`keys`). Rotation wraps data keys
anew and leaves the values as they are. Both layers authenticate where the value belongs (`Binding`): a
ciphertext or data key that was moved to another row, tenant, table or column is refused.

    sealed = envelopes.seal(plaintext, binding, key_id)   # key_id: store.encryption_keys.active_key_id
    plaintext = envelopes.open(sealed, binding)

A box is one byte of version, twelve of nonce, then ciphertext and tag. Nonces are random; a data key encrypts
one value, and a key-encryption key far fewer data keys than the 2^32 that random nonces allow.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from pilothouse_server.errors import FailedPrecondition, Unavailable
from pilothouse_server.keys import KeyRing
from pilothouse_server.settings import SettingsError

_VERSION = b"\x01"
_NONCE_LENGTH = 12
_KEY_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Binding:
    """Where an encrypted value belongs: table, column, permanent identifier of the row, and its owner (the id
    of a namespace or user; empty for what belongs to the platform).
    """

    table: str
    column: str
    row: str
    owner: str = ""

    def associated_data(self, part: bytes) -> bytes:
        """What both layers authenticate; each part with its length, so that no two bindings read alike."""
        texts = (part, *(text.encode() for text in (self.table, self.column, self.row, self.owner)))
        return b"".join(len(text).to_bytes(4, "big") + text for text in texts)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value as it is stored: its ciphertext, its wrapped data key, and which key wraps it."""

    ciphertext: bytes
    data_key: bytes
    key_id: str

    def __repr__(self) -> str:
        return f"Sealed({len(self.ciphertext)} bytes, key {self.key_id})"


class Envelopes:
    """Seals and opens with the keys of a ring."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    @property
    def newest_key_id(self) -> str:
        """Identifier of the newest key of the key file, as it was read last."""
        return self._keys.newest_key_id

    @property
    def key_ids(self) -> frozenset[str]:
        """Identifiers of all keys of the key file, as it was read last."""
        return frozenset(self._keys.key_encryption_keys)

    def refresh(self) -> None:
        """Reads the key file again. Raises SettingsError if it cannot be read; the keys stay as they were."""
        self._keys.refresh()

    def seal(self, plaintext: bytes, binding: Binding, key_id: str) -> Sealed:
        """Encrypts a value under a new data key that the key `key_id` wraps.

        Raises:
            Unavailable: this server's key file has no such key.
        """
        data_key = secrets.token_bytes(_KEY_LENGTH)
        return Sealed(
            _close(data_key, plaintext, binding.associated_data(b"value")),
            self._wrap(data_key, binding, key_id),
            key_id,
        )

    def open(self, sealed: Sealed, binding: Binding) -> bytes:
        """Decrypts a value.

        Raises:
            Unavailable: this server's key file does not have the key.
            FailedPrecondition: the value does not belong where it stands, or was changed.
        """
        data_key = self._unwrap(sealed.data_key, sealed.key_id, binding)
        return _open(data_key, sealed.ciphertext, binding.associated_data(b"value"))

    def rewrap(self, data_key: bytes, key_id: str, binding: Binding, new_key_id: str) -> bytes:
        """The data key wrapped by another key. Raises as `open`."""
        return self._wrap(self._unwrap(data_key, key_id, binding), binding, new_key_id)

    def _wrap(self, data_key: bytes, binding: Binding, key_id: str) -> bytes:
        return _close(self._key(key_id), data_key, binding.associated_data(b"key " + key_id.encode()))

    def _unwrap(self, wrapped: bytes, key_id: str, binding: Binding) -> bytes:
        return _open(self._key(key_id), wrapped, binding.associated_data(b"key " + key_id.encode()))

    def _key(self, key_id: str) -> bytes:
        key = self._keys.key_encryption_keys.get(key_id)
        if key is None:
            try:
                self._keys.refresh()
            except SettingsError:
                key = None
            else:
                key = self._keys.key_encryption_keys.get(key_id)
        if key is None:
            raise key_missing(key_id)
        return key


def key_missing(key_id: str) -> Unavailable:
    """The error for a key-encryption key that this server does not have."""
    return Unavailable(
        f'this server\'s key file does not hold the key "{key_id}" that the value is encrypted under: '
        "give every replica the same file",
        reason="ENCRYPTION_KEY_MISSING",
        metadata={"key_id": key_id},
    )


# The library is loaded with the first value: it takes 8 MB of a server.


def _close(key: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE_LENGTH)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, plaintext, associated_data)


def _open(key: bytes, box: bytes, associated_data: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    start = len(_VERSION) + _NONCE_LENGTH
    try:
        if box[: len(_VERSION)] != _VERSION:
            raise InvalidTag
        return AESGCM(key).decrypt(box[len(_VERSION) : start], box[start:], associated_data)
    # A box too short to hold a nonce is a ValueError of the library.
    except (InvalidTag, ValueError):
        raise FailedPrecondition(
            "the stored value cannot be decrypted: it does not belong where it stands, or was changed",
            reason="CIPHERTEXT_REFUSED",
        ) from None
