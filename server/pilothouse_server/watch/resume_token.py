"""The token by which a watch goes on exactly after an answer.

    base64url( binding, 24 bytes ‖ revision, 9 bytes )

The binding is an HMAC over the caller, the method, the filter and the history of the events, so a token is
of use only to the watch that it was given to, and only until a restore begins another history, or the
namespaces that the watch covers become others by changed grants. The revision
is not secret and not authenticated: a caller who changes it gets another position in the same stream, which
is theirs to see anyway. The first 24 bytes encode to 32 characters of their own, so a token costs one small
encoding per answer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

from pilothouse_server.errors import InvalidArgument, OutOfRange, Violation

_BINDING_BYTES = 24
_TOKEN_CHARACTERS = 44


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Makes and reads the tokens of one watch."""

    prefix: str
    bare_prefix: str

    def token(self, revision: int) -> str:
        """The token of the answer with this revision."""
        return self.prefix + base64.urlsafe_b64encode(revision.to_bytes(9, "big")).decode()


def issuer(
    key: bytes, *, user_id: int, method: str, filter_text: str, history: str, sight: str = ""
) -> TokenIssuer:
    """The issuer for one watch; `key` is the server's, the same on every replica.

    `sight` says what the caller's grants let the watch show.
    """

    def binding(parts: tuple[str, ...]) -> str:
        text = "\x00".join(parts).encode()
        digest = hmac.new(key, text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[: _BINDING_BYTES // 2]).decode()

    watch = binding(("watch", str(user_id), method, filter_text))
    return TokenIssuer(prefix=watch + binding(("history", history, sight)), bare_prefix=watch)


def read(token: str, tokens: TokenIssuer, *, oldest_revision: int) -> int:
    """The revision of a token.

    Raises:
        InvalidArgument: not a token, another caller's, or of another filter.
        OutOfRange: of another history or sight; watch anew without a token.
    """
    if len(token) != _TOKEN_CHARACTERS or not token.startswith(tokens.bare_prefix):
        raise _foreign()
    if not token.startswith(tokens.prefix):
        raise changed(oldest_revision)
    try:
        return int.from_bytes(base64.urlsafe_b64decode(token[len(tokens.prefix) :]), "big")
    except (binascii.Error, ValueError):
        raise _foreign() from None


def horizon(oldest_revision: int) -> OutOfRange:
    """The error for a position that is no longer kept."""
    return OutOfRange(
        f"the resume token is older than what is kept (oldest revision {oldest_revision}): watch anew without it",
        reason="WATCH_HORIZON",
        metadata={"oldest_revision": str(oldest_revision)},
    )


def changed(oldest_revision: int) -> OutOfRange:
    """The error for a watch whose past is no longer what its caller would see now."""
    return OutOfRange(
        "the history of events or what the caller may see has changed: watch anew without the resume token",
        reason="WATCH_CHANGED",
        metadata={"oldest_revision": str(oldest_revision)},
    )


def _foreign() -> InvalidArgument:
    description = "is not a token of this watch: it belongs to its caller and filter"
    return InvalidArgument(
        f"resume_token: {description}",
        reason="RESUME_TOKEN",
        violations=(Violation("resume_token", "resume_token", description),),
    )
