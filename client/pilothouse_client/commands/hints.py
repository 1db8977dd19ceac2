"""Remedies for failures: commands that the user can copy, for the server that was called."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilothouse_client.config_file import Configuration, Context


@dataclass(frozen=True, slots=True)
class Called:
    """The server that this invocation calls, and how.

    `context` is the argument that --context needs.

    `way` has the options for a log-in at an issuer, `login` the options of `pilothouse login` for user and context
    (None for other verbs), `trust` the options for the server's certificate, and `shown` the files of the caller's
    certificate and its key.
    """

    server: str
    insecure: bool | None = None
    ca_file: str = ""
    context: str = ""
    token: bool = False
    login: tuple[str, ...] | None = None
    way: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    shown: tuple[str, str] = ("", "")


called: ContextVar[Called | None] = ContextVar("called", default=None)


def context_in_words(configuration: Configuration, name: str, context: Context | None, server: str) -> str:
    """Returns the argument that --context needs, so that a log-in uses the same context; empty if none is needed."""
    if context is None or context.server != server:
        return ""
    # The current context needs no option if it has the name that a log-in would give to a new context.
    by_itself = name == configuration.current and name == f"{context.username}@{server}"
    return "" if by_itself else name


def log_in(*more: str, insecure: bool | None = None, way: tuple[str, ...] | None = None) -> str:
    """Returns the command that logs in to the called server, with `more` options.

    `insecure` replaces the present choice of TLS or plain text, and `way` the present options for an issuer.
    """
    # Imported here, because only failures need it.
    import shlex

    call = called.get()
    if call is None:
        return "pilothouse login --server HOST:PORT"
    insecure = call.insecure if insecure is None else insecure
    words = ["pilothouse", *(["--context", call.context] if call.context else ())]
    # A plain-text connection has no client certificate.
    words += (
        ["--client-cert", call.shown[0], "--client-key", call.shown[1]]
        if call.shown[0] and not insecure
        else ()
    )
    words += ["login", "--server", call.server]
    words += {None: (), True: ("--insecure",), False: ("--secure",)}[insecure]
    words += ["--ca-file", call.ca_file] if call.ca_file and not insecure else ()
    words += call.trust if not insecure else ()
    words += call.way if way is None else way
    return shlex.join([*words, *(call.login or ()), *more])


def logging_in() -> str:
    """Returns the remedy for a user whom the server has not authenticated."""
    call = called.get()
    if call is not None and call.token:
        return f"give another token, or log in without one: {log_in()}"
    return f"log in with: {log_in()}"


def remedy_of(problem: str) -> str:
    """Returns the remedy for a failed handshake between client and server.

    Empty if none is known."""
    call = called.get() or Called("")
    if problem == "SELF_SIGNED" and call.ca_file:
        # If authorities are named, no certificate is trusted on first use.
        problem = "AUTHORITY_UNKNOWN"
    if problem == "TLS_REQUIRED" and "," in call.server:
        return "call one of them alone by TLS, with --secure"
    if problem == "TLS_REQUIRED":
        return f"call it by TLS, with --secure{_once_more(insecure=False)}"
    if problem == "TLS_NOT_SPOKEN":
        words = "if you trust the network, call it in plain text, with --insecure"
        return f"{words}{_once_more(insecure=True)}"
    if problem == "SELF_SIGNED":
        return f"trust it, if the server printed the same: {log_in(insecure=False)}"
    if problem == "CERTIFICATE_CHANGED":
        return trust_new()
    return _OTHER_REMEDIES.get(problem, "")


def trust_new() -> str:
    """Returns the remedy for a replaced certificate."""
    return (
        f"if you know that the certificate was replaced: {log_in('--trust-new-certificate', insecure=False)}"
    )


def _once_more(*, insecure: bool) -> str:
    call = called.get()
    if call is None or call.login is None:
        return " before the verb"
    return f": {log_in(insecure=insecure)}"


_OTHER_REMEDIES = {
    "AUTHORITY_UNKNOWN": "name a file of authorities with --ca-file",
    "NAME_MISMATCH": "call the server by a name that its certificate is for",
    "NOT_VALID_NOW": "have the server's certificate renewed, or set the clock of this machine if it is wrong",
}
