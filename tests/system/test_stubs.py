"""The commands of docs/stubs.md, for Go and TypeScript, and that the exported files are a module by themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conventions.sources import ROOT
from tests.system.programs import program
from tests.waiting import patient

BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs/stubs.md").read_text(encoding="utf-8")


# As the page has them.
GO = ("pilothouse protos api", "buf generate api --template go.gen.yaml")
TYPESCRIPT = (
    "pilothouse protos api",
    "npm install --no-save @bufbuild/protobuf @bufbuild/protoc-gen-es",
    "buf generate api --template ts.gen.yaml",
)


def commands(language: str, folder: Path) -> tuple[str, ...]:
    """Writes the template below a heading of the page to a folder; returns the commands."""
    template = r"^```yaml\n# (\S+)\n(.+?)^```"
    pattern = rf"^## {language}\n.*?{template}.*?^```sh\n(.+?)^```"
    found = re.search(pattern, PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    (folder / found[1]).write_text(found[2], encoding="utf-8")
    return tuple(found[3].splitlines())


def run(line: str, folder: Path) -> None:
    ended = subprocess.run(
        ["bash", "-ceu", line],
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=patient(120),
        check=False,
    )
    assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"


@pytest.mark.full
def test_the_exported_files_are_a_module_by_themselves(tmp_path: Path) -> None:
    run("pilothouse protos api", tmp_path)
    run("buf build api", tmp_path)
    files = list((tmp_path / "api").rglob("*.proto"))
    assert len(files) == len(list((ROOT / "protos").rglob("*.proto")))
    for file in files:
        noun, version = file.parts[-3:-1]
        package = f'option go_package = "pilothouse.dev/api/{noun}/{version};{noun}{version}";'
        assert package in file.read_text(encoding="utf-8"), file


@pytest.mark.system
def test_stubs_of_go(tmp_path: Path) -> None:
    for each in ("go", "protoc-gen-go", "protoc-gen-go-grpc"):
        program(each)
    assert commands("Go", tmp_path) == GO
    for line in GO:
        run(line, tmp_path)
    environment = f"GO111MODULE=off GOFLAGS= GOPATH={tmp_path / 'go'}:/usr/share/gocode"
    run(f"{environment} go vet pilothouse.dev/api/container/v1", tmp_path)
    assert (tmp_path / "go/src/pilothouse.dev/api/container/v1/container.pb.go").exists()


@pytest.mark.system
def test_stubs_of_typescript(tmp_path: Path) -> None:
    program("npm")
    assert commands("TypeScript", tmp_path) == TYPESCRIPT
    for line in TYPESCRIPT:
        run(line, tmp_path)
    made = (tmp_path / "ts/pilothouse/container/v1/container_pb.ts").read_text(encoding="utf-8")
    assert "export const ContainerService" in made
