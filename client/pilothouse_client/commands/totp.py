"""`pilothouse totp`: an authenticator as the second factor of the user's own account.

Secrets are printed only once: the server stores them unreadably, or not at all.
"""

from __future__ import annotations

from typing import Annotated

from pilothouse_client.commands import verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.login_steps import show_enrolment, show_recovery_codes, shown_code
from pilothouse_client.commands.output import done
from pilothouse_client.commands.recent_proof import with_recent_proof
from pilothouse_client.commands.secret_input import FromStdin, read_code, read_password
from pilothouse_client.commands.terminal import say

app = verbs.VerbGroup(no_args_is_help=True, help="Your second factor: an authenticator.")


@app.command("enrol")
def enrol() -> None:
    """Get the key of a new authenticator. `totp confirm` activates it with a first code."""
    show_enrolment(with_recent_proof(lambda client: client.identity.enrol_totp()))
    say("then: pilothouse totp confirm", err=True)


@app.command("confirm")
def confirm(
    code: Annotated[
        str, verbs.Option("--code", help="Current code; the command asks for it if it is missing.")
    ] = "",
) -> None:
    """Activate the new authenticator, and get recovery codes. Your other sessions end."""
    shown = code or read_code("Code", from_stdin=False)
    codes = with_recent_proof(lambda client: client.identity.confirm_totp(code=shown))
    show_recovery_codes(codes)
    done("each log-in now requires a code")


@app.command("disable")
def disable(
    code: Annotated[
        str, verbs.Option("--code", help="Its current code or a recovery code, instead of the password.")
    ] = "",
    password_stdin: FromStdin = False,
) -> None:
    """Remove the authenticator and its recovery codes. Needs your password or a code. Your other sessions end."""
    shown = shown_code(code) if code else {"password": read_password("Password", from_stdin=password_stdin)}
    with connect() as client:
        client.identity.disable_totp(**shown)
    done("log-ins no longer require a code")
