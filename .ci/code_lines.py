"""Counts lines of code of a commit or of the work tree, without blank lines, comments and docstrings.

    python .ci/code_lines.py [COMMIT ...]

Product: server/, client/ (without generated files), migrations/ (Python and SQL). Tests: tests/, benchmarks/.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

PARTS = {
    "product": ("server/", "client/pilothouse_client/", "client/pilothouse_manifests/", "migrations/"),
    "tests": ("tests/", "benchmarks/"),
}
# Generated files.
GENERATED = ("migrations/schema.sql",)
SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def of_python(text: str) -> int:
    """Returns the number of lines with a token of code."""
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SKIPPED:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def of_sql(text: str) -> int:
    """Returns the number of lines that are neither blank nor a comment."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("--") for line in text.splitlines())


def git(*words: str) -> str:
    """Returns the output of a git command."""
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


def counted(commit: str) -> Counter[str]:
    """Returns the lines of each part at a commit; '' is the work tree."""
    found: Counter[str] = Counter()
    names = git("ls-tree", "-r", "--name-only", commit) if commit else git("ls-files")
    for name in names.splitlines():
        part = next((part for part, folders in PARTS.items() if name.startswith(folders)), "")
        if not part or name in GENERATED or not name.endswith((".py", ".sql")):
            continue
        if commit:
            text = git("show", f"{commit}:{name}")
        elif Path(name).exists():
            text = Path(name).read_text("utf-8")
        else:
            continue
        found[part] += of_python(text) if name.endswith(".py") else of_sql(text)
    return found


def main() -> None:
    """Prints a line for each commit."""
    for commit in sys.argv[1:] or [""]:
        found = counted(commit)
        print(f"{commit or 'work tree':12} " + "  ".join(f"{part} {found[part]:,}" for part in PARTS))


if __name__ == "__main__":
    main()
