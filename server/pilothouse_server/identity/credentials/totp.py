"""Codes of users: authenticator codes, recovery codes and one-time codes.

An authenticator's codes are those of RFC 6238 in the only form that all authenticators support: SHA-1, steps of 30
seconds, six digits. `cryptography` computes them. This module and `operations.second_factors` decide which steps are
accepted, and that each step is accepted once.

Users type recovery codes and the one-time codes of resets from paper. So they are groups of Crockford's base 32, which
has no characters that look alike. A recovery code has 80 random bits, so its SHA-256 is stored. A one-time code has 100
random bits, and is hashed like a password, because it is entered in place of one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

STEP_SECONDS: Final = 30
DIGITS: Final = 6
RECOVERY_CODES: Final = 10
# As long as the output of the hash that makes the codes (RFC 4226, section 4).
SEED_BYTES: Final = 20
# The clock of an authenticator may be wrong by one step.
_SKEW_STEPS: Final = 1
_ISSUER: Final = "Pilothouse"
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_READ_AS: Final = str.maketrans("oil", "011", "- ")


def new_seed() -> bytes:
    """Returns a new secret that an authenticator and the server share."""
    return secrets.token_bytes(SEED_BYTES)


def shown(seed: bytes) -> str:
    """Returns a seed in the form that a user types into an authenticator."""
    return base64.b32encode(seed).decode().rstrip("=")


def otpauth_uri(seed: bytes, username: str) -> str:
    """Returns a seed in the form that an authenticator reads from a QR code."""
    uri: str = _codes(seed, DIGITS).get_provisioning_uri(username, _ISSUER)
    return uri


def code_at(seed: bytes, step: int, digits: int = DIGITS) -> str:
    """Returns the code of one step; steps are counted in units of 30 seconds since 1970."""
    code: bytes = _codes(seed, digits).generate(step * STEP_SECONDS)
    return code.decode()


def matching_step(seed: bytes, code: str, now: datetime, after: int) -> int | None:
    """Returns the step of this code: the present step or a neighbour, and later than `after`; None if there is none.

    `after` is the newest step that was used: neither its code nor an earlier one is accepted again.
    """
    typed = code.replace(" ", "")
    present = int(now.timestamp()) // STEP_SECONDS
    steps = range(present - _SKEW_STEPS, present + _SKEW_STEPS + 1)
    # The code is compared with all steps, so that the time does not reveal which step matched.
    matching = [step for step in steps if hmac.compare_digest(code_at(seed, step).encode(), typed.encode())]
    return next((step for step in matching if step > after), None)


def new_recovery_codes() -> Sequence[str]:
    """Returns new recovery codes; each replaces a lost authenticator for one log-in."""
    return [_grouped(4, 4) for _ in range(RECOVERY_CODES)]


def recovery_hash(user_id: int, code: str) -> bytes:
    """Returns the stored hash of a recovery code.

    Case, hyphens, spaces and letters that look like digits make no difference.
    """
    typed = code.lower().translate(_READ_AS)
    return hashlib.sha256(f"recovery code\0{user_id}\0{typed}".encode()).digest()


def new_one_time_code() -> str:
    """Returns a one-time code, which an administrator gives to a user who then sets a new password."""
    return _grouped(4, 5)


def _grouped(groups: int, length: int) -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(length)) for _ in range(groups))


def _codes(seed: bytes, digits: int):  # type: ignore[no-untyped-def]
    # Imported at the first use: see `encryption`.
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.twofactor.totp import TOTP

    return TOTP(seed, digits, SHA1(), STEP_SECONDS)  # noqa: S303 - what authenticators compute
