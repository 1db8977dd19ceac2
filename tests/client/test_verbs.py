"""How verbs are found and loaded, and how a command runs as its own process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse_client import Change, ChangeKind, cli
from pilothouse_client.commands.options import Format
from pilothouse_client.commands.output import OutputColumn, show_changes
from tests.client.command import Command
from tests.client.fake_server import FakeServer
from tests.processes import started
from tests.waiting import within

# As a shell without job control starts a command that ends with `&`: the command inherits the ignored signals.
BACKGROUND = ("sh", "-c", 'trap "" INT TERM; exec "$@"', "sh", sys.executable, "-m", "pilothouse_client")


async def test_a_watch_writes_lines_until_interrupted(fake: FakeServer, logged_in: Command) -> None:
    await fake.commit("container", ("shop", "a"), container_pb2.Container(namespace="shop", name="a"))
    command = (*BACKGROUND, "containers", "list", "--watch", "-o", "json")
    async with started(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None

        async def next_change() -> Any:
            assert process.stdout is not None
            async with within(20):
                while change := json.loads(await process.stdout.readline()):
                    if change["change"] != "BOOKMARK":
                        return change
            return None

        first = await next_change()
        assert (first["change"], first["resource"]["name"]) == ("ADDED", "a")
        assert (await next_change())["change"] == "SYNCED"
        await fake.cut_watches()
        await fake.commit("container", ("shop", "a"), None)
        assert (await next_change())["change"] == "DELETED"
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        assert process.returncode == 130
        assert errors == b""


async def test_a_command_in_the_background_can_be_terminated(fake: FakeServer, logged_in: Command) -> None:
    command = (*BACKGROUND, "containers", "list", "--watch", "-o", "json")
    async with started(*command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline())["change"] == "SYNCED"
        process.terminate()
        assert await process.wait() == -signal.SIGTERM


def test_importing_the_client_loads_no_module_of_the_command() -> None:
    """Half of the command's modules take longer to load than all modules of the client."""
    script = (
        "import sys, pilothouse_client\n"
        "print('grpc' in sys.modules)\n"
        "from pilothouse_client import *\n"
        "client = Client('localhost:1')\n"
        "for noun in ('identity', 'namespaces', 'containers', 'storage', 'config', 'audit', 'metrics'):\n"
        "    getattr(client, noun)\n"
        "unwanted = {'click', 'rich', 'yaml', 'argparse', 'grpc_status', 'google.rpc', 'pilothouse_server'}\n"
        "print('grpc' in sys.modules, sorted(unwanted & set(sys.modules)))\n"
        "print(sorted(name for name in sys.modules if name.startswith('pilothouse_client.commands')))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["False", "True []", "[]"]


def test_help_loads_neither_grpc_nor_rich_nor_protobuf() -> None:
    script = (
        "import sys; from pilothouse_client.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'grpc', 'rich', 'google.protobuf', 'yaml', 'asyncio'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
    assert all(f"\n  {verb} " in ended.stdout for verb in ("containers", "login", "serve"))


async def test_a_missing_server_verb_explains_the_installation(
    pilothouse: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = EntryPoint("serve", "a_server_that_is_not_installed.cli:serve", "pilothouse.commands")
    monkeypatch.setattr(cli, "_entry_points", lambda: [missing])
    ended = await pilothouse("serve")
    assert ended.code == 1
    assert "pip install 'pilothouse-VERSION-py3-none-any.whl[server]'" in ended.err
    assert "serve" in (await pilothouse("--help")).out


async def test_a_verb_of_another_distribution_is_added(
    pilothouse: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = EntryPoint("joined", f"{__name__}:joined_verb", "pilothouse.commands")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(cli, "_entry_points", lambda: [joined])
    assert (await pilothouse("joined", "--word", "hello")).out == "hello\n"


def joined_verb(word: str = "") -> None:
    """A verb that joins."""
    print(word)


def test_a_watched_table_prints_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    def change(kind: ChangeKind, name: str = "") -> Change[container_pb2.Container]:
        return Change(kind, container_pb2.Container(name=name))

    columns: list[OutputColumn[container_pb2.Container]] = [
        OutputColumn("NAME", lambda container: container.name),
        OutputColumn("READY", lambda _container: "0/1"),
    ]
    written: list[str] = []

    def changes() -> Iterator[Change[container_pb2.Container]]:
        yield change(ChangeKind.ADDED, "a")
        yield change(ChangeKind.ADDED, "a-long-name")
        written.append(capsys.readouterr().out)
        yield change(ChangeKind.SYNCED)
        # The current state is written when it is complete, not with the next change.
        written.append(capsys.readouterr().out)
        yield change(ChangeKind.BOOKMARK)
        yield change(ChangeKind.DELETED, "b\x1b[31m")
        written.append(capsys.readouterr().out)
        yield change(ChangeKind.RESTARTED)

    show_changes(changes(), columns, Format.TABLE)
    assert written == [
        "",
        "CHANGE\tNAME\tREADY\nADDED\ta\t0/1\nADDED\ta-long-name\t0/1\n",
        "DELETED\tb [31m\t0/1\n",
    ]
    assert "starts again" in capsys.readouterr().err
