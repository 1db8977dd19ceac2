"""Programs of Go, built of Debian's sources alone: nothing is fetched."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.waiting import patient

# Where packages of Debian put sources, and where `.ci/run` unpacks some of them that are not installed.
PLACES = (Path(sys.prefix) / "gocode/usr/share/gocode", Path("/usr/share/gocode"))


def source(path: str) -> Path | None:
    """Where a file or package of Debian's sources is; None where it is not."""
    found = (place / "src" / path for place in PLACES)
    return next((each for each in found if each.exists()), None)


def lacks(*packages: str) -> bool:
    """Whether nothing can be built of these packages here."""
    return shutil.which("go") is None or any(source(each) is None for each in packages)


needs_go = pytest.mark.skipif(
    lacks("golang.org/x/mod/sumdb/tlog", "github.com/transparency-dev/formats/log"),
    reason="needs Debian's golang-go, golang-golang-x-mod-dev and golang-github-transparency-dev-formats-dev",
)


async def run(
    *command: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that has ended."""
    return await asyncio.to_thread(
        subprocess.run,
        [str(each) for each in command],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(300),
    )


async def build(what: str | Path, folder: Path, mended: Mapping[Path, str] | None = None) -> Path:
    """Builds a file or package; `mended` are files of the sources that are read otherwise than they are."""
    built, overlay = folder / Path(what).stem, folder / "overlay.json"
    replaced = {}
    for number, (file, text) in enumerate((mended or {}).items()):
        (folder / f"{number}.go").write_text(text)
        replaced[str(file)] = str(folder / f"{number}.go")
    overlay.write_text(json.dumps({"Replace": replaced}))
    ended = await run(
        "go",
        "build",
        # A first build also compiles Go's library: a fourth less work without optimisation.
        "-gcflags=all=-N -l",
        "-ldflags=-s -w",
        "-overlay",
        overlay,
        "-o",
        built,
        what,
        environment={
            "GO111MODULE": "off",
            "GOPATH": ":".join(str(place) for place in PLACES),
            "GOFLAGS": "",
            "GOTOOLCHAIN": "local",
            # SQLite is a single file of C, which takes minutes to be made fast.
            "CGO_CFLAGS": "-O0 -w",
        },
    )
    assert ended.returncode == 0, ended.stderr
    return built
