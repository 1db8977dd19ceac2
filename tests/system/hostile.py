"""Puts hostile text into every field of the server's responses, between the server and a tab."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pilothouse_server.rpc.field_checks import descriptor_of, is_map, map_fields
from tests.gateway.browser import RULES, framed

SCRIPT = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
# A right-to-left override, a right-to-left mark, and a word that is too long for any line.
WIDE = "\u202e\u200f" + "w" * 10_000
HOSTILE = SCRIPT + WIDE
# For the later texts of a response: a hundred records have four thousand texts.
SHORT = HOSTILE[:500]
# The endings of fields that the page sends back, or identifies rows by; users do not choose them.
_KEPT = ("uid", "etag", "token", "_id", "challenge")
_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_TRAILERS = 0x80
_FAILED_PRECONDITION = 9


def fill(message: Any, met: Counter[str] | None = None) -> None:
    """Sets every text, including unset ones, to the hostile value, also in nested messages.

    The first text of a field is the longest. `met` counts the texts of each field, so that no two are equal: names
    are unique.
    """
    met = Counter() if met is None else met
    for field in descriptor_of(message).fields:
        place = getattr(message, field.name)
        if field.name.endswith(_KEPT):
            continue
        if is_map(field):
            _fill_map(place, field)
        elif field.type in _TEXTS:
            _fill_text(message, field, f"{SHORT}{met[field.full_name]}" if met[field.full_name] else HOSTILE)
            met[field.full_name] += 1
        elif field.message_type is not None and not field.message_type.full_name.startswith("google."):
            there = place if field.is_repeated else [place] if message.HasField(field.name) else []
            for each in there:
                fill(each, met)


def _fill_text(message: Any, field: FieldDescriptor, text: str) -> None:
    value = text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
    if field.is_repeated:
        place = getattr(message, field.name)
        place[:] = [value] * (len(place) + 1)
    elif field.containing_oneof is None or message.HasField(field.name):
        setattr(message, field.name, value)


def _fill_map(place: Any, field: FieldDescriptor) -> None:
    key, value = map_fields(field)
    if key.type != FieldDescriptor.TYPE_STRING or value.message_type is not None:
        return
    values: dict[int, Any] = {FieldDescriptor.TYPE_STRING: SHORT, FieldDescriptor.TYPE_BYTES: SHORT.encode()}
    place[SHORT] = values.get(value.type, 1)


@dataclass
class Between:
    """A proxy between the server and a tab. If `fails` is set, each call except WhoAmI ends with a hostile status."""

    fails: bool = False

    async def install(self, page: Any) -> None:
        """Rewrites responses from the page's next calls on, and makes the page run its watch itself."""
        await page.context.add_init_script("delete window.SharedWorker")
        await page.route("**/pilothouse.*/*", self._call)
        await page.route_web_socket("**/ws/pilothouse.*/*", self._stream)
        listed = [{"name": HOSTILE, "displayName": HOSTILE}]
        await page.route("**/issuers.json", lambda route: route.fulfill(json=listed))

    async def _call(self, route: Any) -> None:
        name = route.request.url.rpartition("/")[2]
        if self.fails and name != "WhoAmI":
            await route.fulfill(content_type="application/grpc-web+proto", body=_failure())
            return
        answer = await route.fetch()
        body = rewriting(RULES[name].response_class)(await answer.body())
        await route.fulfill(content_type=answer.headers["content-type"], body=body)

    def _stream(self, socket: Any) -> None:
        name = socket.url.rpartition("/")[2]
        server = socket.connect_to_server()
        if self.fails:
            socket.send(_failure())
            return
        change = rewriting(RULES[name].response_class)
        server.on_message(lambda data: socket.send(change(data)))


def rewriting(kind: type[Message]) -> Callable[[bytes], bytes]:
    """Returns a function that takes parts of a stream of frames, and returns the frames with hostile messages."""
    rest = b""

    def change(data: bytes) -> bytes:
        nonlocal rest
        rest += data
        frames = b""
        while len(rest) >= 5 and len(rest) >= (end := 5 + int.from_bytes(rest[1:5])):
            flags, contents, rest = rest[0], rest[5:end], rest[end:]
            if not flags & _TRAILERS:
                message = kind.FromString(contents)
                fill(message)
                contents = message.SerializeToString()
            frames += framed(contents, flags)
        return frames

    return change


def _failure() -> bytes:
    return framed(
        f"grpc-status:{_FAILED_PRECONDITION}\r\ngrpc-message:{quote(HOSTILE)}\r\n".encode(), _TRAILERS
    )
