"""Errors as messages and exit codes, so that scripts can distinguish them without reading text."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pilothouse_client.commands import hints
from pilothouse_client.commands.terminal import say, say_prose

# gRPC code -> exit code; any other code is a fault: 1. A wrong command line is 2, as usual.
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
# Codes after which a mutation may have succeeded although its response did not arrive.
_OUTCOME_UNKNOWN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
# Reasons of errors after which nothing was written: the server calls the cluster first.
_DONE_NOTHING = ("CLUSTER_UNAVAILABLE", "CLUSTER_UNREACHABLE")
# Whether errors are written as JSON.
as_json: ContextVar[bool] = ContextVar("as_json", default=False)
_WRONG_COMMAND_LINE = 2
# The reason of an error that comes without one, by its exit code.
_REASONS = {
    3: "INVALID_VALUE",
    4: "NOT_LOGGED_IN",
    5: "PERMISSION_DENIED",
    6: "NOT_FOUND",
    7: "CONFLICT",
    9: "UNAVAILABLE",
    10: "WAIT_FAILED",
}
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][a-z-]*")
_RULES_OF_PARSING = {
    "MissingParameter": "REQUIRED",
    "NoSuchOption": "UNKNOWN_OPTION",
    "BadParameter": "WRONG_VALUE",
}
# The command names a wheel file, because PyPI has another project of this name.
INSTALL_SERVER = "pip install 'pilothouse-VERSION-py3-none-any.whl[server]'"
AWAY = 9
WAIT_FAILED = 10
LEFT_OUT = 11
# `--help` and docs/command.md show these exit codes; programs compare them.
EXIT_CODES = {
    0: "done",
    1: "a fault, `no`, or a difference",
    2: "wrong command line",
    3: "invalid value",
    4: "not logged in",
    5: "not allowed",
    6: "not found",
    7: "conflict with the current state",
    8: "quota or rate",
    9: "server or cluster away",
    10: "waiting failed",
    11: "applied without what `--skip-unsupported` leaves out",
    130: "interrupted",
}
EXIT_CODES_HELP = f"Exit codes: {'; '.join(f'{code} {text}' for code, text in EXIT_CODES.items())}.".replace(
    "`", ""
)


class CommandError(Exception):
    """A command that cannot continue; the message names the remedy.

    `violations` are the fields at fault, with `field`, `rule` and `message`; `fix` has sentences about remedies, and
    `lines` further details.
    """

    def __init__(
        self,
        message: str,
        exit_code: int = 1,
        reason: str = "",
        *,
        violations: Sequence[dict[str, str]] = (),
        fix: Sequence[str] = (),
        lines: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.reason = reason
        self.violations = violations
        self.fix = fix
        self.lines = lines


@contextmanager
def reading_answers() -> Iterator[None]:
    """Raises CommandError if the block cannot decode a server's response."""
    try:
        yield
    except (ValueError, LookupError, OverflowError, RecursionError) as error:
        raise CommandError(
            f"the server's response cannot be read ({type(error).__name__}): is it a Pilothouse "
            "server of this release or a newer one?"
        ) from None


@dataclass(slots=True)
class _Failure:
    """An error in the forms for people and for programs.

    Programs get all `violations`; people get `listed`, the violations that the message does not name. `fix` has
    sentences. `more` has further fields for programs."""

    message: str
    exit_code: int
    reason: str = ""
    violations: list[dict[str, str]] = field(default_factory=list)
    listed: Sequence[dict[str, str]] = ()
    fix: list[str] = field(default_factory=list)
    lines: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    def write(self) -> None:
        if as_json.get():
            import json

            data = {
                "reason": self.reason,
                "message": self.message,
                "exit_code": self.exit_code,
                "violations": self.violations,
                "fix": self.fix or list(map(_remedy, self.violations)),
                **({"lines": self.lines} if self.lines else {}),
                **self.more,
            }
            say(json.dumps(data, ensure_ascii=False), err=True)
            return
        say_prose(f"error: {self.message}{f' [{self.reason}]' if self.more else ''}")
        for each in self.listed:
            # The message describes the rule; the rule's name, if there is one, is for searching.
            rule = f" ({each['rule']})" if each["rule"] else ""
            say_prose(f"  {each['field']}: {each['message']}{rule}")
        for line in (*self.fix, *self.lines):
            say_prose(f"  {line}")


def _remedy(violation: dict[str, str]) -> str:
    field, message = violation["field"], violation["message"]
    return message if field in message else f"{field}: {message}"


def report(error: Exception) -> int | None:
    """Writes a known error to standard error.

    Returns its exit code, or None for any other error."""
    failure = failure_of(error)
    if failure is None:
        return None
    failure.write()
    return failure.exit_code


def failure_of(error: Exception) -> _Failure | None:
    """Returns the text and the exit code of a known error; None for any other error."""
    if isinstance(error, CommandError):
        return _of_command(error)
    # Only an imported module can have raised the error, so the check imports nothing. click's error for a line without
    # a verb shows the help.
    if _is(error, "click.exceptions", "UsageError") and not _is(
        error, "click.exceptions", "NoArgsIsHelpError"
    ):
        return _of_usage(error)
    if _is(error, "pilothouse_client.config_file", "ConfigError"):
        return _Failure(str(error), 1, "CONFIGURATION_FILE")
    if _is(error, "pilothouse_client.waiting", "WaitError"):
        return _Failure(str(error), WAIT_FAILED, "WAIT_FAILED", lines=tuple(getattr(error, "last_lines", ())))
    if _is(error, "pilothouse_client.errors", "PilothouseError"):
        return _of_call(error)
    return None


def _is(error: Exception, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))


def _of_command(error: CommandError) -> _Failure:
    violations, reason = [*error.violations], error.reason or _REASONS.get(error.exit_code, "FAILED")
    if error.exit_code == _WRONG_COMMAND_LINE:
        reason = "WRONG_COMMAND_LINE"
        # The first clause names the fault, the others the remedy.
        named = dict.fromkeys(_OPTION.findall(re.split("[;:]|, or ", str(error))[0]))
        violations = violations or [_wrong_option(option, str(error)) for option in named]
    parts = violations, error.violations, [*error.fix], tuple(error.lines)
    return _Failure(str(error), error.exit_code, reason, *parts)


def _wrong_option(option: str, message: str, rule: str = "WRONG_OPTION") -> dict[str, str]:
    return {"field": option, "rule": rule, "message": message}


def _of_usage(error: Any) -> _Failure:
    """Returns the failure for a parse error of click.

    Messages of click begin with a capital letter."""
    words = error.format_message()
    made = _Failure(words[:1].lower() + words[1:], _WRONG_COMMAND_LINE, "WRONG_COMMAND_LINE")
    parameter = getattr(error, "param", None)
    option = getattr(error, "option_name", None) or (parameter.opts[-1] if parameter is not None else "")
    if option:
        rule = _RULES_OF_PARSING.get(type(error).__name__, "WRONG_OPTION")
        made.violations = [_wrong_option(option, made.message, rule)]
    if error.ctx is not None:
        usage = " ".join(error.ctx.command.collect_usage_pieces(error.ctx))
        made.fix.append(f"usage: {error.ctx.command_path} {usage}".rstrip())
        made.fix.append(f"{error.ctx.command_path} --help shows all options")
        if (
            option
            and _is(error, "click.exceptions", "NoSuchOption")
            and _is_before_the_verb(option, error.ctx)
        ):
            made.fix.insert(0, f"put {option} before the verb: pilothouse {option} …")
    return made


def _is_before_the_verb(option: str, context: Any) -> bool:
    return any(option in each.opts for each in context.find_root().command.params)


def _of_call(error: Exception) -> _Failure:
    from pilothouse_client.errors import PilothouseError

    assert isinstance(error, PilothouseError)
    code = error.code.name
    headline, unnamed = error.message_and_violations
    words = headline or ("these fields are wrong" if unnamed else code.lower().replace("_", " "))
    made = _Failure(words, exit_code_of(code), error.reason or code)
    made.violations, made.listed = (
        [{"field": each.field, "rule": each.reason, "message": each.description} for each in fields]
        for fields in (error.violations, unnamed)
    )
    made.more = {"code": code, "metadata": dict(error.metadata)}
    if code == "UNAUTHENTICATED":
        made.fix.append(hints.logging_in())
    if remedy := hints.remedy_of(error.connection_problem):
        made.fix.append(remedy)
    if error.retry_delay:
        made.fix.append(f"try again in {math.ceil(error.retry_delay)} s")
        made.more["retry_seconds"] = error.retry_delay
    if (
        code in _OUTCOME_UNKNOWN
        and error.reason not in _DONE_NOTHING
        and error.request_id
        and not error.never_sent
    ):
        words = "the change may have been made: check before you repeat it"
        made.fix.append(f"{words} (request {error.request_id})")
    made.more |= {"operation_id": error.operation_id, "request_id": error.request_id}
    if made.exit_code == 1 and error.operation_id:
        made.lines = (f"operation {error.operation_id}",)
    return made


def exit_code_of(code: str) -> int:
    """Returns the exit code for the name of a gRPC code."""
    return _EXIT_CODE_OF.get(code, 1)
