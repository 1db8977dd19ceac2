"""Filters and label selectors as SQL conditions.

A noun's repository declares the fields that filters may use: `FilterField` pairs a column with a kind. A filter can
name only those fields, so it reaches no other column, and every value is a bound parameter.

A filter never distinguishes NULL from false. Missing text is `""`, as responses show it. Any other comparison with a
missing value is false, so its negation is true. Negations are pushed down to the comparisons. So only negated
comparisons need a guard against NULL, and the others stay in the plain form that an index serves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from operator import ge, gt, le, lt
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Numeric,
    String,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import Uuid as UUIDType

from pilothouse_server.store.filter_grammar import (
    Junction,
    Literal,
    Node,
    Not,
    Restriction,
    filter_error,
    parse,
)
from pilothouse_server.values.labels import LARGEST_NUMBER, LabelSelector, Operator, Requirement, whole_number

MOST_DIGITS: Final = 40
_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt](?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.(?P<fraction>[0-9]{1,9}))?(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}
_EQUALITY: Final = frozenset({"=", "!=", ":"})


class FilterKind(Enum):
    """The kind of a field.

    It determines how the field's values are written and which operators it accepts.
    """

    TEXT = "text"
    ENUM = "enum"
    INTEGER = "whole number"
    NUMBER = "number"
    BOOLEAN = "true or false"
    TIMESTAMP = "time"
    UUID = "UUID"
    LABELS = "labels"


@dataclass(frozen=True, slots=True, eq=False)
class FilterField:
    """A column that a filter may name.

    `names` maps the upper-case names of an enum, without their `prefix`, to the column's values. A caller may
    write the prefix too: `CONTAINER_STATUS_RUNNING` and `RUNNING` are the same. For text, `names` maps other
    spellings of a value. A filter names `parts` after a dot: `image.tag`.
    """

    column: ColumnElement[Any]
    kind: FilterKind = FilterKind.TEXT
    names: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    parts: Mapping[str, FilterField] = field(default_factory=dict)


# API fields whose columns have another name.
_COLUMNS: Final = {
    "create_time": "created_at",
    "update_time": "updated_at",
    "delete_time": "deletion_requested_at",
    "expire_time": "expires_at",
    "last_login_time": "last_login_at",
    "last_seen_time": "last_seen_at",
    "credentials_expire_time": "credentials_expires_at",
    "pull_time": "pulled_at",
}
_KINDS: Final[tuple[tuple[type[Any], FilterKind], ...]] = (
    (Boolean, FilterKind.BOOLEAN),
    (Integer, FilterKind.INTEGER),
    (DateTime, FilterKind.TIMESTAMP),
    (UUIDType, FilterKind.UUID),
    (JSONB, FilterKind.LABELS),
    (String, FilterKind.TEXT),
)


def filter_fields(table: FromClause, names: str) -> dict[str, FilterField]:
    """Returns the filter fields for API fields that are columns of `table`.

    `names` are separated by spaces.
    """
    columns = {name: table.c[_COLUMNS.get(name, name)] for name in names.split()}
    return {
        name: FilterField(column, next(kind for of, kind in _KINDS if isinstance(column.type, of)))
        for name, column in columns.items()
    }


def compile_filter(expression: str, fields: Mapping[str, FilterField]) -> ColumnElement[bool]:
    """Returns the condition of an AIP-160 filter; an empty filter is always true.

    `=` on text accepts `*` at either end as a wildcard, `:` finds a part of the text and ignores case, `field:*`
    is true if there is a value, and `labels:KEY` if there is such a label. Enums are given by name, times as
    RFC 3339.

    Raises:
        InvalidArgument: of the field `filter`. The message has the position and, for an unknown field, the known ones.
    """
    tree = parse(expression)
    return true() if tree is None else _condition(tree, fields, negated=False)


def label_selector_condition(labels: ColumnElement[Any], selector: LabelSelector) -> ColumnElement[bool]:
    """Returns the condition that the JSONB object in `labels` matches `selector`.

    It is true for exactly the rows for which `selector.matches` returns True.
    """
    return and_(true(), *(_requirement(labels, requirement) for requirement in selector.requirements))


def _condition(node: Node, fields: Mapping[str, FilterField], *, negated: bool) -> ColumnElement[bool]:
    match node:
        case Not(operand):
            return _condition(operand, fields, negated=not negated)
        case Junction(every, operands):
            join = and_ if every != negated else or_
            return join(*(_condition(operand, fields, negated=negated) for operand in operands))
        case Restriction():
            flipped = negated != (node.operator == "!=")
            condition = _restriction(node, fields)
            return not_(func.coalesce(condition, false())) if flipped else condition


def _restriction(node: Restriction, fields: Mapping[str, FilterField]) -> ColumnElement[bool]:
    """Returns the condition of one comparison.

    For `!=` it is that of `=`, which the caller negates.
    """
    found = _field(node, fields)
    if found.kind is FilterKind.LABELS:
        return _label(node, found.column)
    if node.value.is_any and node.operator in _EQUALITY:
        given = found.column.is_not(None)
        return and_(given, found.column != "") if found.kind is FilterKind.TEXT else given
    if found.kind is FilterKind.TEXT:
        return _text(node, found)
    if node.value.starts_open or node.value.ends_open:
        raise filter_error(node.value.position, f"* only works in text; {node.field} is a {found.kind.value}")
    if node.operator in _COMPARISONS and found.kind in (FilterKind.ENUM, FilterKind.BOOLEAN, FilterKind.UUID):
        raise filter_error(node.position, f"{node.field} takes = != and : only")
    value = _enum(node, found) if found.kind is FilterKind.ENUM else _READERS[found.kind](node.value)
    return _compare(found.column, node.operator, value)


def _field(node: Restriction, fields: Mapping[str, FilterField]) -> FilterField:
    """Returns the field, or the part of a field, that a comparison names.

    Raises InvalidArgument if it is unknown.
    """
    found = fields.get(node.field)
    if found is None:
        known = ", ".join(_names(fields))
        raise filter_error(node.position, f"unknown field {node.field[:63]!r}; known: {known}")
    if node.key is None or found.kind is FilterKind.LABELS:
        return found
    if not found.parts:
        raise filter_error(node.position, f"{node.field} has no parts")
    if node.key not in found.parts:
        raise filter_error(
            node.position, f"{node.field} has no part {node.key[:63]!r}; it has {', '.join(found.parts)}"
        )
    return found.parts[node.key]


def _names(fields: Mapping[str, FilterField]) -> Iterator[str]:
    for name, item in fields.items():
        yield f"{name}.KEY" if item.kind is FilterKind.LABELS else name
        yield from (f"{name}.{part}" for part in item.parts)


def _compare(column: ColumnElement[Any], operator: str, value: Any) -> ColumnElement[bool]:
    # All other operators mean equality; the caller negates `!=`.
    condition: ColumnElement[bool] = (
        _COMPARISONS[operator](column, value) if operator in _COMPARISONS else column == value
    )
    return condition


def _text(node: Restriction, found: FilterField) -> ColumnElement[bool]:
    value, column = node.value, found.column
    if node.operator == ":":
        return func.coalesce(column, "").icontains(value.text, autoescape=True)
    if node.operator in _COMPARISONS:
        if value.starts_open or value.ends_open:
            raise filter_error(value.position, "* cannot be used with < <= > >=")
        return _compare(func.coalesce(column, ""), node.operator, value.text)
    if value.starts_open or value.ends_open:
        return _equal_text(column, value)
    wanted = found.names.get(value.text, value.text)
    return column == wanted if wanted else or_(column.is_(None), column == "")


def _equal_text(column: ColumnElement[Any], value: Literal) -> ColumnElement[bool]:
    if value.starts_open and value.ends_open:
        return column.contains(value.text, autoescape=True)
    if value.starts_open:
        return column.endswith(value.text, autoescape=True)
    if value.ends_open:
        return column.startswith(value.text, autoescape=True)
    return column == value.text


def _label(node: Restriction, column: ColumnElement[Any]) -> ColumnElement[bool]:
    labels = _object(column)
    if node.key is None:
        if node.operator != ":":
            raise filter_error(node.position, f"name a label: {node.field}.KEY = value, or {node.field}:KEY")
        if node.value.is_any:
            return and_(labels != {})
        if node.value.starts_open or node.value.ends_open:
            raise filter_error(node.value.position, "* cannot replace a part of a key")
        return _has_key(labels, node.value.text)
    if node.operator not in _EQUALITY:
        raise filter_error(node.position, "labels take = != and : only")
    if node.value.is_any:
        return _has_key(labels, node.key)
    if node.value.starts_open or node.value.ends_open:
        return _equal_text(labels[node.key].astext, node.value)
    return _has_label(labels, node.key, node.value.text)


def _enum(node: Restriction, found: FilterField) -> Any:
    name = node.value.text.upper()
    if found.prefix:
        name = name.removeprefix(found.prefix)
    if name not in found.names:
        raise filter_error(node.value.position, f"{node.field} must be one of {', '.join(found.names)}")
    return found.names[name]


def _integer(value: Literal) -> ColumnElement[int]:
    number = whole_number(value.text)
    if number is None:
        raise filter_error(value.position, "expected a whole number of 64 bits")
    # Always 64 bits, so that a value beyond the range of an integer column is compared like any other.
    return literal(number, BigInteger)


def read_number(value: Literal) -> Decimal:
    try:
        number = Decimal(value.text) if len(value.text) <= MOST_DIGITS else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or abs(number.adjusted()) > MOST_DIGITS:
        raise filter_error(value.position, "expected a number")
    return number


def read_truth(value: Literal) -> bool:
    if value.text.lower() not in ("true", "false"):
        raise filter_error(value.position, "expected true or false")
    return value.text.lower() == "true"


def read_time(value: Literal) -> datetime:
    found = _TIME.fullmatch(value.text)
    error = filter_error(value.position, "expected a time such as 2026-01-31T12:00:00Z")
    if found is None:
        raise error
    # The database stores microseconds; finer digits cannot distinguish rows.
    fraction = (found["fraction"] or "").ljust(6, "0")[:6]
    zone = (found["zone"] or "Z").upper().replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(f"{found['date']}T{found['clock'] or '00:00:00'}.{fraction}{zone}")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise error from None


def read_uuid(value: Literal) -> UUID:
    try:
        return UUID(value.text)
    except ValueError:
        raise filter_error(value.position, "expected a UUID") from None


_READERS: Final[dict[FilterKind, Callable[[Literal], Any]]] = {
    FilterKind.INTEGER: _integer,
    FilterKind.NUMBER: read_number,
    FilterKind.BOOLEAN: read_truth,
    FilterKind.TIMESTAMP: read_time,
    FilterKind.UUID: read_uuid,
}


def _object(column: ColumnElement[Any]) -> Any:
    """Returns the column with JSONB's operators.

    SQLAlchemy's type hints do not show them.
    """
    return column if isinstance(column.type, JSONB) else cast(column, JSONB)


def _has_key(labels: Any, key: str) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = labels.has_key(key)
    return condition


def _has_label(labels: Any, key: str, value: str) -> ColumnElement[bool]:
    """Returns a condition by containment, because a GIN index serves that."""
    condition: ColumnElement[bool] = labels.contains({key: value})
    return condition


def _requirement(column: ColumnElement[Any], requirement: Requirement) -> ColumnElement[bool]:
    labels = _object(column)
    key, values = requirement.key, requirement.values
    match requirement.operator:
        case Operator.IN:
            return or_(*(_has_label(labels, key, value) for value in values))
        case Operator.NOT_IN:
            return and_(*(not_(_has_label(labels, key, value)) for value in values))
        case Operator.EXISTS:
            return _has_key(labels, key)
        case Operator.NOT_EXISTS:
            return not_(_has_key(labels, key))
        case Operator.GREATER | Operator.LESS:
            text = labels[key].astext
            # CASE, because AND guarantees no order of evaluation, and a cast of text that is no number would fail the
            # query.
            number = case((text.regexp_match("^[+-]?[0-9]{1,63}$"), cast(text, Numeric)), else_=None)
            in_range = number.between(-LARGEST_NUMBER - 1, LARGEST_NUMBER)
            wanted = (
                number > requirement.number
                if requirement.operator is Operator.GREATER
                else number < requirement.number
            )
            return func.coalesce(and_(in_range, wanted), false())
