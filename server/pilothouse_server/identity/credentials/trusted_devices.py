"""Device tokens: a client keeps one after a log-in, and the next log-in recognises its device by it.

    phd_ + base64url (16 bytes that name the device ‖ 16 of the account's hash ‖ 25 of a MAC over both)
         + 6 characters of base 62 (CRC-32 of all before)

The MAC is checked without the database, so that a flood of invented log-ins does not stand before those who
have one. The validity of a token stands in the database, by a hash of the device's bytes
(`repository.login_origins`): it belongs to one account, ends with its password, and after five wrong guesses.
By itself it lets nobody in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

from pilothouse_server.identity import tokens

PREFIX: Final = "phd_"
_DEVICE_BYTES: Final = 16
_ACCOUNT_BYTES: Final = 16
# So that base64 needs no padding.
_MAC_BYTES: Final = 25


class DeviceTokens:
    """Makes and reads device tokens with one key, the same on every replica."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, account_hash: bytes, device: bytes | None = None) -> tuple[str, bytes]:
        """A token of an account for a device, a new one where None is given; and the device's bytes."""
        device = device or secrets.token_bytes(_DEVICE_BYTES)
        named = device + account_hash[:_ACCOUNT_BYTES]
        body = PREFIX + base64.urlsafe_b64encode(named + self._mac(named)).decode()
        return body + tokens.checksum(body), device

    def read(self, token: str, account_hash: bytes) -> bytes | None:
        """Returns the device's bytes; None if it is not one of our tokens, or belongs to another account."""
        body = token[: -tokens.CHECKSUM_LENGTH]
        if not (token.isascii() and body.startswith(PREFIX) and token == body + tokens.checksum(body)):
            return None
        try:
            raw = base64.b64decode(body[len(PREFIX) :], altchars=b"-_", validate=True)
        except binascii.Error:
            return None
        named, mac = raw[: _DEVICE_BYTES + _ACCOUNT_BYTES], raw[_DEVICE_BYTES + _ACCOUNT_BYTES :]
        if not hmac.compare_digest(mac, self._mac(named)):
            return None
        device, account = named[:_DEVICE_BYTES], named[_DEVICE_BYTES:]
        return device if hmac.compare_digest(account, account_hash[:_ACCOUNT_BYTES]) else None

    def _mac(self, named: bytes) -> bytes:
        return hmac.digest(self._key, named, "sha256")[:_MAC_BYTES]


def device_hash(device: bytes) -> bytes:
    """Returns the hash by which the database names a device."""
    return hashlib.sha256(b"device\0" + device).digest()


class LoginNames:
    """The names by which records of failed log-ins call the account that was tried.

    The text that somebody types as a user name may be a password. So a name that no account has is replaced
    by a tag, the same for the same name, which can be computed only with the server's keys.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def tag(self, account_hash: bytes) -> str:
        """Returns the text that stands for an unknown name in the audit record, which may be a mistyped password."""
        return f"[unknown name {hmac.digest(self._key, account_hash, 'sha256')[:4].hex()}]"

    def address_hash(self, address_group: str) -> bytes:
        """Returns the hash by which the database names an address; nobody finds the address by trying all."""
        return hmac.digest(self._key, b"address\0" + address_group.encode(), "sha256")
