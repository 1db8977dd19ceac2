"""`pilothouse sessions`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Format, Limit, Output
from pilothouse_client.commands.output import Column, done, show_all
from pilothouse_client.commands.values import moment

app = typer.Typer(no_args_is_help=True, help="Your log-ins.", rich_markup_mode=None)
COLUMNS: list[Column[Any]] = [
    Column("ID", lambda session: session.session_id),
    Column("CURRENT", lambda session: "yes" if session.current else ""),
    Column("CREATED", lambda session: moment(session.create_time)),
    Column("LAST USED", lambda session: moment(session.last_used_time)),
    Column("EXPIRES", lambda session: moment(session.expire_time)),
    Column("ADDRESS", lambda session: session.client_ip),
    Column("PROGRAM", lambda session: session.user_agent),
]


@app.command("list")
def list_sessions(limit: Limit = 0, output: Output = Format.TABLE) -> None:
    """List your sessions, newest first."""
    with connect() as client:
        show_all(client.identity.list_sessions(), COLUMNS, output, limit)


@app.command("revoke")
def revoke(session_id: Annotated[str, typer.Argument(help="As `list` shows it.")]) -> None:
    """End one of your sessions."""
    with connect() as client:
        client.identity.revoke_session(session_id=session_id)
    done(f"session {session_id} ended")
