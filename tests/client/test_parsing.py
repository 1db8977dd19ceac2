"""How a line is read: words that are meant, errors for programs, options of the whole command after the verb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse_client.commands import completion
from tests.client.command import Command
from tests.client.fake_server import FakeServer


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (["po"], "containers"),
        (["deploy"], "containers"),
        (["svc"], "services"),
        (["cm"], "configs"),
        (["contaners"], "containers"),
        (["containers", "rm", "web"], "delete"),
        (["containers", "ls"], "list"),
        (["containers", "scalle", "web", "2"], "scale"),
    ],
)
async def test_a_word_of_another_tool_names_ours(pilothouse: Command, line: list[str], meant: str) -> None:
    ended = await pilothouse(*line)
    assert ended.code == 2
    assert "Did you mean" in ended.err
    assert meant in ended.err


async def test_a_word_like_none_is_refused_with_all_that_there_are(pilothouse: Command) -> None:
    assert "Known: head, " in (await pilothouse("audit", "xyzzy")).err


async def test_errors_for_programs(
    fake: FakeServer, logged_in: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One JSON object a line, wherever the option stands, and with the variable; also for wrong lines."""
    for line in (
        ["--json-errors", "containers", "get", "nobody"],
        ["containers", "get", "nobody", "--json-errors"],
    ):
        ended = await logged_in(*line)
        error = json.loads(ended.err)
        assert (ended.code, error["exit_code"], error["code"]) == (6, 6, "NOT_FOUND")
        assert {"reason", "message", "violations", "fix", "operation_id"} <= set(error)
    monkeypatch.setenv("PILOTHOUSE_JSON_ERRORS", "1")
    wrong = json.loads((await logged_in("containers", "scale", "web", "many")).err)
    assert wrong["reason"] == "WRONG_COMMAND_LINE"
    assert "'many' is not a valid whole number" in wrong["message"]


async def test_a_context_after_the_verb(logged_in: Command) -> None:
    ended = await logged_in("containers", "list", "--context", "nobody")
    assert ended.code == 2
    assert "there is no context 'nobody'" in ended.err


@pytest.mark.parametrize("shell", completion.SHELLS)
async def test_completion_scripts(pilothouse: Command, shell: str) -> None:
    ended = await pilothouse("completion", shell)
    assert ended.code == 0
    assert "_PILOTHOUSE_COMPLETE" in ended.out


def test_a_verb_loads_no_library_for_parsing_beyond_the_parser(tmp_path: Path) -> None:
    script = (
        "import sys; from pilothouse_client.cli import app\n"
        "try: app(['--server', '127.0.0.1:1', 'containers', 'get', 'web', '-n', 'shop'])\n"
        "except SystemExit as end: assert end.code == 4\n"
        "print(sorted({'pydantic', 'typer', 'rich', 'yaml', 'importlib.metadata'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={"PILOTHOUSE_CONFIG": str(tmp_path / "config.json")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "[]"
