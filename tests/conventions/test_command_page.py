"""The lint step `command`: docs/command.md has the declared verbs, options, variables and exit codes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Annotated

import click
import grpc
import pytest

from pilothouse_client.commands import failures, verbs
from tests.conventions.sources import ROOT, script_of

# An option that is a number needs a bound.
Hour = Annotated[int, verbs.Option(min=0, max=23)]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return script_of("command_page")


def test_the_check_passes_the_current_page_and_reports_a_changed_table(
    script: ModuleType, tmp_path: Path
) -> None:
    changed = tmp_path / "command.md"
    page = (ROOT / "docs" / "command.md").read_text()
    copy, tables = script.PAGE._replace(path=changed), script.tables()
    for mistake in (
        "| 6 | not found |\n",
        "| `PILOTHOUSE_CA_FILE` | `--ca-file` |",
        "**`pilothouse rollout undo",
    ):
        assert mistake in page
        changed.write_text(page.replace(mistake, ""))
        assert copy.main(tables, "check") == 1
        assert copy.main(tables, "write") == 0
        assert changed.read_text() == page
    assert copy.main(tables, "check") == 0


def test_a_new_option_of_a_verb_appears_in_the_reference(script: ModuleType) -> None:
    group = verbs.VerbGroup("shop")

    @group.command("open")
    def opened(name: str, hour: Hour = 9, *, loud: bool = False) -> None:
        """Open the shop.

        More."""

    [verb] = script.declared_verbs(group, click.Context(group), ("shop",))
    assert list(script.rows([verb], set())) == [
        ["**`pilothouse shop open NAME`**", "Open the shop."],
        ["`--hour N`", "Default: 9."],
        ["`--loud`", ""],
    ]


def test_every_status_code_has_a_listed_exit_code() -> None:
    codes = {failures.exit_code_of(code.name) for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
    assert codes | {failures.AWAY, failures.WAIT_FAILED, failures.LEFT_OUT} <= set(failures.EXIT_CODES)
