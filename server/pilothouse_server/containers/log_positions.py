"""The positions up to which pod logs were sent, and the resume token for them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from pilothouse_server.errors import InvalidArgument, Violation

_BINDING_BYTES = 12
# A digest of the pod's name, because a hundred names would exceed the longest allowed token.
PodKey = bytes
_KEY_BYTES = 8


def pod_key(pod: str) -> PodKey:
    """Returns the key of a pod."""
    return hashlib.blake2b(pod.encode(), digest_size=_KEY_BYTES).digest()


class LogPosition(msgspec.Struct, array_like=True):
    """How far a pod's log has been read.

    The time of the last line that was sent, and the number of lines with that time that were sent.
    """

    nanoseconds: int = 0
    lines: int = 0

    def advance(self, nanoseconds: int) -> None:
        """Counts a line of this time."""
        if nanoseconds == self.nanoseconds:
            self.lines += 1
        elif nanoseconds > self.nanoseconds:
            self.nanoseconds, self.lines = nanoseconds, 1


def position_token(key: bytes, bound_to: str, positions: dict[PodKey, LogPosition]) -> str:
    """Returns the token from which a log stream continues.

    It contains the positions of all pods, and is bound to the caller and the query.
    """
    payload = msgspec.msgpack.encode(positions)
    return base64.urlsafe_b64encode(_binding(key, bound_to) + payload).decode()


def positions_of(key: bytes, bound_to: str, token: str) -> dict[PodKey, LogPosition]:
    """Returns the positions in a token; raises InvalidArgument for a token of another caller or query."""
    if not token:
        return {}
    try:
        raw = base64.urlsafe_b64decode(token)
        if not hmac.compare_digest(raw[:_BINDING_BYTES], _binding(key, bound_to)):
            raise ValueError
        return msgspec.msgpack.decode(raw[_BINDING_BYTES:], type=dict[PodKey, LogPosition])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        description = "is not a token of this log: a token is valid only for the same caller and query"
        raise InvalidArgument(
            f"resume_token: {description}",
            reason="RESUME_TOKEN",
            violations=(Violation("resume_token", "resume_token", description),),
        ) from None


def _binding(key: bytes, bound_to: str) -> bytes:
    return hmac.new(key, b"logs\0" + bound_to.encode(), hashlib.sha256).digest()[:_BINDING_BYTES]
