"""The questions of `pilothouse login` in addition to the password: a code, the enrolment of an authenticator, a new
password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilothouse_client.commands.secret_input import can_ask, read_code, read_password
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.values import moment

if TYPE_CHECKING:
    from pilothouse.identity.v1 import identity_pb2, second_factor_pb2
    from pilothouse_client import Client
    from pilothouse_client.credentials import LoggedIn

_TRIES = 3


def completed(
    client: Client, username: str, answer: identity_pb2.LoginResponse, code: str, *, from_stdin: bool
) -> LoggedIn:
    """Completes the steps of a log-in; returns the response that has tokens.

    `code` is the one on the command line; the user is asked for missing values. After a mistyped code, the user is
    asked again.
    """
    from pilothouse.identity.v1 import second_factor_pb2 as pb
    from pilothouse_client import UnauthenticatedError

    if not answer.challenge:
        return answer
    new_password = ""
    if pb.LOGIN_STEP_NEW_PASSWORD in answer.steps:
        say("the reset code was accepted: choose a new password", err=True)
        new_password = read_password("New password", from_stdin=from_stdin, repeat=True)
    if pb.LOGIN_STEP_ENROLMENT in answer.steps:
        say("your account must have a second factor", err=True)
        show_enrolment(answer.enrolment)
    needs_code = pb.LOGIN_STEP_CODE in answer.steps or pb.LOGIN_STEP_ENROLMENT in answer.steps
    for tries_left in reversed(range(_TRIES)):
        shown = shown_code(code or read_code("Code", from_stdin=from_stdin)) if needs_code else {}
        try:
            done = client.complete_login(username, answer.challenge, new_password=new_password, **shown)
        except UnauthenticatedError as error:
            if code or error.reason != "WRONG_CODE" or not tries_left or not can_ask(from_stdin=from_stdin):
                raise
            say(error.message, err=True)
        else:
            show_recovery_codes(done.recovery_codes)
            if "recovery_code" in shown:
                say(f"{done.recovery_codes_left} recovery codes are left", err=True)
            return done
    raise AssertionError("the last try returns or raises")


def shown_code(code: str) -> dict[str, str]:
    """Returns a code by its request field: an authenticator's codes have six digits, recovery codes do not."""
    plain = code.replace(" ", "")
    return {"code": plain} if plain.isdigit() and len(plain) == 6 else {"recovery_code": code}


def show_enrolment(
    enrolment: second_factor_pb2.TotpEnrolment | second_factor_pb2.EnrolTotpResponse,
) -> None:
    """Prints the seed of an authenticator."""
    say("Add this to your authenticator, by its address or as a key that is typed in:", err=True)
    say(f"\n  {enrolment.otpauth_uri}\n  {enrolment.secret}\n")
    say(f"It must be confirmed by a first code until {moment(enrolment.expire_time)}.", err=True)


def show_recovery_codes(codes: object) -> None:
    """Prints recovery codes, if there are any."""
    lines = [f"  {code}" for code in codes]  # type: ignore[attr-defined]
    if lines:
        say("Store these apart from the authenticator. Each permits one log-in without it:", err=True)
        say("\n" + "\n".join(lines) + "\n")
