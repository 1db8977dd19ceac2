"""The two forms of a unary call: gRPC-Web's binary form, and JSON as Connect defines it.

Both convert a request's body to the bytes of its message, and a response or an error to a body.
https://connectrpc.com/docs/protocol
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2

from pilothouse_server.errors import InvalidArgument
from pilothouse_server.gateway import frames
from pilothouse_server.gateway.context import CallContext
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.status import HTTP_STATUS, STATUS_KEY

# JSON longer than this is read and written in a thread, so that other calls proceed.
_LONG_BYTES: Final = 32 * 1024
_MOST_JSON_BYTES: Final = 1024 * 1024
# Room for the prefix, and for the frame of trailers that some clients send.
_TRAILERS_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The body and status that are sent for a call."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class BodyForm(Protocol):
    """One of the two forms."""

    content_type: str

    def most_bytes(self, rule: Rule) -> int:
        """Returns the maximum length of a body."""

    async def request(self, body: bytes, rule: Rule) -> bytes:
        """Returns the bytes of the request's message. Raises InvalidArgument."""

    async def answer(self, answer: bytes | None, rule: Rule, context: CallContext) -> HttpAnswer:
        """Returns the body of the response, or of the error in `context`."""


class GrpcWeb:
    """gRPC-Web. The status is in the last frame, never in the headers."""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type

    def most_bytes(self, rule: Rule) -> int:
        """Implements `BodyForm`: a longer message is refused when it is parsed, in the same way as by gRPC."""
        return rule.most_bytes + _TRAILERS_BYTES

    async def request(self, body: bytes, rule: Rule) -> bytes:
        """Implements `BodyForm`."""
        return frames.read_request(body)

    async def answer(self, answer: bytes | None, rule: Rule, context: CallContext) -> HttpAnswer:
        """Implements `BodyForm`."""
        end = frames.trailers_frame(context.code, context.message, context.trailing)
        return HttpAnswer(end if answer is None else frames.message_frame(answer) + end)


class Json:
    """Connect's unary JSON."""

    content_type = "application/json"

    def most_bytes(self, rule: Rule) -> int:
        """Implements `BodyForm`: names and quotation marks make JSON longer than the message."""
        return min(_MOST_JSON_BYTES, 4 * rule.most_bytes)

    async def request(self, body: bytes, rule: Rule) -> bytes:
        """Implements `BodyForm`."""
        if len(body) > _LONG_BYTES:
            return await asyncio.to_thread(_read, body, rule.request_class)
        return _read(body, rule.request_class)

    async def answer(self, answer: bytes | None, rule: Rule, context: CallContext) -> HttpAnswer:
        """Implements `BodyForm`."""
        headers = {name: value for name, value in context.trailing if isinstance(value, str)}
        if answer is None:
            return HttpAnswer(_error(context), HTTP_STATUS[context.code.name], headers)
        if len(answer) > _LONG_BYTES:
            return HttpAnswer(await asyncio.to_thread(_write, answer, rule.response_class), 200, headers)
        return HttpAnswer(_write(answer, rule.response_class), 200, headers)


def error_body(code: str, message: str, reason: str = "") -> bytes:
    """Returns an error of this port itself, in Connect's form."""
    details = [{"type": "google.rpc.ErrorInfo", "debug": {"reason": reason}}] if reason else []
    return json.dumps({"code": code.lower(), "message": message, "details": details}).encode()


def _read(body: bytes, kind: type[Message]) -> bytes:
    try:
        return json_format.Parse(body, kind()).SerializeToString()
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise InvalidArgument(_why_unread(body, kind), reason="MALFORMED_MESSAGE") from None


def _why_unread(body: bytes, kind: type[Message]) -> str:
    """Returns why a body cannot be read; names an unknown field.

    The texts of the library are not shown.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return "the body is not valid JSON, or is nested too deeply"
    known = {name for each in kind.DESCRIPTOR.fields for name in (each.name, each.json_name)}
    unknown = [name for name in found if name not in known] if isinstance(found, dict) else []
    if unknown:
        names = ", ".join(sorted(each.name for each in kind.DESCRIPTOR.fields))
        return f'{kind.DESCRIPTOR.name} has no field "{unknown[0][:100]}"; it has {names}'
    return f"the body is not the JSON form of {kind.DESCRIPTOR.full_name}: compare names and types with the protos"


def _write(answer: bytes, kind: type[Message]) -> bytes:
    return json_format.MessageToJson(kind.FromString(answer), indent=None).encode()


def _error(context: CallContext) -> bytes:
    details = []
    for name, value in context.trailing:
        if name == STATUS_KEY and isinstance(value, bytes):
            details = [
                {
                    "type": each.type_url.rpartition("/")[2],
                    "value": base64.b64encode(each.value).decode().rstrip("="),
                    "debug": json_format.MessageToDict(each),
                }
                for each in status_pb2.Status.FromString(value).details
            ]
    # Connect spells this code in American English.
    code = "canceled" if context.code.name == "CANCELLED" else context.code.name.lower()
    return json.dumps({"code": code, "message": context.message, "details": details}).encode()
