"""The options before the verb, and the client they lead to.

A command line, the environment and the configuration file each may name the server and the credentials.
Tokens are sent to no server but the one that issued them: if another server is named, only a context of that
server lends its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pilothouse_client.commands import hints
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.config_file import ConfigFile, Configuration, Context, FileTokenStore, default_path

if TYPE_CHECKING:
    import click

    from pilothouse_client import Client, PilothouseError, RetryPolicy, Tls

_NOT_LOGGED_IN = 4
# About a second after the first attempt.
_FAILURES_UNTIL_THE_NOTICE = 5


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options before the verb; empty or None where nothing was given. `timeout` is seconds."""

    context: str = ""
    server: str = ""
    token: str = ""
    insecure: bool | None = None
    ca_file: str = ""
    timeout: float | None = None
    client_certificate_file: str = ""
    client_key_file: str = ""


_NOTHING_GIVEN = Invocation()
current: ContextVar[Invocation] = ContextVar("invocation", default=_NOTHING_GIVEN)
# The client of the verb in progress.
connected: ContextVar[Client | None] = ContextVar("connected", default=None)


def invocation_of(context: click.Context) -> Invocation:
    """Returns the options before the verb of a line that is being completed, and a context after it."""
    given = context.find_root().params
    return Invocation(
        context=current.get().context or given.get("context") or "",
        server=given.get("server") or "",
        token=given.get("token") or "",
        insecure=given.get("insecure"),
        ca_file=given.get("ca_file") or "",
        client_certificate_file=given.get("client_cert") or "",
        client_key_file=given.get("client_key") or "",
    )


def config_file() -> ConfigFile:
    """Returns the configuration file of this invocation."""
    return ConfigFile(default_path())


def selected(configuration: Configuration, invocation: Invocation) -> tuple[str, Context | None]:
    """Returns the context that is meant: the one named, else one of the server named, else the current one.

    Of several for the named server, one that holds its user's credentials comes first.
    """
    if invocation.context:
        context = configuration.contexts.get(invocation.context)
        if context is None:
            known = ", ".join(sorted(configuration.contexts)) or "none"
            raise CommandError(f"there is no context {invocation.context!r}; known: {known}", 2)
        if invocation.server and context.server != invocation.server:
            raise CommandError(
                f"context {invocation.context!r} belongs to another server, {context.server}", 2
            )
        return invocation.context, context
    chosen = configuration.contexts.get(configuration.current)
    if invocation.server and (chosen is None or chosen.server != invocation.server):
        of_it = [pair for pair in configuration.contexts.items() if pair[1].server == invocation.server]
        usable = [pair for pair in of_it if pair[1].tokens or pair[1].client_certificate_file]
        return next(iter(usable or of_it), ("", None))
    return (configuration.current, chosen) if chosen is not None else ("", None)


def default_namespace() -> str:
    """Returns the namespace of the context in use; empty if it has none."""
    _, context = selected(config_file().read(), current.get())
    return context.namespace if context is not None else ""


@contextmanager
def connect(retry: RetryPolicy | None = None) -> Iterator[Client]:
    """Yields the client of this invocation. Raises CommandError if no server or no credentials are known."""
    from pilothouse_client import Client
    from pilothouse_client.retry import DEFAULT_RETRY
    from pilothouse_client.target import target_of

    invocation = current.get()
    file = config_file()
    configuration = file.read()
    name, context = selected(configuration, invocation)
    server = invocation.server or (context.server if context else "")
    if not server:
        raise CommandError(
            "no server is configured; log in with: pilothouse login --server HOST:PORT --user NAME",
            _NOT_LOGGED_IN,
        )
    insecure = (
        invocation.insecure if invocation.insecure is not None else (context.insecure if context else None)
    )
    ca_file = invocation.ca_file or (context.ca_file if context else "")
    in_words = hints.context_in_words(configuration, name, context, server)
    shown = certificate_files(invocation, context)
    way = context.login_options if context is not None and context.server == server else ()
    hints.called.set(
        hints.Called(server, insecure, ca_file, in_words, bool(invocation.token), way=way, shown=shown)
    )
    own = client_certificate(invocation, context)
    tls = None if insecure else showing(secured(context, ca_file), own)
    try:
        # No log-in helps where the address is none.
        target_of(server, insecure=insecure, tls=tls)
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    if not invocation.token and own is None and (context is None or not context.tokens):
        raise CommandError(f"not logged in to {server}; use: {hints.log_in()}", _NOT_LOGGED_IN)
    try:
        client = Client(
            server,
            token=invocation.token or None,
            tokens=FileTokenStore(file, name) if context is not None and not invocation.token else None,
            insecure=insecure,
            tls=tls,
            timeout=invocation.timeout,
            retry=retry or DEFAULT_RETRY,
            on_interruption=_report_interruption,
            on_retry=report_retry,
        )
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    with client:
        given = connected.set(client)
        try:
            yield client
        finally:
            connected.reset(given)


def secured(context: Context | None, ca_file: str) -> Tls | None:
    """Returns the TLS for a server: named authorities, else the certificate trusted at log-in."""
    if ca_file or context is None or not context.certificate:
        return tls_of(ca_file)
    from pilothouse_client.commands.server_certificate import Trust

    return Trust(context.certificate, context.server_name).tls()


def certificate_files(invocation: Invocation, context: Context | None) -> tuple[str, str]:
    """Returns the files of the certificate that the user is known by and of its key; empty where there are none."""
    given = invocation.client_certificate_file, invocation.client_key_file
    if not any(given) and context is not None:
        return context.client_certificate_file, context.client_key_file
    return given


def client_certificate(invocation: Invocation, context: Context | None) -> tuple[bytes, bytes] | None:
    """Returns the certificate that the user is known by and its key, as PEM: that of the command line or the
    environment, else the context's; None without one."""
    given = certificate_files(invocation, context)
    if not any(given):
        return None
    if not all(given):
        raise CommandError("--client-cert and --client-key belong together", 2)
    import ssl

    certificate, key = given
    try:
        # Otherwise the library fails at the connection, and does not name the files. A password of the key is not
        # asked for.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
        return Path(certificate).read_bytes(), Path(key).read_bytes()
    except (ssl.SSLError, ValueError):
        raise CommandError(
            f"{certificate} and {key} are not a certificate and its private key, both as PEM", 2
        ) from None
    except OSError as error:
        raise CommandError(f"cannot read {certificate} or {key}: {error.strerror}", 2) from error


def showing(tls: Tls | None, own: tuple[bytes, bytes] | None) -> Tls | None:
    """Returns the TLS for a server to which the user shows a certificate."""
    if own is None:
        return tls
    from dataclasses import replace

    from pilothouse_client import Tls

    return replace(tls or Tls(), client_certificate=own[0], client_key=own[1])


def _report_interruption(error: PilothouseError | None) -> None:
    """Writes to standard error that the followed stream waits, and why; and that it continues."""
    if error is None:
        say("going on", err=True)
    else:
        say(f"interrupted, going on as soon as possible: {_words(error)}", err=True)


def report_retry(error: PilothouseError, failures: int) -> None:
    """Writes to standard error, once, that a call got no answer and why; the call is retried until its deadline."""
    if failures == _FAILURES_UNTIL_THE_NOTICE:
        say(f"trying again until the time is over: {_words(error)}", err=True)


def _words(error: PilothouseError) -> str:
    return plain(error.message or error.code.name.lower().replace("_", " "))


def tls_of(ca_file: str) -> Tls | None:
    """Returns TLS that trusts the authorities of a PEM file; None without one."""
    if not ca_file:
        return None
    import ssl

    from pilothouse_client import Tls

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca_file)
        return Tls(root_certificates=Path(ca_file).read_bytes())
    except ssl.SSLError:
        raise CommandError(f"{ca_file} contains no PEM certificate", 2) from None
    except OSError as error:
        raise CommandError(f"cannot read {ca_file}: {error.strerror}", 2) from error
