"""CONTRIBUTING's recipe for a noun: the files that it names are sufficient, and each of them is necessary."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.processes import finished
from tests.recipes import noun

pytestmark = pytest.mark.full(minutes=5)

_ROOTS = ("server", "client", "client/gen", "migrations", ".")
_IMPORTS = (str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--contract", "layers")
# The files whose absence the tests of all nouns detect, with the reported fault.
_OF_TESTS = {
    "tests/migrations/filling.py": "no rows for routes",
    "tests/promises/requests.py": "CreateRoute has no request",
    "tests/fields/test_resources.py": "a resource is not examined",
    "tests/promises/test_tenants_apart.py": "the role viewer and route.list",
}
# The files whose absence the import contracts detect.
_OF_IMPORTS = ("server/pilothouse_server/routes/__init__.py", "pyproject.toml")


class Copy:
    """A copy of the tree in which programs run."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        paths = os.pathsep.join(str(tree / root) for root in _ROOTS)
        self._environment = {**os.environ, "PYTHONPATH": paths}

    async def run(self, *words: str) -> str:
        """Returns the output of a program that failed; '' if it succeeded."""
        code, output, problems = await finished(*words, cwd=self._tree, env=self._environment)
        return (output + problems).decode() or "failed" if code else ""

    async def check(self, word: str, *given: str | Database) -> str:
        """Runs one of `checks`, and returns its output like `run`."""
        written = (each if isinstance(each, str) else json.dumps(dataclasses.asdict(each)) for each in given)
        return await self.run(sys.executable, "-m", "tests.recipes.checks", word, *written)


async def test_a_watched_noun_needs_exactly_the_files_that_are_named(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path: Path
) -> None:
    tree, stubs = tmp_path / "tree", "client/gen/pilothouse/route/v1/route_pb2.py"
    noun.copy(tree)
    texts = noun.texts(tree)
    assert sorted(noun.named()) == sorted(texts)
    before = {name: (tree / name).read_text("utf-8") if (tree / name).exists() else None for name in texts}
    copy = Copy(tree)

    def write(names: Iterable[str], wanted: Mapping[str, str | None]) -> None:
        for name in names:
            noun.write(tree, name, wanted[name])

    write(texts, texts)
    # Like `make proto` and `make schema`; `make schema` also writes a dump, which nothing here reads.
    assert await copy.run(sys.executable, ".ci/protos.py", "generate") == ""
    async with new_database(postgres) as migrated:
        assert await copy.check("schema", migrated) == ""
        async with new_database(postgres, migrated.name) as database:
            assert await copy.check("tests", database) == ""
        async with new_database(postgres, migrated.name) as database:
            assert await copy.check("serve", database, str(tmp_path / "whole")) == ""
        assert await copy.run(*_IMPORTS) == ""

        # Without a proto, there are no stubs for it.
        modules = [
            name for name in texts if before[name] is None and "/v1/" not in name and "versions" not in name
        ]
        assert await copy.check("files", stubs, *(name for name in modules if name not in _OF_IMPORTS)) == ""
        for name in _OF_IMPORTS:
            write([name], before)
            assert await copy.run(*_IMPORTS) != ""
            write([name], texts)
        write(_OF_TESTS, before)
        async with new_database(postgres, migrated.name) as database:
            found = await copy.check("tests", database)
        assert [fault for fault in _OF_TESTS.values() if fault not in found] == []
        write(_OF_TESTS, texts)
        tried = {*modules, *_OF_IMPORTS, *_OF_TESTS}
        for number, name in enumerate(
            name for name in texts if name not in tried and not name.endswith(".proto")
        ):
            write([name], before)
            template = template_database if "/versions/" in name else migrated
            async with new_database(postgres, template.name) as database:
                assert await copy.check("serve", database, str(tmp_path / f"{number}")) != "", name
            write([name], texts)
