"""Writes results: tables for people, JSON and YAML for programs.

On a terminal, a table is coloured by rich and fits into the terminal's width: long cells are cut and end with `…`, and
texts that do not fit are written below their rows. Elsewhere the cells are whole and separated by tabs. Columns without
any value are left out, and so is the namespace if the command names one. A JSON list is an array whose items are
written as they arrive. An endless result (a watch) is written as one JSON object per line, or one YAML document each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pilothouse_client.commands.failures import reading_answers
from pilothouse_client.commands.options import (
    CUSTOM_COLUMNS,
    JSONPATH,
    Format,
    dry_run,
    no_headers,
    one_namespace,
)
from pilothouse_client.commands.terminal import (
    CONTROLS,
    console,
    plain,
    say,
    wrapped,
    write_data,
    write_pages,
)
from pilothouse_client.commands.values import age, moment

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from pilothouse_client.streams import Change

Row = TypeVar("Row")
# A column is not made narrower than this.
_LEAST = 6
# The mark of a result that changed nothing.
DRY_RUN = "(dry run)"
_STYLES = {
    "RUNNING": "green",
    "ACTIVE": "green",
    "HEALTHY": "green",
    "PENDING": "yellow",
    "PAUSED": "yellow",
    "STOPPED": "dim",
    "INACTIVE": "dim",
    "FAILED": "red",
    "CRASH_LOOP_BACK_OFF": "red",
    "UNREACHABLE": "red",
    "UNAUTHORIZED": "red",
    "LOCKED": "red",
    "DELETED": "red",
    "ADDED": "green",
}


@dataclass(frozen=True, slots=True)
class OutputColumn(Generic[Row]):
    """A heading and the values under it.

    `whole`: people copy the values, so they are never cut, however narrow the terminal is. `wide`: only shown with
    `-o wide`. `by_end`: the end of a value identifies it, so it is cut at its beginning. `is_text`: a value is a
    sentence, which is written whole below its row if the table is wider than the terminal.
    """

    heading: str
    cell: Callable[[Row], object]
    whole: bool = False
    wide: bool = False
    by_end: bool = False
    is_text: bool = False

    def text(self, row: Row) -> str:
        # A value with line breaks or control characters must not break the table or the terminal.
        with reading_answers():
            text = str(self.cell(row))
        return "".join(character if character.isprintable() else " " for character in text)


Columns = Sequence[OutputColumn[Any]]
# The last columns of most resources.
AGE_COLUMNS: Columns = (
    OutputColumn("AGE", lambda row: age(row.create_time)),
    OutputColumn("CREATED", lambda row: moment(row.create_time), whole=True, wide=True),
)
# Returns the form of a message for programs.
DataOf = Callable[[Any], Any]


def as_data(message: Message, *, whole: bool = True) -> Any:
    """Returns a message as JSON data, with the field names and the field order of the API.

    Fields without a value are included only if `whole`."""
    from google.protobuf.json_format import MessageToDict

    data = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=whole
    )
    return _in_order(message.DESCRIPTOR, data)


def _for_file(data_of: DataOf) -> DataOf:
    """Returns the form for YAML, which people read and change: with its type, and without fields that have no value."""
    return _with_type if data_of is as_data else data_of


def _with_type(message: Message) -> Any:
    from pilothouse_client.commands.message_data import typed

    return typed(message, as_data(message, whole=False))


def _in_order(descriptor: Any, data: Any) -> Any:
    """Returns the data in the field order of the API.

    The library puts fields without a value last, so that a field's position would depend on values. The types of
    google.protobuf have their own JSON forms and stay as they are."""
    if descriptor.full_name.startswith("google.protobuf."):
        return data
    ordered = {}
    for field in descriptor.fields:
        if field.name not in data:
            continue
        value, of_type = data[field.name], field.message_type
        if of_type is None:
            ordered[field.name] = value
        elif of_type.GetOptions().map_entry:
            ordered[field.name] = dict(sorted(value.items()))
        elif isinstance(value, list):
            ordered[field.name] = [_in_order(of_type, each) for each in value]
        else:
            ordered[field.name] = _in_order(of_type, value)
    return ordered


def show(
    message: Message,
    columns: Columns,
    form: Format,
    beside: Mapping[str, Any] | None = None,
    data_of: DataOf = as_data,
) -> None:
    """Writes one result; the result of a dry run is marked.

    `beside` is written after the result's fields, in JSON and JSONPath output only; YAML is for files.
    """
    if form.is_table or form.word == CUSTOM_COLUMNS:
        show_all([message], columns, form, data_of=data_of)
    elif form is Format.MANIFEST:
        _write_manifest(message)
    elif form is Format.YAML:
        _write_data(_marked_data(message, _for_file(data_of)), form)
    else:
        data = _marked_data(message, data_of) | dict(beside or {})
        if form.word == JSONPATH:
            _write_by_template(data, form)
        else:
            _write_data(data, form)


def _write_manifest(message: Message) -> None:
    from pilothouse_client.commands.manifests import manifests_of

    for manifest in manifests_of(message):
        _write_data(manifest, Format.YAML, one_of_many=True)


def _write_manifests(messages: Iterable[Message]) -> None:
    """Writes the manifests of resources that have one.

    A Service that a container owns is part of the container's manifest; a note reports that it is left out."""
    from pilothouse_client.commands.manifests import OwnedServiceError

    for message in messages:
        try:
            _write_manifest(message)
        except OwnedServiceError as error:
            say(f"left out: {error}", err=True)


def _json(data: Any, indent: int | None = None) -> str:
    """Returns JSON whose characters beyond ASCII are not escaped."""
    return json.dumps(data, ensure_ascii=False, indent=indent)


def as_yaml(data: Any) -> str:
    """Returns YAML; texts with control characters, which `write_data` escapes, are in double quotes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def written(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        # YAML has escape sequences only within double quotes.
        style = '"' if CONTROLS.search(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, written)
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def _marked_data(message: Message, data_of: DataOf) -> dict[str, Any]:
    with reading_answers():
        data: dict[str, Any] = data_of(message)
    return data | {"dry_run": True} if dry_run.get() else data


def _name_column(columns: Columns) -> OutputColumn[Any]:
    return next((column for column in columns if column.heading.endswith("NAME")), columns[0])


def _shown(columns: Columns, form: Format) -> Columns:
    """Returns the columns that a table shows in this format."""
    return [column for column in columns if form is Format.WIDE or not column.wide]


def _marked(columns: Columns) -> Columns:
    """Returns the same columns, with the mark of a dry run after the name."""
    marked = _name_column(columns)
    return [
        OutputColumn(column.heading, lambda row: f"{marked.cell(row)} {DRY_RUN}")
        if column is marked
        else column
        for column in columns
    ]


def show_all(
    rows: Iterable[Any], columns: Columns, form: Format, limit: int = 0, data_of: DataOf = as_data
) -> None:
    """Writes a list of at most `limit` rows (0: all).

    Later rows are not fetched. Results of a dry run are marked."""
    chosen: Iterator[Any] = islice(rows, limit) if limit else iter(rows)
    if form is Format.NAME:
        name = _name_column(columns)
        for row in chosen:
            say(name.text(row))
    elif form.is_table:
        table = list(chosen)
        if not table:
            say("none", err=True)
            return
        columns = _shown(_marked(columns) if dry_run.get() else columns, form)
        _write_table([[column.text(row) for column in columns] for row in table], columns)
    elif form.word == CUSTOM_COLUMNS:
        _write_custom(chosen, form.expression, data_of)
    elif form is Format.MANIFEST:
        _write_manifests(chosen)
    elif form is Format.YAML:
        _write_data([_marked_data(row, _for_file(data_of)) for row in chosen], form)
    elif form.word == JSONPATH:
        items = [_marked_data(row, data_of) for row in chosen]
        _write_by_template({"items": items}, form)
    else:
        separator = "["
        for row in chosen:
            write_data(f"{separator}\n  " + _json(_marked_data(row, data_of)), nl=False)
            separator = ","
        say("[]" if separator == "[" else "\n]")


def _write_by_template(data: Any, form: Format) -> None:
    from pilothouse_client.commands.json_paths import JsonTemplate

    say(JsonTemplate(form.expression).text(data))


def _write_custom(rows: Iterable[Any], expression: str, data_of: DataOf) -> None:
    """Writes a table of the columns that a user names; a path without a value gives `<none>`, as in kubectl."""
    from pilothouse_client.commands.json_paths import custom_columns, written

    columns = custom_columns(expression)
    cells = [
        [plain(",".join(map(written, path.values(data)))) or "<none>" for _, path in columns]
        for data in (_marked_data(row, data_of) for row in rows)
    ]
    _write_table(cells, [OutputColumn(heading, str) for heading, _ in columns])


def done(message: str, form: Format = Format.TABLE) -> None:
    """Writes, in the table format only, that an action without a result was done, or could be (dry run)."""
    if form.is_table:
        say(f"{message} {DRY_RUN}" if dry_run.get() else message)


def show_changes(
    changes: Iterable[Change[Any]], columns: Columns, form: Format, data_of: DataOf = as_data
) -> None:
    """Writes the changes of a watch until it ends; a table has the current state, then a line for each change."""
    from pilothouse_client.streams import ChangeKind

    shown = [
        each for each in _shown(columns, form) if not (one_namespace.get() and each.heading == "NAMESPACE")
    ]
    table = _GrowingTable(
        [OutputColumn("CHANGE", lambda change: change.kind.name), *map(_of_resource, shown)]
    )
    for change in changes:
        has_resource = change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED)
        if form.word in (JSONPATH, CUSTOM_COLUMNS, "name", "manifest"):
            if has_resource:
                show(change.resource, columns, form, data_of=data_of)
        elif not form.is_table:
            data = {
                "change": change.kind.name,
                "revision": change.revision,
                "resume_token": change.resume_token,
            }
            if has_resource:
                with reading_answers():
                    data["resource"] = data_of(change.resource)
            _write_data(data, form, one_of_many=True)
        elif change.kind is ChangeKind.SYNCED:
            table.flush()
        elif change.kind is ChangeKind.RESTARTED:
            table.flush()
            say(f"the watch starts again with the current state: {change.reason}", err=True)
        elif change.kind is not ChangeKind.BOOKMARK:
            table.add(change)
        sys.stdout.flush()


def _of_resource(column: OutputColumn[Any]) -> OutputColumn[Any]:
    return replace(column, cell=lambda change: column.cell(change.resource))


class _GrowingTable:
    """Aligns the rows before the first flush, then writes line by line.

    Written rows cannot be changed any more, so a wider row widens its columns from there on. The headings are written
    with the first row, because they alone do not determine the widths. Once a row does not fit into the terminal, texts
    are written below their rows.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._rows: list[list[str]] = []
        self._widths: list[int] | None = None
        self._flushed = self._has_texts_below = False

    def add(self, row: Any) -> None:
        self._rows.append([column.text(row) for column in self._columns])
        if self._flushed:
            self.flush()

    def flush(self) -> None:
        self._flushed = True
        if not self._rows:
            return
        width, rows, widths = _terminal_width(), self._rows, self._widths
        if widths is None:
            if not no_headers.get():
                rows.insert(0, [column.heading for column in self._columns])
            # The width of the first column's values is known in advance.
            widths = [len("MODIFIED"), *[0] * (len(self._columns) - 1)]
        texts = [""] * len(rows)
        self._has_texts_below |= width is not None and not _fits([_blanks(widths), *rows], width)
        if self._has_texts_below:
            texts = [_taken_text(row, self._columns) for row in rows]
            if self._widths is None and not no_headers.get():
                texts[0] = ""
            widths = [
                0 if column.is_text else each for each, column in zip(widths, self._columns, strict=True)
            ]
        self._widths = _widths([_blanks(widths), *rows])
        shown = self._widths if width is None else _narrowed(self._widths, self._columns, width)
        for row, text in zip(rows, texts, strict=True):
            say("\t".join(row) if width is None else _line(row, shown, self._columns))
            if text and width is not None:
                say(_wrapped_lines(text, width))
        rows.clear()


def _blanks(widths: Iterable[int]) -> list[str]:
    return [" " * each for each in widths]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in cells) for cells in zip(*rows, strict=True)]


def _line(row: Sequence[str], widths: Sequence[int], columns: Columns) -> str:
    cells = (
        _cut(cell, width, by_end=column.by_end).ljust(width)
        for cell, width, column in zip(row, widths, columns, strict=True)
    )
    return "  ".join(cells).rstrip()


def _cut(cell: str, width: int, *, by_end: bool = False) -> str:
    if len(cell) <= width:
        return cell
    return "…" + cell[len(cell) - width + 1 :] if by_end else cell[: width - 1] + "…"


def _fits(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Returns whether a table fits into lines of `width` characters with whole cells."""
    widths = _widths(rows)
    return sum(widths) + 2 * (len(widths) - 1) <= width


def _taken_text(row: list[str], columns: Columns) -> str:
    """Removes the texts from a row; returns them as lines to write below the row."""
    found = [index for index, column in enumerate(columns) if column.is_text and row[index]]
    texts = [f"    {row[index]}" for index in found]
    for index in found:
        row[index] = ""
    return "\n".join(texts)


def _wrapped_lines(text: str, width: int) -> str:
    return "\n".join(wrapped(line, width) for line in text.split("\n"))


def _terminal_width() -> int | None:
    """Returns the width of the terminal; None if the output is a pipe or a file."""
    return console().width if sys.stdout.isatty() else None


def _narrowed(widths: Sequence[int], columns: Columns, width: int) -> list[int]:
    """Returns the widths at which a line fits into `width` characters, if cells may be cut that much.

    The widest column is narrowed first. Names are cut last, and headings never.
    """
    narrowed = list(widths)
    least = _least(widths, columns)
    names = {index for index, column in enumerate(columns) if column.heading.endswith("NAME")}
    excess = sum(narrowed) + 2 * (len(narrowed) - 1) - width
    for kept in (names, set()):
        while excess > 0:
            free = [
                index
                for index in range(len(narrowed))
                if index not in kept and narrowed[index] > least[index]
            ]
            if not free:
                break
            narrowed[max(free, key=narrowed.__getitem__)] -= 1
            excess -= 1
    return narrowed


def _least(widths: Sequence[int], columns: Columns) -> list[int]:
    return [
        wide if column.whole else max(len(column.heading), min(wide, _LEAST))
        for column, wide in zip(columns, widths, strict=True)
    ]


def _kept(widths: Sequence[int], columns: Columns, width: int) -> list[int]:
    """Returns the indexes of the columns that fit into the terminal.

    If even cut cells do not fit, the columns of `-o wide` are dropped, the last ones first."""
    least = _least(widths, columns)
    kept = list(range(len(columns)))
    for index in reversed([index for index in kept if columns[index].wide]):
        if sum(least[each] for each in kept) + 2 * (len(kept) - 1) <= width:
            break
        kept.remove(index)
    return kept


def fitted(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, dispensable: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Returns the columns that fit into a line of `width` characters.

    The `dispensable` columns are dropped in the given order until the rest fits."""
    kept = list(range(len(headings)))
    needed = _widths([headings, *rows])
    for heading in dispensable:
        if sum(needed[index] for index in kept) + 2 * (len(kept) - 1) <= width:
            break
        kept.remove(headings.index(heading))
    return [headings[index] for index in kept], [[row[index] for index in kept] for row in rows]


def _write_table(rows: list[list[str]], columns: Columns) -> None:
    known = {"", one_namespace.get()}
    kept = [
        index
        for index, column in enumerate(columns)
        if any(row[index] not in (known if column.heading == "NAMESPACE" else ("",)) for row in rows)
    ] or [0]
    rows = [[row[index] for index in kept] for row in rows]
    columns = [columns[index] for index in kept]
    headings = [column.heading for column in columns]
    width = _terminal_width()
    if width is None:
        for row in rows if no_headers.get() else [headings, *rows]:
            say("\t".join(row))
        return
    texts: list[str] = []
    if any(column.is_text for column in columns) and not _fits([headings, *rows], width):
        texts = [_taken_text(row, columns) for row in rows]
        rows = [
            [cell for cell, column in zip(row, columns, strict=True) if not column.is_text] for row in rows
        ]
        columns = [column for column in columns if not column.is_text]
        headings = [column.heading for column in columns]
    kept = _kept(_widths([headings, *rows]), columns, width)
    if missing := [each for index, each in enumerate(headings) if index not in kept]:
        say(
            f"the terminal is too narrow for {', '.join(missing)}; -o json or a pipe shows all columns",
            err=True,
        )
    columns, headings = [columns[index] for index in kept], [headings[index] for index in kept]
    rows = [[row[index] for index in kept] for row in rows]
    widths = _narrowed(_widths([headings, *rows]), columns, width)
    cells = [
        [
            _cut(cell, width, by_end=column.by_end)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        for row in rows
    ]
    table = rich_table(headings, cells, widths)
    table.show_header = not no_headers.get()
    write_pages(table, lines=len(rows) + 1, below=[_wrapped_lines(text, width) for text in texts])


def rich_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None
) -> Any:
    """Returns a table for the terminal, with a line for each row and coloured states.

    `widths`: the width of each column."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading, width in zip(headings, widths or _widths([headings, *rows]), strict=True):
        table.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=width)
    for row in rows:
        # Text, not a string: markup in names must not be interpreted.
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


def _write_data(data: Any, form: Format, *, one_of_many: bool = False) -> None:
    if form is Format.JSON:
        write_data(_json(data, indent=None if one_of_many else 2))
        return
    text = as_yaml(data)
    write_data(f"---\n{text}" if one_of_many else text, nl=False)
