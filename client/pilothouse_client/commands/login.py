"""`pilothouse login`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import config_file, current, report_retry, selected, tls_of
from pilothouse_client.commands.passwords import FromStdin, read_password
from pilothouse_client.config_file import Configuration, Context


def command(
    server: Annotated[
        str, typer.Option("--server", metavar="HOST:PORT", help="Server; default the context's.")
    ] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="User name; asked for if not given.")] = "",
    password_stdin: FromStdin = False,
    name: Annotated[str, typer.Option("--name", help="Name of the context; default USER@SERVER.")] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Default namespace of the context.")
    ] = "",
    insecure: Annotated[bool | None, typer.Option("--insecure/--secure", help="Plain text or TLS.")] = None,
    ca_file: Annotated[str, typer.Option("--ca-file", help="PEM file of authorities to trust.")] = "",
) -> None:
    """Log in to a server and remember the session. The context becomes the current one."""
    from pilothouse_client import Client, MemoryTokenStore

    invocation = current.get()
    file = config_file()
    _, former = selected(file.read(), invocation)
    address = server or invocation.server or (former.server if former else "")
    if not address:
        raise CommandError("name the server: pilothouse login --server HOST:PORT --user NAME", 2)
    same_server = former is not None and former.server == address
    if former is not None and same_server:
        insecure = former.insecure if insecure is None else insecure
        ca_file, namespace = ca_file or former.ca_file, namespace or former.namespace
        user = user or former.username
    insecure = invocation.insecure if insecure is None else insecure
    ca_file = ca_file or invocation.ca_file
    username = user or str(typer.prompt("User name", err=True))
    password = read_password(f"Password of {username}", from_stdin=password_stdin)
    store = MemoryTokenStore()
    try:
        client = Client(
            address,
            tokens=store,
            insecure=insecure,
            tls=None if insecure else tls_of(ca_file),
            timeout=invocation.timeout,
            on_retry=report_retry,
        )
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    with client:
        answer = client.login(username, password)
    tokens = store.load()
    assert tokens is not None
    context_name = name or invocation.context or f"{answer.user.username or username}@{address}"
    context = Context(address, answer.user.username or username, namespace, insecure, ca_file, asdict(tokens))

    def remember(configuration: Configuration) -> Configuration:
        return configuration.with_context(context_name, context, use=True)

    file.change(remember)
    typer.echo(f"logged in to {address} as {context.username} (context {context_name})")
