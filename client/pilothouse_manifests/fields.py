"""The kinds of entries in the table.

    Part      a mapping of Kubernetes that is a value of its own here
    Field     one of our values and its key there; its kind is the type of the value
    Group     a mapping there; its keys are values of the part around it here (`capabilities.add`)
    Port      a port by number or by name: one key there, two values here
    OneOf     a choice of exactly one part (a probe's action)
    Variable  the source of an environment variable's value
    Chosen    one of several parts under keys of their own; the key's name here is a value
    Rest      the other keys of a mapping, each a quantity

A value's name with a dot (`probes.liveness`) stands within a part here, but on the same level as the others there.

Whether a value says anything: empty texts, lists, parts and a zero never do, but where a kind is `optional`: there
zero and false are statements, and None is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilothouse_manifests.sources import INT32_MAXIMUM, INT64_MAXIMUM, MappingSource

Values = dict[str, Any]
# Returns the remaining values of a part after a check; None leaves the part out. Problems are reported to the source.
Check = Callable[[Values, MappingSource], Values | None]


@dataclass(frozen=True, slots=True)
class Text:
    """A text, one of `choices` where there are any."""

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
    """A mapping of bytes here, of their base64 there. The value of a `hidden` one is in no message."""

    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """A list of texts here, of mappings with a `name` alone there. Each once; `called` in messages."""

    called: str


@dataclass(frozen=True, slots=True)
class Nested:
    """A part. `apart`: its values can change one by one; otherwise an adoption takes it as one value."""

    part: FieldPart
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Repeated:
    """A list of parts. `by`: the key that tells them apart in messages.

    `keys`: the keys by which server-side apply tells the items apart; none where the list is one value to it.
    `called`: the name of an item in messages, if each of their names may be there once.
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
    """`default`: the API's value for an unstated field, or a function of the part's values that returns it.

    `alias`: an older key of the same value, which serialisers write too. `adopted`: whether another's change on the
    cluster can be taken over by this field alone. `written`: the default is written where nothing is said, because
    server-side apply takes the value around it as a whole, and the API would complete it.
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
    """`defaults` as those of a part."""

    key: str
    entries: tuple[Entry, ...] = ()
    defaults: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class PortField:
    """`name` has the number, `name_of_port` the name; a number goes before."""

    name: str
    name_of_port: str
    key: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """`choices`: name here, key there, and the part."""

    name: str
    choices: tuple[tuple[str, str, FieldPart], ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`literal` here and there; else `key` there, with one of `choices` in it. `chosen` is the value that names the
    choice here.
    """

    literal: str
    chosen: str
    key: str
    choices: tuple[tuple[str, str, FieldPart], ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """`choices` as those of `Variable`, without a literal or a mapping around them."""

    chosen: str
    choices: tuple[tuple[str, str, FieldPart], ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """`name` has the quantities of the keys that no other entry around it names and that match `keys`."""

    name: str
    keys: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A key that is written with every object, as the API would fill it in; nothing here."""

    key: str
    value: str


Entry = Field | Group | PortField | OneOf | Variable | Chosen | Rest | Constant


@dataclass(frozen=True, eq=False, slots=True)
class FieldPart:
    """`defaults`: keys without a place here, each with the values that may stand there because they are the API's own.

    `check`: the rule between its fields.
    """

    name: str
    entries: tuple[Entry, ...]
    defaults: tuple[tuple[Any, ...], ...] = ()
    check: Check | None = None
