"""Writes the tables of flowcontrol/classes.py into docs/limits.md."""

from __future__ import annotations

import sys

import msgspec
from generated_page import DOCS, GeneratedPage

from pilothouse_server.flowcontrol import classes
from pilothouse_server.settings.model import Settings

PAGE = GeneratedPage(DOCS / "limits.md", "limits", "flowcontrol/classes.py")


def tables() -> str:
    """Returns the tables, as Markdown, with the names of this server's settings."""
    settings = {field.name for field in msgspec.structs.fields(Settings)}
    return classes.tables(settings.__contains__)


if __name__ == "__main__":
    sys.exit(PAGE.main(tables(), sys.argv[1]))
