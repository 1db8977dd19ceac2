"""Problems of a manifest, each with its position.

Every fault in the input is an `InputProblem` with its file and line. Problems are collected rather than raised, so that
one run shows all of them. A problem's `ProblemReach` determines the part that `--skip-unsupported` leaves out: the
field, the document, or nothing, if the input is wrong and not merely unsupported. Its weight is how much is lost by
that; `--skip-unsupported` names the greatest weight to accept.

`listed` formats problems: equal problems in one line, and below a problem those that follow from it.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilothouse_manifests.extra_fields import carry
from pilothouse_manifests.schemas.tables import schemas
from pilothouse_manifests.translator.nodes import InputPosition, Mapping, Node, keyed_path, plain
from pilothouse_manifests.translator.weights import ProblemWeight, weight_of_field

# The remedy for a document that has no place on the platform.
ELSEWHERE = "`kubectl apply` it: it will be left alone"
# The number of positions of equal problems that a line names.
_PLACES = 5
_INDEX = re.compile(r"\[[^\]]*\]")


class ProblemReach(enum.Enum):
    """How much of the input is lost by continuing despite a problem."""

    FIELD = "field"
    """Well-formed, but the platform has no place for it: the field can be left out."""
    DOCUMENT = "document"
    """Well-formed, but the whole document is useless without it."""
    INVALID = "invalid"
    """Wrong in itself: Kubernetes would refuse it, too. Never skipped."""


@dataclass(frozen=True, slots=True)
class InputProblem:
    """One fault: `subject` is `kind/name` (empty if the text cannot be parsed), `path` the field within it.

    Problems of one `group` have one cause, and are listed in one line. `weight` is None if the input is invalid.
    `follows`: the subject, or the subject and the beginning of a path (`deployment/web: spec.template`), of the problem
    from which this one follows.
    """

    place: InputPosition
    subject: str
    path: str
    message: str
    reach: ProblemReach = ProblemReach.INVALID
    group: str = ""
    weight: ProblemWeight | None = None
    follows: str = ""

    @property
    def located(self) -> str:
        """Subject and path."""
        return f"{self.subject}: {self.path}"

    def __str__(self) -> str:
        if not self.subject:
            return f"{self.place.exact}: {self.message}"
        return ": ".join(part for part in (str(self.place), self.subject, self.path, self.message) if part)


class Problems:
    """Collects the problems of one run."""

    def __init__(self) -> None:
        self._found: list[InputProblem] = []
        # Notes on fields that are left out without a loss.
        self.notes: list[InputProblem] = []

    def add(self, problem: InputProblem) -> None:
        """Adds a problem; a repetition about the same place (an anchor used twice) is dropped."""
        if problem not in self._found:
            self._found.append(problem)

    @property
    def all(self) -> tuple[InputProblem, ...]:
        """All problems, ordered by position."""
        return tuple(sorted(self._found, key=lambda problem: problem.place))

    def refused(self, skip: ProblemWeight | None) -> tuple[InputProblem, ...]:
        """Returns the problems that keep the input from being applied.

        `skip`: the greatest weight to accept; None: no problem is accepted."""
        return tuple(each for each in self.all if not _accepted(each, skip))

    def skipped(self, skip: ProblemWeight | None) -> tuple[InputProblem, ...]:
        """Returns the problems that the caller chose to skip."""
        return tuple(each for each in self.all if _accepted(each, skip))


def _accepted(problem: InputProblem, skip: ProblemWeight | None) -> bool:
    return skip is not None and problem.weight is not None and problem.weight <= skip


def counts(problems: Iterable[InputProblem]) -> str:
    """Returns the number of problems of each weight, such as `2 harmless, 1 security, 1 invalid`."""
    found = Counter(problem.weight.word if problem.weight else "invalid" for problem in problems)
    words = (*(weight.word for weight in ProblemWeight), "invalid")
    return ", ".join(f"{found[word]} {word}" for word in words if found[word])


def listed(problems: Sequence[InputProblem]) -> list[str]:
    """Returns the lines to print: one for equal problems, and below it, indented, the problems that follow from it."""
    lines: list[str] = []
    alike: dict[object, list[InputProblem]] = {}
    following: list[InputProblem] = []
    for problem in problems:
        if _has_cause(problem, problems):
            following.append(problem)
        else:
            alike.setdefault(_likeness(problem), []).append(problem)
    for group in alike.values():
        lines.append(_line(group))
        lines += [f"  {line}" for line in listed([each for each in following if _has_cause(each, group)])]
    return lines


def _has_cause(problem: InputProblem, causes: Iterable[InputProblem]) -> bool:
    """Returns whether a problem follows from one of these problems that itself follows from none."""
    if not problem.follows:
        return False
    return any(not each.follows and each.located.startswith(problem.follows) for each in causes)


def _likeness(problem: InputProblem) -> object:
    """Returns a key that is equal for problems which are listed in one line."""
    if problem.group:
        return problem.group
    if not problem.subject:
        return problem
    kind = problem.subject.partition("/")[0]
    return kind, _INDEX.sub("[]", problem.path), problem.message, problem.weight


def _place(problem: InputProblem, first: InputProblem) -> str:
    place = problem.place
    return f"line {place.line}" if place.file == first.place.file else str(place)


def _line(alike: Sequence[InputProblem]) -> str:
    first, *others = alike
    weight = f" ({first.weight.word})" if first.weight else ""
    if not others:
        return f"{first}{weight}"
    places = [f"{each.subject} ({_place(each, first)})" for each in others[:_PLACES]]
    if len(others) > _PLACES:
        places.append(f"{len(others) - _PLACES} more")
    return f"{first}{weight}; the same in {', '.join(places)}"


class Reporter:
    """Adds problems of one document with its subject, and records whether the document is still usable."""

    def __init__(
        self,
        problems: Problems,
        subject: str,
        identity: tuple[str, str] = ("", ""),
        root: Mapping | None = None,
    ) -> None:
        """Starts without problems.

        `identity`: apiVersion and kind of the document, if it is an object; `root`: a workload's document. `carried`
        has the fields of a workload that the API does not name: JSON by the paths of `extra_fields`; `carried_at` has
        their positions.
        """
        self._problems = problems
        self._root = root
        self.carried: dict[str, str] = {}
        self.carried_at: dict[str, InputPosition] = {}
        # Paths of fields that only a server sets.
        self.dropped: list[str] = []
        self.subject = subject
        self.usable = True
        self._identity = identity

    def carry(self, path: str, node: Node, place: InputPosition) -> bool:
        """Adds a field to `carried`, if the document has a container with `extra_fields` and the path is free."""
        if self._root is None:
            return False
        carried = carry(self.carried, keyed_path(self._root, path), plain(node))
        if carried:
            self.carried_at[carried] = place
        return bool(carried)

    def meant(self, path: str) -> str | None:
        """Returns the Kubernetes field that the misspelt field at a path is nearest to.

        None if it is not misspelt."""
        return schemas().meant(*self._identity, path)

    def note_dropped(self, place: InputPosition) -> None:
        """Notes, once for the document, the fields that a server sets; an object exported from a cluster has them."""
        if self.dropped:
            self.note(place, f"leaves out what the cluster sets: {', '.join(self.dropped)}")

    def note(self, place: InputPosition, words: str) -> None:
        """Adds a note about the document that is not a problem."""
        self._problems.notes.append(InputProblem(place, self.subject, "", words))

    def faults(self, path: str, node: Node) -> list[tuple[str, str]]:
        """Returns the faults of a value by Kubernetes' own schema: the path and the rule of each."""
        return list(schemas().problems(*self._identity, path, plain(node)))

    def invalid(self, place: InputPosition, path: str, message: str, *, group: str = "") -> None:
        """Reports that the input is invalid."""
        self.usable = False
        self._problems.add(InputProblem(place, self.subject, path, message, group=group))

    def unsupported(
        self, place: InputPosition, path: str, message: str = "cannot be represented", *, follows: str = ""
    ) -> None:
        """Reports that one field has no place on the platform."""
        weight = weight_of_field(path)
        self._problems.add(
            InputProblem(
                place, self.subject, path, message, ProblemReach.FIELD, weight=weight, follows=follows
            )
        )

    def unusable(
        self,
        place: InputPosition,
        path: str,
        message: str,
        *,
        weight: ProblemWeight = ProblemWeight.BEHAVIOUR,
        follows: str = "",
    ) -> None:
        """Reports that the whole document has no place on the platform."""
        self.usable = False
        self._problems.add(
            InputProblem(
                place, self.subject, path, message, ProblemReach.DOCUMENT, weight=weight, follows=follows
            )
        )
