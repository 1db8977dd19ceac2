"""Passwords come from a prompt or from standard input, never from the command line, which others can read."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pilothouse_client.commands.failures import CommandError

FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def read_password(prompt: str, *, from_stdin: bool, repeat: bool = False) -> str:
    """The password, without its line break; CommandError if there is none or nobody to ask."""
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = str(typer.prompt(prompt, hide_input=True, confirmation_prompt=repeat, err=True))
    else:
        raise CommandError("standard input is no terminal; give the password with --password-stdin", 2)
    if not password:
        raise CommandError("the password is empty", 2)
    return password
