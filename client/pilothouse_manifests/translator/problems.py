"""What is wrong with a manifest, and where.

Every fault found in the input is a `InputProblem` with the file and line it stands at, collected rather than
raised, so that one run shows all of them. A problem's `ProblemReach` says what `--skip-unsupported` may do about it:
leave out the field, leave out the document, or nothing, because the input is wrong and not merely beyond the
platform.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, order=True)
class InputPosition:
    """A position in an input file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def exact(self) -> str:
        """With the column, as wanted where the text itself cannot be read."""
        return f"{self.file}:{self.line}:{self.column}"


class ProblemReach(enum.Enum):
    """How much of the input is lost if one goes on in spite of a problem."""

    FIELD = "field"
    """Well-formed, but the platform has no place for it: the field can be left out."""
    DOCUMENT = "document"
    """Well-formed, but the whole document is useless without it."""
    INVALID = "invalid"
    """Wrong in itself: Kubernetes would refuse it, too. Never skipped."""


@dataclass(frozen=True, slots=True)
class InputProblem:
    """One fault: `subject` is `kind/name` (empty if the text cannot be read), `path` the field within it.

    Those of one `group` have one cause, and are told in one line.
    """

    place: InputPosition
    subject: str
    path: str
    message: str
    reach: ProblemReach = ProblemReach.INVALID
    group: str = ""

    def __str__(self) -> str:
        if not self.subject:
            return f"{self.place.exact}: {self.message}"
        return ": ".join(part for part in (str(self.place), self.subject, self.path, self.message) if part)


class Problems:
    """Collects the problems of one run."""

    def __init__(self) -> None:
        self._found: list[InputProblem] = []

    def add(self, problem: InputProblem) -> None:
        """Keep a problem; one that says the same of the same place (an anchor used twice) is kept once."""
        if problem not in self._found:
            self._found.append(problem)

    @property
    def all(self) -> tuple[InputProblem, ...]:
        """By place; of each group the first, with the number of the others."""
        found = sorted(self._found, key=lambda problem: problem.place)
        sizes = Counter(problem.group for problem in found)
        told: set[str] = set()
        shown = []
        for problem in found:
            if problem.group in told:
                continue
            if problem.group:
                told.add(problem.group)
                if others := sizes[problem.group] - 1:
                    objects = "one more object" if others == 1 else f"{others} more objects"
                    problem = replace(problem, message=f"{problem.message}; the same in {objects}")
            shown.append(problem)
        return tuple(shown)

    def refused(self, skip_unsupported: bool) -> tuple[InputProblem, ...]:
        """Those that keep the input from being applied."""
        return tuple(each for each in self.all if each.reach is ProblemReach.INVALID or not skip_unsupported)

    def skipped(self, skip_unsupported: bool) -> tuple[InputProblem, ...]:
        """Those that are passed over because the caller asked for it."""
        return tuple(each for each in self.all if each.reach is not ProblemReach.INVALID and skip_unsupported)


class Reporter:
    """Files the problems of one document under its subject, and remembers whether the document is still usable."""

    def __init__(self, problems: Problems, subject: str) -> None:
        self._problems = problems
        self.subject = subject
        self.usable = True

    def invalid(self, place: InputPosition, path: str, message: str, *, group: str = "") -> None:
        """The input is wrong in itself."""
        self._add(place, path, message, ProblemReach.INVALID, group)

    def unsupported(self, place: InputPosition, path: str, message: str = "cannot be represented") -> None:
        """One field has no place on the platform."""
        self._add(place, path, message, ProblemReach.FIELD)

    def unusable(self, place: InputPosition, path: str, message: str) -> None:
        """The document as a whole has no place on the platform."""
        self._add(place, path, message, ProblemReach.DOCUMENT)

    def _add(
        self, place: InputPosition, path: str, message: str, reach: ProblemReach, group: str = ""
    ) -> None:
        self.usable = self.usable and reach is ProblemReach.FIELD
        self._problems.add(InputProblem(place, self.subject, path, message, reach, group))
