"""Pages that are run as a whole: each command of a `console` block runs, and the test compares its output.

The lines below a command are lines of its output, in this order. `…` within a line stands for any text, and a line
with only `…` for any lines. Numbers may differ, and so may white space: a pipe has tabs between the cells of a table.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilothouse_client.commands.output import DRY_RUN
from tests.conventions.pages import RUN_AS_A_WHOLE
from tests.readme.served import ROOT, Shell, serving
from tests.readme.test_readme import LOGIN, PASSWORD

pytestmark = pytest.mark.full(minutes=5)

_BLOCK = re.compile(r"^```console\n(.+?)^```", re.DOTALL | re.MULTILINE)
_WORD = re.compile(r"…|\d+|\s+|[^\s\d…]+")
# The server already runs, and the command is on the path.
_DONE = {"make run", ". .venv/bin/activate"}
_ASKS = "Password:"


def told(page: str) -> list[tuple[str, list[str]]]:
    """Returns the commands of a page, each with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.strip():
                found[-1][1].append(line)
    return [each for each in found if each[0] not in _DONE]


def pattern(line: str) -> re.Pattern[str]:
    """Returns the pattern for a line of output that matches a line of a page."""

    def part(word: str) -> str:
        if word == "…":
            return ".*"
        return r"\d+" if word.isdecimal() else r"\s+" if word.isspace() else re.escape(word)

    return re.compile("".join(map(part, _WORD.findall(line.strip()))))


def missing(lines: list[str], printed: str) -> str:
    """Returns the first line of a page that is missing from the output, in order; empty if all are present."""
    rest = iter(printed.splitlines())
    for line in lines:
        if not any(pattern(line).fullmatch(each.strip()) for each in rest):
            return line
    return ""


@pytest.mark.parametrize("page", sorted(RUN_AS_A_WHOLE))
async def test_the_commands_of_a_page_print_the_documented_output(tmp_path: Path, page: str) -> None:
    variables = {"PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD}
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    async with serving("pilothouse serve --dev", tmp_path, variables) as address:
        shell = Shell(address, tmp_path, directory_of_files=tmp_path)
        commands = told(page)
        assert len(commands) > 10
        await shell.run(f"{LOGIN} --password-stdin", f"{PASSWORD}\n")
        for command, lines in commands:
            if assigned := re.fullmatch(r"(?:export )?([A-Z_]+)=(\$\(.*\)|\S*)", command):
                shell.variables[assigned[1]] = (await shell.run(f'printf %s "{assigned[2]}"')).strip()
                continue
            asked = any(line.startswith(_ASKS) for line in lines)
            given = f"{PASSWORD}\n" if asked else ""
            # The page shows the prompt, which appears only on a terminal.
            line = f"{command} --password-stdin" if asked else command
            printed = await shell.run(line, given)
            expected = [
                each.replace("127.0.0.1:50051", address)
                for each in lines
                if each.strip() != "…" and not each.startswith((_ASKS, "Repeat for"))
            ]
            absent = missing(expected, printed)
            assert not absent, f"{page}: {command}\nhas no line {absent!r} at its place:\n{printed}"


def test_a_line_that_differs_is_reported() -> None:
    printed = f"NAME\tAGE\nweb\t12s\n1 created {DRY_RUN}\n"
    assert not missing(["NAME  AGE", "web   0s", "… created …"], printed)
    assert missing(["web   0s", "NAME  AGE"], printed) == "NAME  AGE"
    assert missing(["api   0s"], printed) == "api   0s"
