"""`pilothouse whoami`."""

from __future__ import annotations

import typer

from pilothouse_client.commands.grants import COLUMNS
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Format, Output
from pilothouse_client.commands.output import show, show_all


def command(output: Output = Format.TABLE) -> None:
    """Show who you are, your grants and the permissions you hold everywhere."""
    with connect() as client:
        answer = client.identity.who_am_i()
    if output is not Format.TABLE:
        show(answer, [], output)
        return
    typer.echo(f"{answer.user.username} {answer.user.email}".strip())
    if answer.permissions:
        typer.echo(f"everywhere: {', '.join(answer.permissions)}")
    show_all(answer.grants, COLUMNS, output)
