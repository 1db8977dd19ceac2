"""Device tokens, by which the server recognises the devices of earlier log-ins.

A log-in returns a token, and the device sends it with the next log-in:

    phd_ + base64url (16 bytes that name the device ‖ 16 of the account's hash ‖ 25 of a MAC over both)
         + 6 characters of base 62 (CRC-32 of all before)

The MAC is checked without the database, so that a flood of log-ins with invented tokens does not delay callers with
valid ones. The database stores which devices are trusted, by a hash of the device's bytes (`repository.login_origins`).
A token belongs to one account. It becomes invalid when the password changes, or after five wrong guesses. It does not
replace the password.
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
# Makes 57 bytes in total, so that base64 needs no padding.
_MAC_BYTES: Final = 25


class DeviceTokens:
    """Makes and reads device tokens with one key that all replicas share."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, account_hash: bytes, device: bytes | None = None) -> tuple[str, bytes]:
        """Returns a token of an account for a device, and the device's bytes; None makes a new device."""
        device = device or secrets.token_bytes(_DEVICE_BYTES)
        named = device + account_hash[:_ACCOUNT_BYTES]
        body = PREFIX + base64.urlsafe_b64encode(named + self._mac(named)).decode()
        return body + tokens.checksum(body), device

    def read(self, token: str, account_hash: bytes) -> bytes | None:
        """Returns the device's bytes; None if the token is not this server's, or belongs to another account."""
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
    """Returns the hash that identifies a device in the database."""
    return hashlib.sha256(b"device\0" + device).digest()


class LoginNames:
    """Replacements for account names and addresses in audit records and in the database.

    A user may type a password in the field of the user name. So audit records of failed log-ins contain a tag instead
    of a name that no account has. The tag is the same for the same name, and only the server's keys can compute it.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def tag(self, account_hash: bytes) -> str:
        """Returns the text that replaces an unknown name in the audit record: the name may be a mistyped password."""
        return f"[unknown name {hmac.digest(self._key, account_hash, 'sha256')[:4].hex()}]"

    def address_hash(self, address_group: str) -> bytes:
        """Returns the hash that identifies an address in the database; it is keyed, so trials do not reverse it."""
        return hmac.digest(self._key, b"address\0" + address_group.encode(), "sha256")
