"""The documents of files as they are sent to the server, and the file and line of the problems that it reports.

The server identifies a document by its number, and a field by its path. This module has the nodes of each document by
its number, so that a problem is shown with its file and line. Parts that are left out by request are removed from the
nodes, and the rest is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.apply.field_places import place_of
from pilothouse_manifests.translator.convert import items_of
from pilothouse_manifests.translator.json_documents import DocumentError, written
from pilothouse_manifests.translator.nodes import (
    Document,
    InputPosition,
    Mapping,
    Node,
    ScalarNode,
    SequenceNode,
)
from pilothouse_manifests.translator.problems import InputProblem, ProblemReach, Problems
from pilothouse_manifests.translator.weights import ProblemWeight

_STEP = re.compile(r"([^.\[\]]+)|\[([^\]]*)\]")
_WEIGHTS = {
    pb.PROBLEM_WEIGHT_HARMLESS: ProblemWeight.HARMLESS,
    pb.PROBLEM_WEIGHT_BEHAVIOUR: ProblemWeight.BEHAVIOUR,
    pb.PROBLEM_WEIGHT_SECURITY: ProblemWeight.SECURITY,
}
# Reasons of problems that the translator finds: their messages are shown without the reason.
_REACHES = {
    "UNSUPPORTED": ProblemReach.FIELD,
    "UNSUPPORTED_DOCUMENT": ProblemReach.DOCUMENT,
    "INVALID_DOCUMENT": ProblemReach.INVALID,
    "MALFORMED_DOCUMENT": ProblemReach.INVALID,
}
# Objects of the platform -> their kinds in Kubernetes.
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def subject_of(kind: str, name: str) -> str:
    """Returns the word for an object in the output: `container/web` for a Deployment, `ingress/web`."""
    if kind in _WORKLOADS:
        return f"container/{name}"
    return f"{'volume' if kind == 'PersistentVolumeClaim' else kind.lower()}/{name}"


class SentDocuments:
    """The objects of some files; each item of a List is a document of its own."""

    def __init__(self, documents: Iterable[Document], problems: Problems) -> None:
        self._roots: list[Node] = [item for each in documents for item in items_of(each, problems)]
        self._texts = [self._text(root, problems) for root in self._roots]
        self._by_name = {_name_of(root): root for root in self._roots}

    def __len__(self) -> int:
        return len(self._roots)

    @property
    def names(self) -> Iterable[tuple[str, str]]:
        """The kind and name of each document."""
        return self._by_name

    @property
    def documents(self) -> list[Document]:
        """The documents, with their positions."""
        return [Document(root.place, root) for root in self._roots]

    def messages(self) -> Iterator[pb.ApplicationDocument]:
        """Yields the documents."""
        for root, text in zip(self._roots, self._texts, strict=True):
            yield pb.ApplicationDocument(json=text, source=str(root.place))

    def find(self, kind: str, name: str) -> Node | None:
        """Returns the document of an object; None for an object that pods imply."""
        return self._by_name.get((kind, name))

    def problem_of(self, found: pb.ApplicationProblem) -> InputProblem:
        """Returns a problem that the server reported, with the position of its field."""
        is_here = 0 <= found.document < len(self._roots)
        place = InputPosition("", 0, 0)
        if is_here:
            place = place_of(self._roots[found.document], found.kind, found.path)
        if found.reason not in _REACHES:
            subject = subject_of(found.kind, found.name)
            return InputProblem(place, subject, found.path, f"{found.message} [{found.reason}]")
        return InputProblem(
            place,
            f"{found.kind.lower()}/{found.name}",
            found.path,
            found.message,
            _REACHES[found.reason],
            weight=_WEIGHTS.get(found.weight),
        )

    def leave_out(self, problems: Iterable[InputProblem]) -> bool:
        """Removes fields or whole documents from those to send.

        Returns whether there was anything to remove."""
        paths: dict[str, set[str]] = {}
        for each in problems:
            whole = each.reach is ProblemReach.DOCUMENT
            paths.setdefault(each.subject, set()).add("" if whole else each.path)
        kept: list[Node] = []
        changed = False
        for root in self._roots:
            rest: Node | None = root
            for path in sorted(paths.get(document_subject(root), ())):
                rest = _without(rest, _steps(path)) if rest is not None and path else None
            changed = changed or rest is not root
            if rest is not None:
                kept.append(rest)
        self._roots = kept
        self._texts = [written(root) for root in kept]
        return changed

    @staticmethod
    def _text(root: Node, problems: Problems) -> str:
        try:
            return written(root)
        except DocumentError as error:
            problems.add(InputProblem(root.place, "", "", error.words))
            return ""


def document_subject(root: Node) -> str:
    """Returns the subject of the problems of a document: `deployment/web`."""
    kind, name = _name_of(root)
    return f"{kind.lower()}/{name}"


def _name_of(root: Node) -> tuple[str, str]:
    metadata = root.entries.get("metadata") if isinstance(root, Mapping) else None
    return _text_at(root, "kind"), _text_at(metadata.value, "name") if metadata is not None else ""


def _text_at(node: Node, key: str) -> str:
    entry = node.entries.get(key) if isinstance(node, Mapping) else None
    return entry.value.text if entry is not None and isinstance(entry.value, ScalarNode) else ""


def _steps(path: str) -> list[str]:
    return [key or index for key, index in _STEP.findall(path)]


def _without(node: Node, steps: list[str]) -> Node | None:
    """Returns a node without the field at these steps; None if there is no such field."""
    first, *rest = steps
    if isinstance(node, SequenceNode) and first.isdigit() and int(first) < len(node.items) and rest:
        inner = _without(node.items[int(first)], rest)
        if inner is None:
            return None
        items = [inner if number == int(first) else item for number, item in enumerate(node.items)]
        return SequenceNode(node.place, tuple(items))
    if not isinstance(node, Mapping) or first not in node.entries:
        return None
    entries = dict(node.entries)
    if not rest:
        del entries[first]
        return Mapping(node.place, entries)
    entry = entries[first]
    inner = _without(entry.value, rest)
    if inner is None:
        return None
    entries[first] = type(entry)(entry.place, inner)
    return Mapping(node.place, entries)
