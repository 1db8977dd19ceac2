"""Calls as bytes: any method by its descriptor, with its complete result.

The client library would retry, renew tokens and hide trailers. Here every call is made once, and its whole
outcome is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from pilothouse_server.rpc import method_rules
from pilothouse_server.rpc.method_rules import Rule

OPERATION_KEY = "pilothouse-operation-id"
STATUS_KEY = "grpc-status-details-bin"
_SECONDS = 30.0

Detail = TypeVar("Detail", bound=Message)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. For a stream, `answers` has the first messages."""

    code: str
    message: str = ""
    trailing: dict[str, str | bytes] = field(default_factory=dict)
    details: tuple[any_pb2.Any, ...] = ()
    answers: tuple[Any, ...] = ()

    @property
    def answer(self) -> Any:
        """Returns the response of a unary call."""
        return self.answers[0]

    @property
    def reason(self) -> str:
        """Returns the reason of ErrorInfo, or '' if there is none."""
        info = self.detail(error_details_pb2.ErrorInfo)
        return "" if info is None else info.reason

    def detail(self, kind: type[Detail]) -> Detail | None:
        """Returns the error detail of the given type, or None."""
        for packed in self.details:
            if packed.TypeName() == kind.DESCRIPTOR.full_name:
                found = kind()
                packed.Unpack(found)
                return found
        return None

    @property
    def shown(self) -> tuple[Any, ...]:
        """Returns everything a caller sees except the operation's id and the responses."""
        trailing = tuple(sorted((k, v) for k, v in self.trailing.items() if k != OPERATION_KEY))
        return self.code, self.message, trailing


async def served(channel: grpc.aio.Channel) -> dict[str, Rule]:
    """Returns each Pilothouse method that the server lists, by full method."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
    request = ServerReflectionRequest(list_services="*")
    async for answer in stub.ServerReflectionInfo(iter([request])):
        names = [service.name for service in answer.list_services_response.service]
        return method_rules.load(
            Default().FindServiceByName(name) for name in names if name.startswith("pilothouse.")
        )
    raise AssertionError("reflection does not answer")


class Caller:
    """A caller with or without a token."""

    def __init__(self, channel: grpc.aio.Channel, token: str = "") -> None:
        self.channel = channel
        self.metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {token}"),) if token else ()

    async def invoke(
        self, rule: Rule, request: Message | bytes, *, most: int = 1, timeout: float = _SECONDS
    ) -> Outcome:
        """Calls a method once.

        After `most` messages of a response stream, the call is cancelled.
        """
        body = request if isinstance(request, bytes) else request.SerializeToString()
        answers: list[Any] = []
        call = self.open(rule, body, timeout=timeout)
        try:
            if rule.shape in ("unary_unary", "stream_unary"):
                answers.append(rule.response_class.FromString(await call))
            else:
                async for raw in call:
                    answers.append(rule.response_class.FromString(raw))
                    if len(answers) >= most:
                        call.cancel()
                        return Outcome("OK", answers=tuple(answers))
        except grpc.aio.AioRpcError as error:
            return failed(error, answers)
        return Outcome("OK", trailing=_metadata(await call.trailing_metadata()), answers=tuple(answers))

    def open(self, rule: Rule, body: bytes, *, timeout: float | None = _SECONDS) -> Any:
        """Returns grpc's bare call, of any shape; a request stream sends the one body."""
        method = getattr(self.channel, rule.shape)(rule.method)
        sent: Any = body if rule.shape.startswith("unary") else iter([body])
        return method(sent, metadata=self.metadata, timeout=timeout)

    @asynccontextmanager
    async def watching(self, rule: Rule, request: Message) -> AsyncIterator[AsyncIterator[Any]]:
        """Yields the responses of a stream until the end of the block.

        Iterating raises grpc's error when the call fails.
        """
        call = self.open(rule, request.SerializeToString(), timeout=None)

        async def answers() -> AsyncIterator[Any]:
            async for raw in call:
                yield rule.response_class.FromString(raw)

        try:
            yield answers()
        finally:
            call.cancel()


def failed(error: grpc.aio.AioRpcError, answers: Sequence[Any] = ()) -> Outcome:
    """Returns the outcome of a call that failed."""
    trailing = _metadata(error.trailing_metadata())
    packed = trailing.get(STATUS_KEY, b"")
    assert isinstance(packed, bytes)
    status = status_pb2.Status.FromString(packed)
    return Outcome(error.code().name, error.details() or "", trailing, tuple(status.details), tuple(answers))


def token_of(caller: Caller) -> str:
    """Returns the token of a caller."""
    return dict(caller.metadata)["authorization"].removeprefix("Bearer ")


def put(request: Any, path: str, value: str) -> None:
    """Sets the text field of a request at a dotted path."""
    *parents, last = path.split(".")
    for name in parents:
        request = getattr(request, name)
    setattr(request, last, value)


def _metadata(pairs: Any) -> dict[str, str | bytes]:
    return dict(pairs or ())
