"""Watchers that are cut and resume.

The events that they must have seen are read from the database.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import grpc
import grpc.aio

from pilothouse.container.v1 import container_pb2 as container
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.rpc.method_rules import Rule
from tests.promises.calling import Caller

_KINDS = {
    resource.CHANGE_TYPE_ADDED: "added",
    resource.CHANGE_TYPE_MODIFIED: "modified",
    resource.CHANGE_TYPE_DELETED: "deleted",
}
# A stream that ends with one of these codes is resumed.
_CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass
class Follower:
    """One watcher, which uses the callers in turn.

    After some messages it drops its stream and resumes.
    """

    rule: Rule
    callers: Sequence[Caller]
    request: container.WatchContainersRequest
    seed: int = 0
    cut_after: tuple[int, int] = (20, 200)
    started_at: int = 0
    current: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[int, str, str]] = field(default_factory=list)
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    newest: int = 0
    token: str = ""
    streams: int = 0

    async def run(self) -> None:
        """Follows until cancelled."""
        choice = random.Random(self.seed)
        while True:
            caller = self.callers[self.streams % len(self.callers)]
            self.streams += 1
            request = container.WatchContainersRequest()
            request.CopyFrom(self.request)
            request.resume_token = self.token
            if not self.token:
                self.current.clear()
            try:
                await self._follow(caller, request, choice.randint(*self.cut_after))
            except grpc.aio.AioRpcError as error:
                if error.code() not in _CUT:
                    raise

    async def _follow(self, caller: Caller, request: Any, answers: int) -> None:
        async with caller.watching(self.rule, request) as stream:
            async for answer in stream:
                self._take(answer)
                answers -= 1
                if answers <= 0 and self.token:
                    return

    def _take(self, answer: Any) -> None:
        kind = answer.change_type
        if kind == resource.CHANGE_TYPE_SYNCED:
            self.started_at = self.newest = answer.revision
            self.synced.set()
        elif not answer.resume_token:
            self.current[answer.container.name] = answer.container.etag
        elif kind in _KINDS:
            self.changes.append((answer.revision, _KINDS[kind], answer.container.name))
            self.newest = answer.revision
        else:
            self.newest = max(self.newest, answer.revision)
        self.token = answer.resume_token or self.token


async def faults(sql: asyncpg.Connection, followers: Sequence[Follower]) -> list[str]:
    """Returns the faults of followers of all containers.

    These are events that a follower missed, saw twice, out of order or wrongly.
    """
    rows = await sql.fetch(
        "SELECT revision, kind, resource_name, message FROM events WHERE resource_type = 'container' ORDER BY revision"
    )
    found: list[str] = []
    for number, follower in enumerate(followers):
        wanted = [
            (row["revision"], row["kind"], row["resource_name"])
            for row in rows
            if row["revision"] > follower.started_at
        ]
        if follower.changes != wanted:
            missed = [item for item in wanted if item not in set(follower.changes)]
            found.append(
                f"follower {number}: {len(follower.changes)} of {len(wanted)} changes, missed {missed[:3]}"
            )
        state: dict[str, str] = {}
        for row in rows:
            if row["revision"] <= follower.started_at:
                state[row["resource_name"]] = container.Container.FromString(row["message"]).etag
        if follower.current != state:
            found.append(f"follower {number} began with another state than that of its revision")
    return found
