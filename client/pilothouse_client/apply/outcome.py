"""The options of an `apply`, how it ends, and its messages about an input that it refuses."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.waiting import DEFAULT_PATIENCE, Patience
from pilothouse_manifests.translator.problems import InputProblem, Problems, counts, listed
from pilothouse_manifests.translator.weights import ProblemWeight

DEFAULT_TIMEOUT_SECONDS = 300.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an apply that are not fields of its call.

    `sources`: files, folders, `-`. `skip`: the greatest weight of a problem to accept. `timeout_seconds` and
    `patience` apply to `wait`.
    """

    sources: Sequence[str]
    wait: bool = False
    skip: ProblemWeight | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    patience: Patience = DEFAULT_PATIENCE


def _ignore(_line: str) -> None: ...


def _ignore_count(_done: int, _total: int) -> None: ...


@dataclass(slots=True)
class ApplyOutput:
    """The callbacks for the lines of an apply, and its results, for programs.

    `say` is called with the changes, `complain` with problems and warnings, `progress` with the states of the wait
    (default: `say`), and `count` with the number of containers that run and the number that the wait is for. `refused`
    are the problems that keep the input from being applied, and `refusal` is the sentence that counts them.
    `unhealthy`: the lines about objects that did not become healthy.
    """

    say: Say = _ignore
    complain: Say = _ignore
    progress: Say | None = None
    count: Callable[[int, int], None] = _ignore_count
    answer: pb.ApplyApplicationResponse | None = None
    refused: Sequence[InputProblem] = ()
    refusal: str = ""
    left_out: Sequence[InputProblem] = ()
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unhealthy: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Records and writes a remark on a field that is left out without a loss."""
        self.notes.append(line)
        self.complain(f"note: {line}")

    def warn(self, line: str) -> None:
        """Records and writes a warning of the server, of the cluster, or about a plain-text secret."""
        self.warnings.append(line)
        self.complain(f"warning: {line}")

    def show_progress(self, line: str) -> None:
        """Writes the state of something that the wait is for."""
        (self.progress or self.say)(line)

    def miss(self, line: str) -> None:
        """Records and writes a line about something that did not become healthy."""
        self.unhealthy.append(line)
        self.complain(line)


class ApplyResult(enum.Enum):
    """The result of an apply: the worst that happened."""

    DONE = "done"
    NOT_RUNNING = "applied, but not everything became healthy"
    LEFT_OUT = "applied, without the parts that cannot be represented"
    REFUSED = "nothing was applied"


def refuse(
    problems: Problems, skip: ProblemWeight | None, output: ApplyOutput, *, validate_only: bool
) -> None:
    """Lists the problems that keep the input from being applied.

    `skip`: the greatest weight that was accepted."""
    output.refused = refused = problems.refused(skip)
    count = "one problem" if len(refused) == 1 else f"{len(refused)} problems"
    verb = "would be" if validate_only else "was"
    output.refusal = f"nothing {verb} applied: {count} ({counts(refused)})"
    for line in (*listed(refused), output.refusal, *remedies(refused)):
        output.complain(line)


def remedies(refused: Sequence[InputProblem]) -> list[str]:
    """Returns the sentence about how to continue without these; nothing if some problems are invalid input."""
    weights = [each.weight for each in refused if each.weight is not None]
    if len(weights) < len(refused):
        return []
    return [f"--skip-unsupported={max(weights).word} continues without these"]
