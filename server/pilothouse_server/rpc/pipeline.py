"""The path of every call through the server, the same for all four call shapes.

A `grpc.aio` interceptor finds the rule of a call's method, and returns a handler that reads the request itself.
So the caller is authenticated from the metadata first, and a call without a valid token is refused before a byte of
its request is read. Then the request must arrive, and the call takes its seats (`flowcontrol`). A call that is refused
on this path still passes through the layers like any other call. The layers run outermost first, the same for every
shape:

    telemetry → errors → operation → audit → authorization → validation → handler

A layer is a function `(rule, inner)`. It is called once for each method, at start, and returns the function that runs a
call of the method. That function awaits `inner(call)`, which runs the rest and returns the serialized response of a
unary call. So everything that follows from the method is decided before there is a call, and a layer without work for a
method costs it nothing. Streams write their responses through `call.send`, so a layer sees a stream as one awaitable
from its opening to its end, and the four shapes need one wrapper. Requests are parsed here, not by gRPC, so that a
request that cannot be parsed gets INVALID_ARGUMENT and an audit record.

Most calls wait only for their request and the database. So a coroutine is made only where a call may have to wait: for
a seat that is not free, for the look-up of a token, or for a request so long that its fields are counted in steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from pilothouse_server.authorization.access import Credential, Principal
from pilothouse_server.errors import (
    InvalidArgument,
    PermissionDenied,
    PilothouseError,
    Unauthenticated,
    Unimplemented,
)
from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.flowcontrol.classes import is_large, is_wide, seats_for
from pilothouse_server.flowcontrol.fair_queue import FairQueue
from pilothouse_server.flowcontrol.pending_responses import LARGE_BYTES
from pilothouse_server.flowcontrol.reservation import RESERVATION, Reservation
from pilothouse_server.rpc import decompression, headers, receiving
from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.rpc.call import Call, client_address, too_slow
from pilothouse_server.rpc.field_count import SHORT_BYTES
from pilothouse_server.rpc.infrastructure import bounded, too_large
from pilothouse_server.rpc.method_rules import UNKNOWN_METHOD, Rule
from pilothouse_server.rpc.request_stream import RequestStream
from pilothouse_server.rpc.response_stream import ResponseStream
from pilothouse_server.rpc.tls.shown import Shown
from pilothouse_server.settings.model import TrustedPeer
from pilothouse_server.store.paging import LARGEST_PAGE_SIZE
from pilothouse_server.store.unit_of_work import Store

if TYPE_CHECKING:
    from pilothouse_server.rpc.tls.clients import ClientTrust

# A stream whose reader takes nothing for this time is ended. Until then its responses wait in gRPC's own bounded
# buffers.
WRITE_TIMEOUT_SECONDS = 30.0

# A request of this size or less stays in memory while its refusal waits for its turn.
_KEPT_BYTES = 1024

# The longest name of an unknown method in records and errors.
_LONGEST_METHOD = 200

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Runner = Callable[[Call], Awaitable[bytes]]
Layer = Callable[[Rule, Runner], Runner]


class Authenticator(Protocol):
    """Identifies the caller by a bearer token or a certificate."""

    async def authenticate(self, shown: Any, /, address: str = "") -> Principal:
        """Returns the principal of a valid token, or of a certificate that is a user's.

        `address` is where it is used from; '' outside a call.

        Raises:
            Unauthenticated: the credential is missing, wrong, expired or revoked.
            Unavailable: the database cannot be reached.
        """


class CachingAuthenticator(Authenticator, Protocol):
    """An authenticator that is fast for a credential that was used a moment ago."""

    def known(self, shown: Any, /) -> Principal | None:
        """Returns the principal of such a token or certificate; None if it must be looked up."""


class Pipeline(grpc.aio.ServerInterceptor):
    """Dispatches every declared method to its handler through the layers."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        handlers: Mapping[str, Callable[..., Any]],
        layers: Sequence[Layer],
        store: Store,
        authenticator: CachingAuthenticator,
        *,
        admission: CallAdmission,
        trusted_proxies: Sequence[TrustedPeer] = (),
        clients: ClientTrust | None = None,
    ) -> None:
        self._clients = clients
        self._rules = rules
        self._runners = {method: _compose(layers, rule, handlers[method]) for method, rule in rules.items()}
        self._unknown = _compose(layers, UNKNOWN_METHOD, _unreachable)
        self._store = store
        self._authenticator = authenticator
        self.admission = admission
        # Tokens and certificates that are being looked up, each by a call that has a seat for the look-up.
        self._looked_up: set[Shown] = set()
        self._trusted_proxies = trusted_proxies
        self._headers = headers.HeaderReader()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler of the call.

        Calls of infrastructure services (health, reflection) are bounded.

        A method that does not exist also gets a handler, so that the call is recorded.
        """
        rule = self._rules.get(handler_call_details.method)
        read = self._headers.read(handler_call_details.invocation_metadata or ())
        if rule is None:
            inner = await continuation(handler_call_details)
            if inner is not None:
                return (
                    bounded(inner, self.admission, partial(self._address, read)) if read.fit else too_large()
                )
        return self._handler(handler_call_details.method, read)

    def handler_by_http(
        self, method: str, metadata: tuple[tuple[str, str], ...], refusal: PilothouseError | None
    ) -> Handler:
        """Returns the handler of a call by HTTP.

        With a `refusal` the call is recorded and refused.
        """
        return self._handler(method, self._headers.read(metadata), refusal)

    def _handler(self, method: str, read: headers.Headers, refusal: PilothouseError | None = None) -> Handler:
        rule = self._rules.get(method, UNKNOWN_METHOD)
        call = Call(rule, self._store, read)
        if rule is UNKNOWN_METHOD:
            _note_unknown(call, method)
        if not read.fit:
            call.refusal = headers.too_large()
        elif refusal is not None:
            call.refusal = refusal
        serve = partial(Pipeline._serve, self, call)
        handler: Any = _Conversation(serve) if rule.answers_stream else _Answered(serve)
        return cast("Handler", handler)

    def _address(self, read: headers.Headers, context: Context) -> str:
        return client_address(context.peer(), read.texts.get("x-forwarded-for", ""), self._trusted_proxies)

    async def _serve(self, call: Call, requests: object, context: Context) -> bytes | None:
        call.client_ip = self._address(call.headers, context)
        # The stub promises a number, but grpc returns None if the client set no deadline.
        remaining = cast("float | None", context.time_remaining())
        call.deadline = None if remaining is None else time.monotonic() + remaining
        stream = None
        if call.rule.answers_stream:
            stream = ResponseStream(context)
            call.send = stream.write
        reservation = Reservation(self.admission, streams=call.rule.streams, deadline=call.deadline)
        self.admission.call_began(streams=call.rule.streams)
        runner = self._runners.get(call.rule.method, self._unknown)
        answer, failure = b"", None
        refused: Hashable = None
        had_turn = False
        try:
            try:
                had_turn = await self._begun(call, reservation, RequestStream(call, context), context)
            except Exception as error:  # noqa: BLE001 - raised again within the layers, which do not show its text
                call.refusal = error
            except asyncio.CancelledError as gone:
                # The client has ended the call; the layers record that, or why the call was refused before.
                call.refusal, call.unheard = call.refusal or gone, True
                with suppress(CallFailed):
                    await runner(call)
                raise
            RESERVATION.set(reservation)
            answer = await runner(call)
        except Exception as error:  # noqa: BLE001 - reported without its text, and logged by the layers
            failure = _ending(error)
            if not had_turn and (call.principal is None or call.refusal is not None):
                refused = _who(call)
        finally:
            reservation.release()
            self.admission.call_ended()
            call.close()
        if failure is not None:
            code, message, trailing = failure
            stream = stream or ResponseStream(context)
            # See `ResponseStream.fail`: the error that ends the call refers to this frame.
            del context, requests
            if refused is not None:
                await self.admission.refusal(refused, call.time_remaining())
            await stream.fail(code, message, (*call.trailing_metadata.items(), *trailing))
        context.set_trailing_metadata(tuple(call.trailing_metadata.items()))
        if len(answer) >= LARGE_BYTES:
            self._note_pending_response(call, answer)
        return None if call.rule.answers_stream else answer

    async def _begun(
        self, call: Call, reservation: Reservation, stream: RequestStream, context: Context
    ) -> bool:
        """Returns when the call may begin, or is refused: then `call.refusal` is the reason.

        Returns True if the refusal has already had its turn. The turn usually comes before the refusal is
        recorded. If the request is large, the record is made first, so that the request does not stay in memory.
        """
        try:
            await self._let_in(call, reservation, stream, context)
            await reservation.begin()
        except PilothouseError as error:
            # The frames of its traceback refer to the request.
            call.refusal = error.with_traceback(None)
            _note_certificate(call, error)
            if call.request is not None and call.request.ByteSize() > _KEPT_BYTES:
                return False
            reservation.release()
            began = time.perf_counter()
            try:
                async with self.admission.out_of_flight():
                    await self.admission.refusal(_who(call), call.time_remaining())
            finally:
                call.waited_seconds = time.perf_counter() - began
            return True
        return False

    def _note_pending_response(self, call: Call, answer: bytes) -> None:
        # This is gRPC's task, which also sends the response.
        task = asyncio.current_task()
        assert task is not None
        self.admission.pending_responses.add(_who(call), len(answer), task)

    async def _let_in(
        self, call: Call, reservation: Reservation, stream: RequestStream, context: Context
    ) -> None:
        """Identifies the caller, reads the request, or the first of a stream, and takes the call's seats.

        Raises the error by which the call is refused.
        """
        rule, admission = call.rule, self.admission
        admission.refuse_if_draining()
        flow: Hashable
        if rule.public or call.refusal is not None:
            flow = address_group(call.client_ip)
            if not admission.burst_gate.passes(flow):
                await reservation.pass_burst(flow)
        else:
            flow = await self._caller(call, reservation, context)
        if call.refusal is not None:
            raise call.refusal
        # The only message, or the first of a stream.
        raw = await admission.pending_requests.receive(stream.read(), flow)
        if rule.takes_stream:
            await reservation.acquire(admission.streams, flow)
            call.requests = _parsed(call, raw, stream.rest())
            if rule.in_one_namespace:
                await _look_at_first(call)
            return
        if raw is grpc.aio.EOF:
            await stream.end_without_request()
        raw = decompression.decompress_if_short(raw)
        is_short = _parse_short(call, raw)
        # Parsing a long request takes a while, so the call takes its seats first. A compressed request counts with the
        # longest size that its method allows.
        size = max(len(raw), rule.most_bytes) if decompression.is_compressed(raw) else len(raw)
        queue, width, turns = self._seats(call, size)
        if turns is not None or not reservation.try_acquire(queue, flow, width):
            await reservation.acquire(queue, flow, width, turns=turns)
        if flow in admission.pending_responses.of:
            admission.pending_responses.check(flow)
        if not is_short:
            await _parse(call, raw)

    async def _caller(self, call: Call, reservation: Reservation, context: Context) -> Hashable:
        """Identifies the caller at the call's turn; returns the user's id.

        Raises the error that refuses the call.
        """
        if (clients := self._clients) is not None and (clients.revokes or not call.token):
            call.shown = clients.shown(call.token, context.auth_context)
        principal = self._authenticator.known(call.shown)
        caller = address_group(call.client_ip) if principal is None else principal.user_id
        if not self.admission.burst_gate.passes(caller):
            await reservation.pass_burst(caller)
            # The session may have ended since the look-up.
            principal = self._authenticator.known(call.shown)
        call.principal = principal or await self._authenticated(call)
        # Checked for each call: the same cached token may be used from another address.
        if not call.principal.credential.admits(call.client_ip):
            raise _from_elsewhere(call.principal.credential)
        return call.principal.user_id

    def _seats(self, call: Call, size: int) -> tuple[FairQueue, int, FairQueue | None]:
        """Returns the queue and the number of seats for a call with a request of `size` bytes.

        A short request is parsed already. Also returns the queue of the user's turn that comes before the seats: that
        of wide pages, of large requests or of applies.
        """
        rule, admission = call.rule, self.admission
        if rule.streams:
            return admission.streams, 1, None
        rows = 0
        if rule.has_page_size:
            if size > SHORT_BYTES:
                # It may ask for the widest page.
                rows = LARGEST_PAGE_SIZE
            elif call.request is not None:
                rows = rule.rows_of(call.request)
        queue = admission.anonymous_calls if rule.public else admission.calls
        turns = admission.large_requests if is_large(size) else None
        if rule.writes_many and _may_write(call):
            turns = admission.applies
        return queue, seats_for(rows, size), admission.wide_pages if is_wide(rows) else turns

    async def _authenticated(self, call: Call) -> Principal:
        """Looks up the owner of the credential.

        The call takes a seat of the caller's address, because the user is not known yet.

        Concurrent calls with the same credential share the look-up and need no seat of their own. So many calls
        of one caller take no seats from others at the same address.
        """
        if call.shown in self._looked_up:
            return await self._authenticator.authenticate(call.shown, call.client_ip)
        queue, flow = self.admission.authentications, address_group(call.client_ip)
        await queue.acquire(flow)
        self._looked_up.add(call.shown)
        try:
            return await self._authenticator.authenticate(call.shown, call.client_ip)
        finally:
            self._looked_up.discard(call.shown)
            queue.release(flow)


def _note_unknown(call: Call, method: str) -> None:
    """Refuses a call of an unknown method; its record names the method as requested."""
    call.method = call.facts.resource_name = method[:_LONGEST_METHOD]
    call.refusal = Unimplemented(
        "this server has no such method; its services are listed by reflection and in the protos",
        reason="UNKNOWN_METHOD",
        metadata={"method": call.method},
    )


async def _unreachable(_request: object, _call: Call) -> Message:
    raise AssertionError("a call of an unknown method is refused before its handler")


def _who(call: Call) -> Hashable:
    """Returns the key of the caller: the user's id, or the address of an anonymous caller."""
    return address_group(call.client_ip) if call.principal is None else call.principal.user_id


def _may_write(call: Call) -> bool:
    """Returns whether the caller has the permission that the method requires.

    Otherwise the call takes no turn, because it will be refused.

    The namespace of a long request is not known yet; then the permission in any namespace is enough.
    """
    if call.principal is None:
        return False
    permission = call.rule.permission
    if call.request is None:
        return call.principal.granting_somewhere(permission) is not None
    return call.principal.allows(permission, call.namespace)


def _note_certificate(call: Call, error: Exception) -> None:
    """Adds the fingerprint of the client's certificate to the record of a refusal, if there is one."""
    if isinstance(error, Unauthenticated) and (shown := error.metadata.get("fingerprint")):
        call.describe(certificate=shown)


def _from_elsewhere(credential: Credential) -> PermissionDenied:
    return PermissionDenied(
        f'key "{credential.name}" is not accepted from your address: it is restricted to some networks',
        reason="KEY_ADDRESS",
        metadata={"key": credential.name},
    )


class CallFailed(Exception):
    """The end of a failed call: code, message and trailing metadata for the transport."""

    def __init__(self, code: grpc.StatusCode, message: str, trailing: tuple[tuple[str, bytes], ...]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailing = trailing


def _ending(error: Exception) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Returns the code, the message and the trailing metadata with which a call ends by this error."""
    if isinstance(error, CallFailed):
        return error.code, error.message, error.trailing
    # The outermost layers themselves failed, for example to write a log line. grpc would send the error's text.
    return grpc.StatusCode.INTERNAL, "internal error", ()


class _Answered:
    """The handler of one call that has one response. gRPC reads its attributes."""

    __slots__ = ("stream_unary",)
    request_streaming = True
    response_streaming = False
    request_deserializer = response_serializer = None
    unary_unary = unary_stream = stream_stream = None

    def __init__(self, serve: Callable[[AsyncIterator[bytes], Context], Awaitable[bytes | None]]) -> None:
        self.stream_unary = serve


class _Conversation:
    """The handler of one call whose responses are a stream."""

    __slots__ = ("stream_stream",)
    request_streaming = response_streaming = True
    request_deserializer = response_serializer = None
    unary_unary = unary_stream = stream_unary = None

    def __init__(self, serve: Callable[[AsyncIterator[bytes], Context], Awaitable[bytes | None]]) -> None:
        self.stream_stream = serve


def _compose(layers: Sequence[Layer], rule: Rule, handler: Callable[..., Any]) -> Runner:
    """Returns the handler within the layers; called once for each method, at start."""
    runner = _streaming(rule, handler) if rule.answers_stream else _answering(rule, handler)
    for layer in reversed(layers):
        runner = layer(rule, runner)
    return runner


def _answering(rule: Rule, handler: Callable[..., Any]) -> Runner:
    takes_stream = rule.takes_stream

    async def innermost(call: Call) -> bytes:
        call.handler_reached = True
        answer: Message | bytes = await handler(call.requests if takes_stream else call.request, call)
        if isinstance(answer, bytes):
            return answer
        call.answer = answer
        return answer.SerializeToString()

    return innermost


def _streaming(rule: Rule, handler: Callable[..., Any]) -> Runner:
    takes_stream = rule.takes_stream

    async def innermost(call: Call) -> bytes:
        call.handler_reached = True
        assert call.send is not None
        answers = handler(call.requests if takes_stream else call.request, call)
        limit = asyncio.timeout(None)
        writing = _Writing(limit)
        try:
            async with limit:
                async for answer in answers:
                    writing.began()
                    await call.send(answer if isinstance(answer, bytes) else answer.SerializeToString())
                    writing.ended()
        except TimeoutError:
            if limit.expired():
                raise too_slow(call.resume_token) from None
            raise
        finally:
            writing.close()
            # The timeout refers to the task, and the task to an error that refers to this frame: see `Call.close`.
            del limit, writing
            await answers.aclose()
        return b""

    return innermost


class _Writing:
    """Makes a limit expire if writing one response takes too long.

    A timer for each response would add a tenth to its cost. So a stream has one timer. When it fires, it is set again
    for the response that is being written then.
    """

    __slots__ = ("_limit", "_loop", "_since", "_timer")

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def began(self) -> None:
        """Notes that a response is being written from now on."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(WRITE_TIMEOUT_SECONDS, self._look)

    def ended(self) -> None:
        """Notes that the response is written."""
        self._since = None

    def close(self) -> None:
        """Cancels the timer; nothing more is written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            return
        late = self._since + WRITE_TIMEOUT_SECONDS
        if self._loop.time() < late:
            self._timer = self._loop.call_at(late, self._look)
        else:
            self._limit.reschedule(self._loop.time())


def _parse_short(call: Call, raw: bytes) -> bool:
    """Parses a request that is too short to have many fields; returns whether it is so short."""
    if len(raw) > SHORT_BYTES or decompression.is_compressed(raw):
        return False
    try:
        call.request = receiving.parsed(call.rule, raw)
    except PilothouseError as error:
        call.parse_error = error
    return True


async def _parse(call: Call, raw: bytes) -> None:
    try:
        call.request = await receiving.received(call.rule, raw)
    except PilothouseError as error:
        call.parse_error = error


async def _look_at_first(call: Call) -> None:
    """Reads the first message of a stream of requests, which names the one namespace that the stream acts on."""
    assert call.requests is not None
    rest = call.requests
    try:
        call.request = await anext(rest)
    except PilothouseError as error:
        call.parse_error = error
    except StopAsyncIteration:
        call.parse_error = InvalidArgument("the request stream must begin with a message", reason="REQUIRED")
    else:
        call.requests = _joined(call.request, rest)


async def _joined(first: Message, rest: AsyncIterator[Message]) -> AsyncIterator[Message]:
    yield first
    async for request in rest:
        yield request


async def _parsed(call: Call, first: Any, rest: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    """Yields the messages of a stream of requests; `first` has been read before, and is EOF if there is none."""
    if first is grpc.aio.EOF:
        return
    yield await receiving.received(call.rule, first)
    del first
    async for raw in rest:
        yield await receiving.received(call.rule, raw)
