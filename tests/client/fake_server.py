"""A gRPC server that keeps everything in memory and fails when a test requests it.

It is a real `grpc.aio` server on a free port, so that tests cover the client's own channel, deadlines and metadata.
The test controls the failures: `fail` makes the next calls of a method fail, before or after they take effect;
`expire_access_tokens` ends tokens early; `cut_watches` breaks every open watch; `forget_history` moves the watch
horizon. `calls` records the requests.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from pilothouse.resource.v1 import resource_pb2
from tests.services import SERVICES

PUBLIC = {"Login", "RefreshSession"}


@dataclass(frozen=True)
class Failure:
    """How a call fails.

    `after_effect` runs the handler first and drops its response. `after_answers` lets a stream send that many messages
    before it fails.
    """

    code: grpc.StatusCode
    reason: str = ""
    message: str = "told to fail"
    metadata: dict[str, str] = field(default_factory=dict)
    violations: Sequence[tuple[str, str]] = ()
    retry_delay: float | None = None
    after_effect: bool = False
    after_answers: int = 0

    def details(self) -> bytes:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(
                reason=self.reason, domain="pilothouse", metadata=self.metadata
            )
            status.details.add().Pack(info)
        if self.violations:
            bad_request = error_details_pb2.BadRequest()
            for path, description in self.violations:
                bad_request.field_violations.add(field=path, description=description)
            status.details.add().Pack(bad_request)
        if self.retry_delay is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(self.retry_delay * 1e9))
            status.details.add().Pack(retry)
        return bytes(status.SerializeToString())


@dataclass(frozen=True)
class Call:
    """One call as it arrived. `time_left` is the client's deadline in seconds, or None if it set no deadline."""

    method: str
    request: Any
    metadata: dict[str, str]
    time_left: float | None


class FakeServer:
    """The server and its data. Start it in the test's event loop; `address` is then where it listens."""

    def __init__(self) -> None:
        self.address = ""
        self.calls: list[Call] = []
        self.passwords = {"admin": "correct horse battery"}
        self.access_seconds = 3600.0
        self.access_tokens: dict[str, tuple[str, float]] = {}
        self.refresh_tokens: dict[str, str] = {}
        self.used_refresh_tokens: set[str] = set()
        self.api_keys: dict[str, str] = {}
        self.failures: dict[str, deque[Failure]] = defaultdict(deque)
        self.answered: dict[str, tuple[bytes, Message]] = {}
        self.tables: dict[str, dict[Any, Message]] = defaultdict(dict)
        # Changes of all tables in commit order. Watches read from this list.
        self.history: list[tuple[int, str, int, Message]] = []
        self.oldest_revision = 1
        self.bookmark_period = 0.2
        # Returns the server's time, which watches of containers send.
        self.server_time: Callable[[], datetime] = lambda: datetime.now(UTC)
        # The events that GetContainer returns, and the pods and lines that StreamLogs returns for every log.
        self.events: list[resource_pb2.KubernetesEvent] = []
        self.events_unavailable = ""
        self.log: list[tuple[str, bytes]] = []
        self.generation_of_watches = 0
        self._changed = asyncio.Condition()
        self._numbers = itertools.count(1)
        self._server: grpc.aio.Server | None = None

    async def start(
        self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
    ) -> None:
        from tests.client import fake_identity, fake_services

        # Two servers must not share a port: a client could reach either of them.
        server = grpc.aio.server(interceptors=[_Gate(self)], options=[("grpc.so_reuseport", 0)])
        served = {
            "IdentityService": fake_identity.Identity,
            "NamespaceService": fake_services.Namespaces,
            "ContainerService": fake_services.Containers,
            "NetworkService": fake_services.Network,
            **dict.fromkeys(
                ("ConfigService", "StorageService", "ObjectService", "ApplicationService"),
                fake_services.Resources,
            ),
            "AuditService": fake_services.Audit,
            "MetricsService": fake_services.Metrics,
        }
        for service in SERVICES:
            if service.name in served:
                handlers = served[service.name](self).handlers(service)
                made = grpc.method_handlers_generic_handler(service.full_name, handlers)
                server.add_generic_rpc_handlers((made,))
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
        await server.start()
        self._server = server
        self.address = f"127.0.0.1:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    # Called by tests.

    def fail(self, method: str, code: grpc.StatusCode, *, times: int = 1, **details: Any) -> None:
        self.failures[method].extend([Failure(code, **details)] * times)

    def calls_of(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    def expire_access_tokens(self) -> None:
        self.access_tokens = {token: (user, 0.0) for token, (user, _) in self.access_tokens.items()}

    async def cut_watches(self) -> None:
        async with self._changed:
            self.generation_of_watches += 1
            self._changed.notify_all()

    async def forget_history(self) -> None:
        self.oldest_revision = self.revision + 1
        await self.cut_watches()

    # Called by the services.

    @property
    def revision(self) -> int:
        return len(self.history)

    def new_token(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def user_of(self, token: str) -> str | None:
        if token in self.api_keys:
            return self.api_keys[token]
        user, expire = self.access_tokens.get(token, ("", 0.0))
        return user if expire > time.time() else None

    def caller(self, context: Any) -> str:
        """Returns the caller's user name, or an empty string for an unknown token."""
        return self.user_of(self.token_of(context)) or ""

    def token_of(self, context: Any) -> str:
        metadata = dict(context.invocation_metadata())
        return str(metadata.get("authorization", "")).removeprefix("Bearer ")

    async def commit(self, table: str, key: Any, row: Message | None) -> None:
        """Stores a row, or deletes it if `row` is None, and notifies the watches."""
        rows = self.tables[table]
        former = rows.get(key)
        if row is None:
            assert former is not None
            kind, subject = 3, former
            del rows[key]
        else:
            kind, subject = (1 if former is None else 2), row
            rows[key] = row
        copy = type(subject)()
        copy.CopyFrom(subject)
        async with self._changed:
            self.history.append((len(self.history) + 1, table, kind, copy))
            self._changed.notify_all()

    async def next_change(self, after: int, timeout: float) -> bool:
        """Waits for a change after a revision, or until watches are cut. Returns False on a timeout."""
        generation = self.generation_of_watches
        async with self._changed:
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait_for(
                        lambda: self.revision > after or self.generation_of_watches != generation
                    )
            except TimeoutError:
                return False
        return True

    async def abort(
        self, context: Any, code: grpc.StatusCode, reason: str, message: str, **details: Any
    ) -> None:
        failure = Failure(code, reason, message, **details)
        await abort_with(context, failure)


async def abort_with(context: Any, failure: Failure) -> None:
    trailing = [("pilothouse-operation-id", "0b9c6e7e-55cb-4dd6-9de0-6a2b1a2b9a11")]
    if failure.reason or failure.violations or failure.retry_delay is not None:
        trailing.append(("grpc-status-details-bin", failure.details()))  # type: ignore[arg-type]
    await context.abort(failure.code, failure.message, tuple(trailing))


class _Gate(grpc.aio.ServerInterceptor):
    """Records and authenticates calls, and injects failures, before the service receives them."""

    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        method = details.method.rpartition("/")[2]
        shape = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:

            async def stream(request: Any, context: Any) -> Any:
                failure = await self._enter(method, request, context)
                if failure is not None and not failure.after_answers:
                    await abort_with(context, failure)
                sent = 0
                async for answer in (handler.stream_stream or handler.unary_stream)(request, context):
                    yield answer
                    sent += 1
                    if failure is not None and sent == failure.after_answers:
                        await abort_with(context, failure)

            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(stream, **shape)
            return grpc.unary_stream_rpc_method_handler(stream, **shape)

        if handler.request_streaming:

            async def upload(requests: Any, context: Any) -> Any:
                failure = await self._enter(method, None, context)
                if failure is not None:
                    await abort_with(context, failure)
                return await handler.stream_unary(requests, context)

            return grpc.stream_unary_rpc_method_handler(upload, **shape)

        async def unary(request: Any, context: Any) -> Any:
            failure = await self._enter(method, request, context)
            if failure is not None and not failure.after_effect:
                await abort_with(context, failure)
            answer = await self._replayed_or_handled(handler, request, context)
            if failure is not None:
                await abort_with(context, failure)
            return answer

        return grpc.unary_unary_rpc_method_handler(unary, **shape)

    async def _enter(self, method: str, request: Any, context: Any) -> Failure | None:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        # Without a deadline, gRPC returns a very large number instead of None.
        left = context.time_remaining()
        self._fake.calls.append(Call(method, request, metadata, left if left and left < 1e8 else None))
        if method not in PUBLIC and not self._fake.caller(context):
            await self._fake.abort(
                context,
                grpc.StatusCode.UNAUTHENTICATED,
                "TOKEN_EXPIRED",
                "the token has expired; log in again",
            )
        queue = self._fake.failures[method]
        return queue.popleft() if queue else None

    async def _replayed_or_handled(self, handler: Any, request: Any, context: Any) -> Any:
        """Returns the first response again for a repeated `request_id`, as the product does."""
        request_id = getattr(request, "request_id", "")
        if not request_id:
            return await handler.unary_unary(request, context)
        body = request.SerializeToString(deterministic=True)
        if request_id in self._fake.answered:
            former, answer = self._fake.answered[request_id]
            if former != body:
                await self._fake.abort(
                    context,
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "REQUEST_ID_REUSED",
                    "another request had this id",
                )
            return answer
        answer = await handler.unary_unary(request, context)
        self._fake.answered[request_id] = (body, answer)
        return answer
