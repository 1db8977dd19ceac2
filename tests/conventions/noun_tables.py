"""The store names no table of a noun: the noun's `tables.py` declares expiry, keys and partitions (`NounTables`)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from tests.conventions.sources import Source

STORE = "server/pilothouse_server/store/"
# The store joins the namespace and the creator of a row for every noun.
JOINED = f"{STORE}references.py"


def store_names_no_table(sources: Sequence[Source]) -> Iterator[str]:
    """Reports statements in store/ that read or write a table that a noun declares as its own."""
    owned = {name for source in sources if source.path.endswith("/tables.py") for name in _owned(source.tree)}
    if not owned:
        return
    named = re.compile(
        rf"\b(?:FROM|JOIN|INTO|UPDATE|TABLE|ONLY)\s+(?:public\.)?({'|'.join(sorted(owned))})\b"
    )
    for source in sources:
        if not source.path.startswith(STORE) or not source.is_python or source.path == JOINED:
            continue
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            for table in named.findall(node.value):
                yield (
                    f"{source.path}:{node.lineno}: names the table {table} of a noun: declare what the store does "
                    "with it in the noun's tables.py (store/noun_tables.py), or in a function of the schema"
                )


def _owned(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "NounTables":
            for keyword in node.keywords:
                if keyword.arg == "tables" and isinstance(keyword.value, ast.Call):
                    yield from map(str, ast.literal_eval(keyword.value.args[0]))
