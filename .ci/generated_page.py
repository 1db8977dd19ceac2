"""The part of a page in docs/ that a command writes, between two markers; used by several scripts.

`write` replaces the part; `check` only compares it, and exits with 1 if it differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent.parent / "docs"


class GeneratedPage(NamedTuple):
    """`command`: the make target that writes the part; `source`: the place of its data, for the message."""

    path: Path
    command: str
    source: str

    def with_part(self, page: str, part: str) -> str:
        """Returns the page with this part between its markers. Raises ValueError if a marker is missing."""
        begin, end = (f"<!-- {word}: written by `make {self.command}` -->" for word in ("begin", "end"))
        before, found_begin, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found_begin or not found_end:
            raise ValueError(f"the page needs the lines {begin} and {end}")
        return f"{before}{begin}\n\n{part}\n{end}{after}"

    def main(self, part: str, mode: str) -> int:
        """Writes or checks the page; returns the exit code."""
        page = self.path.read_text()
        wanted = self.with_part(page, part)
        if mode == "write":
            self.path.write_text(wanted)
        elif page != wanted:
            print(
                f"docs/{self.path.name}: its tables are not those of {self.source}: run `make {self.command}`"
            )
            return 1
        return 0
