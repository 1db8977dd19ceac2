"""docs/command.md has the exit codes and the environment variables that the command declares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import grpc

from pilothouse_client.cli import VERBS, app
from pilothouse_client.commands import failures
from pilothouse_client.commands.verbs import UnloadedVerb

PAGE = (Path(__file__).parents[2] / "docs" / "command.md").read_text()


def _parameters(command: click.Command, context: click.Context) -> Iterator[click.Parameter]:
    """Yields those of one of our verbs, and of the verbs in it."""
    yield from command.get_params(context)
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        if command is app and name not in VERBS:
            continue
        verb = command.get_command(context, name)
        assert verb is not None
        verb = verb.load() if isinstance(verb, UnloadedVerb) else verb
        yield from _parameters(verb, click.Context(verb, info_name=name, parent=context))


def test_the_page_lists_every_environment_variable_of_an_option() -> None:
    declared = {
        (each.envvar, each.opts[-1], each.help)
        for each in _parameters(app, click.Context(app, info_name="pilothouse"))
        if each.envvar and isinstance(each, click.Option)
    }
    rows = set(re.findall(r"^\| `(PILOTHOUSE_\w+)` \| `(--[\w-]+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert rows == declared


def test_the_page_and_the_help_list_every_exit_code() -> None:
    written = {int(each) for each in re.findall(r"^\| (\d+) \| .* \|$", PAGE, re.MULTILINE)}
    helped = {int(each) for each in re.findall(r"(?:: |, )(\d+) ", failures.EXIT_CODES_HELP)}
    assert written == helped
    codes = {failures.exit_code_of(code.name) for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
    assert codes | {failures.AWAY, failures.WAIT_FAILED, failures.LEFT_OUT} <= written
