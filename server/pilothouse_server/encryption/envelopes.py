"""Envelope encryption of values that the database must not be able to read.

Each stored value is encrypted with AES-256-GCM under a data key of its own; the data key is wrapped, also
with AES-256-GCM, by a key-encryption key that never enters the database: one of the server's (`keys`), or a
wrapping key that a token has wrapped (`token_keys`). Rotation wraps data keys again and leaves the values as
they are. Both layers authenticate the place of the value (`Binding`): a ciphertext or data key that was
moved to another row, tenant, table or column is refused.

    sealed = envelopes.seal(plaintext, binding, key_id)   # key_id: store.encryption_keys.active_key_id
    plaintext = envelopes.open(sealed, binding)

Both may raise KeyNotAtHand if the key is in a token; unary calls then start again automatically. A caller that
opens outside of a transaction awaits `at_hand(sealed)` first.

A box is one byte of version, twelve of nonce, then ciphertext and tag. Nonces are random; a data key encrypts
one value, and a key-encryption key far fewer data keys than the 2^32 that random nonces allow. A data key under a token
is another byte of version, the wrapped wrapping key with its length in two bytes, and the box of the data key.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilothouse_server.encryption.keys import PKCS11, PROVIDERS, KeyRing
from pilothouse_server.encryption.token_keys import (
    KeyNotAtHand,
    TokenKeys,
    WantedTokenKey,
    key_missing,
    refused,
)
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.settings.model import SettingsError

_VERSION = b"\x01"
_BY_TOKEN = b"\x02"
_LENGTH_BYTES = 2
_NONCE_LENGTH = 12
_KEY_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Binding:
    """The place that an encrypted value belongs to: table, column, permanent identifier of the row, and its owner.

    The owner is the id of a namespace or user; empty for values of the platform.
    """

    table: str
    column: str
    row: str
    owner: str = ""

    def associated_data(self, part: bytes) -> bytes:
        """Returns the data that both layers authenticate.

        Each part has its length, so that no two bindings have the same data.
        """
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
    """Seals and opens with the keys of a ring, and of a token if there is one.

    `order` has the providers as in the settings: the newest key is that of the first provider that has any.
    """

    def __init__(
        self, keys: KeyRing, token: TokenKeys | None = None, order: Sequence[str] = PROVIDERS
    ) -> None:
        self._keys = keys
        # If there is one, its `keep_sealing` is a task of the server.
        self.token = token
        self._token_first = token is not None and order[0] == PKCS11

    @property
    def newest_key_id(self) -> str:
        """Identifier of the newest key, as of the last read of the providers."""
        if self.token is not None and self._token_first and self.token.names:
            return next(iter(self.token.names))
        return self._keys.newest_key_id

    @property
    def providers(self) -> Mapping[str, str]:
        """The name of the provider of every key, by identifier, as of the last read of the providers."""
        of_token = dict.fromkeys(self.token.names, PKCS11) if self.token is not None else {}
        return {**of_token, **self._keys.providers}

    @property
    def key_ids(self) -> frozenset[str]:
        """Identifiers of all keys, as of the last read of the providers."""
        return frozenset(self.providers)

    async def refresh(self) -> None:
        """Reads the providers again; if that fails, their present keys stay.

        Raises:
            SettingsError: the file cannot be read.
            Unavailable: the token does not respond.
        """
        self._keys.refresh()
        if self.token is not None:
            await self.token.refresh()

    async def close(self) -> None:
        """Ends the session of the token."""
        if self.token is not None:
            await self.token.close()

    def seal(self, plaintext: bytes, binding: Binding, key_id: str) -> Sealed:
        """Encrypts a value under a new data key that the key `key_id` wraps.

        Raises:
            KeyNotAtHand: a key must first be fetched from the token.
            Unavailable: this server has no such key.
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
            KeyNotAtHand: a key must first be fetched from the token.
            Unavailable: this server does not have the key.
            FailedPrecondition: the value belongs to another place, or was changed.
        """
        data_key = self._unwrap(sealed.data_key, sealed.key_id, binding)
        return _open(data_key, sealed.ciphertext, binding.associated_data(b"value"))

    def rewrap(self, data_key: bytes, key_id: str, binding: Binding, new_key_id: str) -> bytes:
        """Returns the data key wrapped by another key. Raises as `open`."""
        return self._wrap(self._unwrap(data_key, key_id, binding), binding, new_key_id)

    async def at_hand(self, sealed: Sealed) -> None:
        """Fetches the keys that `open` needs from the token. Raises Unavailable."""
        wanted = self._missing([(sealed.data_key, sealed.key_id)])
        if wanted:
            await self._of_token().bring(wanted)

    def require(self, data_keys: Iterable[tuple[bytes, str]], new_key_id: str) -> None:
        """Checks that these data keys, with their keys, can be wrapped by another key immediately.

        Raises:
            KeyNotAtHand: names all keys that must first be fetched from the token.
        """
        wanted = self._missing(data_keys)
        if self._is_of_token(new_key_id):
            try:
                self._of_token().sealing_key(new_key_id)
            except KeyNotAtHand as missing:
                wanted += missing.wanted
        if wanted:
            raise KeyNotAtHand(self._of_token(), wanted)

    def _missing(self, data_keys: Iterable[tuple[bytes, str]]) -> list[WantedTokenKey]:
        wanted: list[WantedTokenKey] = []
        for data_key, key_id in data_keys:
            if not self._is_of_token(key_id):
                continue
            try:
                self._of_token().opening_key(key_id, _parts(data_key)[0])
            except KeyNotAtHand as missing:
                wanted += missing.wanted
            except FailedPrecondition:
                # Opening the value will raise this.
                continue
        return list(dict.fromkeys(wanted))

    def _wrap(self, data_key: bytes, binding: Binding, key_id: str) -> bytes:
        associated = binding.associated_data(b"key " + key_id.encode())
        if not self._is_of_token(key_id):
            return _close(self._keys.key_encryption_keys[key_id], data_key, associated)
        by = self._of_token().sealing_key(key_id)
        return (
            _BY_TOKEN
            + len(by.wrapped).to_bytes(_LENGTH_BYTES, "big")
            + by.wrapped
            + _close(by.key, data_key, associated)
        )

    def _unwrap(self, wrapped: bytes, key_id: str, binding: Binding) -> bytes:
        associated = binding.associated_data(b"key " + key_id.encode())
        if not self._is_of_token(key_id):
            return _open(self._keys.key_encryption_keys[key_id], wrapped, associated)
        wrapping_key, box = _parts(wrapped)
        return _open(self._of_token().opening_key(key_id, wrapping_key), box, associated)

    def _is_of_token(self, key_id: str) -> bool:
        """Returns whether the key is one of the token's, or may have been added since the token was last read.

        Raises:
            Unavailable: the key is neither in the token nor in the ring; the ring's file was read again.
        """
        if key_id in self._keys.key_encryption_keys:
            return False
        if self.token is not None and key_id in self.token.names:
            return True
        # If the file cannot be read, the present keys stay.
        with contextlib.suppress(SettingsError):
            self._keys.refresh()
        if key_id in self._keys.key_encryption_keys:
            return False
        if self.token is None:
            raise key_missing(key_id)
        return True

    def _of_token(self) -> TokenKeys:
        assert self.token is not None
        return self.token


def _parts(data_key: bytes) -> tuple[bytes, bytes]:
    """Returns the wrapped wrapping key and the box of a data key under a token. Raises FailedPrecondition."""
    start = len(_BY_TOKEN) + _LENGTH_BYTES
    end = start + int.from_bytes(data_key[len(_BY_TOKEN) : start], "big")
    if data_key[: len(_BY_TOKEN)] != _BY_TOKEN or len(data_key) <= end:
        raise refused()
    return data_key[start:end], data_key[end:]


# The library is imported with the first value, because it takes 8 MB of a server's memory.


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
        raise refused() from None
