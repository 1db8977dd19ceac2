"""The program that uses a PKCS#11 token. Each server starts its own.

The library of a token is its maker's: it may hang, crash, print and start threads. So it is loaded by a
process of its own, which a server can kill after a deadline and start again. It imports nothing of the
server, and receives only the values that it needs.

It reads lines of JSON from its standard input, which is a socket, and writes a line as response to each. The first
line names the token to open: `module`, `token`, `pin`, `label`, `writes`. Each further line has a number `n`, a word
`do`, and its arguments:

    keys                    the identifiers and names of the keys, newest first
    wrap    key, data       `data` encrypted with that key, in hexadecimal
    unwrap  key, data       the reverse of `wrap`
    add                     a new key
    rename  key, name       another label for a key, so that it is no longer used

A response contains `n` and either `is` or `refused`: a word of `REFUSALS` or the name of the library's exception,
never its text. After a refusal other than KEY_MISSING and CHANGED the program ends: the session may be broken.

Keys are AES keys of 256 bits with the label that the settings name. A key that could be extracted from the token
is refused. A key is identified by the ciphertext of sixteen zero bytes: so another key of the same name has
another identifier, and the same key copied to another token of its maker has the same identifier.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

NOT_INSTALLED = "NOT_INSTALLED"
MODULE = "MODULE"
TOKEN_MISSING = "TOKEN_MISSING"
TOKEN_TWICE = "TOKEN_TWICE"
PIN_WRONG = "PIN_WRONG"
PIN_LOCKED = "PIN_LOCKED"
PIN_LAST_TRY = "PIN_LAST_TRY"
KEY_EXTRACTABLE = "KEY_EXTRACTABLE"
NO_AES_GCM = "NO_AES_GCM"
# An error of one key or one value: the session continues.
KEY_MISSING = "KEY_MISSING"
CHANGED = "CHANGED"
REFUSALS = (
    NOT_INSTALLED,
    MODULE,
    TOKEN_MISSING,
    TOKEN_TWICE,
    PIN_WRONG,
    PIN_LOCKED,
    PIN_LAST_TRY,
    KEY_EXTRACTABLE,
    NO_AES_GCM,
    KEY_MISSING,
    CHANGED,
)
_KEY_BITS = 256
_NONCE_BYTES = 12
_ASSOCIATED = b"pilothouse/wrapping-key"
_ID_ASSOCIATED = b"pilothouse/key-id"


class _Refused(Exception):
    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class _Session:
    """A session of the token, in which the PIN's user is logged in."""

    def __init__(self, orders: dict[str, str]) -> None:
        try:
            import pkcs11
        except ImportError:
            raise _Refused(NOT_INSTALLED) from None
        self._library = pkcs11
        self._label = orders["label"]
        self._keys: dict[str, Any] = {}
        errors = pkcs11.exceptions
        try:
            library = pkcs11.lib(orders["module"])
        except errors.PKCS11Error:
            raise _Refused(MODULE) from None
        try:
            token = library.get_token(token_label=orders["token"])
        except errors.NoSuchToken:
            raise _Refused(TOKEN_MISSING) from None
        except errors.MultipleTokensReturned:
            raise _Refused(TOKEN_TWICE) from None
        if pkcs11.Mechanism.AES_GCM not in token.slot.get_mechanisms():
            raise _Refused(NO_AES_GCM)
        if pkcs11.TokenFlag.USER_PIN_LOCKED in token.flags:
            raise _Refused(PIN_LOCKED)
        # One more wrong PIN would lock the token, for everybody.
        if pkcs11.TokenFlag.USER_PIN_FINAL_TRY in token.flags:
            raise _Refused(PIN_LAST_TRY)
        try:
            self._session = token.open(rw=bool(orders.get("writes")), user_pin=orders["pin"])
        except (errors.PinIncorrect, errors.PinInvalid, errors.PinLenRange):
            raise _Refused(PIN_WRONG) from None
        except (errors.PinLocked, errors.PinExpired, errors.UserPinNotInitialized):
            raise _Refused(PIN_LOCKED) from None

    def keys(self, _asked: dict[str, str]) -> list[list[str]]:
        """Returns the identifier and the name (CKA_ID) of each key, newest first."""
        kinds, attribute = self._library.ObjectClass, self._library.Attribute
        found = list(
            self._session.get_objects(
                {
                    attribute.CLASS: kinds.SECRET_KEY,
                    attribute.KEY_TYPE: self._library.KeyType.AES,
                    attribute.LABEL: self._label,
                }
            )
        )
        found.sort(key=lambda key: bytes(key[attribute.ID]), reverse=True)
        named = {}
        for key in found:
            if key[attribute.EXTRACTABLE] or not key[attribute.SENSITIVE]:
                raise _Refused(KEY_EXTRACTABLE)
            named[self._id(key)] = key
        self._keys = named
        return [[key_id, _name(bytes(key[attribute.ID]))] for key_id, key in named.items()]

    def wrap(self, asked: dict[str, str]) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return (nonce + self._crypt("encrypt", asked, nonce, bytes.fromhex(asked["data"]))).hex()

    def unwrap(self, asked: dict[str, str]) -> str:
        box = bytes.fromhex(asked["data"])
        errors = self._library.exceptions
        try:
            return self._crypt("decrypt", asked, box[:_NONCE_BYTES], box[_NONCE_BYTES:]).hex()
        except (
            errors.EncryptedDataInvalid,
            errors.EncryptedDataLenRange,
            errors.DataInvalid,
            errors.DataLenRange,
            errors.ArgumentsBad,
        ):
            raise _Refused(CHANGED) from None
        except errors.GeneralError:
            # Some tokens report this for a wrong tag; others when they are broken.
            if self._id(self._key(asked)) != asked["key"]:
                raise
            raise _Refused(CHANGED) from None

    def add(self, _asked: dict[str, str]) -> str:
        """Creates a key that is newer than all others; returns its identifier."""
        attribute = self._library.Attribute
        made = self._session.generate_key(
            self._library.KeyType.AES,
            _KEY_BITS,
            label=self._label,
            id=f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}".encode(),
            store=True,
            template={
                attribute.SENSITIVE: True,
                attribute.EXTRACTABLE: False,
                attribute.ENCRYPT: True,
                attribute.DECRYPT: True,
                attribute.SIGN: False,
                attribute.VERIFY: False,
                attribute.WRAP: False,
                attribute.UNWRAP: False,
                attribute.DERIVE: False,
            },
        )
        return self._id(made)

    def rename(self, asked: dict[str, str]) -> None:
        self._key(asked)[self._library.Attribute.LABEL] = asked["name"]

    def _id(self, key: Any) -> str:
        made = key.encrypt(
            bytes(16),
            mechanism=self._library.Mechanism.AES_GCM,
            mechanism_param=self._library.GCMParams(bytes(_NONCE_BYTES), _ID_ASSOCIATED, 128),
        )
        return hashlib.sha256(_ID_ASSOCIATED + bytes(made)).digest()[:8].hex()

    def _crypt(self, what: str, asked: dict[str, str], nonce: bytes, data: bytes) -> bytes:
        return bytes(
            getattr(self._key(asked), what)(
                data,
                mechanism=self._library.Mechanism.AES_GCM,
                mechanism_param=self._library.GCMParams(nonce, _ASSOCIATED, 128),
            )
        )

    def _key(self, asked: dict[str, str]) -> Any:
        if asked["key"] not in self._keys:
            self.keys(asked)
        try:
            return self._keys[asked["key"]]
        except KeyError:
            raise _Refused(KEY_MISSING) from None


def main() -> int:
    """Responds to requests until its input ends."""
    link = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    lines = link.makefile("rb")
    session: _Session | None = None
    for line in lines:
        asked = json.loads(line)
        answer: dict[str, Any] = {"n": asked.get("n", 0)}
        try:
            if session is None:
                session = _Session(asked)
                answer["is"] = session.keys(asked)
            else:
                work: Callable[[dict[str, str]], Any] = getattr(session, asked["do"])
                answer["is"] = work(asked)
        except _Refused as refusal:
            answer["refused"] = refusal.word
        except Exception as error:  # noqa: BLE001 - only the exception's name is passed on
            answer["refused"] = type(error).__name__
        link.sendall(json.dumps(answer).encode() + b"\n")
        if answer.get("refused") not in (None, KEY_MISSING, CHANGED):
            return 1
    return 0


def _name(cka_id: bytes) -> str:
    """Returns a CKA_ID for display: as text if it is text, else in hexadecimal."""
    text = cka_id.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else cka_id.hex()


if __name__ == "__main__":
    sys.exit(main())
