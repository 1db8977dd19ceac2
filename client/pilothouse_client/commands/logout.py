"""`pilothouse logout`."""

from __future__ import annotations

import typer

from pilothouse_client.commands.invocation import config_file, connect, current, selected


def command() -> None:
    """End the session and forget its tokens. The context stays, to log in again."""
    from dataclasses import replace

    from pilothouse_client import DeadlineExceededError, RetryPolicy, UnavailableError
    from pilothouse_client.config_file import Configuration

    file = config_file()
    name, context = selected(file.read(), current.get())
    if context is None or not context.tokens:
        typer.echo("not logged in")
        return
    try:
        # Whoever logs out waits for no server: what counts is that this machine forgets.
        with connect(RetryPolicy(attempts=6)) as client:
            client.logout()
        typer.echo(f"logged out of {context.server}")
    except (UnavailableError, DeadlineExceededError):
        # The tokens must go all the same: that is what the user wants of this machine.
        def forget(configuration: Configuration) -> Configuration:
            return configuration.with_context(name, replace(configuration.contexts[name], tokens=None))

        file.change(forget)
        typer.echo(
            f"{context.server} is away: its session goes on until it expires, but is forgotten here", err=True
        )
