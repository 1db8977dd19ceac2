"""Problems of a manifest, each with its place.

Every fault found in the input is an `InputProblem` with the file and line it stands at, collected rather than
raised, so that one run shows all of them. A problem's `ProblemReach` says how far `--skip-unsupported` goes:
leave out the field, leave out the document, or nothing, because the input is wrong and not merely beyond the
platform. Its weight says how much is lost then, and `--skip-unsupported` names the greatest weight to accept.

`listed` is the way to print them: equal ones in one line, and each that follows from another beneath that one.
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

# Where a document can go that has no place here.
ELSEWHERE = "`kubectl apply` it: it will be left alone"
# Places of equal problems that a line names.
_PLACES = 5
_INDEX = re.compile(r"\[[^\]]*\]")


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

    Problems of one `group` have one cause, and are listed in one line. `weight` is None if it is invalid. `follows`:
    the subject, or the subject and the beginning of a path (`deployment/web: spec.template`), of the problem that
    this one follows from.
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
        # Remarks on fields that are left out without a loss.
        self.notes: list[InputProblem] = []

    def add(self, problem: InputProblem) -> None:
        """Adds a problem; a repetition about the same place (an anchor used twice) is dropped."""
        if problem not in self._found:
            self._found.append(problem)

    @property
    def all(self) -> tuple[InputProblem, ...]:
        """All of them, by place."""
        return tuple(sorted(self._found, key=lambda problem: problem.place))

    def refused(self, skip: ProblemWeight | None) -> tuple[InputProblem, ...]:
        """Those that keep the input from being applied. `skip`: the greatest weight to accept; None: none."""
        return tuple(each for each in self.all if not _accepted(each, skip))

    def skipped(self, skip: ProblemWeight | None) -> tuple[InputProblem, ...]:
        """Returns the problems that the caller chose to skip."""
        return tuple(each for each in self.all if _accepted(each, skip))


def _accepted(problem: InputProblem, skip: ProblemWeight | None) -> bool:
    return skip is not None and problem.weight is not None and problem.weight <= skip


def counts(problems: Iterable[InputProblem]) -> str:
    """How many there are of each class, such as `2 harmless, 1 security, 1 invalid`."""
    found = Counter(problem.weight.word if problem.weight else "invalid" for problem in problems)
    words = (*(weight.word for weight in ProblemWeight), "invalid")
    return ", ".join(f"{found[word]} {word}" for word in words if found[word])


def listed(problems: Sequence[InputProblem]) -> list[str]:
    """The lines to print: equal problems in one, and beneath each those that follow from it, indented."""
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
    """Whether a problem follows from one of these, which follow from nothing."""
    if not problem.follows:
        return False
    return any(not each.follows and each.located.startswith(problem.follows) for each in causes)


def _likeness(problem: InputProblem) -> object:
    """Equal for problems that are listed in one line."""
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
    """Files the problems of one document under its subject, and remembers whether the document is still usable."""

    def __init__(
        self,
        problems: Problems,
        subject: str,
        identity: tuple[str, str] = ("", ""),
        root: Mapping | None = None,
    ) -> None:
        """`identity`: apiVersion and kind of the document, if it is an object; `root`: a workload's document.

        `carried` are the fields of a workload that the API does not name: JSON by the paths of `extra_fields`;
        `carried_at` has where each of them stands.
        """
        self._problems = problems
        self._root = root
        self.carried: dict[str, str] = {}
        self.carried_at: dict[str, InputPosition] = {}
        # Paths of fields that a server sets and nobody else.
        self.dropped: list[str] = []
        self.subject = subject
        self.usable = True
        self._identity = identity

    def carry(self, path: str, node: Node, place: InputPosition) -> bool:
        """Takes a field into `carried`, if the document has a container with `extra_fields` and the path is free."""
        if self._root is None:
            return False
        carried = carry(self.carried, keyed_path(self._root, path), plain(node))
        if carried:
            self.carried_at[carried] = place
        return bool(carried)

    def meant(self, path: str) -> str | None:
        """The field of Kubernetes that a misspelt one at a path is nearest to; None if it is not misspelt."""
        return schemas().meant(*self._identity, path)

    def note_dropped(self, place: InputPosition) -> None:
        """Notes the fields that a server sets, once for the document; an object that a cluster shows has them."""
        if self.dropped:
            self.note(place, f"leaves out what the cluster sets: {', '.join(self.dropped)}")

    def note(self, place: InputPosition, words: str) -> None:
        """Notes something about the document that is no problem."""
        self._problems.notes.append(InputProblem(place, self.subject, "", words))

    def faults(self, path: str, node: Node) -> list[tuple[str, str]]:
        """The faults of a value by Kubernetes' own schema: the path and the rule of each."""
        return list(schemas().problems(*self._identity, path, plain(node)))

    def invalid(self, place: InputPosition, path: str, message: str, *, group: str = "") -> None:
        """The input is wrong in itself."""
        self.usable = False
        self._problems.add(InputProblem(place, self.subject, path, message, group=group))

    def unsupported(
        self, place: InputPosition, path: str, message: str = "cannot be represented", *, follows: str = ""
    ) -> None:
        """One field has no place on the platform."""
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
