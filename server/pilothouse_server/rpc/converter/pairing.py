"""Pairs the fields of a message with those of a struct, and reports unpaired ones.

The package has the rules.
"""

from __future__ import annotations

import base64
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from pilothouse_server.rpc.field_checks import rule_of

ValueT = TypeVar("ValueT", bound=msgspec.Struct)

_ETAG = "etag"
_COMMON_NAMES = {"delete_time": "deletion_requested_at"}
_IN_ETAG = ("resource_version",)


class ConversionError(RuntimeError):
    """A struct and a message do not match; `faults` lists every reason.

    This is a fault in the program.
    """

    def __init__(self, struct: type, message: str, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            f"{struct.__module__}.{struct.__qualname__} and {message}: " + "; ".join(self.faults)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences(Generic[ValueT]):
    """The differences between a struct and a message, beyond the rules above.

    `within` names the fields of the struct whose own fields are fields of the message itself. `names` maps a
    message field to its place in the struct: a name, or `part.name`. `computed` has functions of the value; their
    annotated result is converted like a field of the struct. `struct_only` and `message_only` name fields that the
    other side does not have: ids, inputs of computed fields, fields that the caller of the converter fills
    in. `constants` are values of struct fields that no message contains, if their default (or zero) is
    wrong. `check` raises if a message cannot be read, and names the field by its path in the request.
    """

    within: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, Callable[[ValueT], Any]] = field(default_factory=dict)
    struct_only: Iterable[str] = ()
    message_only: Iterable[str] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Any], None] | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A field (or oneof) of the message and its value: `place` has the attributes that lead to the value.

    `computed` is a function of the value instead. `default` is NODEFAULT if the struct has none. A link
    that is not `settable` (a property, a computed value) is not read from a message.
    """

    field: FieldDescriptor | OneofDescriptor
    place: tuple[str, ...]
    hint: Any
    default: Any = msgspec.NODEFAULT
    settable: bool = True
    computed: Callable[[Any], Any] | None = None

    @property
    def name(self) -> str:
        """The name in the message."""
        return self.field.name

    @property
    def optional(self) -> bool:
        """Whether the value may be None."""
        return members(self.hint)[1]

    @property
    def has_presence(self) -> bool:
        """Whether the message distinguishes absent from zero or empty."""
        return isinstance(self.field, OneofDescriptor) or self.field.has_presence

    @property
    def output_only(self) -> bool:
        """Whether only the server sets the field."""
        return isinstance(self.field, FieldDescriptor) and rule_of(self.field).output_only

    def member(self, path: str) -> Any:
        """Returns the struct of the oneof's member with which a path begins."""
        return next(each for each in members(self.hint)[0] if tag_of(each) == path.partition(".")[0])

    @property
    def is_input(self) -> bool:
        """Whether callers may set the field."""
        return self.settable and not self.output_only

    @property
    def is_lost(self) -> bool:
        """Whether callers may set the field although no field of the struct stores it."""
        return not self.settable and not self.output_only and self.name != _ETAG


class Pairing:
    """The links of one pair of types.

    Raises ConversionError for unpaired fields on either side.
    """

    def __init__(
        self, struct: type, descriptor: Descriptor, differences: Differences[Any], *, reads: bool
    ) -> None:
        """Pairs the fields; `reads`: whether messages are converted to structs, too."""
        self.struct, self.descriptor, self.reads = struct, descriptor, reads
        self.differences = differences
        self._faults: list[str] = []
        self.fields: dict[tuple[str, ...], msgspec.structs.FieldInfo] = dict(self._struct_fields())
        self.links = list(self._link_all())
        # The links that callers may set, by their place in the struct.
        self.inputs = {link.place: link for link in self.links if link.is_input}
        self._check_leftovers()
        if self._faults:
            raise ConversionError(struct, descriptor.full_name, self._faults)

    def _struct_fields(self) -> Iterator[tuple[tuple[str, ...], msgspec.structs.FieldInfo]]:
        for own in msgspec.structs.fields(self.struct):
            if own.name not in self.differences.within:
                yield (own.name,), own
                continue
            for inner in msgspec.structs.fields(bare(own.type)):
                yield (own.name, inner.name), inner

    def _link_all(self) -> Iterator[Link]:
        unnamed = dict.fromkeys([*self.differences.names, *self.differences.computed])
        unnamed |= dict.fromkeys(self.differences.message_only)
        for each in _fields_and_oneofs(self.descriptor):
            unnamed.pop(each.name, None)
            if each.name in self.differences.message_only:
                continue
            link = self._link(each)
            if link is not None:
                yield link
            else:
                self._faults.append(f"message field {each.name} has no counterpart in the struct")
        self._faults += (f"{name} is listed, but is not a field of the message" for name in unnamed)

    def _link(self, each: FieldDescriptor | OneofDescriptor) -> Link | None:
        computed = self.differences.computed.get(each.name)
        if computed is None and each.name == _ETAG and _IN_ETAG in self.fields:
            computed = _etag_of
        if computed is not None:
            hint = typing.get_type_hints(computed).get("return")
            return Link(each, (), hint, settable=False, computed=computed)
        for place in self._places(each.name):
            if place in self.fields:
                info = self.fields[place]
                return Link(each, place, bare(info.type), default_of(info), settable=self.reads)
            if len(place) == 1 and isinstance(getter := getattr(self.struct, place[0], None), property):
                return Link(each, place, typing.get_type_hints(getter.fget).get("return"), settable=False)
        return None

    def _places(self, name: str) -> Iterator[tuple[str, ...]]:
        if name in self.differences.names:
            yield tuple(self.differences.names[name].split("."))
            return
        for candidate in _candidates(name):
            yield (candidate,)
            for part in self.differences.within:
                yield part, candidate

    def _check_leftovers(self) -> None:
        linked = {link.place for link in self.links}
        computed = {(link.name,) for link in self.links if link.computed is not None}
        if (_ETAG,) in computed:
            computed.add(_IN_ETAG)
        listed = {*self.differences.struct_only, *self.differences.constants}
        for place in self.fields:
            name = ".".join(place)
            if place not in linked | computed and name not in listed:
                self._faults.append(f"struct field {name} has no counterpart in the message")
        known = {".".join(place) for place in self.fields}
        linked_names = {".".join(place) for place in linked}
        self._faults += (f"{name} is listed, but is not a field of the struct" for name in listed - known)
        self._faults += (
            f"{name} is listed as of the struct only, but has a counterpart" for name in listed & linked_names
        )

    def updatable(self) -> Iterator[tuple[str, Link, tuple[str, ...]]]:
        """Yields the paths that an update mask may name, each with its link and the attributes below that.

        They are the fields that callers may set and change, and the fields of a struct that is always present.
        """
        for link in self.links:
            if (
                link.is_input
                and isinstance(link.field, OneofDescriptor)
                and link.default is not msgspec.NODEFAULT
            ):
                yield from _members_of(link, link.field)
            if not link.is_input or not isinstance(link.field, FieldDescriptor):
                continue
            if rule_of(link.field).immutable:
                continue
            yield link.name, link, ()
            if is_struct(link.hint) and link.field.message_type is not None:
                inner = Pairing(link.hint, link.field.message_type, Differences(), reads=True)
                for part in inner.links:
                    yield f"{link.name}.{part.name}", link, part.place


def tag_of(struct: Any) -> Any:
    """Returns the tag of a tagged struct, or of its type."""
    return struct.__struct_config__.tag


def _members_of(link: Link, oneof: OneofDescriptor) -> Iterator[tuple[str, Link, tuple[str, ...]]]:
    """Yields the paths of the members of a oneof, and of their fields."""
    structs = {struct.__struct_config__.tag: struct for struct in members(link.hint)[0]}
    for member in oneof.fields:
        yield member.name, link, ()
        assert member.message_type is not None
        for part in Pairing(structs[member.name], member.message_type, Differences(), reads=True).links:
            yield f"{member.name}.{part.name}", link, part.place


def _fields_and_oneofs(descriptor: Descriptor) -> Iterator[FieldDescriptor | OneofDescriptor]:
    """Yields the fields of a message, and each oneof as one. (An `optional` field is a oneof of its own.)"""
    seen = set()
    for each in descriptor.fields:
        oneof = each.containing_oneof
        if oneof is None or oneof.name == f"_{each.name}":
            yield each
        elif oneof.name not in seen:
            seen.add(oneof.name)
            yield oneof


def _candidates(name: str) -> Iterator[str]:
    """Yields the names that a message field may have in a struct."""
    yield name
    if name in _COMMON_NAMES:
        yield _COMMON_NAMES[name]
    if name.endswith("_time"):
        stem = name.removesuffix("_time")
        yield from (f"{stem}{ending}_at" for ending in ("", "d", "ed", "s"))


def _etag_of(value: Any) -> str:
    return etag(value.uid, value.resource_version)


def default_of(info: msgspec.structs.FieldInfo) -> Any:
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return info.default


def replaced(stored: Any, place: tuple[str, ...], value: Any) -> Any:
    """Returns the struct with another value at a place."""
    name, *rest = place
    if rest:
        value = replaced(getattr(stored, name), tuple(rest), value)
    return msgspec.structs.replace(stored, **{name: value})


def bare(hint: Any) -> Any:
    """Returns the type without NewType and the like."""
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    return hint


def members(hint: Any) -> tuple[list[Any], bool]:
    """Returns the types that a hint allows, and whether None is among them."""
    hint = bare(hint)
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return [hint], False
    allowed = [bare(member) for member in typing.get_args(hint)]
    return [member for member in allowed if member is not types.NoneType], types.NoneType in allowed


def literal_words(hint: Any) -> list[str]:
    """Returns the words of a Literal, or of several joined; empty for other types."""
    literals, _ = members(hint)
    if any(typing.get_origin(literal) is not Literal for literal in literals):
        return []
    return [word for literal in literals for word in typing.get_args(literal)]


def is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _plain(text: str) -> str:
    return text.replace("_", "").upper()


def enum_numbers(words: Sequence[str], enum: EnumDescriptor) -> tuple[dict[str, int], list[str]]:
    """Returns the number of each word, and the words and values without a counterpart."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    numbers = {_plain(value.name.removeprefix(prefix)): value.number for value in enum.values if value.number}
    known = {word: numbers.pop(_plain(word), None) for word in words}
    faults = [
        f"the word {word!r} is not a value of {enum.name}" for word, number in known.items() if number is None
    ]
    faults += [f"the value {name} of {enum.name} has no word in the model" for name in numbers]
    return {word: number for word, number in known.items() if number is not None}, faults


def etag(uid: str, resource_version: int) -> str:
    """Returns the etag of one version of a resource: opaque, and never the same for two resources."""
    return base64.urlsafe_b64encode(f"{uid[:8]}/{resource_version}".encode()).decode().rstrip("=")
