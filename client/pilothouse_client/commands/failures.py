"""Errors as messages and exit codes, so that scripts can distinguish them without reading text."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pilothouse_client.commands import hints
from pilothouse_client.commands.terminal import say

# gRPC code -> exit code; whatever is missing is a fault: 1. A wrong command line is 2, as everywhere.
_EXIT_CODE_OF = {
    "INVALID_ARGUMENT": 3,
    "OUT_OF_RANGE": 3,
    "UNAUTHENTICATED": 4,
    "PERMISSION_DENIED": 5,
    "NOT_FOUND": 6,
    "ALREADY_EXISTS": 7,
    "FAILED_PRECONDITION": 7,
    "ABORTED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "UNAVAILABLE": 9,
    "DEADLINE_EXCEEDED": 9,
}
# With these a mutation may have been done although its answer did not come.
_OUTCOME_UNKNOWN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
# Clusters are asked before anything is written.
_DONE_NOTHING = ("CLUSTER_UNAVAILABLE", "CLUSTER_UNREACHABLE")
AWAY = 9
WAIT_FAILED = 10
LEFT_OUT = 11
EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 fault, 2 wrong command line, 3 invalid value, 4 not logged in, 5 not "
    "allowed, 6 not found, 7 conflict with the current state, 8 quota or rate, 9 server away, 10 "
    "waiting failed, 11 applied without what --skip-unsupported leaves out, 130 interrupted."
)


class CommandError(Exception):
    """A command that cannot continue; the message names the remedy."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def reading_answers() -> Iterator[None]:
    """Raises CommandError if the block cannot read a server's answer."""
    try:
        yield
    except (ValueError, LookupError, OverflowError, RecursionError) as error:
        raise CommandError(
            f"the server's response cannot be read ({type(error).__name__}): is it a Pilothouse "
            "server of this release or a newer one?"
        ) from None


def report(error: Exception) -> int | None:
    """Writes one of our errors to standard error; returns its exit code, None for any other error."""
    if isinstance(error, CommandError):
        _say(str(error))
        return error.exit_code
    # Only imported modules can have raised it, so nothing is imported for the check.
    if _is(error, "pilothouse_client.config_file", "ConfigError"):
        _say(str(error))
        return 1
    if _is(error, "pilothouse_client.waiting", "WaitError"):
        _say(str(error))
        for line in getattr(error, "last_lines", ()):
            say(f"  {line}", err=True)
        return WAIT_FAILED
    if _is(error, "pilothouse_client.errors", "PilothouseError"):
        return _report_call(error)
    return None


def _is(error: Exception, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))


def _report_call(error: Exception) -> int:
    from pilothouse_client.errors import PilothouseError

    assert isinstance(error, PilothouseError)
    code = error.code.name
    headline, violations = error.message_and_violations
    words = headline or ("these fields are wrong" if violations else code.lower().replace("_", " "))
    _say(f"{words} [{error.reason or code}]")
    for violation in violations:
        # The rule comes in words; its name, where there is one, is for searching.
        rule = f" ({violation.reason})" if violation.reason else ""
        say(f"  {violation.field}: {violation.description}{rule}", err=True)
    if code == "UNAUTHENTICATED":
        say(f"  {hints.logging_in()}", err=True)
    if remedy := hints.remedy_of(error.connection_problem):
        say(f"  {remedy}", err=True)
    if error.retry_delay:
        say(f"  try again in {math.ceil(error.retry_delay)} s", err=True)
    if (
        code in _OUTCOME_UNKNOWN
        and error.reason not in _DONE_NOTHING
        and error.request_id
        and not error.never_sent
    ):
        words = "the change may have been made: check before you repeat it"
        say(f"  {words} (request {error.request_id})", err=True)
    exit_code = exit_code_of(code)
    if exit_code == 1 and error.operation_id:
        say(f"  operation {error.operation_id}", err=True)
    return exit_code


def exit_code_of(code: str) -> int:
    """Returns the exit code for the name of a gRPC code."""
    return _EXIT_CODE_OF.get(code, 1)


def _say(message: str) -> None:
    say(f"error: {message}", err=True)
