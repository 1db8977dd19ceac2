"""`pilothouse token exchange`: exchanges a platform's token for that of a short session; prints it or stores a context.

    export PILOTHOUSE_TOKEN=$(pilothouse token exchange --subject-token-file /var/run/secrets/tokens/pilothouse)

The platform's token comes from a file or from standard input, never from the command line, which others can read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pilothouse_client.commands import hints, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import (
    certificate_files,
    client_certificate,
    config_file,
    current,
    report_retry,
    secured,
    selected,
    showing,
)
from pilothouse_client.commands.terminal import say
from pilothouse_client.config_file import Configuration, Context

if TYPE_CHECKING:
    from pilothouse_client import Client, MemoryTokenStore

app = verbs.VerbGroup(no_args_is_help=True, help="Tokens for programs.")
_LONGEST_TOKEN = 16 * 1024


@app.main_verb()
def _group() -> None:
    """Tokens for programs."""


@app.command()
def exchange(
    subject_token_file: Annotated[
        str, verbs.Option("--subject-token-file", help="File of the platform's token; - is standard input.")
    ] = "-",
    username: Annotated[
        str,
        verbs.Option(
            "--username", help="User or service account to act as; default: that of the first matching rule."
        ),
    ] = "",
    lifetime: Annotated[
        float | None, verbs.Option("--lifetime", min=1, help="Maximum lifetime of the session, in seconds.")
    ] = None,
    store: Annotated[
        bool, verbs.Option("--store", help="Store the token as the current context, and do not print it.")
    ] = False,
    name: Annotated[str, verbs.Option("--name", help="Name of the context; default USERNAME@SERVER.")] = "",
) -> None:
    """Exchange the token of a Kubernetes ServiceAccount or a CI job for a short session's, and print the new token."""
    from pilothouse_client import MemoryTokenStore, Workload

    subject_token = _read(subject_token_file)
    tokens = MemoryTokenStore()
    with _stranger(tokens) as (client, context):
        answer = client.exchange_token(Workload(lambda: subject_token, username, lifetime))
    if not store:
        say(answer.access_token)
        return
    kept = tokens.load()
    assert kept is not None
    context_name = name or current.get().context or f"{answer.user.username}@{context.server}"
    # The device token and the options of an earlier log-in in this context are dropped: a program does not log in so.
    context = replace(
        context, username=answer.user.username, tokens=asdict(kept), device_token="", login_options=()
    )

    def remember(configuration: Configuration) -> Configuration:
        return configuration.with_context(context_name, context, use=True)

    config_file().change(remember)
    end = answer.access_expire_time.ToJsonString()
    say(f"acting as {context.username} at {context.server} until {end} (context {context_name})", err=True)


@contextmanager
def _stranger(tokens: MemoryTokenStore) -> Iterator[tuple[Client, Context]]:
    """Yields a client that is not logged in, and the context that a session with its server would have."""
    from pilothouse_client import Client

    invocation = current.get()
    _, found = selected(config_file().read(), invocation)
    server = invocation.server or (found.server if found else "")
    if not server:
        raise CommandError("name the server: pilothouse --server HOST:PORT token exchange", 2)
    context = found if found is not None and found.server == server else Context(server)
    insecure = context.insecure if invocation.insecure is None else invocation.insecure
    context = replace(context, insecure=insecure, ca_file=invocation.ca_file or context.ca_file)
    context = context.showing(certificate_files(invocation, context))
    hints.called.set(
        hints.Called(server, insecure, context.ca_file, shown=certificate_files(invocation, context))
    )
    try:
        client = Client(
            server,
            tokens=tokens,
            insecure=insecure,
            tls=None
            if insecure
            else showing(secured(context, context.ca_file), client_certificate(invocation, context)),
            timeout=invocation.timeout,
            on_retry=report_retry,
        )
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    with client:
        yield client, context


def _read(path: str) -> str:
    try:
        if path == "-":
            if sys.stdin.isatty():
                raise CommandError(
                    "give the platform's token with --subject-token-file, or by standard input", 2
                )
            text = sys.stdin.read(_LONGEST_TOKEN + 1)
        else:
            with Path(path).open(encoding="utf-8") as file:
                text = file.read(_LONGEST_TOKEN + 1)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", 2) from error
    except UnicodeDecodeError:
        raise CommandError(f"{path} contains no token", 2) from None
    token = text.strip()
    if not token or len(text) > _LONGEST_TOKEN:
        raise CommandError("the input is not a token: it is empty, or too long", 2)
    return token
