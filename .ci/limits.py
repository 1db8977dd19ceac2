"""Writes the tables of flowcontrol/classes.py into docs/limits.md, between its two markers.

`write` replaces what stands there; `check` compares instead, changes nothing and exits 1 on a difference.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from pilothouse_server.flowcontrol import classes
from pilothouse_server.settings.model import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "limits.md"
BEGIN, END = "<!-- begin: written by `make limits` -->", "<!-- end: written by `make limits` -->"


def with_tables(page: str, tables: str) -> str:
    """Returns the page with these tables between its markers. Raises ValueError if a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


def main(command: str) -> int:
    settings = {field.name for field in msgspec.structs.fields(Settings)}
    page = PAGE.read_text()
    wanted = with_tables(page, classes.tables(settings.__contains__))
    if command == "write":
        PAGE.write_text(wanted)
    elif page != wanted:
        print("docs/limits.md: its tables are not those of flowcontrol/classes.py: run `make limits`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
