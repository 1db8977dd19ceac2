"""Responses of watches from serialized bytes.

A response has the fields 1 (enum), 2 (message), 3 (int64), 4 (string), 5 (timestamp). `declarations.WATCH_ANSWER` has
the same numbers, which are checked at start. A watch of several nouns adds the number of the scope, and wraps the
resource in a message that can contain a resource of any noun (`Frame`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.rpc.encoding import varint
from pilothouse_server.store.feed import FeedEvent

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes around the resource in a response.

    They are its tag in the field `resource`, and the fields after all others.
    """

    tag: bytes = b""
    after: bytes = b""

    def around(self, message: bytes) -> bytes:
        """Returns the contents of the field `resource`."""
        return b"".join((self.tag, varint(len(message)), message)) if self.tag else message


def added(message: bytes, frame: Frame) -> bytes:
    """Returns a response with a resource of the first state: fields 1 (enum) and 2 (message)."""
    message = frame.around(message)
    return b"".join(
        (b"\x08", varint(resource.CHANGE_TYPE_ADDED), b"\x12", varint(len(message)), message, frame.after)
    )


def changed(
    change: int, revision: int, message: bytes, frame: Frame, token: str, time: datetime | None
) -> bytes:
    """Returns a response with a changed resource; `token` is '' if another response for the change follows."""
    whole = _without_token(change, revision, frame.around(message))
    return _with_token(whole, token, time) + frame.after if token else whole + frame.after


def marker(change: int, revision: int, token: str, time: datetime | None) -> bytes:
    """Returns a response without a resource."""
    parts = [b"\x08", varint(change)]
    if revision:
        parts += [b"\x18", varint(revision)]
    return _with_token(b"".join(parts), token, time)


class SharedAnswers:
    """Responses that many watchers get, each with a token of its own.

    Everything but the token and the time is the same for all watchers that are sent the same change, and most of them
    are sent it at about the same time.
    """

    def __init__(self, kept: int = 256) -> None:
        self._kept = kept
        self._ready: dict[tuple[int, int], tuple[FeedEvent, bytes]] = {}

    def answer(self, change: int, event: FeedEvent, token: str, time: datetime | None) -> bytes:
        """Returns the response with the token of one watcher, and the time."""
        key = (event.revision, change)
        found = self._ready.get(key)
        if found is None or found[0] is not event:
            if len(self._ready) >= self._kept:
                self._ready.clear()
            found = self._ready[key] = (event, _without_token(change, event.revision, event.message))
        return _with_token(found[1], token, time)


def _with_token(answer: bytes, token: str, time: datetime | None) -> bytes:
    """Returns a response with its token and the time."""
    encoded = token.encode()
    return b"".join((answer, b"\x22", varint(len(encoded)), encoded, _server_time(time)))


def _without_token(change: int, revision: int, message: bytes) -> bytes:
    """Returns the part of a response before its token."""
    return b"".join(
        (b"\x08", varint(change), b"\x12", varint(len(message)), message, b"\x18", varint(revision))
    )


# Watchers that are sent the same change have the same time. Encoding it once saves 1.7 µs for each of them.
@lru_cache(maxsize=16)
def _server_time(time: datetime | None) -> bytes:
    """Returns field 5: a Timestamp of field 1 (seconds) and field 2 (nanoseconds)."""
    if time is None:
        return b""
    seconds, micros = divmod((time - _EPOCH) // _MICROSECOND, 1_000_000)
    parts = (b"\x08", varint(seconds), b"\x10", varint(1000 * micros))
    return b"".join((b"\x2a", varint(sum(map(len, parts))), *parts))
