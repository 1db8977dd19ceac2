"""Messages contain the project's own text, never that of a library.

A library's text about a failure may contain addresses, credentials and bytes of the other side. A message of aiohttp
once showed a proxy's password to tenants, after an ordinary refusal.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from tests.conventions.sources import Source

SERVER = "server/pilothouse_server/"
# Only the operator who started the program reads messages of these modules, at the terminal or in its log.
OF_THE_OPERATOR = (
    f"{SERVER}cli/",
    f"{SERVER}launch/",
    f"{SERVER}backup/",
)
# Attributes that are numbers or names of the project.
HARMLESS = {"problem_mark", "status", "errno", "code", "sqlstate", "constraint_name", "__class__"}


def no_words_of_libraries(sources: Sequence[Source]) -> Iterator[str]:
    """Reports f-strings, str() and repr() that include the text of a library's exception."""
    for source in sources:
        if not source.is_python or not source.path.startswith(SERVER):
            continue
        if source.path.startswith(OF_THE_OPERATOR):
            continue
        ours = _ours(source.tree)
        for handler in ast.walk(source.tree):
            if isinstance(handler, ast.ExceptHandler) and handler.name and not _all_ours(handler.type, ours):
                for line in sorted(set(_taken_in(handler))):
                    yield (
                        f"{source.path}:{line}: the words of {handler.name!r} are a library's: say what failed in "
                        "words of your own (class, host, port)"
                    )


def _ours(tree: ast.Module) -> set[str]:
    """Returns the project's classes in this module, but no names in capitals: those are tuples of library classes."""
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pilothouse_"):
            found |= {alias.asname or alias.name for alias in node.names}
    return {name for name in found if not name.isupper()}


def _all_ours(kinds: ast.expr | None, ours: set[str]) -> bool:
    if kinds is None:
        return False
    each = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
    return all(isinstance(kind, ast.Name) and kind.id in ours for kind in each)


def _taken_in(handler: ast.ExceptHandler) -> Iterator[int]:
    for node in ast.walk(handler):
        shown: list[ast.expr] = []
        if isinstance(node, ast.FormattedValue):
            shown = [node.value]
        elif isinstance(node, ast.Call) and _is_text(node):
            shown = node.args
        if any(_says(each, handler.name) for each in shown) and isinstance(node, ast.expr):
            yield node.lineno


def _is_text(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("str", "repr", "format")


def _says(node: ast.expr, name: str | None) -> bool:
    """Returns whether an expression contains the exception's text; results of the project's functions do not."""
    if isinstance(node, ast.Name):
        return node.id == name
    if isinstance(node, ast.Attribute):
        return node.attr not in HARMLESS and _says(node.value, name)
    if isinstance(node, ast.Call):
        inner = node.func.value if isinstance(node.func, ast.Attribute) else None
        return (_is_text(node) and any(_says(a, name) for a in node.args)) or (
            inner is not None and _says(inner, name)
        )
    return any(_says(child, name) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
