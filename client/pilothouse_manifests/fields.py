"""The kinds of entries in the table.

    Part      a Kubernetes mapping that is a value of its own on the platform
    Field     one platform value and its Kubernetes key; its kind is the type of the value
    Group     a Kubernetes mapping whose keys are values of the part that contains it (`capabilities.add`)
    Port      a port by number or by name: one key in Kubernetes, two values on the platform
    OneOf     a choice of exactly one part (a probe's action)
    Variable  the source of an environment variable's value
    Chosen    one of several parts under keys of their own; the name of the chosen key is a value on the platform
    Rest      the other keys of a mapping, each a quantity

In this package's docstrings, "here" is the platform and "there" is Kubernetes. A value whose name has a dot
(`probes.liveness`) is within a part here, but on the same level as the other values there.

Empty texts, lists, parts, zero and false count as not stated. Only if a kind is `optional`, zero and false are stated
values, and None means not stated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilothouse_manifests.sources import INT32_MAXIMUM, INT64_MAXIMUM, MappingSource

Values = dict[str, Any]
# Returns the values of a part that remain after a check; None leaves the part out. Reports problems to the source.
Check = Callable[[Values, MappingSource], Values | None]


@dataclass(frozen=True, slots=True)
class Text:
    """A text; one of `choices` if there are any."""

    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuantityField:
    """A Kubernetes quantity, as it is written."""


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number."""

    minimum: int = 0
    maximum: int = INT32_MAXIMUM
    optional: bool = False


@dataclass(frozen=True, slots=True)
class NumberOrPercent:
    """A text here; there a number, or a text such as `25%`."""


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    optional: bool = False


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of texts."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of whole numbers."""

    maximum: int = INT64_MAXIMUM


@dataclass(frozen=True, slots=True)
class Words:
    """A mapping of texts whose keys are the user's own."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A mapping of bytes here, of their base64 there.

    If `hidden`, no message contains the values."""

    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """A list of unique texts here, of mappings with only a `name` there.

    `called`: an item's name in messages."""

    called: str


@dataclass(frozen=True, slots=True)
class Nested:
    """A part. `apart`: its values can change one by one; otherwise an adoption treats the part as one value."""

    part: FieldPart
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Repeated:
    """A list of parts. `by`: the key that distinguishes them in messages.

    `keys`: the keys by which server-side apply distinguishes the items; none if it treats the list as one value.
    `called`: an item's name in messages, if the names of the items must be unique.
    """

    part: FieldPart
    by: str = "name"
    keys: tuple[str, ...] = ()
    called: str = ""


Kind = (
    Text
    | QuantityField
    | Number
    | NumberOrPercent
    | Flag
    | Texts
    | Numbers
    | Words
    | Encoded
    | Names
    | Nested
    | Repeated
)


@dataclass(frozen=True, slots=True)
class Field:
    """One value and its key.

    `default`: the API's value for an unstated field, or a function of the part's values that returns it. `alias`: an
    older key of the same value, which serialisers write too. `adopted`: whether a change that others make on the
    cluster can be adopted by changing this field alone. `written`: the default is written if no value is stated,
    because server-side apply treats the surrounding value as a whole, and the API would complete it.
    """

    name: str
    key: str
    kind: Kind
    required: bool = False
    default: Any = None
    alias: str = ""
    adopted: bool = True
    written: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A mapping there whose keys are values of the part that contains it.

    `defaults`: as in a part."""

    key: str
    entries: tuple[Entry, ...] = ()
    defaults: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class PortField:
    """A port. The value `name` is its number, `name_of_port` its name; the name takes precedence in writing."""

    name: str
    name_of_port: str
    key: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """A choice of exactly one part.

    `choices`: the name here, the key there, and the part."""

    name: str
    choices: tuple[tuple[str, str, FieldPart], ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """The source of an environment variable's value.

    It is `literal` here and there, or else `key` there, with one of `choices` in it. `chosen` is the value here that
    names the choice.
    """

    literal: str
    chosen: str
    key: str
    choices: tuple[tuple[str, str, FieldPart], ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One of several parts: like `Variable`, but without a literal and without a mapping around the choices."""

    chosen: str
    choices: tuple[tuple[str, str, FieldPart], ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """The other keys of a mapping.

    `name` has the quantities of all keys that match `keys` and have no other entry."""

    name: str
    keys: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A key that is written with every object, with the value that the API would fill in. It has no value here."""

    key: str
    value: str


Entry = Field | Group | PortField | OneOf | Variable | Chosen | Rest | Constant


@dataclass(frozen=True, eq=False, slots=True)
class FieldPart:
    """A mapping there that is a value of its own here.

    `defaults`: keys that have no value here, each with the values that are accepted there because they are the API's
    defaults. `check`: the rule between the part's fields.
    """

    name: str
    entries: tuple[Entry, ...]
    defaults: tuple[tuple[Any, ...], ...] = ()
    check: Check | None = None
