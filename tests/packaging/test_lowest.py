"""The minimum versions in pyproject.toml are right: the oldest allowed versions are installed and used.

`make test-lowest` runs this test alone; it is part of `make test-all`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import PASSWORD
from tests.packaging.test_installed import INSTALL_SERVER, Installation, run
from tests.readme.served import serving
from tests.waiting import poll_until

pytestmark = pytest.mark.full(minutes=10)

LINES = 40_000
# A hundred lines every hundredth of a second: one read returns more than 512 lines.
_SCRIPT = "while true; do " + "echo line; " * 100 + "sleep 0.01; done"
# Imports every module of the distribution, except those that only Alembic can load.
_IMPORTS = """
import importlib, json, pkgutil
tops = ("pilothouse", "pilothouse_client", "pilothouse_manifests", "pilothouse_migrations", "pilothouse_server")
names = [
    each.name
    for package in (importlib.import_module(top) for top in (*tops, "pilothouse_simulator"))
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    if not each.name.endswith((".__main__", "pilothouse_migrations.env"))
]
for name in names:
    importlib.import_module(name)
print(json.dumps(len(names)))
"""


async def test_the_oldest_allowed_versions_serve_and_read_a_long_log(tmp_path: Path) -> None:
    lowest = Installation(tmp_path, "--resolution lowest-direct")
    lowest.install(INSTALL_SERVER)
    assert json.loads(run(lowest.bin / "python", "-c", _IMPORTS, cwd=tmp_path)) > 500
    variables = {
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
        "PILOTHOUSE_DATA_DIR": str(tmp_path / "data"),
    }
    async with serving(f"{lowest.bin}/pilothouse serve --dev", tmp_path, variables) as address:
        login = ("login", "--server", address, "--user", "admin", "--password-stdin")
        code, printed = await lowest.pilothouse(*login, given=PASSWORD + "\n")
        assert code == 0, printed
        create = ("containers", "create", "web", "--namespace", "demo", "--image", "busybox:1.37", "--wait")
        for words in (("namespaces", "create", "demo"), (*create, "--", "sh", "-c", _SCRIPT)):
            code, printed = await lowest.pilothouse(*words)
            assert code == 0, printed

        async def log() -> int:
            code, printed = await lowest.pilothouse("containers", "logs", "web", "--namespace", "demo")
            assert code == 0, printed[-2000:]
            return printed.count("line\n")

        await poll_until(log, lambda count: count >= LINES, seconds=60.0, what=f"a log of {LINES} lines")
