"""Documents for `apply`, `diff` and `delete -f`: Kubernetes YAML, and the output of `-o yaml`.

The output of `-o yaml` contains one of the platform's resources, or a list. Each resource becomes the Kubernetes
objects that `-o manifest` writes for it, with the position of its document, because the server accepts only Kubernetes
documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import IO, Any

from pilothouse_client.apply.documents import load
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.message_data import TYPE, FieldError, message_of, type_of
from pilothouse_manifests.translator.json_documents import DocumentError, written
from pilothouse_manifests.translator.nodes import (
    Document,
    InputPosition,
    Mapping,
    MappingEntry,
    Node,
    ScalarKind,
    ScalarNode,
    SequenceNode,
)
from pilothouse_manifests.translator.problems import InputProblem, Problems


def read_documents(
    sources: Iterable[str], problems: Problems, standard_input: IO[bytes] | None = None
) -> list[Document]:
    """Returns the documents of files, folders and standard input.

    A document that cannot be read becomes a problem."""
    found: list[Document] = []
    for document in load(sources, problems, standard_input):
        found.extend(_expanded(document, problems))
    return found


def _expanded(document: Document, problems: Problems) -> Iterable[Document]:
    root = document.root
    items = root.items if isinstance(root, SequenceNode) else (root,)
    if not items or not all(_text(each, TYPE) for each in items):
        return [document]
    return [made for each in items for made in _of_kubernetes(each, problems)]


def _of_kubernetes(node: Node, problems: Problems) -> list[Document]:
    """Returns the objects for one of the platform's resources."""
    from pilothouse_client.commands.manifests import OwnedServiceError, manifests_of

    name = _text(node, TYPE)
    subject = f"{name.rpartition('.')[2].lower()}/{_text(node, 'name')}"
    try:
        message = message_of(json.loads(written(node)), type_of(name))
        return [Document(node.place, _node(each, node.place)) for each in manifests_of(message)]
    except FieldError as error:
        problems.add(InputProblem(node.place, subject, error.path, error.words))
    except DocumentError as error:
        problems.add(InputProblem(node.place, subject, "", error.words))
    except OwnedServiceError as error:
        problems.notes.append(InputProblem(node.place, subject, "", f"left out: {error}"))
    except CommandError as error:
        problems.add(InputProblem(node.place, subject, "", str(error)))
    return []


def _text(node: Node, key: str) -> str:
    entry = node.entries.get(key) if isinstance(node, Mapping) else None
    return entry.value.text if entry is not None and isinstance(entry.value, ScalarNode) else ""


def _node(value: Any, place: InputPosition) -> Node:
    """Returns data as nodes that all have one position."""
    if isinstance(value, dict):
        return Mapping(place, {key: MappingEntry(place, _node(each, place)) for key, each in value.items()})
    if isinstance(value, list):
        return SequenceNode(place, tuple(_node(each, place) for each in value))
    return ScalarNode(place, *_scalar(value))


def _scalar(value: Any) -> tuple[str, ScalarKind]:
    if value is None:
        return "", "null"
    if isinstance(value, bool):
        return str(value).lower(), "boolean"
    if isinstance(value, int):
        return str(value), "integer"
    return (str(value), "float") if isinstance(value, float) else (str(value), "string")
