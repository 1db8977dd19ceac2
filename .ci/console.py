"""Builds the console page from client/console into server/pilothouse_server/gateway/static, where it is committed.

`write` needs node and npm. `check` needs neither: it compares the digest of the sources with the digest that the last
build stored next to the page. The sources are the files of client/console and the messages that they import; messages
count by their descriptors, so that a changed comment in a proto does not make the page outdated.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor

ROOT = Path(__file__).resolve().parent.parent
CONSOLE = ROOT / "client" / "console"
STATIC = ROOT / "server" / "pilothouse_server" / "gateway" / "static"
DIGEST = "sources.sha256"
LICENCES = "licences.txt"
_NOT_SOURCES = ("node_modules", "gen")
_IMPORTED = re.compile(r'/gen/(pilothouse/[\w/]+)_pb"')


def sources(folder: Path) -> list[Path]:
    """Returns the source files that are not generated, ordered by path."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_SOURCES)
        found += [Path(where) / name for name in sorted(names)]
    return found


def digest(folder: Path) -> str:
    """Returns the digest of the sources of a page."""
    whole = hashlib.sha256()
    imported = set()
    for path in sources(folder):
        contents = path.read_bytes()
        whole.update(f"{path.relative_to(folder)} {len(contents)}\n".encode() + contents)
        imported.update(_IMPORTED.findall(contents.decode("utf-8", "replace")))
    files: dict[str, FileDescriptor] = {}
    for name in imported:
        module = importlib.import_module(f"{name}_pb2".replace("/", "."))
        files |= {each.name: each for each in _with_dependencies(module.DESCRIPTOR)}
    for name in sorted(files):
        whole.update(files[name].serialized_pb)
    return whole.hexdigest()


def _with_dependencies(file: FileDescriptor) -> Iterator[FileDescriptor]:
    yield file
    for each in file.dependencies:
        if each.name.startswith("pilothouse/"):
            yield from _with_dependencies(each)


def build(target: Path) -> None:
    """Builds the page into a folder. Raises CalledProcessError, FileNotFoundError without npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is missing: install the Debian packages nodejs and npm")
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([sys.executable, ".ci/protos.py", "dependencies"], cwd=ROOT, check=True)
    for arguments in (
        ["ci"],
        ["run", "stubs"],
        ["run", "check"],
        ["run", "build", "--", "--outDir", str(target)],
    ):
        subprocess.run([npm, *arguments], cwd=CONSOLE, check=True, env=environment, timeout=600)
    (target / LICENCES).write_text(licences(CONSOLE / "node_modules"))
    (target / DIGEST).write_text(digest(CONSOLE) + "\n")


def licences(modules: Path) -> str:
    """Returns the licences of the packages that the page contains."""
    parts = []
    for name in ("@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web", "@xterm/addon-fit",
                 "@xterm/xterm", "svelte", "uplot", "yaml"):  # fmt: skip
        found = sorted(modules.joinpath(name).glob("LICENSE*"))
        text = (
            found[0].read_text()
            if found
            else "Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0\n"
        )
        parts.append(f"{name}\n\n{text.strip()}\n")
    return "\n\n".join(parts)


def main(command: str) -> int:
    """Runs a command; returns the exit code."""
    if command == "write":
        build(STATIC)
        return 0
    kept = STATIC / DIGEST
    if not kept.exists() or kept.read_text().strip() != digest(CONSOLE):
        print(
            f"{STATIC.relative_to(ROOT)} was built from other sources than client/console and its protos:"
            " run `make console` (it needs npm), and commit what changes there"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
