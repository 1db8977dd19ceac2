"""A serving process does not import libraries that only other verbs, or help texts, need."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Database
from tests.main_job.test_starting import variables
from tests.readme.served import serving

NOT_NEEDED = {"alembic", "mako", "rich", "pygments", "pytest", "pilothouse_simulator"}
# Python runs `sitecustomize` from its path before anything else; at exit it writes the names of the imported packages.
_AT_THE_END = """
import atexit, json, os, sys

def tell():
    if sys.argv[1:2] == ["serve"]:
        with open(os.environ["IMPORTED"], "w") as file:
            json.dump(sorted({name.partition(".")[0] for name, module in sys.modules.items() if module}), file)

atexit.register(tell)
"""


async def test_a_serving_process_imports_no_unneeded_libraries(database: Database, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_AT_THE_END)
    told = tmp_path / "imported.json"
    environment = {**variables(database), "PYTHONPATH": str(hook), "IMPORTED": str(told)}
    async with serving("pilothouse serve", tmp_path, environment) as address:
        assert address
    imported = set(json.loads(told.read_text()))
    assert {"pilothouse_server", "grpc", "sqlalchemy", "structlog"} <= imported
    assert not imported & NOT_NEEDED
