"""The layout of `describe`: labels in a column, one line for each list item, and text wrapped to the terminal.

A message is described by its own descriptor: each field with a value gets a line, so a new field needs no code here.
Text for a pipe is not wrapped.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from pilothouse_client.commands.failures import reading_answers
from pilothouse_client.commands.terminal import console, say
from pilothouse_client.commands.values import age, enum_label, moment, size, span, time_left

_INDENT = "  "
_WIDEST_LABEL = 24
_LONGEST_VALUE = 300
# Fields that the first lines show, or the line `Applied`.
APART = frozenset(
    (
        *("name", "namespace", "etag", "status", "reason", "message", "conditions", "warnings"),
        *("generation", "observed_generation", "reconciling", "stale_since", "document", "observed_status"),
        *("create_time", "update_time", "delete_time", "created_by"),
    )
)


class Description:
    """The description of one resource; `write` prints it."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, list[str]]] = []
        self._blocks: list[tuple[str, list[tuple[int, str]]]] = []

    def field(self, label: str, value: object) -> None:
        """Adds a label with a value, or with several values on lines of their own; without a value, nothing."""
        values = [value] if isinstance(value, str) else value
        lines = [str(each) for each in values if str(each)] if isinstance(values, Iterable) else [str(values)]
        if lines:
            self.fields.append((label, lines))

    def block(self, heading: str, lines: Iterable[tuple[int, str]]) -> None:
        """Adds lines under a heading, each with its depth; without any, nothing."""
        if found := list(lines):
            self._blocks.append((heading, found))

    def rows(self, heading: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Adds a table under a heading, without columns that have no value."""
        table = [list(row) for row in rows]
        kept = [index for index in range(len(headings)) if any(row[index] for row in table)]
        if not kept:
            return
        lines = [[headings[index] for index in kept], *([row[index] for index in kept] for row in table)]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        self.block(
            heading,
            (
                (1, "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
                for line in lines
            ),
        )

    def write(self) -> None:
        """Prints the page, at most as wide as the terminal."""
        for line in self.lines(console().width if sys.stdout.isatty() else 0):
            say(line)

    def lines(self, width: int) -> Iterator[str]:
        """Yields the lines of the page, wrapped at `width`; 0 means no limit."""
        column = min(_WIDEST_LABEL, max((len(label) for label, _ in self.fields), default=0)) + 2
        for label, lines in self.fields:
            first = f"{label}: ".ljust(column)
            for line in lines:
                yield from _wrapped(line, first, column, width)
                first = " " * column
        for heading, found in self._blocks:
            yield f"{heading}:"
            for depth, line in found:
                yield from _wrapped(line, _INDENT * depth, len(_INDENT) * depth, width)


def _wrapped(text: str, first: str, column: int, width: int) -> list[str]:
    """Returns a line that begins with `first`, wrapped at `width`; 0 means no limit."""
    text = "".join(each if each.isprintable() else " " for each in text)
    if not width or len(first) + len(text) <= width:
        return [first + text]
    # Leading spaces belong to a table or to YAML. Identifiers stay whole, because people copy them.
    inner = " " * (column + 2 + len(text) - len(text.lstrip()))
    longest = max(map(len, text.split()))
    if longest > width - len(inner):
        inner = _INDENT
    heading = []
    if first.strip() and len(first) + len(text.split()[0]) > width:
        # A digest does not fit next to its label, but below it.
        heading, first = [first.rstrip()], _INDENT
    return heading + textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=inner,
        break_on_hyphens=False,
        break_long_words=False,
    )


def if_permitted() -> AbstractContextManager[None]:
    """Leaves out a part of a page that the caller may not see."""
    from pilothouse_client import errors

    return suppress(errors.PermissionDeniedError)


def when(timestamp: Any) -> str:
    """Returns how long ago or how far ahead a time is, and the time itself.

    Empty if it is unset."""
    if not moment(timestamp):
        return ""
    left = time_left(timestamp)
    return f"{f'in {left}' if left else f'{age(timestamp)} ago'} ({moment(timestamp)})"


def pairs_of(mapping: Mapping[str, str]) -> list[str]:
    """Returns KEY=VALUE lines in order."""
    return [f"{key}={shortened(value)}" for key, value in sorted(mapping.items())]


def shortened(text: str) -> str:
    """Returns a value in one line of bounded length."""
    lines = text.splitlines()
    if len(lines) > 1:
        return f"({len(lines)} lines, {len(text.encode())} bytes)"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… ({len(text.encode())} bytes)"


def describe_message(page: Description, message: Any, apart: Iterable[str] = ()) -> None:
    """Adds each field of a message that has a value, except fields that are shown elsewhere."""
    left_out = APART | set(apart)
    for field, value in message.ListFields():
        if field.name not in left_out:
            page.field(label_of(field.name), _values(message, field, value))


def label_of(name: str) -> str:
    """Returns the name of a field as a label: `last_seen_time` is `Last seen`."""
    words = name.removesuffix("_time").replace("_", " ")
    return words[:1].upper() + words[1:]


def _values(message: Any, field: Any, value: Any) -> list[str]:
    of_type = field.message_type
    if of_type is not None and of_type.GetOptions().map_entry:
        return [f"{key}={_scalar(message, field, each)}" for key, each in sorted(value.items())]
    if field.is_repeated:
        return [_one(message, field, each) for each in value]
    return [_one(message, field, value)]


def _one(message: Any, field: Any, value: Any) -> str:
    if field.message_type is None:
        return _scalar(message, field, value)
    if field.message_type.full_name == "google.protobuf.Timestamp":
        return when(value)
    if field.message_type.full_name == "google.protobuf.Duration":
        return span(value)
    parts = (
        f"{inner.name.replace('_', ' ')} {', '.join(_values(value, inner, each))}"
        for inner, each in value.ListFields()
    )
    return "; ".join(parts)


def _scalar(message: Any, field: Any, value: Any) -> str:
    if isinstance(value, bytes):
        return f"({size(len(value))} bytes)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field.enum_type is not None and not field.is_repeated:
        return enum_label(message, field.name).lower().replace("_", " ")
    return shortened(str(value))


def describe_state(page: Description, message: Any) -> None:
    """Adds status, reason, the generation on the cluster, creator and time."""
    with reading_answers():
        fields = message.DESCRIPTOR.fields_by_name
        if "status" in fields:
            page.field("Status", enum_label(message, "status"))
        if "reason" in fields:
            page.field("Reason", ": ".join(filter(None, (message.reason, message.message))))
        if "stale_since" in fields and message.HasField("stale_since"):
            page.field("Stale since", when(message.stale_since))
        if "generation" in fields and message.generation:
            page.field("Applied", _applied(message))
        if "delete_time" in fields and message.HasField("delete_time"):
            page.field("Being deleted", when(message.delete_time))
        by = f" by {message.created_by}" if "created_by" in fields and message.created_by else ""
        page.field("Created", when(message.create_time) + by if "create_time" in fields else "")


def _applied(message: Any) -> str:
    wanted, applied = message.generation, message.observed_generation
    if applied >= wanted:
        return f"yes, generation {wanted}"
    return f"no: generation {wanted} is wanted, {applied or 'none'} is on the cluster"


def describe_conditions(page: Description, conditions: Iterable[Any]) -> None:
    """Adds conditions, each with its message below it."""
    lines: list[tuple[int, str]] = []
    for each in conditions:
        word = enum_label(each, "status").capitalize()
        since = age(each.last_transition_time)
        lines.append((1, f"{each.type:<20} {word:<8} {since:<5} {each.reason}".rstrip()))
        if each.message:
            lines.append((3, each.message))
    page.block("Conditions", lines)


def describe_events(page: Description, answer: Any, most: int = 10) -> None:
    """Adds the Kubernetes Events of a response, newest first, or why it has none."""
    lines: list[tuple[int, str]] = []
    for event in answer.events[:most]:
        times = f" ({event.count} times)" if event.count > 1 else ""
        about = f"{event.object_kind}/{event.object_name}"
        lines.append((1, f"{age(event.last_time):<5} {event.type:<8} {event.reason}{times}  {about}"))
        lines.append((3, event.message))
    if answer.events_unavailable:
        lines.append((1, f"none: {answer.events_unavailable}"))
    page.block("Kubernetes events", lines)


def yaml_lines(text: str) -> list[tuple[int, str]]:
    """Returns JSON as lines of YAML."""
    import yaml

    try:
        document = json.loads(text) if text else None
    except ValueError:
        return [(1, text)]
    if not document:
        return []
    return [(1, line) for line in yaml.safe_dump(document, sort_keys=False, allow_unicode=True).splitlines()]
