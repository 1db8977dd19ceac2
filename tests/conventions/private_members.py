"""Private members of libraries: each one that the project uses is listed here with its reason, and pins its library.

A private member may change with any minor version of its library. So each use is listed in `LISTED`, and
`pyproject.toml` excludes the next minor version. The check finds

  * `x._name` where the file itself does not define `_name`;
    * a private name in a class with a library's class as its base, if the base has it or the class does not define
      it;
    * an import of a private module or name.

  It does not find a private attribute of a library's object that a class of the project sets like its own.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.conventions.sources import ROOT, Source

# Public members that begin with an underscore: of named tuples, and of `os`.
DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_replace"}
_ITSELF = ("self", "cls", "super()")
OURS = ("pilothouse", "tests", "benchmarks")
SCOPE = ("server/", "client/pilothouse_client/", "client/pilothouse_manifests/", "migrations/")
_CONNECTIONS = "server/pilothouse_server/outbound/connections.py"
_STATEMENTS = "server/pilothouse_server/store/statements.py"
_TRANSPORT = "server/pilothouse_server/kubernetes/transport.py"


@dataclass(frozen=True, slots=True)
class Use:
    """The reason why a file uses private members of a library."""

    library: str
    members: frozenset[str]
    reason: str


LISTED: Mapping[str, Use] = {
    _CONNECTIONS: Use(
        "aiohttp",
        frozenset(
            {
                "_factory",
                "_loop",
                "_pause_reading_for_buffer",
                "_payload",
                "_payload_parser",
                "_payload_parser_failed",
                "_reading_paused",
                "_resume_reading_for_buffer",
                "_tail",
                "_upgraded",
            }
        ),
        "aiohttp bounds neither interim responses nor what surrounds a body, and parses a whole read of the socket in "
        "one turn of the loop. Two ways by public API fail: a small SO_RCVBUF by socket_factory caps a cluster that "
        "is far away at that buffer per round trip, and a socket whose recv returns less is bypassed by uvloop.",
    ),
    _TRANSPORT: Use(
        "aiohttp",
        frozenset({"_response", "_set_closed", "_writer"}),
        "ClientWebSocketResponse.close reads all messages that the other side sent before its close frame, without a "
        "pause, and waits its whole timeout for each.",
    ),
    "server/pilothouse_server/store/connection.py": Use(
        "asyncpg",
        frozenset(
            {
                "_check_open",
                "_config",
                "_get_unique_id",
                "_introspect_types",
                "_loop",
                "_protocol",
                "_query_loggers",
                "_stmt_cache",
                "_stmt_cache_enabled",
            }
        ),
        "fetch sets a timer per statement, a tenth of the cost of a short one. Names of prepared statements must not "
        "repeat between processes behind a transaction pooler. Known array types need no round trip.",
    ),
    _STATEMENTS: Use(
        "sqlalchemy",
        frozenset(
            {
                "_bind_processors",
                "_cache_key_bind_match",
                "_clone",
                "_generate_cache_key",
                "_generate_generic_binary",
                "_is_tuple_type",
                "_result_columns",
            }
        ),
        "Statements are compiled once to SQL with numbered parameters, which asyncpg runs without SQLAlchemy's "
        "execution; the compiled form has no public way to its parameters' processors and cache key.",
    ),
}


def findings(
    sources: Sequence[Source], listed: Mapping[str, Use] = LISTED, pins: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yields a line for each unlisted use, each listed member without a use, and each library without a pin."""
    scope = [source for source in sources if source.is_python and source.path.startswith(SCOPE)]
    for source in scope:
        use = listed.get(source.path)
        found = dict(sorted(_used(source.tree)))
        for member in sorted(found.keys() - (use.members if use else frozenset())):
            yield (
                f"{source.path}:{found[member]}: {member} is a library's private member: use its public API, or list "
                "the member with its reason in tests/conventions/private_members.py and pin the library"
            )
        if use is not None:
            for member in sorted(name for name in use.members if name not in source.text):
                yield f"{source.path}: {member} is listed in tests/conventions/private_members.py and not used"
    for library in sorted({use.library for use in listed.values()}):
        requirement = (_pins() if pins is None else pins).get(library, "")
        if not re.search(r"<\d+\.\d+$", requirement):
            yield f"pyproject.toml: {library}: private members are used, so pin the minor version: <major.minor"


def _pins() -> Mapping[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    names = (re.match(r"[\w-]+", requirement) for requirement in requirements)
    return {name.group(): each for name, each in zip(names, requirements, strict=True) if name}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.AST) -> Iterator[str]:
    """Yields the names that a module, its classes and their instances define."""
    for node in ast.walk(tree):
        yield from _defined_by(node)


def _defined_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.id if isinstance(node, ast.Name) else node.attr
    elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
        yield from (str(each.value) for each in ast.walk(node.value) if isinstance(each, ast.Constant))


def _used(tree: ast.Module) -> Iterator[tuple[str, int]]:
    ours = set(_defined(tree))
    bases = {name: module for node in tree.body for name, module in _imported_from_libraries(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_a_library(node.module or ""):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from ((name, node.lineno) for name in names if _is_private(name))
        elif (
            isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in ours | DOCUMENTED
        ):
            if ast.unparse(node.value) not in _ITSELF:
                yield node.attr, node.lineno
        elif isinstance(node, ast.ClassDef):
            found = [_resolved(ast.unparse(base), bases) for base in node.bases]
            if any(found):
                yield from _inherited(node, [base for base in found if base])


def _inherited(of: ast.ClassDef, bases: Sequence[object]) -> Iterator[tuple[str, int]]:
    """Yields the private names of its bases that a class uses or overrides."""
    own = {name for node in ast.walk(of) for name in _defined_by(node)}
    for node in ast.walk(of):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in _ITSELF:
            name = node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
        else:
            continue
        if _is_private(name) and (name not in own or any(hasattr(base, name) for base in bases)):
            yield name, node.lineno


def _resolved(base: str, imported: Mapping[str, str]) -> object | None:
    """Returns the library's class that is named as a base; None if the base is not a library's class."""
    root, _, rest = base.partition("[")[0].partition(".")
    if root not in imported:
        return None
    found: object = importlib.import_module(imported[root])
    for name in (root, *rest.split(".")) if hasattr(found, root) else rest.split("."):
        found = getattr(found, name) if name else found
    return found


def _imported_from_libraries(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yields each name that an import of a library binds, and the module to find it in."""
    if isinstance(node, ast.ImportFrom) and node.module and _is_a_library(node.module):
        yield from ((alias.asname or alias.name, node.module) for alias in node.names)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if _is_a_library(alias.name):
                yield alias.asname or alias.name.split(".")[0], alias.name
    elif isinstance(node, ast.If):
        for each in node.body:
            yield from _imported_from_libraries(each)


def _is_a_library(module: str) -> bool:
    root = module.split(".")[0]
    return root not in sys.stdlib_module_names and not root.startswith(OURS)
