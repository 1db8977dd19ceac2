"""Running the SQL of migrations.

The text is PostgreSQL's own language, with the role names of `roles` written out: a reader and a linter see exactly
what the database sees. The driver prepares each statement and takes one at a time, so `run` splits a text at the
semicolons that end a line, outside of dollar quotes and comments.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from alembic import op
from sqlalchemy import text

FOLDER: Final = Path(__file__).parent
FUNCTIONS: Final = FOLDER / "functions"


def split(sql: str) -> Iterator[str]:
    """Yield the single statements of `sql`, without their closing semicolon and the comments before them."""
    buffer: list[str] = []
    quoted = False
    for line in sql.splitlines():
        if not quoted and not buffer and (not line.strip() or line.startswith("--")):
            continue
        buffer.append(line)
        if not quoted and line.lstrip().startswith("--"):
            continue
        quoted ^= line.count("$$") % 2 == 1
        if not quoted and line.rstrip().endswith(";"):
            yield "\n".join(buffer).strip().removesuffix(";")
            buffer.clear()
    if rest := "\n".join(buffer).strip():
        yield rest


def run(sql: str) -> None:
    """Execute each statement of `sql` in the current migration."""
    for statement in split(sql):
        # A colon would start a bind parameter; PostgreSQL's own colons must pass through unchanged.
        op.execute(text(statement.replace(":", r"\:")))


def run_file(name: str) -> None:
    """Execute a file of this package, such as `baseline/users.sql`."""
    run((FOLDER / name).read_text("utf-8"))


def function_names() -> list[str]:
    """The functions of this release: each has a file under its name in `functions/`."""
    return sorted(path.stem for path in FUNCTIONS.glob("*.sql"))
