"""A watch resumes while some changes are committed but not yet numbered."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import text

from pilothouse.config.v1 import config_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.rpc import watch
from pilothouse_server.store.feed import StreamHead, stream_begins
from pilothouse_server.store.unit_of_work import ReadTransaction
from tests.dashboard.watching import caller_of, following, scope
from tests.harness import Server

# Makes the event look as if it had no number when the snapshot was taken.
_IDS = text(
    "SELECT DISTINCT e.pending_id FROM events AS e JOIN namespaces AS n ON n.id = e.namespace_id "
    "WHERE n.name = :own AND e.resource_name = 'late'"
)


async def test_unnumbered_changes_arrive_once_in_new_and_resumed_scopes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change arrives once in each scope.

    The new scope has it in its state; the resumed scope has it as an event.
    """
    own = "waiting"
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=own))
    caller = await caller_of(server)
    async with following(caller, scope("config", own)) as follower:
        await follower.synced()
        token = follower.token

    async def meanwhile(transaction: ReadTransaction) -> tuple[StreamHead, tuple[int, ...]]:
        head, pending = await stream_begins(transaction)
        ids = await transaction.connection.rows(_IDS, {"own": own})
        return head, tuple(sorted({*pending, *(row.pending_id for row in ids)}))

    await server.admin.config.create_config_map(
        namespace=own, config_map=config_pb2.ConfigMap(name="late", data={"a": "b"})
    )
    monkeypatch.setattr(watch, "stream_begins", meanwhile)
    scopes = (scope("config", own), scope("config", own, name="late", initial_state=True))
    async with following(caller, *scopes, token=token) as follower:
        state = await follower.synced()
    assert Counter(state)["ADDED", 0, "late"] == 1
    assert Counter(state)["ADDED", 1, "late"] == 1
