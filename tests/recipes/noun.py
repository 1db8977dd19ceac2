"""Applies CONTRIBUTING's recipe for a noun to a copy of the tree: the watched noun `Route`.

`route/` contains the new files under their later paths, with `.txt` appended. `EDITS` are the changes of existing
files.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from pilothouse_migrations import runner
from tests.conventions.sources import ROOT

_FILES: Final = Path(__file__).parent / "route"
# File -> pairs of a text that occurs in it once, and its replacement.
EDITS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "server/pilothouse_server/app.py": (
        (
            "from pilothouse_server.rpc.noun import Noun\n",
            "from pilothouse_server.routes.noun import routes_noun\n"
            "from pilothouse_server.routes.tables import ROUTE_TABLES\n"
            "from pilothouse_server.rpc.noun import Noun\n",
        ),
        ("NOUN_TABLES: Final = (\n", "NOUN_TABLES: Final = (\n    ROUTE_TABLES,\n"),
        (
            "        in_namespaces = [\n",
            "        in_namespaces = [\n            routes_noun(watches, page_key),\n",
        ),
    ),
    "pyproject.toml": (('    "namespaces",\n', '    "routes",\n    "namespaces",\n'),),
    "server/pilothouse_server/values/audit_words.py": (('"role_grant",', '"role_grant", "route",'),),
    "server/pilothouse_server/identity/access/shipped_roles.py": (
        ("_READING: Final = {\n", '_READING: Final = {\n    "route": ("list", "watch"),\n'),
    ),
    "client/pilothouse_client/all_nouns.py": (
        (
            "if TYPE_CHECKING:\n",
            "if TYPE_CHECKING:\n    from pilothouse_client.nouns.routes import Routes\n",
        ),
        (
            "    @cached_property\n    def identity(",
            "    @cached_property\n    def routes(self) -> Routes[TransportT]:\n"
            "        from pilothouse_client.nouns.routes import Routes\n\n"
            "        return Routes(self._connection)\n\n"
            "    @cached_property\n    def identity(",
        ),
    ),
    "tests/migrations/filling.py": (
        (
            '    "rendered_messages": """',
            "    \"routes\": \"INSERT INTO routes (name, namespace_id, host) VALUES ('web', $1, $2 || '.example')\",\n"
            '    "rendered_messages": """',
        ),
    ),
    "tests/fields/test_resources.py": (
        ("EXAMINED_ELSEWHERE = {\n", 'EXAMINED_ELSEWHERE = {\n    "pilothouse.route.v1.Route",\n'),
    ),
    "tests/promises/test_tenants_apart.py": (("_VIEWED = {", '_VIEWED = {"route", '),),
    "tests/promises/requests.py": (
        (
            "REQUESTS: dict[str, Fields] = {\n",
            "REQUESTS: dict[str, Fields] = {\n"
            '    "CreateRoute": {"namespace": OWN, "route": {"name": target("CreateRoute"), "host": "a.example"}},\n'
            '    **_on_target("DeleteRoute"),\n    **_in_namespace("ListRoutes", "WatchRoutes"),\n',
        ),
    ),
}
REVISION: Final = f"{int(runner.head()) + 1:04}"
# Parts of the tree that a copy needs; the programs write stubs, checksums.py and schema.sql in the copy.
_COPIED = ("server", "client", "migrations", "protos", "tests", "benchmarks", ".ci", "pyproject.toml")
_COPIED_FOR_BUF = ("buf.yaml", "buf.gen.yaml", ".proto-deps", "CONTRIBUTING.md")
_VIEW = re.compile(r"CREATE VIEW public\.watched_rows [^;]* AS\n([^;]*);")


def copy(target: Path) -> None:
    """Copies the tree with its compiled modules, so that no process compiles them again."""
    target.mkdir()
    for name in (*_COPIED, *_COPIED_FOR_BUF):
        if (ROOT / name).exists():
            subprocess.run(["cp", "--archive", str(ROOT / name), str(target / name)], check=True)


def texts(tree: Path) -> dict[str, str]:
    """Returns the text of each file of the recipe, new and edited, by its path."""
    view = _VIEW.search((tree / "migrations" / "schema.sql").read_text("utf-8"))
    assert view is not None
    filled = {"REVISION": REVISION, "PREVIOUS": runner.head(), "WATCHED_ROWS": view[1]}
    found = {}
    for path in sorted(_FILES.rglob("*.txt")):
        text, name = path.read_text("utf-8"), str(path.relative_to(_FILES)).removesuffix(".txt")
        for word, value in filled.items():
            name = name.replace(word, value)
            if "migrations" in path.parts:
                text = text.replace(word, value)
        found[name] = text
    for name, edits in EDITS.items():
        text = (tree / name).read_text("utf-8")
        for before, after in edits:
            assert text.count(before) == 1, f"{name} has {before!r} {text.count(before)} times"
            text = text.replace(before, after)
        found[name] = text
    return found


def named() -> list[str]:
    """Returns the files that CONTRIBUTING names for a noun, with the words of `Route`."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = page.partition("### A noun\n")[2].partition("\n### ")[0]
    words = {"<noun>": "route", "<nouns>": "routes", "<number>": REVISION, "<words>": "routes"}
    found = []
    for step in re.findall(r"^\d+\. ((?:.|\n(?=   ))*)", section, re.MULTILINE):
        folder = ""
        # A step begins with its files; after a folder, the names are relative to it.
        for name in re.findall(r"`([^`]+)`", step.partition(":")[0]):
            for word, value in words.items():
                name = name.replace(word, value)
            if name.endswith("/"):
                folder = name
            else:
                found.append(folder + name)
    return found


def write(tree: Path, name: str, text: str | None) -> None:
    """Writes a file of the copy; None removes it."""
    path = tree / name
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    # Python would mistake bytecode of a module with the same size from the same second for this module's.
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
