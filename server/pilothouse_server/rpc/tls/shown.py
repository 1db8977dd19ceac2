"""What a caller has shown, and what is known of a certificate that is taken.

Apart from what reads certificates (`clients`), which takes a library of megabytes: a server that asks no client for one
does without.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias


class TokenOverCertificate(NamedTuple):
    """A token that came by a connection whose certificate is looked at, too: the token says who calls."""

    token: str
    certificate: bytes


# What a caller has shown: a token ('' for none), a certificate, or both.
Shown: TypeAlias = str | bytes | TokenOverCertificate


@dataclass(frozen=True, slots=True)
class Vouched:
    """A certificate that is taken, and whose it is: `username`, by one of its names, `name`; both '' where it is no
    user's.

    `not_after` is when it runs out, with what is above it, and `known_until` when what is known of revoked certificates
    does; None where nobody asks.
    """

    username: str
    name: str
    fingerprint: str
    not_after: datetime
    known_until: datetime | None
