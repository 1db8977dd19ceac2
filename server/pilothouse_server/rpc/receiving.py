"""What of a request's bytes is taken: not more than the method may have, and a message of its type.

gRPC has a limit of its own, and unpacks no more of what is packed. A call that it refuses ends without words of ours.
So its limit lies somewhat above (`TRANSPORT_MARGIN_BYTES`): what is a little too long is refused here.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError, Message

from pilothouse_server.errors import InvalidArgument, ResourceExhausted
from pilothouse_server.rpc.method_rules import Rule

TRANSPORT_MARGIN_BYTES: Final = 1024 * 1024


def parsed(rule: Rule, raw: bytes) -> Message:
    """The message that was received.

    Raises:
        ResourceExhausted: MESSAGE_TOO_LARGE. InvalidArgument: MALFORMED_MESSAGE.
    """
    if len(raw) > rule.most_bytes:
        raise ResourceExhausted(
            f"the request has {len(raw)} bytes, and may have {rule.most_bytes}",
            reason="MESSAGE_TOO_LARGE",
            metadata={"bytes": str(len(raw)), "most_bytes": str(rule.most_bytes)},
        )
    try:
        return rule.request_class.FromString(raw)
    except DecodeError:
        raise InvalidArgument(
            f"the body is not a {rule.request_class.DESCRIPTOR.full_name}", reason="MALFORMED_MESSAGE"
        ) from None
