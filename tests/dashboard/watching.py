"""Helpers that open and read watches of several nouns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from google.rpc import error_details_pb2

from pilothouse.resource.v1 import resource_pb2
from pilothouse.watch.v1 import watch_pb2 as pb
from pilothouse_server.rpc import method_rules
from tests.harness import Server
from tests.promises.calling import Caller, Outcome, failed
from tests.services import SERVICES
from tests.waiting import within

RULES = {rule.name: rule for rule in method_rules.load(SERVICES).values()}
WATCH = RULES["Watch"]
# The fields that name a resource, for nouns where it is not `name`.
_NAMES = {"user": "username", "image": "image"}


async def caller_of(server: Server, username: str = "admin") -> Caller:
    """Returns a caller with a token of a user."""
    return Caller(server.channel(), await server.token(username))


def scope(noun: str, namespace: str = "", **fields: Any) -> pb.Scope:
    """Returns a scope of a noun, given by its word."""
    return pb.Scope(noun=pb.Noun.Value(f"NOUN_{noun.upper()}"), namespace=namespace, **fields)


@dataclass
class Follower:
    """A client of a watch, which stores the responses that it has read.

    It has the responses in order, the last token, and the names of each scope.
    """

    stream: AsyncIterator[Any]
    token: str = ""
    answers: list[tuple[str, int, str]] = field(default_factory=list)
    names: dict[int, set[str]] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    resource: pb.Resource = field(default_factory=pb.Resource)

    async def take(self) -> tuple[str, int, str]:
        """Reads one response, and returns its kind, scope and name."""
        answer = await anext(self.stream)
        kind = resource_pb2.ChangeType.Name(answer.change_type).removeprefix("CHANGE_TYPE_")
        self.resource = answer.resource
        name = name_of(answer.resource)
        self.tokens.append(answer.resume_token)
        self.token = answer.resume_token or self.token
        held = self.names.setdefault(answer.scope, set())
        if kind in ("ADDED", "MODIFIED"):
            held.add(name)
        elif kind == "DELETED":
            held.discard(name)
        self.answers.append((kind, answer.scope, name))
        return self.answers[-1]

    async def until(self, *wanted: Any) -> list[tuple[str, int, str]]:
        """Reads up to the expected response, and returns all responses that were read."""
        taken: list[tuple[str, int, str]] = []
        async with within(20.0):
            while not taken or taken[-1] != wanted:
                taken.append(await self.take())
        return taken

    async def synced(self) -> list[tuple[str, int, str]]:
        """Reads up to SYNCED."""
        return await self.until("SYNCED", 0, "")

    async def end(self) -> Outcome:
        """Reads to the end of a stream that must fail, and returns its outcome."""
        try:
            async with within(20.0):
                while True:
                    await self.take()
        except grpc.aio.AioRpcError as error:
            return failed(error)


def name_of(resource: pb.Resource) -> str:
    """Returns the name of a resource, or '' if there is none."""
    kind = resource.WhichOneof("kind")
    if kind is None:
        return ""
    held = getattr(resource, kind)
    if kind == "config":
        held = getattr(held, held.WhichOneof("kind"))
    if kind == "grant":
        return f"{held.username} {held.role} {held.namespace}"
    return str(getattr(held, _NAMES.get(kind, "name")))


@asynccontextmanager
async def following(caller: Caller, *scopes: pb.Scope, token: str = "") -> AsyncIterator[Follower]:
    """Opens a watch of these scopes."""
    request = pb.WatchRequest(scopes=scopes, resume_token=token, bookmark_period_seconds=1)
    async with caller.watching(WATCH, request) as stream:
        yield Follower(stream)


async def refused(caller: Caller, *scopes: pb.Scope, token: str = "") -> Outcome:
    """Returns the outcome of a watch that must fail."""
    async with following(caller, *scopes, token=token) as follower:
        return await follower.end()


def fields_of(outcome: Outcome) -> list[str]:
    """Returns the fields that an error names."""
    detail = outcome.detail(error_details_pb2.BadRequest)
    return [] if detail is None else [each.field for each in detail.field_violations]
