"""The commands of docs/stubs.md work for Go and TypeScript, and the exported files are a complete module."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pilothouse.container.v1.container_pb2 import Container
from pilothouse_client.testing import serving
from tests.conventions.sources import ROOT
from tests.system.programs import program
from tests.transparency.go import PLACES, source
from tests.waiting import patient

BIN = Path(sys.executable).parent
# The folder where `.ci/run` unpacks Debian packages that are not installed.
UNPACKED = Path(sys.prefix, "gocode")
PAGE = (ROOT / "docs/stubs.md").read_text(encoding="utf-8")


# The commands exactly as on the page.
ENVIRONMENT = "export PILOTHOUSE_SERVER=127.0.0.1:50051 PILOTHOUSE_TOKEN=phk_… PILOTHOUSE_NAMESPACE=demo"
GO = (
    "pilothouse protos api",
    "buf generate api --template go.gen.yaml",
    'GO111MODULE=off GOPATH="$PWD/go:/usr/share/gocode" go run list.go',
)
TYPESCRIPT = (
    "pilothouse protos api",
    "npm install --no-save @bufbuild/protobuf @bufbuild/protoc-gen-es @connectrpc/connect @connectrpc/connect-node",
    "buf generate api --template ts.gen.yaml",
    "node list.mjs",
)


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yields the page's variables, for a server with a container."""
    with serving(tmp_path_factory.mktemp("server")) as server:
        values = {**server.environment, "PILOTHOUSE_NAMESPACE": server.new_namespace()}
        assert values.keys() == set(re.findall(r"(PILOTHOUSE_\w+)=", ENVIRONMENT))
        with server.client() as client:
            client.containers.create(
                container=Container(namespace=values["PILOTHOUSE_NAMESPACE"], name="web", image="nginx:1.27")
            )
        yield values


def commands(language: str, folder: Path) -> tuple[str, ...]:
    """Writes the files below a heading of the page to a folder, and returns the commands."""
    (section,) = re.findall(rf"^## {language}\n(.+?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^```(\w+)\n(.+?)^```", section, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks][-1] == "sh"
    for _, text in blocks[:-1]:
        name = text.splitlines()[0].split()[-1]
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(blocks[-1][1].splitlines())


def run(line: str, folder: Path, variables: Mapping[str, str] | None = None) -> str:
    ended = subprocess.run(
        ["bash", "-ceu", line],
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}:{UNPACKED / 'usr/bin'}", **(variables or {})},
        capture_output=True,
        text=True,
        timeout=patient(120),
        check=False,
    )
    assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.mark.full
def test_the_exported_files_are_a_complete_module(tmp_path: Path) -> None:
    run("pilothouse protos api", tmp_path)
    run("buf build api", tmp_path)
    files = list((tmp_path / "api").rglob("*.proto"))
    assert len(files) == len(list((ROOT / "protos").rglob("*.proto")))
    for file in files:
        noun, version = file.parts[-3:-1]
        package = f'option go_package = "pilothouse.dev/api/{noun}/{version};{noun}{version}";'
        assert package in file.read_text(encoding="utf-8"), file


@pytest.mark.system(minutes=5)
def test_the_stubs_for_go_work_as_documented(tmp_path: Path, variables: dict[str, str]) -> None:
    program("go")
    for each in ("protoc-gen-go", "protoc-gen-go-grpc"):
        if not (UNPACKED / "usr/bin" / each).exists():
            program(each)
    if source("google.golang.org/grpc") is None:
        pytest.skip("needs golang-google-grpc-dev")
    assert commands("Go", tmp_path) == GO
    # The same flags as the other Go programs in tests, so that the library is compiled once.
    variables = {**variables, "GOFLAGS": "'-gcflags=all=-N -l' '-ldflags=-s -w'", "GOTOOLCHAIN": "local"}
    places = ":".join(str(place) for place in PLACES)
    printed = [run(line.replace("/usr/share/gocode", places), tmp_path, variables) for line in GO]
    assert printed[-1].startswith("web CONTAINER_STATUS_")


@pytest.mark.system(minutes=3)
def test_the_stubs_for_typescript_work_as_documented(tmp_path: Path, variables: dict[str, str]) -> None:
    program("npm")
    assert commands("TypeScript", tmp_path) == TYPESCRIPT
    printed = [run(line, tmp_path, variables) for line in TYPESCRIPT]
    assert printed[-1].startswith("web ")
