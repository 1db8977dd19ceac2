"""Conversion between a model value (a msgspec struct) and its protobuf message.

Each pair of types is compiled once. A field of the message takes its value from the field or property of the struct
that has the same name. A noun declares only the differences: fields that have another name, computed fields, fields
that only one side has. Any other field without a counterpart raises `ConversionError` while the server starts, so that
a new field cannot be dropped silently; so does a declared difference that no longer exists.

Rules that hold everywhere:

1. Times: `create_time` is `created_at` in the model, `last_seen_time` is `last_seen_at`, `expire_time` is
   `expires_at`; `delete_time` is `deletion_requested_at`. A Timestamp is an aware datetime, a Duration a timedelta.
2. The `etag` is made of `uid` and `resource_version`, and is never read from a message.
3. Enums: a word of the model is the name of the enum's value without its prefix, in any spelling
   (`ClusterIP`, `SERVICE_TYPE_CLUSTER_IP`). Every word has a value and every value a word. `_UNSPECIFIED` is
   None or empty text if the model allows that, otherwise the default.
4. Presence: a field that may be absent (a message, `optional`) is None in the model, or the default of the model's
   field. If a field has no presence, zero and empty stand for None, or for the default.
5. A struct that is not optional and equals its default is not sent.
6. A oneof is a union of structs; the tag of each is the name of its field.
7. Reading a message ignores fields that only the server sets (`output_only`), at any depth. Model fields
   without a message field keep their default, or are zero or empty if they have none.

Conversion is on the path of every read, and a loop over descriptors costs several times the work itself. So
each pair is compiled into straight-line Python: functions whose text is made in `code` and passed to `exec`.
They look like code written by hand (`print(CONVERTER.source)` shows them), and they appear in tracebacks.
No outside data ever becomes part of the text: names are those of descriptors and structs, everything
else is a constant in the globals. The functions use the cheapest means: fields are set one by one instead of passed to
the message's constructor, empty ones are left out, and arguments of a struct are passed by position.

`pairing` finds the pairs of fields, `code` makes the text, and nouns use this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, OneofDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from pilothouse_server.errors import invalid
from pilothouse_server.rpc.converter.code import Functions, compile_functions
from pilothouse_server.rpc.converter.pairing import (
    ConversionError,
    Differences,
    Link,
    Pairing,
    enum_numbers,
    etag,
    literal_words,
    replaced,
    tag_of,
)
from pilothouse_server.rpc.field_checks import descriptor_of

__all__ = ["AnswerConverter", "ConversionError", "Converter", "Differences", "EnumWords", "etag"]

ValueT = TypeVar("ValueT", bound=msgspec.Struct)
MessageT = TypeVar("MessageT", bound=Message)
WordT = TypeVar("WordT", bound=str)


class AnswerConverter(Generic[ValueT, MessageT]):
    """Converts values to messages.

    `fill` writes into an empty message; `source` is the compiled text.

    Raises:
        ConversionError: the struct and the message do not match; raised at construction.
    """

    fill: Callable[[ValueT, MessageT], None]
    to_proto: Callable[[ValueT], MessageT]
    functions: Functions
    _reads = False

    def __init__(
        self,
        struct: type[ValueT],
        message: type[MessageT],
        differences: Differences[ValueT] | None = None,
        parts: Iterable[AnswerConverter[Any, Any]] = (),
    ) -> None:
        """Compiles the functions; `parts` convert structs inside this one that have differences of their own."""
        self.struct, self.message = struct, message
        self.differences = differences or Differences()
        self._pairing = Pairing(struct, descriptor_of(message), self.differences, reads=self._reads)
        self._parts: dict[tuple[type, str], Functions] = {
            (part.struct, descriptor_of(part.message).full_name): part.functions for part in parts
        }
        self.functions = compile_functions(self._pairing, message, self._part)
        self.source = self.functions.text
        self.fill, self.to_proto = self.functions.fill, self.functions.to_proto

    def _part(self, struct: type, descriptor: Descriptor) -> Functions:
        key = (struct, descriptor.full_name)
        if key not in self._parts:
            pairing = Pairing(struct, descriptor, Differences(), reads=self._reads)
            self._parts[key] = compile_functions(pairing, GetMessageClass(descriptor), self._part)
        return self._parts[key]


class Converter(AnswerConverter[ValueT, MessageT]):
    """Converts values to messages, and callers' messages to values; see `AnswerConverter`.

    `updatable` has the paths that an update mask may name.
    """

    from_proto: Callable[[MessageT], ValueT]
    _reads = True

    def __init__(
        self,
        struct: type[ValueT],
        message: type[MessageT],
        differences: Differences[ValueT] | None = None,
        parts: Iterable[AnswerConverter[Any, Any]] = (),
    ) -> None:
        super().__init__(struct, message, differences, parts)
        assert self.functions.from_proto is not None
        self.from_proto = _checked(self.functions.from_proto, self.differences.check)
        self._updates = {path: (link, inner) for path, link, inner in self._pairing.updatable()}
        self.updatable = frozenset(self._updates)

    def merger(self, message: MessageT, paths: Sequence[str]) -> Callable[[ValueT], ValueT]:
        """Returns a function that copies the fields named by `paths` (each of `updatable`) into a stored value.

        Nothing else of the message is read.
        """
        if self.differences.check is not None:
            self.differences.check(message)
        given = []
        for path in paths:
            link, inner = self._updates[path]
            value = self.functions.fields[link.name](message)
            if inner and isinstance(link.field, OneofDescriptor):
                # If the member is not given, its part has the default.
                value = value if tag_of(value) == path.partition(".")[0] else link.member(path)()
            for name in inner:
                value = getattr(value, name)
            given.append((path, link, inner, value))

        def merge(stored: ValueT) -> ValueT:
            for path, link, inner, value in given:
                if inner and isinstance(link.field, OneofDescriptor):
                    _refuse_other_member(stored, link, path)
                stored = replaced(stored, (*link.place, *inner), value)
            return stored

        return merge


def _refuse_other_member(stored: Any, link: Link, path: str) -> None:
    """Raises InvalidArgument if a path leads into a member of a oneof that the stored value does not have."""
    for name in link.place:
        stored = getattr(stored, name)
    if tag_of(stored) != path.partition(".")[0]:
        raise invalid("update_mask.paths", f'"{path}" does not apply: the resource has {tag_of(stored)}')


def _checked(
    read: Callable[[MessageT], ValueT], check: Callable[[MessageT], None] | None
) -> Callable[[MessageT], ValueT]:
    if check is None:
        return read

    def checked(message: MessageT) -> ValueT:
        check(message)
        return read(message)

    return checked


class EnumWords(Generic[WordT]):
    """The words of a `Literal` and the values of an enum, by rule 3; `word` has the word of each number.

    Raises:
        ConversionError: a word without a value, or a value without a word.
    """

    def __init__(self, literal: Any, enum: EnumDescriptor) -> None:
        known, faults = enum_numbers([word for word in literal_words(literal) if word], enum)
        if faults:
            raise ConversionError(EnumWords, enum.full_name, faults)
        self.word = cast("dict[int, WordT]", {number: word for word, number in known.items()})
