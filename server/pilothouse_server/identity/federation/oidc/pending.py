"""The token of a pending log-in at an issuer, which the caller that began it keeps.

    phl_ + base64url (JSON: issuer, redirect URI, expiry time, 16 random bytes, required authentication time)
         + "." + base64url (a MAC over that)

State, nonce and PKCE verifier are derived from the token, each under a label of its own. So the server stores nothing
for a log-in that nobody completes, however many anonymous callers begin one, and a reader of the database obtains none
of the three. The browser never has the token. Its response is useless without the token, and a response with the state
of another browser is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec

PREFIX: Final = "phl_"


class PendingLogin(msgspec.Struct, frozen=True):
    """A log-in that has begun. The random bytes make each one unique.

    `asked_since`: the issuer must have authenticated the person since then, in seconds since 1970; 0: at any time.
    """

    issuer: str
    redirect_uri: str
    ends: int
    random: bytes
    asked_since: int = 0

    def __repr__(self) -> str:
        return f"PendingLogin({self.issuer})"

    @property
    def expires_at(self) -> datetime:
        """The time after which the log-in cannot be completed."""
        return datetime.fromtimestamp(self.ends, UTC)


class LoginSecrets(msgspec.Struct, frozen=True):
    """The secrets that are derived from a pending log-in. None of them is stored."""

    state: str
    nonce: str
    verifier: str

    def __repr__(self) -> str:
        return "LoginSecrets()"

    @property
    def challenge(self) -> str:
        """Returns the challenge for the issuer, computed from the verifier: S256 of RFC 7636."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())


class LoginTokens:
    """Makes and reads the tokens of pending log-ins, with one key that all replicas share."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(
        self, issuer: str, redirect_uri: str, ends: int, asked_since: int = 0
    ) -> tuple[str, LoginSecrets]:
        """Returns the token of a new log-in, and the secrets that are derived from it."""
        pending = PendingLogin(issuer, redirect_uri, ends, secrets.token_bytes(16), asked_since)
        body = PREFIX + _text(msgspec.json.encode(pending))
        return f"{body}.{self._derived('token', body)}", self.secrets(body)

    def read(self, token: str) -> tuple[PendingLogin, LoginSecrets] | None:
        """Returns the log-in of a token, even if it has expired; None if the token is not this server's."""
        body, _, mac = token.partition(".")
        if not token.isascii() or not body.startswith(PREFIX):
            return None
        if not hmac.compare_digest(mac, self._derived("token", body)):
            return None
        raw = body.removeprefix(PREFIX)
        try:
            decoded = base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))
            return msgspec.json.decode(decoded, type=PendingLogin), self.secrets(body)
        except (binascii.Error, msgspec.MsgspecError, ValueError):
            # Another release wrote the token in another format.
            return None

    def secrets(self, body: str) -> LoginSecrets:
        """Returns the secrets that are derived from the part of a token that its MAC covers."""
        return LoginSecrets(
            *(self._derived(use, body) for use in ("state", "nonce", "verifier")),
        )

    def _derived(self, use: str, body: str) -> str:
        return _text(hmac.digest(self._key, f"{use}\0{body}".encode(), "sha256"))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
