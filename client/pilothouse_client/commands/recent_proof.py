"""Calls that need a recent proof of the caller's identity: asks for the proof on the terminal, and makes the call.

A session may create API keys and second factors only within ten minutes after its user has given a password or a code,
or has logged in at an issuer. Without a terminal the command cannot ask, so it prints the command to run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pilothouse_client.commands import hints
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import config_file, connect, current, selected
from pilothouse_client.commands.issuer_login import proved_by_browser, way_of
from pilothouse_client.commands.login_steps import shown_code
from pilothouse_client.commands.secret_input import can_ask, read_code, read_password
from pilothouse_client.commands.terminal import say

if TYPE_CHECKING:
    from pilothouse_client import Client, PilothouseError
    from pilothouse_client.config_file import Configuration

_Answer = TypeVar("_Answer")
_REQUIRED = "REAUTHENTICATION_REQUIRED"
_NOT_ALLOWED = 5
_TRIES = 3


def with_recent_proof(call: Callable[[Client], _Answer]) -> _Answer:
    """Returns the result of a call.

    If the server requires a recent proof, asks the user for it and repeats the call.

    Raises CommandError if it cannot ask, and the exceptions of the call.
    """
    from pilothouse_client import PermissionDeniedError

    with connect() as client:
        try:
            return call(client)
        except PermissionDeniedError as error:
            if error.reason != _REQUIRED:
                raise
            _prove(client, error)
    with connect() as client:
        return call(client)


def _prove(client: Client, required: PilothouseError) -> None:
    proof = required.metadata.get("proof", "password")
    if not can_ask(from_stdin=False):
        raise CommandError(
            (
                "this needs a recent proof of your identity, and standard input is not a terminal; log in "
                f"again and repeat it: {hints.log_in()}"
            ),
            _NOT_ALLOWED,
        )
    if proof == "log_in":
        _log_in_again(client)
        return
    say("this needs a recent proof of your identity", err=True)
    _ask(client, by_code=proof == "code")


def _ask(client: Client, *, by_code: bool) -> None:
    """Asks for a password or a code; repeats the question after a mistyped one."""
    from pilothouse_client import PermissionDeniedError

    for tries_left in reversed(range(_TRIES)):
        try:
            if by_code:
                client.identity.reauthenticate(**shown_code(read_code("Code", from_stdin=False)))
            else:
                client.identity.reauthenticate(password=read_password("Password", from_stdin=False))
        except PermissionDeniedError as error:
            if not tries_left:
                raise
            say(error.message, err=True)
        else:
            return


def _log_in_again(client: Client) -> None:
    """Logs in at the issuer again, as the same user; stores the new session in the context."""
    from pilothouse_client.tokens import tokens_of

    file = config_file()
    name, context = selected(file.read(), current.get())
    way = None if context is None else way_of(context.login_options)
    if context is None or way is None or current.get().token:
        raise CommandError(
            f"this needs a log-in that is at most ten minutes old; log in again and repeat it: {hints.log_in()}",
            _NOT_ALLOWED,
        )
    say("this needs a recent log-in at the issuer", err=True)
    answer: Any = proved_by_browser(client, way)
    if answer.user.username != context.username:
        raise CommandError(
            f"the issuer logged in {answer.user.username}, but this context belongs to {context.username}",
            _NOT_ALLOWED,
        )
    tokens = asdict(tokens_of(answer))

    def keep(configuration: Configuration) -> Configuration:
        kept = configuration.contexts.get(name)
        return (
            configuration if kept is None else configuration.with_context(name, replace(kept, tokens=tokens))
        )

    file.change(keep)
