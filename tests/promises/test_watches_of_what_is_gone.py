"""A watch of a deleted namespace ends properly.

Its resources are DELETED, then the stream ends with NOT_FOUND, and its tokens cannot be resumed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc.aio
import pytest

from pilothouse.audit.v1 import audit_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.metrics.v1 import metrics_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_client.errors import NotFoundError
from pilothouse_client.streams import ChangeKind
from tests.harness import Server
from tests.promises.calling import Caller, Outcome, failed, served
from tests.waiting import patient, poll_until, within


class Watcher:
    """A watch that is read to its end.

    It stores its events of `web`, its last token, and its end.
    """

    def __init__(self, caller: Caller, rule: Any, request: Any) -> None:
        self.told: list[str] = []
        self.token = ""
        self.began = asyncio.Event()
        self.task = asyncio.create_task(self._read(caller, rule, request))

    async def _read(self, caller: Caller, rule: Any, request: Any) -> Outcome:
        async with caller.watching(rule, request) as stream:
            try:
                async for answer in stream:
                    self.began.set()
                    self.token = getattr(answer, "resume_token", "") or self.token
                    if getattr(answer, "container", None) and answer.container.name:
                        self.told.append(resource.ChangeType.Name(answer.change_type))
            except grpc.aio.AioRpcError as error:
                return failed(error)
        return Outcome("OK")


async def test_a_watch_ends_with_its_namespace(server: Server) -> None:
    rules = await served(server.channel())
    admin = server.admin
    # The usage stream checks its namespace when it sends a heartbeat, every ten seconds by default.
    server.application.usage_stream._sign_of_life_seconds = 0.5
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
    await admin.containers.create(
        namespace="shop", container=container_pb2.Container(name="web", image="nginx:1.27")
    )
    tenant = await server.user("tenant", {"shop": "viewer"})
    callers = [Caller(server.channel(), await server.token(name)) for name in ("admin", "tenant")]
    rule = rules["/pilothouse.container.v1.ContainerService/WatchContainers"]
    request = container_pb2.WatchContainersRequest(namespace="shop", bookmark_period_seconds=300)
    watchers = [Watcher(caller, rule, request) for caller in callers]
    audit = Watcher(
        callers[0],
        rules["/pilothouse.audit.v1.AuditService/WatchOperations"],
        audit_pb2.WatchOperationsRequest(namespace="shop", bookmark_period_seconds=1),
    )
    usage = Watcher(
        callers[0],
        rules["/pilothouse.metrics.v1.MetricsService/WatchUsage"],
        metrics_pb2.WatchUsageRequest(namespace="shop", container="web"),
    )
    everything = [*watchers, audit, usage]
    for watcher in everything:
        await asyncio.wait_for(watcher.began.wait(), patient(10))

    await admin.namespaces.delete(name="shop", cascade=True)
    async with within(30):
        ends = await asyncio.gather(*(watcher.task for watcher in everything))
    assert [(end.code, end.reason) for end in ends] == [("NOT_FOUND", "NAMESPACE_NOT_FOUND")] * 4
    assert [watcher.told[-1] for watcher in watchers] == ["CHANGE_TYPE_DELETED"] * 2

    async def resumed(who: int = 0, **fields: Any) -> tuple[str, str]:
        request = container_pb2.WatchContainersRequest(
            namespace="shop", resume_token=watchers[who].token, bookmark_period_seconds=1, **fields
        )
        outcome = await callers[who].invoke(rule, request)
        return outcome.code, outcome.reason

    assert await resumed() == ("OUT_OF_RANGE", "WATCH_CHANGED")
    assert await resumed(name="web") == ("INVALID_ARGUMENT", "RESUME_TOKEN")
    # A user whose grant was deleted with the namespace gets the same error as for a namespace that is out of
    # reach or does not exist.
    assert await resumed(1) == ("NOT_FOUND", "NAMESPACE_NOT_FOUND")
    async with tenant.containers.watch(namespace="shop", resume_token=watchers[1].token) as changes:
        with pytest.raises(NotFoundError):
            await anext(changes)
    # The client begins a new watch, reports that, and gets NOT_FOUND.
    async with admin.containers.watch(namespace="shop", resume_token=watchers[0].token) as changes:
        restarted = await anext(changes)
        assert restarted.kind is ChangeKind.RESTARTED
        assert "have changed" in restarted.reason
        with pytest.raises(NotFoundError):
            await anext(changes)

    async def made_again() -> bool:
        await admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        return True

    await poll_until(made_again)
    assert await resumed() == ("OUT_OF_RANGE", "WATCH_CHANGED")
    assert await resumed(name="web") == ("INVALID_ARGUMENT", "RESUME_TOKEN")
    async with admin.containers.watch(namespace="shop", resume_token=watchers[0].token) as changes:
        assert [(await anext(changes)).kind for _ in range(2)] == [ChangeKind.RESTARTED, ChangeKind.SYNCED]
    await admin.identity.grant_role(username="tenant", role="viewer", namespace="shop")
    await poll_until(lambda: resumed(1), lambda outcome: outcome == ("OUT_OF_RANGE", "WATCH_CHANGED"))

    async def begun() -> list[ChangeKind]:
        # The server may use the permissions of the client's own token as of a moment before the grant.
        with suppress(NotFoundError):
            async with tenant.containers.watch(namespace="shop", resume_token=watchers[1].token) as changes:
                return [(await anext(changes)).kind for _ in range(2)]
        return []

    assert await poll_until(begun) == [ChangeKind.RESTARTED, ChangeKind.SYNCED]
