"""Codes that a user enters in addition to the password, or in its place: those of an authenticator, recovery
codes, and the code of a reset.

An authenticator's codes are those of RFC 6238 in the one form that all authenticators know: SHA-1, steps of 30 seconds,
six digits. `cryptography` computes them; which steps are taken, and that each is taken once, is decided here and in
`operations.second_factors`.

Recovery codes and codes of resets are typed from paper: base 32 as Douglas Crockford wrote it, which has no letters
that
look like others, in groups. A recovery code has 80 random bits, so its SHA-256 is kept. That of a reset has 100, and is
kept as passwords are, because it is entered in place of one.
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
# As long as the hash that the codes are made by (RFC 4226, section 4).
SEED_BYTES: Final = 20
# Clocks of telephones are taken to be right to a step.
_SKEW_STEPS: Final = 1
_ISSUER: Final = "Pilothouse"
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_READ_AS: Final = str.maketrans("oil", "011", "- ")


def new_seed() -> bytes:
    """Returns a new secret that an authenticator and the server share."""
    return secrets.token_bytes(SEED_BYTES)


def shown(seed: bytes) -> str:
    """A seed as it is typed into an authenticator."""
    return base64.b32encode(seed).decode().rstrip("=")


def otpauth_uri(seed: bytes, username: str) -> str:
    """A seed as an authenticator reads it from a QR code."""
    uri: str = _codes(seed, DIGITS).get_provisioning_uri(username, _ISSUER)
    return uri


def code_at(seed: bytes, step: int, digits: int = DIGITS) -> str:
    """The code of one step of 30 seconds since 1970."""
    code: bytes = _codes(seed, digits).generate(step * STEP_SECONDS)
    return code.decode()


def matching_step(seed: bytes, code: str, now: datetime, after: int) -> int | None:
    """The step whose code this is, of the present one and its neighbours, and later than `after`; None of none.

    `after` is the newest step that was used: neither its code nor an earlier one is taken again.
    """
    typed = code.replace(" ", "")
    present = int(now.timestamp()) // STEP_SECONDS
    steps = range(present - _SKEW_STEPS, present + _SKEW_STEPS + 1)
    # All are compared, so that the time does not reveal which one matched.
    matching = [step for step in steps if hmac.compare_digest(code_at(seed, step).encode(), typed.encode())]
    return next((step for step in matching if step > after), None)


def new_recovery_codes() -> Sequence[str]:
    """Codes that let a user in once each where the authenticator is lost."""
    return [_grouped(4, 4) for _ in range(RECOVERY_CODES)]


def recovery_hash(user_id: int, code: str) -> bytes:
    """Returns the stored hash of a recovery code; case, hyphens, spaces and letters that look like digits
    make no difference.
    """
    typed = code.lower().translate(_READ_AS)
    return hashlib.sha256(f"recovery code\0{user_id}\0{typed}".encode()).digest()


def new_one_time_code() -> str:
    """Returns a code that an administrator hands to a user, to set a new password with."""
    return _grouped(4, 5)


def _grouped(groups: int, length: int) -> str:
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(length)) for _ in range(groups))


def _codes(seed: bytes, digits: int):  # type: ignore[no-untyped-def]
    # The library is loaded with the first code: see `encryption`.
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.twofactor.totp import TOTP

    return TOTP(seed, digits, SHA1(), STEP_SECONDS)  # noqa: S303 - what authenticators compute
