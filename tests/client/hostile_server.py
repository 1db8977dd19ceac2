"""A server that fills every response with terminal control characters and malformed texts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc.aio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.services import SERVICES

# Sets the title, clears the screen (also with the 8-bit control character), and reverses the direction of text.
WORDS = "a\x1b]0;owned\x07\x1b[2J\x9b2J\u202eb"
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e")
_DEPTH = 6


def hostile(descriptor: Descriptor, depth: int = 0) -> Message:
    """Returns a message with every field set. Each text is `WORDS`."""
    message = GetMessageClass(descriptor)()
    if descriptor.full_name.startswith("google.protobuf."):
        return _known(message, descriptor.full_name)
    for field in descriptor.fields:
        if field.name == "next_page_token":
            # With a page token, the list would never end.
            continue
        if field.message_type is None:
            value = _scalar(field)
            getattr(message, field.name).append(value) if field.is_repeated else setattr(
                message, field.name, value
            )
        elif field.message_type.GetOptions().map_entry:
            _fill_map(getattr(message, field.name), field, depth)
        elif depth < _DEPTH:
            made = hostile(field.message_type, depth + 1)
            if field.is_repeated:
                getattr(message, field.name).add().CopyFrom(made)
            else:
                getattr(message, field.name).CopyFrom(made)
    return message


def _known(message: Any, name: str) -> Message:
    if name == "google.protobuf.Struct":
        message.update({WORDS: WORDS})
    elif name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        message.seconds = 1_700_000_000
    elif name == "google.protobuf.Value":
        message.string_value = WORDS
    return message  # type: ignore[no-any-return]


def _fill_map(filled: Any, field: FieldDescriptor, depth: int) -> None:
    entry: Any = field.message_type
    value = entry.fields_by_name["value"]
    key = WORDS if entry.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING else 1
    if value.message_type is None:
        filled[key] = _scalar(value)
    else:
        filled[key].CopyFrom(hostile(value.message_type, depth + 1))


def _scalar(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[min(1, len(field.enum_type.values) - 1)].number
    kinds: dict[int, Any] = {
        FieldDescriptor.CPPTYPE_STRING: WORDS.encode() if field.type == FieldDescriptor.TYPE_BYTES else WORDS,
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: 1.0,
        FieldDescriptor.CPPTYPE_FLOAT: 1.0,
    }
    return kinds.get(field.cpp_type, 1)


@asynccontextmanager
async def hostile_server(fails: Callable[[str], bool] = lambda _method: False) -> AsyncIterator[str]:
    """Yields the address of a server that responds once to each call. `fails` selects the methods that fail."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    for service in SERVICES:
        handlers = {method.name: _handler(method, fails) for method in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def _handler(method: Any, fails: Callable[[str], bool]) -> Any:
    async def unary(_request: Any, context: Any) -> bytes:
        if fails(method.name):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, WORDS)
        return hostile(method.output_type).SerializeToString()

    async def stream(_requests: Any, context: Any) -> AsyncIterator[bytes]:
        yield await unary(_requests, context)

    makers: dict[tuple[bool, bool], Any] = {
        (False, False): partial(grpc.unary_unary_rpc_method_handler, unary),
        (False, True): partial(grpc.unary_stream_rpc_method_handler, stream),
        (True, False): partial(grpc.stream_unary_rpc_method_handler, unary),
        (True, True): partial(grpc.stream_stream_rpc_method_handler, stream),
    }
    return makers[method.client_streaming, method.server_streaming]()
