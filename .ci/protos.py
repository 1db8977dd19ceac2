"""Generates the Python stubs from protos/, and checks that the committed ones are up to date.

`generate` writes client/gen; `check` only compares, and exits with 1 if a file differs;
`breaking` compares the protos with those of an earlier commit, for changes that affect old clients, except for those
in EXCEPTIONS;
`dependencies` only copies the googleapis protos, which buf needs for all of its commands.

The googleapis protos are files of the package googleapis-common-protos and are copied into the ignored folder
.proto-deps, a buf module of its own: no foreign file is committed and nothing is downloaded. Stubs are generated into
a temporary folder first, so that a failed run leaves the old stubs complete, and a run without differences changes no
file.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPENDENCIES = ROOT / ".proto-deps"
STUBS = Path("client/gen")
# buf's exit code if it has findings.
_BUF_FOUND = 100
# The folders of googleapis that are copied; buf.yaml names the same ones.
FOREIGN = ("api", "longrunning", "rpc", "type")

# The deletions of each release, although protos otherwise only grow. buf also checks that names and numbers stay
# reserved.
_AUDIT = "protos/pilothouse/audit/v1/audit.proto"
EXCEPTIONS = {
    "0.2.0": frozenset(
        (_AUDIT, f"Previously present {each} was deleted.")
        for each in (
            'field "24" with name "chain_hash" on message "Operation"',
            'field "7" with name "chain_length" on message "AuditHead"',
            'field "8" with name "chain_hash" on message "AuditHead"',
            'enum value "4" on enum "AuditFault"',
            'field "4" with name "chain_hash" on message "ExportedRecord"',
            'field "5" with name "chain_proof" on message "ExportAuditLogResponse"',
        )
    )
}


def copy_dependencies(root: Path) -> None:
    """Copies the googleapis protos of the installed package to `root`/.proto-deps, replacing older ones."""
    package = metadata.distribution("googleapis-common-protos")
    with tempfile.TemporaryDirectory(dir=root) as folder:
        fresh = Path(folder, "fresh")
        for file in package.files or []:
            if file.suffix == ".proto" and file.parts[0] == "google" and file.parts[1] in FOREIGN:
                # The wheel renames this file, because its Python module would shadow another; imports use the old
                # name.
                name = "operations.proto" if file.name == "operations_proto.proto" else file.name
                target = fresh / file.parent / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
        shutil.rmtree(root / DEPENDENCIES.name, ignore_errors=True)
        fresh.rename(root / DEPENDENCIES.name)


def generate(target: Path) -> None:
    """Generates all stubs under `target`, with the `__init__.py` files and py.typed that Python needs."""
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    subprocess.run(["buf", "generate", "--output", target], cwd=ROOT, env=environment, check=True)
    package = target / STUBS / "pilothouse"
    # A file without a service also gets type stubs, for a module that does not exist.
    for types in package.rglob("*_pb2_grpc.pyi"):
        if not types.with_suffix(".py").exists():
            types.unlink()
    for folder in sorted({file.parent for file in package.rglob("*.py")}):
        while folder != package.parent:
            (folder / "__init__.py").touch()
            folder = folder.parent
    (package / "py.typed").touch()


def differences(fresh: Path, committed: Path) -> list[str]:
    """Returns the paths, relative to the two folders, that differ or exist in only one of them."""
    found = {
        file.relative_to(top)
        for top in (fresh, committed)
        for file in top.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    return sorted(
        str(path)
        for path in found
        if not (fresh / path).is_file()
        or not (committed / path).is_file()
        or not filecmp.cmp(fresh / path, committed / path, shallow=False)
    )


def synchronise(fresh: Path, committed: Path) -> list[str]:
    """Makes `committed` equal to `fresh`, file by file; returns the changed paths."""
    changed = differences(fresh, committed)
    for path in changed:
        target = committed / path
        if (fresh / path).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.partial")
            shutil.copyfile(fresh / path, partial)
            partial.replace(target)
        else:
            target.unlink()
            if not any(target.parent.iterdir()):
                target.parent.rmdir()
    return changed


def git(*arguments: str) -> str:
    """Returns standard output of git, or '' if git fails (no such commit, no repository)."""
    finished = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return finished.stdout.strip() if finished.returncode == 0 else ""


def baselines() -> list[str]:
    """Returns the commits whose clients must still work: the last release, and the base of this work.

    The base is the commit where the branch left its upstream. In a clone without commits of its own, as in CI, it is
    the previous commit.
    """
    head = git("rev-parse", "HEAD")
    start = git("merge-base", "HEAD", "@{upstream}")
    if start in ("", head):
        start = git("rev-parse", "--verify", "--quiet", "HEAD^")
    release = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD")
    return [each for each in dict.fromkeys((release, start)) if each]


def breaking(against: str) -> int:
    """Compares protos/ with the commit `against`; returns 1 if a difference affects old clients."""
    if not git("ls-tree", against, "protos", "buf.yaml"):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", against, "protos", "buf.yaml"], cwd=ROOT, capture_output=True, check=False
        )
        if archive.returncode != 0:
            return 0
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        copy_dependencies(Path(folder))
        print(f"compared with {against[:12]}")
        found = breaking_changes(ROOT, Path(folder))
    for line in found:
        print(line)
    return 1 if found else 0


def breaking_changes(root: Path, against: Path) -> list[str]:
    """Returns buf's findings in the protos of `root`, compared with another folder, without EXCEPTIONS."""
    buf = Path(sys.executable).parent / "buf"
    command = [str(buf), "breaking", "--error-format", "json", "--against", str(against)]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if finished.returncode not in (0, _BUF_FOUND):
        return [finished.stderr.strip() or f"buf breaking ended with {finished.returncode}"]
    excepted = frozenset().union(*EXCEPTIONS.values())
    return [
        f"{each.get('path')}:{each.get('start_line')}: {each['message']}"
        for each in map(json.loads, finished.stdout.splitlines())
        if (each.get("path"), each["message"]) not in excepted
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["generate", "check", "breaking", "dependencies"])
    command = parser.parse_args().command
    # Checks run in parallel: only these two commands write into the project.
    if command in ("generate", "dependencies") or not DEPENDENCIES.exists():
        copy_dependencies(ROOT)
    if command == "dependencies":
        return 0
    if command == "breaking":
        return max((breaking(commit) for commit in baselines()), default=0)
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if command == "generate":
            for path in synchronise(Path(folder) / STUBS, ROOT / STUBS):
                print("wrote" if (ROOT / STUBS / path).exists() else "removed", STUBS / path)
            return 0
        stale = differences(Path(folder) / STUBS, ROOT / STUBS)
    for path in stale:
        print(f"{STUBS / path}: differs from what protos/ generates; run `make proto` and commit the result")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
