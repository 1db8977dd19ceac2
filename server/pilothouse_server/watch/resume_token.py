"""The token by which a watch continues exactly after a response.

    base64url( form, 1 byte ‖ revision, 8 ‖ mark, 8 ‖ history, 8 ‖ sight, 4 ‖ skipped ids ‖ MAC, 16 )

`mark` is the random bytes of the event at that revision: a copy of the database with other changes has other bytes
there, so its tokens are detected, while tokens stay valid after a failover that lost nothing. `history` names the
sequence of events, `sight` the namespaces that the caller's grants show. The skipped ids are those of changes that the
first state of the watch showed before they were numbered; their events are passed over. They are written as
differences, seven bits a byte.

The MAC (keyed BLAKE2b) is over all of it, the caller, the method and the filter, so a token works only for the
watch that got it. The key is the server's, the same on every replica.

    the MAC does not fit                     INVALID_ARGUMENT   another caller's, another filter's, or rubbish
    another history, sight or mark           OUT_OF_RANGE       watch again without it
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any

from pilothouse_server.errors import InvalidArgument, OutOfRange, Violation

NO_MARK = bytes(8)
_FORM = b"\x02"
_HEAD_BYTES = 29
# With the head a multiple of three, so that base64 has nothing to fill up where no id is skipped.
_MAC_BYTES = 16
# The limit of watch requests: 339 bytes of ids, each one or two bytes unless they are far apart.
LONGEST_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Position:
    """Position of a watch: after the event of `revision`, with the mark `mark`."""

    revision: int
    mark: bytes = NO_MARK
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Makes and reads the tokens of one watch."""

    _state: Any = field(repr=False)
    history: bytes
    sight: bytes

    def token(self, position: Position) -> str:
        """Returns the token from which a watch resumes at `position`."""
        return self.token_at(position.revision, position.mark, position.skipped)

    def token_at(self, revision: int, mark: bytes, skipped: tuple[int, ...]) -> str:
        """Returns the same as `token`, without making a `Position` for each message."""
        body = b"".join((_FORM, revision.to_bytes(8, "big"), mark, self.history, self.sight))
        if skipped:
            body += _encoded(skipped)
        mac = self._state.copy()
        mac.update(body)
        encoded = base64.urlsafe_b64encode(body + mac.digest()).decode()
        return encoded.rstrip("=") if skipped else encoded

    def fits(self, position: Position) -> bool:
        """Returns whether the token of a position is short enough for a request.

        It is too long if too many ids were skipped.
        """
        return len(self.token(position)) <= LONGEST_CHARACTERS

    def read(self, token: str, *, oldest_revision: int) -> Position:
        """The position of a token.

        Raises:
            InvalidArgument: not a token, another caller's, or of another filter.
            OutOfRange: of another history or sight; watch again without a token.
        """
        if len(token) > LONGEST_CHARACTERS:
            raise _foreign()
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raise _foreign() from None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if (
            len(body) < _HEAD_BYTES
            or not body.startswith(_FORM)
            or not hmac.compare_digest(mac, self._mac(body))
        ):
            raise _foreign()
        if body[17:25] != self.history or body[25:29] != self.sight:
            raise changed(oldest_revision)
        return Position(int.from_bytes(body[1:9], "big"), body[9:17], _decoded(body[_HEAD_BYTES:]))

    def _mac(self, body: bytes) -> bytes:
        mac = self._state.copy()
        mac.update(body)
        return bytes(mac.digest())


def issuer(
    key: bytes,
    *,
    user_id: int,
    method: str,
    filter_text: str,
    history: str,
    sight: str = "",
) -> TokenIssuer:
    """The issuer for one watch; `key` is the server's, the same on every replica.

    `sight` identifies the namespaces that the caller's grants show.
    """
    state = hashlib.blake2b(
        key=hashlib.sha256(key).digest(), digest_size=_MAC_BYTES, person=b"pilothouse-watch"
    )
    for part in (str(user_id), method, filter_text):
        encoded = part.encode()
        state.update(len(encoded).to_bytes(4, "big") + encoded)
    return TokenIssuer(
        state,
        hashlib.sha256(history.encode()).digest()[:8],
        hashlib.sha256(sight.encode()).digest()[:4],
    )


def _encoded(ids: tuple[int, ...]) -> bytes:
    """Ascending ids as differences, seven bits a byte, the last byte of each without its high bit."""
    encoded = bytearray()
    previous = 0
    for one in ids:
        rest, previous = one - previous, one
        while rest > 0x7F:
            encoded.append((rest & 0x7F) | 0x80)
            rest >>= 7
        encoded.append(rest)
    return bytes(encoded)


def _decoded(encoded: bytes) -> tuple[int, ...]:
    ids: list[int] = []
    previous = value = shift = 0
    for byte in encoded:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            previous += value
            ids.append(previous)
            value = shift = 0
    return tuple(ids)


def horizon(oldest_revision: int) -> OutOfRange:
    """The error for a position that is no longer kept."""
    return OutOfRange(
        (
            f"the resume token is older than the stored events (oldest revision {oldest_revision}): watch "
            "again without it"
        ),
        reason="WATCH_HORIZON",
        metadata={"oldest_revision": str(oldest_revision)},
    )


def changed(oldest_revision: int) -> OutOfRange:
    """The error for a watch whose former state is no longer visible to its caller."""
    return OutOfRange(
        (
            "the history of events, or the caller's namespaces, have changed: watch again without the "
            "resume token"
        ),
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
