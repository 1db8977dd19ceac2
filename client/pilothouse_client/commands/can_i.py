"""`pilothouse can-i`."""

from __future__ import annotations

from typing import Annotated

import typer

from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Namespace


def command(
    permission: Annotated[str, typer.Argument(help="Such as container.delete.")],
    namespace: Namespace = "",
    user: Annotated[str, typer.Option("--user", help="Ask about another user.")] = "",
) -> None:
    """Tell whether you may do something: prints yes or no, exits with 0 or 1. Without -n: in every namespace."""
    with connect() as client:
        allowed = client.identity.check_permission(permission=permission, namespace=namespace, username=user)
    typer.echo("yes" if allowed else "no")
    raise typer.Exit(0 if allowed else 1)
