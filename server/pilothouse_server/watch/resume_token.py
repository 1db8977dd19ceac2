"""The token by which a watch continues exactly after a response.

    base64url( form, 1 byte ‖ revision, 8 ‖ mark, 8 ‖ history, 8 ‖ sight, 4 ‖ skipped ids ‖ MAC, 16 )

`mark` is the random bytes of the event at that revision. A copy of the database with other changes has other bytes
there, so its tokens are detected, but tokens stay valid after a failover that lost nothing. `history` identifies the
sequence of events, `sight` the namespaces that the caller's grants show. The skipped ids are those of changes that the
first state of the watch showed before they were numbered; the watch skips their events. The ids are written as
differences, seven bits a byte.

A watch of several scopes has another form. In place of `sight` it has the number of its scopes, 1 byte, and for each
scope the digests of its filter and of its sight, 4 bytes each. A resumed watch may have fewer scopes, or new scopes
that begin with their first state.

The MAC (keyed BLAKE2b) covers all of it, the caller, the method and the filter, so a token works only for the
watch that received it. The key is the server's, the same on every replica.

    the MAC does not match                   INVALID_ARGUMENT   of another caller or another filter, or not a token
    another history, sight or mark           OUT_OF_RANGE       watch again without it
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pilothouse_server.errors import InvalidArgument, OutOfRange, PilothouseError, Violation

NO_MARK = bytes(8)
_FORM = b"\x02"
_FORM_OF_SCOPES: Final = b"\x03"
_DIGEST_BYTES: Final = 4
_HEAD_BYTES = 29
# Together with the head a multiple of three, so that base64 adds no padding if no id is skipped.
_MAC_BYTES = 16
# The limit of a watch request. It leaves 339 bytes for ids, each of one or two bytes unless they are far apart.
LONGEST_CHARACTERS = 512
# The limit of a watch of many scopes: 32 scopes take 256 bytes more.
LONGEST_OF_SCOPES: Final = 1024


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
    form: bytes = _FORM
    longest: int = LONGEST_CHARACTERS

    def token(self, position: Position) -> str:
        """Returns the token from which a watch resumes at `position`."""
        return self.token_at(position.revision, position.mark, position.skipped)

    def token_at(self, revision: int, mark: bytes, skipped: tuple[int, ...]) -> str:
        """Returns the same as `token`, without making a `Position` for each message."""
        body = b"".join((self.form, revision.to_bytes(8, "big"), mark, self.history, self.sight))
        if skipped:
            body += _encoded(skipped)
        mac = self._state.copy()
        mac.update(body)
        # If no id is skipped, there is no padding to strip.
        return base64.urlsafe_b64encode(body + mac.digest()).decode().rstrip("=")

    def fits(self, position: Position) -> bool:
        """Returns whether the token of a position is short enough for a request.

        A token is too long if too many ids are skipped.
        """
        return len(self.token(position)) <= self.longest

    def read(self, token: str, *, oldest_revision: int) -> Position:
        """Returns the position of a token.

        Raises:
            InvalidArgument: not a token, or a token of another caller or another filter.
            OutOfRange: a token of another history or sight; watch again without a token.
        """
        body = self._opened(token, _HEAD_BYTES)
        if body[17:25] != self.history or body[25:29] != self.sight:
            raise changed(oldest_revision)
        return _position(body, _HEAD_BYTES)

    def _opened(self, token: str, least_bytes: int) -> bytes:
        """Returns the content of a token of this caller and watch.

        It checks that a replica made the token.
        """
        if len(token) > self.longest:
            raise _foreign()
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            raise _foreign() from None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if (
            len(body) < least_bytes
            or not body.startswith(self.form)
            or not hmac.compare_digest(mac, self._mac(body))
        ):
            raise _foreign()
        return body

    def _mac(self, body: bytes) -> bytes:
        mac = self._state.copy()
        mac.update(body)
        return bytes(mac.digest())


class ScopesIssuer(TokenIssuer):
    """Makes and reads the tokens of one watch of several scopes."""

    __slots__ = ()

    def read_scopes(
        self, token: str, wanted: Sequence[tuple[str, str]], *, oldest_revision: int
    ) -> tuple[Position, list[PilothouseError | None]]:
        """Returns a token's position, and for each scope the error why it cannot resume.

        The error is None if the scope resumes. `wanted` contains the filter and the sight of each scope.

        Raises:
            InvalidArgument: not a token, or a token of another caller.
            OutOfRange: a token of another history; watch again without a token.
        """
        body = self._opened(token, _HEAD_BYTES - _DIGEST_BYTES + 1)
        if body[17:25] != self.history:
            raise changed(oldest_revision)
        end = 26 + 2 * _DIGEST_BYTES * body[25]
        held = {
            (body[at : at + _DIGEST_BYTES], body[at + _DIGEST_BYTES : at + 2 * _DIGEST_BYTES])
            for at in range(26, end, 2 * _DIGEST_BYTES)
        }
        filters = {each for each, _ in held}
        faults: list[PilothouseError | None] = []
        for one, sight in wanted:
            digests = (_digest(one), _digest(sight))
            if digests in held:
                faults.append(None)
            else:
                faults.append(changed(oldest_revision) if digests[0] in filters else _foreign())
        return _position(body, end), faults


def scopes_issuer(
    key: bytes, *, user_id: int, method: str, history: str, scopes: Sequence[tuple[str, str]]
) -> ScopesIssuer:
    """Returns the issuer for a watch of several scopes.

    A scope is the text of its filter and its sight.
    """
    sight = bytes((len(scopes),)) + b"".join(_digest(each) for scope in scopes for each in scope)
    return ScopesIssuer(
        _state(key, (str(user_id), method)),
        hashlib.sha256(history.encode()).digest()[:8],
        sight,
        _FORM_OF_SCOPES,
        LONGEST_OF_SCOPES,
    )


def issuer(
    key: bytes,
    *,
    user_id: int,
    method: str,
    filter_text: str,
    history: str,
    sight: str = "",
) -> TokenIssuer:
    """Returns the issuer for one watch.

    `key` is the server's, the same on every replica. `sight` identifies the namespaces that the caller's grants show.
    """
    return TokenIssuer(
        _state(key, (str(user_id), method, filter_text)),
        hashlib.sha256(history.encode()).digest()[:8],
        _digest(sight),
    )


def _state(key: bytes, parts: Sequence[str]) -> Any:
    state = hashlib.blake2b(
        key=hashlib.sha256(key).digest(), digest_size=_MAC_BYTES, person=b"pilothouse-watch"
    )
    for part in parts:
        encoded = part.encode()
        state.update(len(encoded).to_bytes(4, "big") + encoded)
    return state


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_DIGEST_BYTES]


def _position(body: bytes, head_bytes: int) -> Position:
    return Position(int.from_bytes(body[1:9], "big"), body[9:17], _decoded(body[head_bytes:]))


def _encoded(ids: tuple[int, ...]) -> bytes:
    """Returns ascending ids as differences, seven bits a byte.

    The last byte of each difference has no high bit.
    """
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
    """Returns the error for a position whose events are no longer stored."""
    return OutOfRange(
        (
            f"the resume token is older than the stored events (oldest revision {oldest_revision}): watch "
            "again without it"
        ),
        reason="WATCH_HORIZON",
        metadata={"oldest_revision": str(oldest_revision)},
    )


def changed(oldest_revision: int) -> OutOfRange:
    """Returns the error for a token of another history, or other visible namespaces."""
    return OutOfRange(
        (
            "the history of events, or the caller's namespaces, have changed: watch again without the "
            "resume token"
        ),
        reason="WATCH_CHANGED",
        metadata={"oldest_revision": str(oldest_revision)},
    )


def _foreign() -> InvalidArgument:
    description = "is not a token of this watch: it is only valid for its caller and filter"
    return InvalidArgument(
        f"resume_token: {description}",
        reason="RESUME_TOKEN",
        violations=(Violation("resume_token", "resume_token", description),),
    )
