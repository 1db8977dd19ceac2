"""The options of an `apply`, how it ends, and its messages about an input that it refuses."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pilothouse_client.waiting import DEFAULT_PATIENCE, Patience
from pilothouse_manifests.translator.problems import Problems, counts, listed
from pilothouse_manifests.translator.weights import ProblemWeight

DEFAULT_TIMEOUT_SECONDS = 300.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an apply that are no fields of its call. `sources`: files, folders, `-`.

    `skip`: the greatest weight of a problem to accept; `timeout_seconds`, `patience`: for `wait`.
    """

    sources: Sequence[str]
    wait: bool = False
    skip: ProblemWeight | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    patience: Patience = DEFAULT_PATIENCE


class ApplyResult(enum.Enum):
    """How it ended: the worst that happened."""

    DONE = "done"
    NOT_RUNNING = "applied, but not all of it ran, or was healthy, in time"
    LEFT_OUT = "applied, without what cannot be represented"
    REFUSED = "nothing was applied"


def refuse(problems: Problems, skip: ProblemWeight | None, complain: Say) -> None:
    """Lists the problems that keep the input from being applied. `skip`: the greatest weight that was accepted."""
    refused = problems.refused(skip)
    for line in listed(refused):
        complain(line)
    count = "one problem" if len(refused) == 1 else f"{len(refused)} problems"
    complain(f"nothing was applied: {count} ({counts(refused)})")
    weights = [each.weight for each in refused if each.weight is not None]
    if len(weights) == len(refused):
        complain(f"--skip-unsupported={max(weights).word} continues without these")
