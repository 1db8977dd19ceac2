"""Concurrent calls on one application through two servers are linearizable."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.applications.conftest import config_map, given
from tests.applications.linearizability import Done, Verb, is_linearizable
from tests.conftest import Database
from tests.harness import running_server
from tests.waiting import poll_until

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_client.errors import AbortedError, InvalidArgumentError, NotFoundError

pytestmark = pytest.mark.full
SPACE = "shop"
_CALLERS, _CALLS = 3, 25
_VERBS: dict[Verb, int] = {"apply": 8, "get": 2, "read": 4, "rollback": 5, "delete": 1}


class Caller:
    """A user who makes one call at a time and records each outcome."""

    def __init__(self, client: AsyncClient, seed: int, history: list[Done]) -> None:
        self._applications = client.applications
        self._random = random.Random(seed)
        self._history = history

    async def run(self) -> None:
        for _ in range(_CALLS):
            (verb,) = self._random.choices(list(_VERBS), list(_VERBS.values()))
            await self.call(verb, self._random.choice("abc"))

    async def call(self, verb: Verb, value: str) -> bool:
        """Makes a call and records it. Returns whether it succeeded."""
        began = time.monotonic()
        revision, found, refused = 0, "", False
        try:
            revision, found = await self._call(verb, value)
        except NotFoundError:
            pass
        except (AbortedError, InvalidArgumentError) as error:
            # Another call is in progress or came first, or the config map of a deleted application still exists.
            if error.reason not in ("APPLICATION_BUSY", "APPLICATION_CHANGED", "DOCUMENTS_REFUSED"):
                raise
            refused = True
        ended = time.monotonic()
        shown = value if verb == "apply" else found
        self._history.append(Done(verb, began, ended, revision, shown, refused))
        return bool(revision) and not refused

    async def _call(self, verb: Verb, value: str) -> tuple[int, str]:
        named: dict[str, Any] = {"namespace": SPACE, "name": SPACE}
        if verb == "apply":
            applied = await self._applications.apply(**named, documents=given([config_map(word=value)]))
            return applied.revision, ""
        if verb == "get":
            return (await self._applications.get(**named)).revision, ""
        if verb == "rollback":
            return (await self._applications.rollback(**named)).revision, ""
        if verb == "delete":
            return (await self._applications.delete(**named)).application.revision, ""
        read = await self._applications.get_revision(**named)
        return read.number, json.loads(read.documents[0])["data"]["word"]


async def test_calls_through_two_servers_are_linearizable(database: Database, tmp_path: Path) -> None:
    history: list[Done] = []
    async with (
        running_server(database, tmp_path / "one") as one,
        running_server(database, tmp_path / "two", cluster=one.cluster) as two,
    ):
        await one.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE))
        clients = [
            await (one, two)[number % 2].user(f"caller-{number}", {SPACE: "operator"})
            for number in range(_CALLERS)
        ]
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(Caller(client, number, history).run())
        assert len(history) == _CALLERS * _CALLS
        # A history with few successful calls would prove little, so each kind of call succeeds once at the end.
        last = Caller(clients[0], _CALLERS, history)
        await poll_until(lambda: last.call("apply", "d"), bool)
        for verb in ("apply", "rollback", "read", "get", "delete"):
            assert await last.call(verb, "e"), verb
    assert is_linearizable(history), history


_APPLIED = (Done("apply", 0, 1, 1, "a"), Done("apply", 2, 3, 2, "b"))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((Done("read", 4, 5, 2, "b"),), True),
        # During an apply, a read may return either state.
        ((Done("read", 2.5, 2.6, 1, "a"), Done("read", 2.6, 2.7, 2, "b")), True),
        ((Done("read", 4, 5, 1, "a"),), False),
        ((Done("read", 2.5, 2.6, 2, "b"), Done("read", 2.7, 2.8, 1, "a")), False),
        ((Done("get", 4, 5, 0),), False),
        # Unchanged content creates no revision, and a rollback creates a new one.
        ((Done("apply", 4, 5, 2, "b"), Done("rollback", 6, 7, 3), Done("read", 8, 9, 3, "a")), True),
        ((Done("apply", 4, 5, 3, "b"),), False),
        ((Done("rollback", 4, 5, 3), Done("read", 6, 7, 3, "b")), False),
        # Two applies that both returned the same revision: one change is lost.
        ((Done("apply", 4, 6, 3, "c"), Done("apply", 4, 6, 3, "d")), False),
        ((Done("apply", 4, 6, 3, "c"), Done("apply", 4, 6, refused=True)), True),
        ((Done("delete", 4, 5, 2), Done("get", 6, 7, 0), Done("apply", 8, 9, 1, "c")), True),
        ((Done("delete", 4, 5, 2), Done("apply", 6, 7, 3, "c")), False),
        ((Done("delete", 4, 5, 2), Done("delete", 4, 5, 2)), False),
    ],
)
def test_the_checker_rejects_histories_without_an_order(more: tuple[Done, ...], expected: bool) -> None:
    assert is_linearizable((*_APPLIED, *more)) is expected
