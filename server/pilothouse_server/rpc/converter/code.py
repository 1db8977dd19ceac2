"""The text of the functions that convert one pair of types, and its compilation.

The package has the rules.

Each kind of field has two pieces of text. The first is the lines that write the value into the message; they skip an
empty value, which saves most of the work. The second is the expression that reads the value back; it skips the work
for an empty value, too.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, get_args, get_origin

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from pilothouse_server.errors import missing
from pilothouse_server.rpc.converter.pairing import (
    ConversionError,
    Link,
    Pairing,
    bare,
    default_of,
    enum_numbers,
    is_struct,
    literal_words,
    members,
)
from pilothouse_server.rpc.field_checks import is_map, map_fields

_EPOCH = datetime.fromtimestamp(0, tz=UTC)
_ZERO: dict[Any, Any] = {int: 0, str: "", float: 0.0, bool: False, bytes: b""}
_PYTHON_TYPES: dict[int, set[type]] = {
    FieldDescriptor.CPPTYPE_INT32: {int},
    FieldDescriptor.CPPTYPE_INT64: {int},
    FieldDescriptor.CPPTYPE_UINT32: {int},
    FieldDescriptor.CPPTYPE_UINT64: {int},
    FieldDescriptor.CPPTYPE_DOUBLE: {float},
    FieldDescriptor.CPPTYPE_FLOAT: {float},
    FieldDescriptor.CPPTYPE_BOOL: {bool},
}


@dataclass(frozen=True, slots=True)
class Functions:
    """The compiled functions of one pair.

    If messages are read, `from_proto` makes the whole struct, and `fields` has a function for the value of each field,
    by its name in the message.
    """

    text: str
    fill: Callable[[Any, Any], None]
    to_proto: Callable[[Any], Any]
    from_proto: Callable[[Any], Any] | None
    fields: dict[str, Callable[[Any], Any]]


PartOf = Callable[[type, Descriptor], Functions]


def compile_functions(pairing: Pairing, message: type[Message], part_of: PartOf) -> Functions:
    """Returns the functions of a pair; `part_of` returns those of a struct and message inside it.

    Raises:
        ConversionError: a message field cannot contain the type of the struct's field.
    """
    return _Compiler(pairing, message, part_of).compile()


class _Compiler:
    def __init__(self, pairing: Pairing, message: type[Message], part_of: PartOf) -> None:
        self._pairing = pairing
        self.part_of = part_of
        self._faults: list[str] = []
        self._globals: dict[str, Any] = {
            "Struct": pairing.struct,
            "Message": message,
            "set_time": _set_time,
            "EPOCH": _EPOCH,
            "timedelta": timedelta,
            "required": _required,
        }

    def compile(self) -> Functions:
        lines = ["def fill(value, message):"]
        lines += [f"    {part} = value.{part}" for part in self._pairing.differences.within]
        for link in self._pairing.links:
            lines += (f"    {line}" for line in self._kind(link).write(self, link, self._value(link)))
        lines += ["", "", "def to_proto(value):"]
        lines += ["    message = Message()", "    fill(value, message)", "    return message"]
        if self._pairing.reads:
            self._faults += (
                f"message field {link.name} is given by callers, but is computed in the struct"
                for link in self._pairing.links
                if link.is_lost
            )
            lines += ["", "", "def from_proto(message):"]
            text = self._read_struct(self._pairing.struct)
            if text.count("message.HasField(") > 1:
                lines += ["    given = message.HasField"]
                text = text.replace("message.HasField(", "given(")
            lines += [f"    return {text}"]
            lines += ["", "", "FIELDS = {"]
            lines += [
                f'    "{link.name}": lambda message: {self._kind(link).read(self, link)},'
                for link in self._pairing.links
                if link.is_input
            ]
            lines += ["}"]
        full_name = self._pairing.descriptor.full_name
        if self._faults:
            raise ConversionError(self._pairing.struct, full_name, self._faults)
        text = "\n".join(lines) + "\n"
        file = f"<converter of {full_name}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec"), self._globals)  # noqa: S102 - see the package's docstring
        made = self._globals
        return Functions(text, made["fill"], made["to_proto"], made.get("from_proto"), made.get("FIELDS", {}))

    def constant(self, name: str, value: Any) -> str:
        """Adds a value to the globals of the functions; returns its name there."""
        while name in self._globals and self._globals[name] is not value:
            name += "_"
        self._globals[name] = value
        return name

    def default(self, link: Link) -> str:
        """Returns the expression for the value of an absent field."""
        if link.default is msgspec.NODEFAULT:
            return "None"
        if link.default is None or type(link.default) in _ZERO:
            return repr(link.default)
        return self.constant(f"default_{link.name}", link.default)

    def _value(self, link: Link) -> str:
        if link.computed is not None:
            return f"{self.constant(f'computed_{link.name}', link.computed)}(value)"
        if len(link.place) > 1 and link.place[0] in self._pairing.differences.within:
            return ".".join(link.place)
        return ".".join(("value", *link.place))

    def _read_struct(self, struct: type[msgspec.Struct], at: tuple[str, ...] = ()) -> str:
        """Returns the expression that makes a struct, at the place `at`, from the fields that callers may set.

        Arguments are passed by position if possible: by name they cost several times as much.
        """
        parameters = inspect.signature(struct).parameters
        given = {
            info.name: self._read_field(info, (*at, info.name)) for info in msgspec.structs.fields(struct)
        }
        by_position = [name for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY]
        while by_position and given[by_position[-1]] is None:
            by_position.pop()
        defaults = {info.name: default_of(info) for info in msgspec.structs.fields(struct)}
        lines = [f"{given[name] or self._fresh(name, defaults[name])},  # {name}" for name in by_position]
        lines += [f"{name}={value}," for name, value in given.items() if value and name not in by_position]
        name = self.constant(struct.__name__, struct) if at else "Struct"
        indent = "    " * (len(at) + 2)
        return f"{name}(\n" + "".join(f"{indent}{line}\n" for line in lines) + indent[4:] + ")"

    def _read_field(self, info: msgspec.structs.FieldInfo, place: tuple[str, ...]) -> str | None:
        """Returns the expression for one field of a struct; None if it keeps its default."""
        constants = self._pairing.differences.constants
        inputs = self._pairing.inputs
        if len(place) == 1 and info.name in constants:
            return self.constant(f"constant_{info.name}", constants[info.name])
        if place in inputs:
            return self._kind(inputs[place]).read(self, inputs[place])
        if any(each[: len(place)] == place for each in inputs):
            return self._read_struct(bare(info.type), place)
        return self._zero(place, info.type) if default_of(info) is msgspec.NODEFAULT else None

    def _fresh(self, name: str, default: Any) -> str:
        """Returns the expression for a default that must be passed before later arguments.

        A mutable default is made for each call.
        """
        if default is None or type(default) in _ZERO or default in ({}, ()):
            return repr(default)
        return self.constant(f"default_{name}", default)

    def _zero(self, place: tuple[str, ...], hint: Any) -> str:
        zero = _ZERO.get(bare(hint))
        if zero is None:
            self._faults.append(f"struct field {'.'.join(place)} is read from no message and has no default")
        return repr(zero)

    def _kind(self, link: Link) -> _Kind:
        kind = _kind_of(link)
        problem = "cannot represent" if kind is None else kind.problem(link)
        if problem:
            fault = f"message field {link.name} {problem} {link.hint}"
            if fault not in self._faults:
                self._faults.append(fault)
            return _Unknown()
        assert kind is not None
        return kind


# --- kinds of fields ---


class _Kind(Protocol):
    """How one kind of field is converted."""

    def problem(self, link: Link) -> str:
        """Returns why the field does not fit its type, as the verb of an error message; empty if it fits."""

    def write(self, compiler: _Compiler, link: Link, value: str) -> list[str]:
        """Returns the lines that write `value`, an expression, into the message."""

    def read(self, compiler: _Compiler, link: Link) -> str:
        """Returns the expression for the value of the message's field."""


class _Unknown:
    """Replaces the code of fields whose types do not fit, until all faults are found."""

    def problem(self, _link: Link) -> str:
        return "cannot represent"

    def write(self, _compiler: _Compiler, _link: Link, _value: str) -> list[str]:
        return []

    def read(self, _compiler: _Compiler, _link: Link) -> str:
        return "None"


class _Scalar:
    """A number, text, bytes or a boolean."""

    def problem(self, link: Link) -> str:
        types, _ = members(link.hint)
        if not literal_words(link.hint) and (len(types) != 1 or types[0] not in _python_types(link.field)):
            return "cannot represent"
        if link.default is True and not link.has_presence:
            return "cannot distinguish false from absent, so it must be `optional` to be"
        return ""

    def write(self, _compiler: _Compiler, link: Link, value: str) -> list[str]:
        if not link.has_presence:
            return [f"if x := {value}:", f"    message.{link.name} = x"]
        return _unless_none(link, value, [f"message.{link.name} = x"])

    def read(self, compiler: _Compiler, link: Link) -> str:
        plain = f"message.{link.name}"
        if link.has_presence:
            return _given(compiler, link, plain)
        if link.optional or (link.default is not msgspec.NODEFAULT and link.default):
            return f"{plain} or {compiler.default(link)}"
        return plain


class _Enum:
    """A word of an enum."""

    def problem(self, link: Link) -> str:
        words = [word for word in literal_words(link.hint) if word]
        _, faults = enum_numbers(words, _enum(link))
        return "" if words and not faults else f"({'; '.join(faults)}) cannot represent"

    def write(self, compiler: _Compiler, link: Link, value: str) -> list[str]:
        numbers = {"": 0, None: 0} | self._numbers(link)
        return [f"message.{link.name} = {compiler.constant(f'numbers_{link.name}', numbers)}[{value}]"]

    def read(self, compiler: _Compiler, link: Link) -> str:
        words = {number: word for word, number in self._numbers(link).items()}
        word = f"{compiler.constant(f'words_{link.name}', words)}.get(message.{link.name})"
        if link.optional:
            return word
        if "" in literal_words(link.hint):
            return f'{word} or ""'
        if link.default is msgspec.NODEFAULT:
            return f'{word} or required("{link.name}")'
        return f"{word} or {compiler.default(link)}"

    @staticmethod
    def _numbers(link: Link) -> dict[str, int]:
        return enum_numbers([word for word in literal_words(link.hint) if word], _enum(link))[0]


class _Time:
    """A point in time."""

    def problem(self, link: Link) -> str:
        return "" if members(link.hint)[0] == [datetime] else "cannot represent"

    def write(self, _compiler: _Compiler, link: Link, value: str) -> list[str]:
        return _unless_none(link, value, [f"set_time(message.{link.name}, x)"])

    def read(self, compiler: _Compiler, link: Link) -> str:
        return _given(
            compiler, link, f"EPOCH + timedelta(0, (x := message.{link.name}).seconds, x.nanos // 1000)"
        )


class _Duration:
    """A length of time."""

    def problem(self, link: Link) -> str:
        return "" if members(link.hint)[0] == [timedelta] else "cannot represent"

    def write(self, _compiler: _Compiler, link: Link, value: str) -> list[str]:
        return _unless_none(link, value, [f"message.{link.name}.FromTimedelta(x)"])

    def read(self, compiler: _Compiler, link: Link) -> str:
        return _given(compiler, link, f"message.{link.name}.ToTimedelta()")


class _Document(_Unknown):
    """A JSON object; only written."""

    def problem(self, link: Link) -> str:
        fits = [get_origin(each) for each in members(link.hint)[0]] == [dict]
        return "" if fits and not link.is_input else "cannot represent"

    def write(self, _compiler: _Compiler, link: Link, value: str) -> list[str]:
        lines = [f"part = message.{link.name}", "part.SetInParent()", "part.update(x)"]
        return _unless_none(link, value, lines)


class _Part:
    """A struct."""

    def problem(self, link: Link) -> str:
        types, optional = members(link.hint)
        if len(types) != 1 or not is_struct(types[0]):
            return "cannot represent"
        return (
            ""
            if optional or link.default is not msgspec.NODEFAULT or not link.is_input
            else "must be optional:"
        )

    def write(self, compiler: _Compiler, link: Link, value: str) -> list[str]:
        fill = compiler.constant(f"fill_{link.name}", _part_of(compiler, link, link.hint).fill)
        lines = [f"part = message.{link.name}", "part.SetInParent()", f"{fill}(x, part)"]
        if link.optional or link.default is msgspec.NODEFAULT:
            return _unless_none(link, value, lines)
        return [f"if (x := {value}) != {compiler.default(link)}:", *(f"    {line}" for line in lines)]

    def read(self, compiler: _Compiler, link: Link) -> str:
        read = compiler.constant(f"read_{link.name}", _part_of(compiler, link, link.hint).from_proto)
        return f'{read}(message.{link.name}) if message.HasField("{link.name}") else {compiler.default(link)}'


class _OneOf:
    """One of several structs."""

    def problem(self, link: Link) -> str:
        types, optional = members(link.hint)
        assert isinstance(link.field, OneofDescriptor)
        tags = {_tag(each) for each in types}
        fits = tags == {each.name for each in link.field.fields} and not optional
        return "" if fits else "cannot represent"

    def write(self, compiler: _Compiler, link: Link, value: str) -> list[str]:
        lines = [f"x = {value}", "kind = type(x)"]
        if link.default is not msgspec.NODEFAULT:
            # Left out, like a struct that is not optional and equals its default.
            lines.append(f"if x == {compiler.default(link)}: kind = None")
        for member in members(link.hint)[0]:
            tag = _tag(member)
            fill = compiler.constant(f"fill_{tag}", self._member(compiler, link, member).fill)
            lines += [
                f"if kind is {compiler.constant(member.__name__, member)}:",
                f"    part = message.{tag}",
            ]
            lines += ["    part.SetInParent()", f"    {fill}(x, part)"]
        return lines

    def read(self, compiler: _Compiler, link: Link) -> str:
        readers = {
            _tag(each): self._member(compiler, link, each).from_proto for each in members(link.hint)[0]
        }

        def read(message: Any) -> Any:
            chosen = message.WhichOneof(link.name)
            reader = readers.get(chosen)
            if reader is not None:
                return reader(getattr(message, chosen))
            return _required(link.name) if link.default is msgspec.NODEFAULT else link.default

        return f"{compiler.constant(f'read_{link.name}', read)}(message)"

    @staticmethod
    def _member(compiler: _Compiler, link: Link, member: type) -> Functions:
        assert isinstance(link.field, OneofDescriptor)
        [chosen] = [each for each in link.field.fields if each.name == _tag(member)]
        assert chosen.message_type is not None
        return compiler.part_of(member, chosen.message_type)


class _Values:
    """Several scalars."""

    def problem(self, link: Link) -> str:
        return "" if _item(link.hint) in _python_types(link.field) else "cannot represent"

    def write(self, _compiler: _Compiler, link: Link, value: str) -> list[str]:
        return [f"if x := {value}:", f"    message.{link.name}.extend(x)"]

    def read(self, _compiler: _Compiler, link: Link) -> str:
        return f"tuple(x) if (x := message.{link.name}) else ()"


class _Enums:
    """Several words. An unspecified one among them has no meaning, and is left out."""

    def problem(self, link: Link) -> str:
        words = literal_words(_item(link.hint))
        _, faults = enum_numbers(words, _enum(link))
        return "" if words and not faults else f"({'; '.join(faults)}) cannot represent"

    def write(self, compiler: _Compiler, link: Link, value: str) -> list[str]:
        numbers = compiler.constant(f"numbers_{link.name}", self._numbers(link))
        return [f"message.{link.name}.extend({numbers}[item] for item in {value})"]

    def read(self, compiler: _Compiler, link: Link) -> str:
        words = {number: word for word, number in self._numbers(link).items()}
        known = compiler.constant(f"words_{link.name}", words)
        return f"tuple({known}[item] for item in message.{link.name} if item in {known})"

    @staticmethod
    def _numbers(link: Link) -> dict[str, int]:
        return enum_numbers(literal_words(_item(link.hint)), _enum(link))[0]


class _Parts:
    """Several structs."""

    def problem(self, link: Link) -> str:
        return "" if is_struct(_item(link.hint)) else "cannot represent"

    def write(self, compiler: _Compiler, link: Link, value: str) -> list[str]:
        fill = compiler.constant(f"fill_{link.name}", _part_of(compiler, link, _item(link.hint)).fill)
        add = f"    add = message.{link.name}.add"
        return [f"if x := {value}:", add, "    for item in x:", f"        {fill}(item, add())"]

    def read(self, compiler: _Compiler, link: Link) -> str:
        part = _part_of(compiler, link, _item(link.hint))
        read = compiler.constant(f"read_{link.name}", part.from_proto)
        return f"tuple(map({read}, x)) if (x := message.{link.name}) else ()"


class _Map:
    """Scalars by key."""

    def problem(self, link: Link) -> str:
        types, _ = members(link.hint)
        assert isinstance(link.field, FieldDescriptor)
        fits = len(types) == 1 and get_origin(types[0]) is dict
        wanted = zip(get_args(types[0]), map_fields(link.field), strict=True) if fits else ()
        fits = fits and all(bare(hint) in _python_types(held) for hint, held in wanted)
        return "" if fits else "cannot represent"

    def write(self, _compiler: _Compiler, link: Link, value: str) -> list[str]:
        put = "    for key, item in x.items():"
        return [f"if x := {value}:", f"    entries = message.{link.name}", put, "        entries[key] = item"]

    def read(self, _compiler: _Compiler, link: Link) -> str:
        return f"dict(x) if (x := message.{link.name}) else {{}}"


_KIND_OF_MESSAGE: dict[str, _Kind] = {
    "google.protobuf.Timestamp": _Time(),
    "google.protobuf.Duration": _Duration(),
    "google.protobuf.Struct": _Document(),
}


def _kind_of(link: Link) -> _Kind | None:
    field = link.field
    if isinstance(field, OneofDescriptor):
        return _OneOf()
    if is_map(field):
        return _Map()
    message = field.message_type
    if field.is_repeated:
        if message is not None:
            return _Parts()
        return _Enums() if field.enum_type is not None else _Values()
    if message is not None:
        return _KIND_OF_MESSAGE.get(message.full_name) or _Part()
    return _Enum() if field.enum_type is not None else _Scalar()


def _unless_none(link: Link, value: str, lines: list[str]) -> list[str]:
    """Returns lines that use the value as `x`; they are skipped if it is None."""
    if link.optional:
        return [f"if (x := {value}) is not None:", *(f"    {line}" for line in lines)]
    return [f"x = {value}", *lines]


def _given(compiler: _Compiler, link: Link, value: str) -> str:
    """Returns the expression for a field that may be absent; zero if the struct has no value for that."""
    if link.default is msgspec.NODEFAULT and not link.optional:
        return value
    return f'{value} if message.HasField("{link.name}") else {compiler.default(link)}'


def _python_types(field: FieldDescriptor | OneofDescriptor) -> set[type]:
    assert isinstance(field, FieldDescriptor)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return {bytes} if field.type == FieldDescriptor.TYPE_BYTES else {str}
    return _PYTHON_TYPES.get(field.cpp_type, set())


def _enum(link: Link) -> EnumDescriptor:
    assert isinstance(link.field, FieldDescriptor)
    assert link.field.enum_type is not None
    return link.field.enum_type


def _item(hint: Any) -> Any:
    """Returns the type of the items of `tuple[T, ...]`, or of that or None; None for other types."""
    types, _ = members(hint)
    if len(types) != 1 or get_origin(types[0]) is not tuple or get_args(types[0])[1:] != (...,):
        return None
    return bare(get_args(types[0])[0])


def _tag(struct: Any) -> Any:
    return struct.__struct_config__.tag if is_struct(struct) else None


def _part_of(compiler: _Compiler, link: Link, hint: Any) -> Functions:
    assert isinstance(link.field, FieldDescriptor)
    assert link.field.message_type is not None
    return compiler.part_of(members(hint)[0][0], link.field.message_type)


# --- what the functions call ---


def _set_time(message: Any, moment: datetime) -> None:
    # Several times as fast as Timestamp.FromDatetime, with the same result.
    since = moment - _EPOCH
    message.seconds = since.days * 86400 + since.seconds
    if since.microseconds:
        message.nanos = since.microseconds * 1000


def _required(name: str) -> Any:
    raise missing(name)
