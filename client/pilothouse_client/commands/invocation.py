"""The options before the verb, and the client that they determine.

The command line, the environment and the configuration file may each name the server and the credentials. Tokens are
sent only to the server that issued them: if another server is named, only the tokens of a context of that server are
used.
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
# The failed attempts before the notice, which is written about a second after the first attempt.
_FAILURES_UNTIL_THE_NOTICE = 5


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options before the verb; empty or None for options that were not given.

    `timeout` is in seconds."""

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
    """Returns the options before the verb of a line that is being completed; `--context` also counts after it."""
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
    """Returns the chosen context: the named one, else one of the named server, else the current one.

    Of several contexts of the named server, one with credentials comes first.
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
    """Yields the client of this invocation.

    Raises CommandError if no server or no credentials are known."""
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
        # A malformed address is reported first: no log-in would help.
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
    """Returns the files of the user's client certificate and of its key.

    Empty if there are none."""
    given = invocation.client_certificate_file, invocation.client_key_file
    if not any(given) and context is not None:
        return context.client_certificate_file, context.client_key_file
    return given


def client_certificate(invocation: Invocation, context: Context | None) -> tuple[bytes, bytes] | None:
    """Returns the user's client certificate and its key, as PEM; None without one.

    The command line and the environment take precedence over the context."""
    given = certificate_files(invocation, context)
    if not any(given):
        return None
    if not all(given):
        raise CommandError("--client-cert and --client-key belong together", 2)
    import ssl

    certificate, key = given
    try:
        # Without this check, gRPC fails at the connection, and does not name the files. The empty password prevents a
        # prompt for an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
        return Path(certificate).read_bytes(), Path(key).read_bytes()
    except (ssl.SSLError, ValueError):
        raise CommandError(
            f"{certificate} and {key} are not a certificate and its private key, both as PEM", 2
        ) from None
    except OSError as error:
        raise CommandError(f"cannot read {certificate} or {key}: {error.strerror}", 2) from error


def showing(tls: Tls | None, own: tuple[bytes, bytes] | None) -> Tls | None:
    """Returns the TLS settings with the user's client certificate, if there is one."""
    if own is None:
        return tls
    from dataclasses import replace

    from pilothouse_client import Tls

    return replace(tls or Tls(), client_certificate=own[0], client_key=own[1])


def _report_interruption(error: PilothouseError | None) -> None:
    """Writes to standard error that a followed stream is interrupted, and why, or that it continues."""
    if error is None:
        say("connected again", err=True)
    else:
        say(f"interrupted, trying to reconnect: {_words(error)}", err=True)


def report_retry(error: PilothouseError, failures: int) -> None:
    """Writes to standard error, once, why a call keeps failing; the call is retried until its deadline."""
    if failures == _FAILURES_UNTIL_THE_NOTICE:
        say(f"retrying until the timeout: {_words(error)}", err=True)


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
