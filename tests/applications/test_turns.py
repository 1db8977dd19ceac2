"""An apply of 500 objects yields to other calls: each turn of the event loop does only a small part of its work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from tests.applications.conftest import (
    JsonObject,
    Place,
    budget,
    claim,
    config_map,
    deployment,
    secret,
    service,
)
from tests.conftest import Database
from tests.harness import IDLE, running_server
from tests.turns import Turns, counted_turns
from tests.waiting import patient

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.runtime.event_loop import Share

_OBJECTS: Final = 500
# The most function calls in one turn of the event loop: ten milliseconds on a quiet machine. Without yields, one turn
# made 99,000 calls in a create of 500 containers, and 292,000 in an update of all of them.
_MOST_CALLS: Final = 30_000
_MAKERS: Final[Mapping[str, Callable[[str], JsonObject]]] = {
    "container": deployment,
    "service": service,
    "config_map": config_map,
    "secret": secret,
    "object": budget,
    "volume": claim,
}


@pytest_asyncio.fixture(loop_scope="session")
async def place(database: Database, tmp_path: Path) -> AsyncIterator[Place]:
    """Yields a namespace on the test's own server; its reconciler does no work."""
    async with running_server(database, tmp_path, reconciler=IDLE) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        assert server.cluster is not None
        found = Place(server, server.cluster, "demo")
        # The timeout is longer because counting makes calls several times slower.
        found.client = server.admin.with_options(timeout=patient(30.0))
        # The first call of each kind prepares statements and loads modules.
        await found.apply([deployment("first"), service("first")], name="first")
        yield found


def _documents(noun: str, level: str) -> list[JsonObject]:
    made = [_MAKERS[noun](f"one-{number}") for number in range(_OBJECTS)]
    for document in made:
        document["metadata"] = {**document["metadata"], "labels": {"level": level}}
    return made


async def _turns(step: Awaitable[Any]) -> Turns:
    with counted_turns() as turns:
        await step
    return turns


@pytest.mark.full(minutes=10)
@pytest.mark.parametrize("noun", _MAKERS)
async def test_an_apply_of_many_objects_does_not_block_the_event_loop(place: Place, noun: str) -> None:
    steps: dict[str, Callable[[], Awaitable[Any]]] = {
        "create": lambda: place.apply(_documents(noun, "1")),
        "try": lambda: place.apply(_documents(noun, "2"), validate_only=True),
        "change": lambda: place.apply(_documents(noun, "2")),
        "same": lambda: place.apply(_documents(noun, "2")),
        "roll back": lambda: place.client.applications.rollback(namespace="demo", name="shop"),
        "export": lambda: place.client.applications.export(namespace="demo", name="shop"),
        "prune": lambda: place.apply([config_map("other")], prune=True, delete_claims=True),
    }
    found = {name: await _turns(step()) for name, step in steps.items()}
    assert not {name: (each.most, each.made) for name, each in found.items() if each.most > _MOST_CALLS}


@pytest.mark.full(minutes=2)
async def test_an_apply_without_yields_is_detected(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that the test above detects a missing yield."""

    async def used(_self: Share) -> None:
        return

    monkeypatch.setattr(Share, "used", used)
    assert (await _turns(place.apply(_documents("container", "1")))).most > 2 * _MOST_CALLS
