"""The product's uses of the schema: writers and readers of tables, readers of views, callers of functions.

The schema is read from PostgreSQL's catalogue. The product consists of the SQL in the strings of the server and of the
modules that `pilothouse migrate` runs in addition to its versions, the tables that those pass to SQLAlchemy, and the
bodies of the functions that they call, directly or through others. An object counts as unused if only a migration
writes it, or if only a constraint or the rotation of keys reads it.

The comparison is textual, so the name of a table in a comment within SQL would count. The names do not occur as words
in comments.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

ROOT = Path(__file__).parents[2]
PRODUCT = (ROOT / "server" / "pilothouse_server", ROOT / "migrations" / "pilothouse_migrations")
_VERSIONS = ROOT / "migrations" / "pilothouse_migrations" / "versions"
_HOLE = "\0"
# The most characters around a name that can belong to its statement.
_CONTEXT = 2000

_RELATIONS = """
SELECT c.relname AS name, c.relkind::text AS kind,
       CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END AS body
FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
"""
_FUNCTIONS = """
SELECT p.proname AS name, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS body
FROM pg_proc AS p
WHERE p.pronamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
"""
# PostgreSQL's own callers of functions: triggers, policies, defaults, constraints, indexes.
_CALLED_BY_THE_SCHEMA = """
SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t WHERE NOT t.tgisinternal
UNION ALL SELECT concat(qual, ' ', with_check) FROM pg_policies WHERE schemaname = 'public'
UNION ALL SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d
UNION ALL SELECT pg_get_constraintdef(k.oid) FROM pg_constraint AS k WHERE k.contype = 'c'
UNION ALL SELECT pg_get_indexdef(i.indexrelid) FROM pg_index AS i
          JOIN pg_class AS c ON c.oid = i.indrelid AND c.relnamespace = 'public'::regnamespace
"""


@dataclass
class Product:
    """The product's statements: SQL, and the tables that SQLAlchemy inserts into, updates and reads."""

    sql: str = ""
    written: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)


@cache
def product() -> Product:
    """Reads the product's source."""
    modules = [
        ast.parse(path.read_text(), str(path))
        for root in PRODUCT
        for path in sorted(root.rglob("*.py"))
        if not path.is_relative_to(_VERSIONS)
    ]
    found = Product()
    # Walked once: a walk of all modules takes a second of a core.
    walked = [tuple(ast.walk(module)) for module in modules]
    tables: dict[str, set[str]] = {}
    for nodes in walked:
        tables |= _tables(nodes)
    for module in modules:
        tables |= _choices(module, tables)
    parts: list[str] = []
    for module, nodes in zip(modules, walked, strict=True):
        constants = dict(_constants(module))
        parts += _texts(nodes, constants)
        parts += _functions(nodes)
        written, read = _by_sqlalchemy(nodes, tables)
        found.written |= written
        found.read |= read
    found.sql = "\n".join(parts)
    return found


def _tables(nodes: Sequence[ast.AST]) -> dict[str, set[str]]:
    """Returns the tables that a module declares to SQLAlchemy, by the names of their variables."""
    found = {}
    for node in nodes:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and getattr(node.value.func, "id", "") == "Table"
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value.args[0], ast.Constant)
        ):
            found[node.targets[0].id] = {str(node.value.args[0].value)}
    return found


def _choices(module: ast.Module, tables: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Returns the variables that contain several tables, with these tables."""
    found = {}
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict | ast.Tuple | ast.List):
            held: set[str] = set()
            for part in ast.walk(value):
                held |= tables.get(_variable(part), set())
            if held:
                found[target.id] = held
    return found


def _constants(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields the string constants of the module, from which its other strings are built."""
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield target.id, value.value


def _texts(nodes: Sequence[ast.AST], constants: Mapping[str, str]) -> Iterator[str]:
    documented = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    no_text = documented | inside
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value)
                if isinstance(part, ast.Constant)
                else constants.get(getattr(getattr(part, "value", None), "id", ""), _HOLE)
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in no_text:
            yield node.value


def _by_sqlalchemy(nodes: Sequence[ast.AST], tables: Mapping[str, set[str]]) -> tuple[set[str], set[str]]:
    """Returns the tables that a module inserts into or updates, and those whose columns it reads."""
    written: set[str] = set()
    read: set[str] = set()
    named: set[str] = set()
    chosen = False
    for node in nodes:
        named |= tables.get(_variable(node), set())
        if isinstance(node, ast.Attribute) and node.attr == "c":
            read |= tables.get(_variable(node.value), set())
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("insert", "update") and node.args:
            into = tables.get(_variable(node.args[0]), set())
            written |= into
            # The table is chosen among those that the module names.
            chosen = chosen or not into
    return (written | named, read | named) if chosen else (written, read)


def _functions(nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Yields the functions that a module calls through SQLAlchemy, as `func.public.name`."""
    for node in nodes:
        if isinstance(node, ast.Attribute):
            base = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id == "func":
                yield f"{node.attr}()"


def _variable(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


async def unused(connection: asyncpg.Connection, says: Product) -> list[str]:
    """Returns unused objects, one line each.

    The lines are `table t is not written`, `table t is not read`, `view v is not read` and `function f is not called`.
    """
    relations = await connection.fetch(_RELATIONS)
    functions = await connection.fetch(_FUNCTIONS)
    called_by_schema = "\n".join(row[0] or "" for row in await connection.fetch(_CALLED_BY_THE_SCHEMA))
    called, sql = _called(functions, f"{says.sql}\n{called_by_schema}", says.sql)
    views = {row["name"]: row["body"] for row in relations if row["kind"] in ("v", "m")}
    # The tables of a view count as read if the view is read.
    read_views, text = _reach(views, sql, lambda name, within: name in says.read or reads(name, within))
    lines = [f"view {name} is not read" for name in views if name not in read_views]
    for row in relations:
        name = row["name"]
        if name in views:
            continue
        if not writes(name, sql) and name not in says.written:
            lines.append(f"table {name} is not written")
        if not reads(name, text) and name not in says.read:
            lines.append(f"table {name} is not read")
    lines += [f"function {row['name']} is not called" for row in functions if row["name"] not in called]
    return sorted(set(lines))


def _called(functions: Iterable[Any], text: str, sql: str) -> tuple[set[str], str]:
    """Returns the names of the called functions, and the SQL of the product together with their bodies."""
    bodies: dict[str, str] = {}
    for row in functions:
        bodies[row["name"]] = f"{bodies.get(row['name'], '')}\n{row['body']}"
    called, _ = _reach(bodies, text, _names)
    return called, "\n".join([sql, *(bodies[name] for name in sorted(called))])


def _names(function: str, text: str) -> bool:
    """Returns whether the text contains the function's name, also if a part of the name is interpolated."""
    if re.search(rf"\b{function}\s*\(", text):
        return True
    built = {word for word in re.findall(rf"[a-z_{_HOLE}]{{5,}}(?=\()", text) if _HOLE in word}
    return any(
        re.fullmatch(word.replace(_HOLE, r"\w+"), function) for word in built if len(word.strip(_HOLE)) > 3
    )


def _reach(bodies: Mapping[str, str], text: str, is_used: Any) -> tuple[set[str], str]:
    """Returns the names that a text uses, directly or through the bodies of others, and the text with these bodies."""
    used: set[str] = set()
    news = True
    while news:
        new = {name for name in bodies if name not in used and is_used(name, text)}
        used |= new
        text = "\n".join([text, *(bodies[name] for name in sorted(new))])
        news = bool(new)
    return used, text


def writes(table: str, sql: str) -> bool:
    """Returns whether the SQL inserts rows into the table or changes rows."""
    return bool(
        re.search(
            rf"\b(?:INSERT\s+INTO|UPDATE(?:\s+ONLY)?|MERGE\s+INTO|COPY)\s+(?:public\.)?{table}\b",
            sql,
            re.IGNORECASE,
        )
    )


def reads(table: str, sql: str) -> bool:
    """Returns whether the SQL reads rows of the table.

    The table of a DELETE is not read, unless it returns rows.
    """
    for found in re.finditer(rf"(?:public\.)?\b{table}\b", sql):
        before = sql[max(0, found.start() - _CONTEXT) : found.start()]
        if re.search(r"(?<!\bDELETE)\s(?:FROM|JOIN|USING)\s+(?:ONLY\s+)?\(*$", before, re.IGNORECASE):
            return True
        statement = before.rpartition(";")[2]
        if re.search(r",\s*$", before) and re.search(r"\b(?:FROM|JOIN)\b", statement, re.IGNORECASE):
            return True
        rest = re.split(r"[;\0]", sql[found.end() : found.end() + _CONTEXT])[0]
        if re.search(r"\b(?:UPDATE|INTO|FROM)\s+$", before, re.IGNORECASE) and re.search(
            r"\bRETURNING\b", rest, re.IGNORECASE
        ):
            return True
    return False
