"""A caller's credential, and the facts about an accepted certificate.

It is separate from the module that reads certificates (`clients`), which loads a library of megabytes: a
server that requests no client certificates saves that memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID


class TokenOverCertificate(NamedTuple):
    """A token on a connection whose certificate is checked, too: the token identifies the caller."""

    token: str
    certificate: bytes


class SessionShown(NamedTuple):
    """A session in place of one of its access tokens, for rechecks of open streams.

    Includes the certificate of the connection, if that is checked, too.
    """

    session_id: UUID
    certificate: bytes = b""


# A caller's credential: a token ('' for none), a certificate, or both; for an open stream, the session.
Shown: TypeAlias = str | bytes | TokenOverCertificate | SessionShown


def lasting(shown: Shown, session_id: UUID | None) -> Shown:
    """Returns the credential that an open stream depends on: the session of a token, if it has one."""
    if session_id is None:
        return shown
    return SessionShown(session_id, shown.certificate if isinstance(shown, TokenOverCertificate) else b"")


@dataclass(frozen=True, slots=True)
class Vouched:
    """An accepted certificate, and its user.

    `username` was found by `name`, one of the certificate's names; both are '' if it belongs to no user.

    `not_after` is the earliest expiry of the certificate and those above it, and `known_until` that of the
    lists of revoked certificates; None if there are none.
    """

    username: str
    name: str
    fingerprint: str
    not_after: datetime
    known_until: datetime | None
