"""How far the logs of pods have been passed on, and the token that holds it: another stream resumes from it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from pilothouse_server.errors import InvalidArgument, Violation

_BINDING_BYTES = 12
# The digest of a pod's name: a hundred names would make a token longer than one may be.
PodKey = bytes
_KEY_BYTES = 8


def pod_key(pod: str) -> PodKey:
    """The key of a pod."""
    return hashlib.blake2b(pod.encode(), digest_size=_KEY_BYTES).digest()


class LogPosition(msgspec.Struct, array_like=True):
    """How far a pod's log has been read.

    The time of the last line passed on, and how many lines of that time were.
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

    The positions of all pods, bound to the caller and the question.
    """
    payload = msgspec.msgpack.encode(positions)
    return base64.urlsafe_b64encode(_binding(key, bound_to) + payload).decode()


def positions_of(key: bytes, bound_to: str, token: str) -> dict[PodKey, LogPosition]:
    """The positions in a token; raises InvalidArgument for one of another caller or question."""
    if not token:
        return {}
    try:
        raw = base64.urlsafe_b64decode(token)
        if not hmac.compare_digest(raw[:_BINDING_BYTES], _binding(key, bound_to)):
            raise ValueError
        return msgspec.msgpack.decode(raw[_BINDING_BYTES:], type=dict[PodKey, LogPosition])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        description = "is not a token of this log: it belongs to its caller and question"
        raise InvalidArgument(
            f"resume_token: {description}",
            reason="RESUME_TOKEN",
            violations=(Violation("resume_token", "resume_token", description),),
        ) from None


def _binding(key: bytes, bound_to: str) -> bytes:
    return hmac.new(key, b"logs\0" + bound_to.encode(), hashlib.sha256).digest()[:_BINDING_BYTES]
