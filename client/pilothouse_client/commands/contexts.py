"""`pilothouse contexts`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any

from pilothouse_client.commands import hints, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import (
    certificate_files,
    client_certificate,
    config_file,
    current,
    report_retry,
    selected,
    showing,
    tls_of,
)
from pilothouse_client.commands.options import Format, Output
from pilothouse_client.commands.output import OutputColumn, show_all
from pilothouse_client.commands.terminal import say
from pilothouse_client.config_file import Configuration, Context

app = verbs.VerbGroup(no_args_is_help=True, help="Servers you have logged in to.")
_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("CURRENT", lambda row: "*" if row["current"] else ""),
    OutputColumn("NAME", lambda row: row["name"], whole=True),
    OutputColumn("SERVER", lambda row: row["server"]),
    OutputColumn("USERNAME", lambda row: row["username"], wide=True),
    OutputColumn("NAMESPACE", lambda row: row["namespace"]),
    OutputColumn("LOGGED IN", lambda row: "yes" if row["logged_in"] else "no"),
]
_Name = Annotated[
    str,
    verbs.Argument(
        help="Name of the context.", complete=lambda _context, _text: sorted(config_file().read().contexts)
    ),
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
    if output is Format.MANIFEST:
        raise CommandError("a context has no manifest; use -o json or yaml", 2)
    show_all(rows, _COLUMNS, output, data_of=dict)


def _change(name: str, change: str, namespace: str = "") -> None:
    def apply(configuration: Configuration) -> Configuration:
        context = configuration.contexts.get(name)
        if context is None:
            known = ", ".join(sorted(configuration.contexts)) or "none"
            raise CommandError(f"there is no context {name!r}; known: {known}", 6)
        if change == "delete":
            return configuration.without_context(name)
        if change == "use":
            return replace(configuration, current=name)
        return configuration.with_context(name, replace(context, namespace=namespace))

    config_file().change(apply)


@app.command("add")
def add(
    name: Annotated[str, verbs.Argument(help="Name of the context.")],
    namespace: Annotated[str, verbs.Option("--namespace", "-n", help="Default namespace; '' for none.")] = "",
) -> None:
    """Add a context for a server that authenticates you by certificate, and use it; you need not log in.

    \b
      pilothouse --server HOST:PORT --ca-file ca.pem --client-cert me.pem --client-key me.key contexts add ci

    Leave the files in place: each command reads them again.
    """
    from pilothouse_client import Client

    invocation = current.get()
    if not invocation.server or not (invocation.client_certificate_file or invocation.client_key_file):
        raise CommandError("name --server, --client-cert and --client-key before the verb", 2)
    if name in config_file().read().contexts:
        raise CommandError(f"there is a context {name!r} already", 2)
    # The certificate of another context of the server must not be used: it may be another user's.
    own = client_certificate(invocation, None)
    hints.called.set(
        hints.Called(invocation.server, ca_file=invocation.ca_file, shown=certificate_files(invocation, None))
    )
    try:
        client = Client(
            invocation.server,
            tls=showing(tls_of(invocation.ca_file), own),
            timeout=invocation.timeout,
            on_retry=report_retry,
        )
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    with client:
        username = client.identity.who_am_i().user.username
    ca_file = os.path.abspath(invocation.ca_file) if invocation.ca_file else ""
    context = Context(invocation.server, username, namespace, ca_file=ca_file).showing(
        certificate_files(invocation, None)
    )
    config_file().change(lambda configuration: configuration.with_context(name, context, use=True))
    say(f"{invocation.server} authenticated you as {username} (context {name})")


@app.command("use")
def use(name: _Name) -> None:
    """Make a context the current one."""
    _change(name, "use")
    say(f"context {name} is the current one")


@app.command("set")
def set_context(
    namespace: Annotated[str, verbs.Option("--namespace", "-n", help="Default namespace; '' for none.")],
) -> None:
    """Change the current context (or the one that --context names)."""
    name, context = selected(config_file().read(), current.get())
    if context is None:
        raise CommandError("there is no current context; log in first", 6)
    _change(name, "set", namespace)
    say(f"context {name}: namespace {namespace or 'none'}")


@app.command("delete")
def delete(name: _Name) -> None:
    """Delete a context with its tokens. Log out first to end the session on the server."""
    _change(name, "delete")
    say(f"context {name} forgotten")
