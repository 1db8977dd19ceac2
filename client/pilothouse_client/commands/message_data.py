"""Converts messages to data with the API's field names, and back: the YAML of `-o yaml`, with each resource's type.

    '@type': pilothouse.container.v1.Container
    name: web

The member is that of protobuf's JSON for messages of any type. Data that does not form a message is refused with the
path of the field. The text of the error is not the library's, which names the library's own types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")
TYPE = "@type"
# Messages that are written with their type: those that `apply` accepts, and secrets, which it refuses with a reason.
_TYPED = frozenset(
    f"pilothouse.{each}"
    for each in (
        "container.v1.Container",
        "network.v1.Service",
        "config.v1.ConfigMap",
        "config.v1.Secret",
        "storage.v1.Volume",
        "object.v1.Object",
    )
)
# Types of the library that have their own JSON form.
_KNOWN = {
    "google.protobuf.Timestamp": "a time such as 2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "a duration such as 30s",
}
# A message names all fields if there are at most this many.
_SHOWN = 12
# Members that the command writes next to the fields of a resource.
_BESIDE = (TYPE, "events", "events_unavailable", "dry_run")


class FieldError(ValueError):
    """A field cannot be read; `path` is empty for the resource as a whole."""

    def __init__(self, path: str, words: str) -> None:
        super().__init__(f"{path}: {words}" if path else words)
        self.path = path
        self.words = words


def typed(message: Message, data: dict[str, Any]) -> dict[str, Any]:
    """Returns the data of a resource, with its type if files may contain such a resource."""
    name = message.DESCRIPTOR.full_name
    return {TYPE: name, **data} if name in _TYPED else data


def type_of(name: str) -> type[Message]:
    """Returns the message of a type. Raises FieldError if there is none."""
    from google.protobuf import descriptor_pool, message_factory

    if name not in _TYPED:
        raise FieldError(TYPE, f"expected one of {', '.join(sorted(_TYPED))}, found {name}")
    _load(name.rpartition(".")[0])
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))


def _load(package: str) -> None:
    """Imports the messages of a package."""
    import importlib

    noun = package.split(".")[1]
    importlib.import_module(f"{package}.{noun}_pb2")


def message_of(data: dict[str, Any], kind: type[M]) -> M:
    """Returns the message of data, which may include its type, events and the mark of a dry run. Raises FieldError."""
    from google.protobuf.json_format import ParseDict, ParseError

    made = kind()
    fields = {name: value for name, value in data.items() if name not in _BESIDE}
    for path, words in _wrong(made, fields, ""):
        raise FieldError(path, words)
    try:
        return ParseDict(fields, made)
    except ParseError:
        raise FieldError("", "does not contain the fields of one resource") from None


def _names(message: Message) -> Any:
    return message.DESCRIPTOR.fields_by_name


def _wrong(message: Message, data: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yields the first field at fault, with the reason."""
    if message.DESCRIPTOR.full_name.startswith("google.protobuf."):
        return
    if not isinstance(data, dict):
        yield path, f"expected fields, found {_in_words(data)}"
        return
    for name, value in data.items():
        here = f"{path}.{name}" if path else str(name)
        field = _names(message).get(name)
        if field is None:
            yield here, f"there is no such field{_meant(str(name), list(_names(message)))}"
        elif value is not None:
            yield from _wrong_field(message, field, value, here)


def _meant(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name[:64], known, n=3)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; known are {', '.join(known)}" if len(known) <= _SHOWN else ""


def _wrong_field(
    message: Message, field: FieldDescriptor, value: Any, path: str
) -> Iterator[tuple[str, str]]:
    of_type = field.message_type
    is_map = of_type is not None and of_type.GetOptions().map_entry
    if is_map and not isinstance(value, dict):
        yield path, f"expected keys with values, found {_in_words(value)}"
    elif field.is_repeated and not is_map and not isinstance(value, list):
        yield path, f"expected a list, found {_in_words(value)}"
    elif of_type is not None and of_type.full_name in _KNOWN:
        if not _is_readable(message, field.name, value):
            yield path, f"expected {_KNOWN[of_type.full_name]}, found {_in_words(value)}"
    elif of_type is not None and not is_map:
        from google.protobuf.message_factory import GetMessageClass

        inner = GetMessageClass(of_type)()
        for number, each in enumerate(value if field.is_repeated else [value]):
            yield from _wrong(inner, each, f"{path}[{number}]" if field.is_repeated else path)
    elif not _is_readable(message, field.name, value):
        yield path, f"expected {_expected(field)}, found {_in_words(value)}"


def _is_readable(message: Message, name: str, value: Any) -> bool:
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        ParseDict({name: value}, type(message)())
    except ParseError:
        return False
    return True


def _expected(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return "texts" if field.message_type.fields_by_name["value"].type == field.TYPE_STRING else "values"
    if field.enum_type is not None:
        return f"one of {', '.join(each.name for each in field.enum_type.values)}"
    kinds = {field.TYPE_STRING: "a text", field.TYPE_BOOL: "true or false", field.TYPE_BYTES: "base64"}
    number = "a number" if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT) else "a whole number"
    return kinds.get(field.type, number)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "keys with values"
    return "a list" if isinstance(value, list) else repr(value)[:80]
