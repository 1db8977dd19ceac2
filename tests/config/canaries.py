"""Values that must not appear anywhere, and a search for them in every form that they could take."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from pilothouse_server.rpc.field_checks import is_map, is_secret, map_fields

MARK = "Zq7CanaryW4x"
Path = tuple[FieldDescriptor, ...]


def forms(text: str) -> Iterator[bytes]:
    """Yields a text as it is, in hexadecimal, and in base64 at each offset."""
    raw = text.encode()
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        # Without the characters at both ends, which depend on the neighbouring bytes.
        inner = encoded[4 if shift else 0 : len(encoded) - 4]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


def found_in(content: bytes, texts: Iterable[str]) -> list[str]:
    """Returns the texts that the content contains in any form."""
    return [text for text in texts if any(form in content for form in forms(text))]


def secret_paths(descriptor: Descriptor, within: Path = ()) -> Iterator[Path]:
    """Yields the path to every field of a message that is declared secret."""
    for field in descriptor.fields:
        if is_secret(field):
            yield (*within, field)
            continue
        held = map_fields(field)[1].message_type if is_map(field) else field.message_type
        if held is not None and all(step.message_type is not held for step in within):
            yield from secret_paths(held, (*within, field))


def put(message: Any, path: Path, value: str, *, key: str = "key") -> None:
    """Sets a secret field of any type to a value; maps get it under `key`."""
    *parents, last = path
    for step in parents:
        inner = getattr(message, step.name)
        if is_map(step):
            message = inner["key"]
        elif step.is_repeated:
            message = inner[0] if inner else inner.add()
        else:
            inner.SetInParent()
            message = inner
    of_value = map_fields(last)[1] if is_map(last) else last
    if of_value.message_type is not None:
        for each in secret_leaves(of_value.message_type):
            put(getattr(message, last.name), (each,), value)
        return
    content: Any = value.encode() if of_value.type == FieldDescriptor.TYPE_BYTES else value
    if of_value.type not in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
        return
    if is_map(last):
        getattr(message, last.name)[key] = content
    elif last.is_repeated:
        getattr(message, last.name).append(content)
    else:
        setattr(message, last.name, content)


def secret_leaves(descriptor: Descriptor) -> Iterator[FieldDescriptor]:
    """Yields the text and bytes fields of a message that is secret as a whole."""
    for field in descriptor.fields:
        if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
            yield field


def secrets_of(message: Any) -> Iterator[str]:
    """Yields the secret texts in a response, such as tokens."""
    for path in secret_paths(message.DESCRIPTOR):
        values = [message]
        for step in path:
            inner: list[Any] = []
            for each in values:
                value = getattr(each, step.name)
                inner += value.values() if is_map(step) else value if step.is_repeated else [value]
            values = inner
        for value in values:
            if isinstance(value, bytes) and value:
                yield value.decode("utf-8", "replace")
            elif isinstance(value, str) and value:
                yield value
