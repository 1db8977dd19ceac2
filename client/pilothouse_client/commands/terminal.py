"""The only module that writes to the terminal.

Text from a server, a cluster or a tenant's program may contain control characters, which a terminal obeys: they can
move the cursor, rewrite the lines above, or set the window's title. So all text passes through `plain`. Two functions
write data unchanged: `write_exactly`, if the output is a pipe or a file, and `write_program_output`, for the bytes of a
container's own program, as `kubectl logs` and `kubectl exec` do.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


# Lines are not wrapped at fewer characters; a narrower terminal breaks them itself.
_LEAST_WIDTH = 40
# Control characters beyond ASCII (and DEL), and characters that change the direction of text. JSON escapes the others.
CONTROLS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(words: str) -> str:
    """Returns text without control characters: unprintable characters, except line breaks and tabs, become blanks."""
    return "".join(each if each.isprintable() or each in "\n\t" else " " for each in words)


def say(words: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Writes text, to standard error if `err`, with a line break at its end if `nl`."""
    import click

    click.echo(plain(str(words)), err=err, nl=nl)


def wrapped(line: str, width: int) -> str:
    """Returns a line of prose, wrapped at `width` characters, with the later lines indented.

    A word is never broken, because it may be a path to copy."""
    if len(line) <= width:
        return line
    import textwrap

    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(
        line.lstrip(),
        max(width, _LEAST_WIDTH),
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def say_prose(line: str, *, err: bool = True) -> None:
    """Writes a sentence to standard error or output; on a terminal, wrapped to its width."""
    stream = sys.stderr if err else sys.stdout
    say(wrapped(line, console(err=err).width) if stream.isatty() else line, err=err)


def write_data(text: str, *, nl: bool = True) -> None:
    """Writes JSON or YAML without changing a value.

    ASCII control characters are already escaped; the others are escaped here.
    """
    import click

    click.echo(CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text), nl=nl)


def write_exactly(value: str | bytes) -> None:
    """Writes a requested value: unchanged to a pipe or a file, without control characters to a terminal."""
    if sys.stdout.isatty():
        say(value if isinstance(value, str) else value.decode("utf-8", "replace"), nl=False)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(value.encode() if isinstance(value, str) else value)
    sys.stdout.buffer.flush()


def write_program_output(output: bytes, *, err: bool = False) -> None:
    """Writes bytes of a container's program unchanged."""
    stream = sys.stderr if err else sys.stdout
    stream.buffer.write(output)
    stream.buffer.flush()


def progress(words: str) -> None:
    """Replaces the line that is being written on standard error; '' clears it.

    Writes nothing without a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{plain(words)}")
        sys.stderr.flush()


def console(*, err: bool = False) -> Console:
    """Returns rich's console, for tables and spinners whose cells have passed `plain`."""
    from rich.console import Console

    return Console(stderr=err)


def write_pages(table: Any, *, lines: int, below: Sequence[str] = ()) -> None:
    """Writes a table whose cells have passed `plain`, by the program in PAGER if the screen has fewer lines.

    `below` has the text below each row: one line, several, or an empty text. `less` is told to keep colours.
    """
    shown = console()
    if any(below):
        from rich.console import Group
        from rich.segment import Segments
        from rich.text import Text

        rows = [Segments(segments) for segments in shown.render_lines(table, pad=False, new_lines=True)]
        headings = len(rows) - len(below)
        parts: list[Any] = rows[:headings]
        for row, text in zip(rows[headings:], below, strict=True):
            parts += [row, Text(text, no_wrap=True, overflow="ignore")] if text else [row]
        table = Group(*parts)
        lines += sum(text.count("\n") + 1 for text in below if text)
    if os.environ.get("PAGER") in (None, "", "cat") or lines < shown.height:
        shown.print(table, crop=False)
        return
    os.environ.setdefault("LESS", "FRX")
    with shown.pager(styles=True):
        shown.print(table, crop=False)


def live(waiting: str, **options: Any) -> Any:
    """Returns rich's live display, for tables whose cells have passed `plain`."""
    from rich.live import Live

    return Live(waiting, **options)
