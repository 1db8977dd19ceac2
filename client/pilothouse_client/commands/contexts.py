"""`pilothouse contexts`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import typer

from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import config_file, current, selected
from pilothouse_client.commands.options import Format, Output
from pilothouse_client.config_file import Configuration

app = typer.Typer(no_args_is_help=True, help="Servers you have logged in to.", rich_markup_mode=None)
_Name = Annotated[
    str,
    typer.Argument(help="Name of the context.", autocompletion=lambda: sorted(config_file().read().contexts)),
]


@app.command("list")
def list_contexts(output: Output = Format.TABLE) -> None:
    """List the contexts; the current one is marked."""
    configuration = config_file().read()
    rows = [
        {
            "current": name == configuration.current,
            "name": name,
            "server": context.server,
            "username": context.username,
            "namespace": context.namespace,
            "logged_in": bool(context.tokens),
        }
        for name, context in sorted(configuration.contexts.items())
    ]
    if output is Format.JSON:
        typer.echo(json.dumps(rows, indent=2))
    elif output is Format.YAML:
        import yaml

        typer.echo(yaml.safe_dump(rows, sort_keys=False), nl=False)
    else:
        for row in rows:
            mark, state = ("*" if row["current"] else " "), ("" if row["logged_in"] else " (logged out)")
            typer.echo(f"{mark} {row['name']}  {row['server']}  {row['namespace'] or '-'}{state}")


def _change(name: str, change: str, namespace: str = "") -> None:
    def apply(configuration: Configuration) -> Configuration:
        context = configuration.contexts.get(name)
        if context is None:
            raise CommandError(f"there is no context {name!r}", 6)
        if change == "delete":
            return configuration.without_context(name)
        if change == "use":
            return replace(configuration, current=name)
        return configuration.with_context(name, replace(context, namespace=namespace))

    config_file().change(apply)


@app.command("use")
def use(name: _Name) -> None:
    """Make a context the current one."""
    _change(name, "use")


@app.command("set")
def set_context(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default namespace; '' for none.")],
) -> None:
    """Change the current context (or the one that --context names)."""
    name, context = selected(config_file().read(), current.get())
    if context is None:
        raise CommandError("there is no current context; log in first", 6)
    _change(name, "set", namespace)


@app.command("delete")
def delete(name: _Name) -> None:
    """Forget a context with its tokens. Log out first to end the session on the server."""
    _change(name, "delete")
