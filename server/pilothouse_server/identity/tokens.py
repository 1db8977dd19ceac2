"""Bearer tokens: 256 random bits in a form that a scanner can recognise; the database stores only a hash.

    pht_ + 43 characters of base 62 (the random bits) + 6 characters of base 62 (CRC-32 of all before)

The prefix distinguishes an access token (`pht_`), a refresh token (`phr_`), an API key (`phk_`), the credential of a
console session (`phc_`) and a challenge (`phl_`), so that none of these is accepted as another. Prefix and checksum let
secret scanners find a leaked token with certainty, and let the server refuse a mistyped token without a query. The
stored hash is SHA-256. The bits are random, so no slow hash is needed against guessing.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from typing import Final

ACCESS_PREFIX: Final = "pht_"
REFRESH_PREFIX: Final = "phr_"
KEY_PREFIX: Final = "phk_"
CONSOLE_PREFIX: Final = "phc_"
# The prefix of a challenge, which an incomplete log-in receives.
CHALLENGE_PREFIX: Final = "phl_"
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_LENGTH: Final = 43
CHECKSUM_LENGTH: Final = 6
# Lists show this many of the 43 random characters of a key; 220 bits stay secret.
_SHOWN_LENGTH: Final = 6
_LENGTH: Final = len(ACCESS_PREFIX) + _SECRET_LENGTH + CHECKSUM_LENGTH


def new_token(prefix: str) -> str:
    """Returns a new random token: `prefix`, 256 random bits in base 62, checksum."""
    body = prefix + _base62(secrets.randbits(256), _SECRET_LENGTH)
    return body + checksum(body)


def is_well_formed(token: str, prefix: str) -> bool:
    """Returns whether `token` could have been made by `new_token(prefix)`; it does not check whether it is valid."""
    if len(token) != _LENGTH or not token.isascii() or not token.startswith(prefix):
        return False
    return token[-CHECKSUM_LENGTH:] == checksum(token[:-CHECKSUM_LENGTH])


def token_hash(token: str) -> bytes:
    """Returns the stored hash of a token."""
    return hashlib.sha256(token.encode()).digest()


def shown_part(token: str) -> str:
    """Returns the beginning of a token: enough to distinguish it from others, and too little to guess it."""
    return token[: len(ACCESS_PREFIX) + _SHOWN_LENGTH]


def checksum(body: str) -> str:
    """Returns the checksum that ends a token that begins with `body`."""
    return _base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    assert number == 0, "the length must hold the number"
    return "".join(reversed(digits))
