"""Go programs, built only from Debian's source packages: nothing is downloaded."""

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

# The folders in which Debian packages put sources; `.ci/run` unpacks some packages that are not installed.
PLACES = (Path(sys.prefix) / "gocode/usr/share/gocode", Path("/usr/share/gocode"))


def source(path: str) -> Path | None:
    """Returns the path of a file or package in Debian's sources, or None if it is missing."""
    found = (place / "src" / path for place in PLACES)
    return next((each for each in found if each.exists()), None)


def lacks(*packages: str) -> bool:
    """Returns whether programs of these packages cannot be built here."""
    return shutil.which("go") is None or any(source(each) is None for each in packages)


needs_go = pytest.mark.skipif(
    lacks("golang.org/x/mod/sumdb/tlog", "github.com/transparency-dev/formats/log"),
    reason="needs Debian's golang-go, golang-golang-x-mod-dev and golang-github-transparency-dev-formats-dev",
)


async def run(
    *command: str | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
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
    """Builds a file or package.

    `mended` maps source files to the text that replaces them in the build.
    """
    built, overlay = folder / Path(what).stem, folder / "overlay.json"
    replaced = {}
    for number, (file, text) in enumerate((mended or {}).items()):
        (folder / f"{number}.go").write_text(text)
        replaced[str(file)] = str(folder / f"{number}.go")
    overlay.write_text(json.dumps({"Replace": replaced}))
    ended = await run(
        "go",
        "build",
        # A first build also compiles Go's library. Without optimisation it does a quarter less work.
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
            # SQLite is a single C file, whose optimisation takes minutes.
            "CGO_CFLAGS": "-O0 -w",
        },
    )
    assert ended.returncode == 0, ended.stderr
    return built
