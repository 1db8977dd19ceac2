"""`pilothouse passwd`."""

from __future__ import annotations

import typer

from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.passwords import FromStdin, read_password


def command(password_stdin: FromStdin = False) -> None:
    """Change your password. With --password-stdin the first line is the current one, the second the new one."""
    current = read_password("Current password", from_stdin=password_stdin)
    new = read_password("New password", from_stdin=password_stdin, repeat=True)
    with connect() as client:
        client.identity.change_password(current_password=current, new_password=new)
    typer.echo("password changed; your other sessions have ended")
