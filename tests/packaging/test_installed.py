"""The distribution as its users get it: a wheel that is built, installed into a separate environment, and used.

uv creates the environment from its configured package source. It uses the versions of requirements.lock, so that a
new release of another project cannot fail a test here.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from tests.conventions.sources import ROOT
from tests.harness import PASSWORD, Server
from tests.readme.served import server_variables, serving

pytestmark = pytest.mark.full(minutes=10)

UV = Path(sys.executable).parent / "uv"
# As in docs/python.md; run with uv's pip, in a folder whose dist/ contains the wheel.
MAKE_WHEEL = "make wheel"
INSTALL_CLIENT = "pip install dist/pilothouse-*.whl"
INSTALL_SERVER = 'pip install "$(ls dist/pilothouse-*.whl)[server]"'
INSTALL_TYPES = "pip install types-protobuf types-grpcio"
# Imports the client and the stubs, and checks that they come only from the environment itself.
IMPORTS = """
import importlib, json, pathlib, pkgutil, sys
import pilothouse, pilothouse_client
names = [
    each.name
    for package in (pilothouse, pilothouse_client)
    for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    if not each.name.endswith(".__main__")
]
for name in names:
    importlib.import_module(name)
outside = [
    module.__file__
    for module in sys.modules.values()
    if module.__name__.startswith("pilothouse")
    if not pathlib.Path(module.__file__).is_relative_to(sys.prefix)
]
print(json.dumps({"imported": len(names), "outside": outside}))
"""
PROGRAM = """\
from pilothouse.container.v1.container_pb2 import CONTAINER_STATUS_RUNNING, Container
from pilothouse_client import Client, PilothouseError

def running(address: str, key: str) -> list[str]:
    with Client(address, token=key) as client:
        try:
            client.containers.create(namespace="shop", container=Container(name="web", image="nginx"))
        except PilothouseError as error:
            print(error.code.name, error.request_id)
        return [each.name for each in client.containers.list() if each.status == CONTAINER_STATUS_RUNNING]
"""
# Text in the program -> its planted replacement, and the checker's message.
MISTAKES = {
    'create(namespace="shop"': ('create(namespaec="shop"', 'Unexpected keyword argument "namespaec"'),
    'image="nginx"': ('imagge="nginx"', 'Unexpected keyword argument "imagge" for "Container"'),
    "token=key": ("tokn=key", 'Unexpected keyword argument "tokn" for "Client"'),
    "each.status": ("each.statsu", '"Container" has no attribute "statsu"'),
    "code.name": ("code.nane", '"StatusCode" has no attribute "nane"'),
}


def run(*words: str | Path, cwd: Path, variables: Mapping[str, str] | None = None) -> str:
    finished = subprocess.run(
        words,
        cwd=cwd,
        env={**server_variables(cwd), **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, f"{words}\n{finished.stdout}"
    return finished.stdout


LOCKED = f"--constraint {ROOT / 'requirements.lock'}"


@cache
def _wheel() -> Path:
    """Returns the folder with the wheel, which is built once in this process."""
    folder = Path(tempfile.mkdtemp(prefix="pilothouse-wheel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run(*MAKE_WHEEL.split(), f"DIST={folder}", cwd=ROOT)
    return folder


class Installation:
    """An environment outside the project with the wheel installed; `versions` is an option of uv."""

    def __init__(self, folder: Path, versions: str = LOCKED) -> None:
        self.folder = folder
        self._versions = versions
        self.bin = folder / "environment" / "bin"
        shutil.copytree(_wheel(), folder / "dist")
        never = {"UV_PYTHON_DOWNLOADS": "never"}
        run(UV, "venv", "--quiet", "--python", sys.executable, self.bin.parent, cwd=folder, variables=never)

    def install(self, line: str) -> None:
        """Runs a line `pip install …` of the page."""
        options = f"--quiet --python {self.bin / 'python'} {self._versions}"
        assert line.startswith("pip install ")
        run("bash", "-ceu", line.replace("pip install", f"{UV} pip install {options}", 1), cwd=self.folder)

    async def pilothouse(self, *words: str, given: str = "") -> tuple[int, str]:
        """Runs the installed command; returns its exit code and its output."""
        process = await asyncio.create_subprocess_exec(
            self.bin / "pilothouse",
            *words,
            cwd=self.folder,
            env=server_variables(self.folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate(given.encode())
        assert process.returncode is not None
        return process.returncode, printed.decode()

    def mypy(self, program: str, name: str) -> subprocess.CompletedProcess[str]:
        """Checks a user's program in this environment.

        Each program needs a different file name: mypy considers a file unchanged if it has the same size and second.
        """
        (self.folder / name).write_text(program)
        # An empty configuration, so that mypy does not use the project's.
        options = ("--strict", "--config-file", os.devnull, "--python-executable", self.bin / "python")
        return subprocess.run(
            [sys.executable, "-m", "mypy", *options, "--cache-dir", self.folder / "cache", name],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def client_alone(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Returns an installation without the extra `server`."""
    made = Installation(tmp_path_factory.mktemp("client"))
    made.install(INSTALL_CLIENT)
    return made


def test_the_client_and_the_stubs_can_be_imported(client_alone: Installation) -> None:
    printed = json.loads(run(client_alone.bin / "python", "-c", IMPORTS, cwd=client_alone.folder))
    assert printed["outside"] == []
    assert printed["imported"] > 50


async def test_the_command_logs_in_to_a_server(client_alone: Installation, server: Server) -> None:
    assert await client_alone.pilothouse("--version") == (0, f"pilothouse {version('pilothouse')}\n")
    login = ("login", "--server", server.address, "--user", "admin", "--password-stdin")
    code, printed = await client_alone.pilothouse(*login, given=PASSWORD + "\n")
    assert (code, "logged in to" in printed) == (0, True), printed
    code, printed = await client_alone.pilothouse("namespaces", "list")
    assert code == 0, printed


@pytest.mark.parametrize("verb", sorted(entry_points(group="pilothouse.commands").names))
async def test_the_servers_verbs_explain_how_to_install_it(client_alone: Installation, verb: str) -> None:
    code, printed = await client_alone.pilothouse(verb)
    assert code == 1
    assert f"'{verb}' needs the server, which is not installed" in printed
    assert "pip install 'pilothouse-VERSION-py3-none-any.whl[server]'" in printed


def test_a_users_program_is_type_checked(client_alone: Installation) -> None:
    client_alone.install(INSTALL_TYPES)
    right = client_alone.mypy(PROGRAM, "right.py")
    assert right.returncode == 0, right.stdout
    for number, (words, (mistake, complaint)) in enumerate(MISTAKES.items()):
        assert words in PROGRAM
        wrong = client_alone.mypy(PROGRAM.replace(words, mistake), f"wrong_{number}.py")
        assert wrong.returncode == 1
        assert complaint in wrong.stdout


async def test_the_installed_server_serves(tmp_path: Path) -> None:
    whole = Installation(tmp_path)
    whole.install(INSTALL_SERVER)
    variables = {
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
        "PILOTHOUSE_DATA_DIR": str(tmp_path / "data"),
    }
    async with serving(f"{whole.bin}/pilothouse serve --dev", tmp_path, variables) as address:
        login = ("login", "--server", address, "--user", "admin", "--password-stdin")
        code, printed = await whole.pilothouse(*login, given=PASSWORD + "\n")
        assert code == 0, printed
        for words in (
            ("namespaces", "create", "demo"),
            (
                "containers",
                "create",
                "web",
                "--namespace",
                "demo",
                "--image",
                "nginx:1.27",
                "--wait",
                "--stable-for",
                "0.3",
            ),
        ):
            code, printed = await whole.pilothouse(*words)
            assert code == 0, printed
