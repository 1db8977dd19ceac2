"""The result of an `apply` for programs: `-o json`, and errors as JSON.

With `-o json`, standard output has one document with changes, problems and warnings. With `--wait`, the document is one
line, after a line for each state on the way.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from pilothouse_client.apply.outcome import ApplyOutput, ApplyResult, remedies
from pilothouse_client.commands.failures import WAIT_FAILED, CommandError, as_json
from pilothouse_client.commands.output import as_data
from pilothouse_client.commands.terminal import console, progress, say, say_prose, write_data
from pilothouse_manifests.translator.problems import InputProblem, ProblemReach

REFUSED = 3
_NOTHING = "nothing to apply: the input contains no document"
# The number of containers from which on a bar replaces their lines, and the width of the bar.
_MANY, _BAR_WIDTH = 5, 20
# The end of the message of a problem that the server has found: its reason.
_REASON = re.compile(r" \[([A-Z][A-Z0-9_]*)\]$")
_REASONS = {
    ProblemReach.FIELD: "UNSUPPORTED",
    ProblemReach.DOCUMENT: "UNSUPPORTED_DOCUMENT",
    ProblemReach.INVALID: "INVALID_DOCUMENT",
}


def lines_of(is_data: bool) -> ApplyOutput:
    """Returns the output for the lines of an apply; with `-o json`, only the progress has lines."""
    if is_data:
        return ApplyOutput(progress=_write_progress)
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return ApplyOutput(say, complain)
    bar = _Bar()
    return ApplyOutput(bar.write, bar.complain, progress=bar.show, count=bar.count)


class _Bar:
    """Shows the states of a wait on a terminal: a line each, or one bar with the newest state for many containers."""

    def __init__(self) -> None:
        self._done = self._total = 0

    def count(self, done: int, total: int) -> None:
        """Sets how many containers run, and how many the wait is for."""
        self._done, self._total = done, total

    def show(self, line: str) -> None:
        """Shows a state."""
        if self._total < _MANY:
            say_prose(line, err=False)
            return
        filled = _BAR_WIDTH * self._done // self._total
        bar = f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {self._done}/{self._total} run; {line}"
        width = console(err=True).width - 1
        progress(bar if len(bar) <= width else f"{bar[: width - 1]}…")

    def write(self, line: str) -> None:
        """Writes a line in place of the bar."""
        progress("")
        for each in line.split("\n"):
            say_prose(each, err=False)

    def complain(self, line: str) -> None:
        """Writes a line about a problem in place of the bar."""
        progress("")
        complain(line)


def complain(line: str) -> None:
    """Writes a line about a problem for people."""
    # With errors as JSON, all problems are written at the end.
    if not as_json.get():
        say_prose(line)


def _write_progress(line: str) -> None:
    subject, _, state = line.partition(" ")
    write_data(_json({"progress": {"object": subject, "state": state}}))


def check(output: ApplyOutput, result: ApplyResult) -> None:
    """Raises the error of a result if errors are written as JSON."""
    if not as_json.get():
        return
    if result is ApplyResult.REFUSED and not output.refused:
        raise CommandError(_NOTHING, REFUSED, "NOTHING_TO_APPLY")
    if result is ApplyResult.REFUSED:
        raise refusal(output.refused, output.refusal, remedies(output.refused))
    if result is ApplyResult.NOT_RUNNING:
        first, *rest = output.unhealthy or ["it did not become healthy"]
        raise CommandError(first, WAIT_FAILED, "WAIT_FAILED", lines=[line.strip() for line in rest])


def refusal(problems: Sequence[InputProblem], summary: str, fix: Sequence[str] = ()) -> CommandError:
    """Returns the error for refused manifests."""
    violations = [_violation(each) for each in problems]
    return CommandError(summary, REFUSED, "MANIFESTS_REFUSED", violations=violations, fix=fix)


def write(output: ApplyOutput, result: ApplyResult, exit_code: int, *, is_dry_run: bool, waits: bool) -> None:
    """Writes the document of `-o json`."""
    answer = output.answer
    data = {
        "result": result.name.lower(),
        "exit_code": exit_code,
        "dry_run": is_dry_run,
        "revision": answer.revision if answer is not None else 0,
        "changes": [as_data(each) for each in answer.changes] if answer is not None else [],
        "problems": _problems(output.refused),
        "left_out": _problems(output.left_out),
        "warnings": output.warnings,
        "notes": output.notes,
        "unhealthy": [line.strip() for line in output.unhealthy],
    }
    write_data(_json(data) if waits else _json(data, 2))


def _json(data: Any, indent: int | None = None) -> str:
    return json.dumps(data, ensure_ascii=False, indent=indent)


def _problems(problems: Sequence[InputProblem]) -> list[dict[str, Any]]:
    return [
        {
            "file": each.place.file,
            "line": each.place.line,
            "object": each.subject,
            "field": each.path,
            "reason": _reason(each),
            "message": _REASON.sub("", each.message),
            "weight": each.weight.word if each.weight is not None else "invalid",
        }
        for each in problems
    ]


def _reason(problem: InputProblem) -> str:
    found = _REASON.search(problem.message)
    return found[1] if found else _REASONS[problem.reach]


def _violation(problem: InputProblem) -> dict[str, str]:
    place = ": ".join(filter(None, (str(problem.place), problem.subject, problem.path)))
    return {"field": place, "rule": _reason(problem), "message": _REASON.sub("", problem.message)}
