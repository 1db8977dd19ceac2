"""Translates YAML into the objects that an apply requests, as the server does, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import yaml

from pilothouse_client.apply.documents import parse
from pilothouse_manifests.translator.json_documents import written
from pilothouse_manifests.translator.problems import Problems
from pilothouse_server.applications.documents import PresentObjects, settled, translated
from pilothouse_server.applications.model import (
    ApplicationProblem,
    GivenDocument,
    ReadDocuments,
    WantedObject,
)
from pilothouse_server.config.model import Secret
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.containers import rules
from pilothouse_server.containers.model import Container
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.rules import checked as checked_volume

NAMESPACE = "cafe"
NOTHING = PresentObjects()


def given(text: str, file: str = "web.yaml") -> list[GivenDocument]:
    """Returns the documents of a YAML text, as the command sends them."""
    problems = Problems()
    read = parse(text, file, problems)
    assert not problems.all, problems.all
    return [GivenDocument(written(each.root), str(each.place)) for each in read]


async def read_texts(*texts: str, present: PresentObjects = NOTHING) -> ReadDocuments:
    """Returns the objects and problems of YAML texts."""
    documents = [each for text in texts for each in given(text)]
    return await read_documents(documents, present)


async def read_documents(
    documents: Sequence[GivenDocument], present: PresentObjects = NOTHING
) -> ReadDocuments:
    """Returns the objects and problems of documents."""
    return await settled(await translated(documents, NAMESPACE), present)


async def wanted_of(*texts: str, present: PresentObjects = NOTHING) -> dict[str, WantedObject]:
    """Returns the objects of YAML texts, which must have no problem, by noun and name."""
    read = await read_texts(*texts, present=present)
    assert not read.problems, read.problems
    return {f"{each.key.noun}/{each.key.name}": each for each in read.wanted}


def lines(problems: Sequence[ApplicationProblem]) -> list[str]:
    """Returns each problem as one line."""
    return [
        ": ".join(part for part in (each.source, f"{each.kind}/{each.name}", each.path, each.message) if part)
        for each in problems
    ]


def stored(wanted: WantedObject) -> Any:
    """Returns the object as a create stores it."""
    match wanted.value:
        case Container() as container:
            return rules.checked(rules.with_pod_labels(container))
        case Volume() as volume:
            return checked_volume(volume)
        case Asked() as asked:
            return stored_secret(asked)
        case other:
            return other


def stored_secret(asked: Asked) -> Secret:
    """Returns the secret as a create stores it."""
    return msgspec.structs.replace(asked.secret, type=asked.secret.type or "Opaque")


def yaml_of(*documents: dict[str, Any]) -> str:
    """Returns documents as one YAML text."""
    return yaml.safe_dump_all(documents)
