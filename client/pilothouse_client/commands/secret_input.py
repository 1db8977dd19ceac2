"""Secret input: passwords and codes, from a hidden prompt or from standard input."""

from __future__ import annotations

import sys
from typing import Annotated

from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import CommandError

FromStdin = Annotated[bool, verbs.Option("--password-stdin", help="Read the password from standard input.")]


def read_password(prompt: str, *, from_stdin: bool, repeat: bool = False) -> str:
    """Returns the password without its line break.

    Raises CommandError if it is empty, or without a terminal."""
    password = _read(
        prompt, from_stdin=from_stdin, repeat=repeat, instead="the password with --password-stdin"
    )
    if not password:
        raise CommandError("the password is empty", 2)
    return password


def read_code(prompt: str, *, from_stdin: bool) -> str:
    """Returns a code. Raises CommandError as `read_password`."""
    code = _read(prompt, from_stdin=from_stdin, repeat=False, instead="the code with --code").strip()
    if not code:
        raise CommandError("the code is empty", 2)
    return code


def can_ask(*, from_stdin: bool) -> bool:
    """Returns whether the command can ask a person again."""
    return not from_stdin and sys.stdin.isatty()


def _read(prompt: str, *, from_stdin: bool, repeat: bool, instead: str) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if sys.stdin.isatty():
        return str(verbs.prompt(prompt, hide_input=True, confirmation_prompt=repeat, err=True))
    raise CommandError(f"standard input is not a terminal; give {instead}", 2)
