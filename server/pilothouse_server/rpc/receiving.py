"""Checks a request's bytes: their length, the number of their fields, and their type.

gRPC has a limit of its own. A call that gRPC refuses ends without our message. So gRPC's limit is somewhat
higher (`TRANSPORT_MARGIN_BYTES`), and a request that is slightly too long is refused here. Compressed requests
are decompressed here, too (`rpc.decompression`).
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError, Message

from pilothouse_server.errors import InvalidArgument, ResourceExhausted, invalid
from pilothouse_server.rpc import decompression
from pilothouse_server.rpc.field_checks import DEFAULT_CHARACTERS, descriptor_of
from pilothouse_server.rpc.field_count import MOST_FIELDS, SHORT_BYTES, Malformed, too_many_fields
from pilothouse_server.rpc.method_rules import Rule

TRANSPORT_MARGIN_BYTES: Final = 1024 * 1024
# The limit of a request that needs no log-in: none of those has a long field.
MOST_OF_STRANGERS_BYTES: Final = 64 * 1024


async def received(rule: Rule, raw: bytes) -> Message:
    """Returns the received message.

    It is parsed only if that cannot delay other calls.

    Raises:
        ResourceExhausted: MESSAGE_TOO_LARGE. InvalidArgument: MALFORMED_MESSAGE, TOO_MANY_PARTS, INVALID_FIELD.
    """
    raw = await decompression.decompress(raw, rule.most_bytes)
    if len(raw) <= rule.most_bytes:
        try:
            if await too_many_fields(raw, descriptor_of(rule.request_class)):
                raise InvalidArgument(
                    f"the request has more than {MOST_FIELDS} messages, texts, items and entries",
                    reason="TOO_MANY_PARTS",
                    metadata={"most_parts": str(MOST_FIELDS)},
                )
        except Malformed:
            raise _malformed(rule) from None
    message = parsed(rule, raw)
    if len(raw) > SHORT_BYTES:
        _check_names(rule, message)
    return message


def parsed(rule: Rule, raw: bytes) -> Message:
    """Returns the parsed message.

    Raises:
        ResourceExhausted: MESSAGE_TOO_LARGE. InvalidArgument: MALFORMED_MESSAGE.
    """
    if len(raw) > rule.most_bytes:
        raise ResourceExhausted(
            f"the request has {len(raw)} bytes; it may have at most {rule.most_bytes}",
            reason="MESSAGE_TOO_LARGE",
            metadata={"bytes": str(len(raw)), "most_bytes": str(rule.most_bytes)},
        )
    try:
        return rule.request_class.FromString(raw)
    except DecodeError:
        raise _malformed(rule) from None


def _check_names(rule: Rule, message: Message) -> None:
    """Raises InvalidArgument if a name in a long request is too long.

    Such a name would be read repeatedly before its field is checked, and each read takes time in proportion to its
    length.
    """
    for field, name in (
        (rule.namespace_field, rule.namespace_of(message)),
        (rule.name_field, rule.name_of(message)),
    ):
        if len(name) > DEFAULT_CHARACTERS:
            raise invalid(field, f"must not be longer than {DEFAULT_CHARACTERS} characters")


def _malformed(rule: Rule) -> InvalidArgument:
    name = descriptor_of(rule.request_class).full_name
    return InvalidArgument(f"the body is not a {name}", reason="MALFORMED_MESSAGE")
