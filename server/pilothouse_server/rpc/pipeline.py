"""One way through the server for all four call shapes.

A `grpc.aio` interceptor finds the rule of a call's method, and gives it a handler that reads the body itself.
So the caller is authenticated from the metadata first, and a call without a valid token is refused without
reading a byte of its body. Then the body must arrive, and the call takes its seat (`flowcontrol`). A call
that is refused on this way passes through the layers like any other call. They run outermost first, the same
for every shape:

    telemetry → errors → operation → audit → authorization → validation → handler

A layer is a function `(rule, inner)` that is called once for each method, at start, and returns the function
that runs a call of it: that one awaits `inner(call)`, which runs the rest and returns the serialised answer
of a unary response. So everything that follows from the method is decided before there is a call, and a layer
without work for a method costs it nothing. Streams write their answers through `call.send`, so a layer sees a
stream as one awaitable from its opening to its end, and the four shapes need one wrapper. Bodies are parsed
here, not by gRPC, so that one which cannot be parsed is an INVALID_ARGUMENT with a record.

Most calls wait for nothing here but their body and the database: so a coroutine is made only where something may be
waited for (a seat that is not free, a token that is looked up, a body so long that it is counted in steps).
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

# A reader that takes nothing for so long is ended; its answers wait in gRPC's own bounded buffers until
# then.
WRITE_TIMEOUT_SECONDS = 30.0

# Of a request whose refusal waits for its turn.
_KEPT_BYTES = 1024

# Of the name of a method that does not exist, as records and errors show it.
_LONGEST_METHOD = 200

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Runner = Callable[[Call], Awaitable[bytes]]
Layer = Callable[[Rule, Runner], Runner]


class Authenticator(Protocol):
    """Turns a bearer token, or a certificate, into the caller."""

    async def authenticate(self, shown: Any, /, address: str = "") -> Principal:
        """The principal of a valid token, or of a certificate that is a user's, used from an address, '' where nobody
        calls.

        Raises:
            Unauthenticated: none, wrong, expired or revoked.
            Unavailable: the database is away.
        """


class CachingAuthenticator(Authenticator, Protocol):
    """The same, fast for a credential that was seen a moment ago."""

    def known(self, shown: Any, /) -> Principal | None:
        """The principal of such a token or certificate; None where it must be looked up."""


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
        # Tokens and certificates, each by a call that has a seat for it.
        self._looked_up: set[Shown] = set()
        self._trusted_proxies = trusted_proxies
        self._headers = headers.HeaderReader()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler of the call; those of methods that are not ours (health, reflection) within bounds.

        A method that nobody serves gets a handler, too, so that the call leaves a record.
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
        """Returns the handler of a call by HTTP. With a `refusal` the call is recorded, and does nothing."""
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
        # The stub promises a number; grpc answers None where the client set no deadline.
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
            except Exception as error:  # noqa: BLE001 - raised again within the layers, which show no words of it
                call.refusal = error
            except asyncio.CancelledError as gone:
                # Nobody waits for the answer any more; the layers record the call, and why it was refused before.
                call.refusal, call.unheard = call.refusal or gone, True
                with suppress(CallFailed):
                    await runner(call)
                raise
            RESERVATION.set(reservation)
            answer = await runner(call)
        except Exception as error:  # noqa: BLE001 - reported without its words, and logged where it is known
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
            # See `fail`: the error that it ends with knows this frame.
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

        Returns True if the refusal has already had its turn. Reporting it is charged after the turn, unless
        there is much data to keep until then: in that case the record is made before.
        """
        try:
            await self._let_in(call, reservation, stream, context)
            await reservation.begin()
        except PilothouseError as error:
            # Its frames know what was read.
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
        # This task is gRPC's, and sends it.
        task = asyncio.current_task()
        assert task is not None
        self.admission.pending_responses.add(_who(call), len(answer), task)

    async def _let_in(
        self, call: Call, reservation: Reservation, stream: RequestStream, context: Context
    ) -> None:
        """Identifies the caller, reads the request, or the first of a stream, and takes the call's seats.

        Raises why the call is refused.
        """
        rule, admission = call.rule, self.admission
        admission.refuse_if_draining()
        flow: Hashable
        if rule.public or call.refusal is not None:
            flow = address_group(call.client_ip)
            if not admission.arrivals.passes(flow):
                await reservation.pass_burst(flow)
        else:
            flow = await self._caller(call, reservation, context)
        if call.refusal is not None:
            raise call.refusal
        # The one message there is, or the first of a stream.
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
        # To read a long one takes a while: it has its seats before. One that is packed may be as long as it may be.
        size = max(len(raw), rule.most_bytes) if decompression.is_compressed(raw) else len(raw)
        queue, width, turns = self._seats(call, size)
        if turns is not None or not reservation.try_acquire(queue, flow, width):
            await reservation.acquire(queue, flow, width, turns=turns)
        if flow in admission.pending_responses.of:
            admission.pending_responses.check(flow)
        if not is_short:
            await _parse(call, raw)

    async def _caller(self, call: Call, reservation: Reservation, context: Context) -> Hashable:
        """Finds out who calls once it is the call's turn; returns the user's id. Raises why the call is refused."""
        if (clients := self._clients) is not None and (clients.revokes or not call.token):
            call.shown = clients.shown(call.token, context.auth_context)
        principal = self._authenticator.known(call.shown)
        caller = address_group(call.client_ip) if principal is None else principal.user_id
        if not self.admission.arrivals.passes(caller):
            await reservation.pass_burst(caller)
            # Its session may have ended since the look-up.
            principal = self._authenticator.known(call.shown)
        call.principal = principal or await self._authenticated(call)
        # Of each call: who is known by a token may call from elsewhere.
        if not call.principal.credential.admits(call.client_ip):
            raise _from_elsewhere(call.principal.credential)
        return call.principal.user_id

    def _seats(self, call: Call, size: int) -> tuple[FairQueue, int, FairQueue | None]:
        """Returns the queue and the number of seats for a call with a request of so many bytes, which is read
        if it is short.

        Also returns the queue of the user's turn that comes before: that of wide pages, of large requests or
        of applies.
        """
        rule, admission = call.rule, self.admission
        if rule.streams:
            return admission.streams, 1, None
        rows = 0
        if rule.has_page_size:
            if size > SHORT_BYTES:
                # It may request the widest page.
                rows = LARGEST_PAGE_SIZE
            elif call.request is not None:
                rows = rule.rows_of(call.request)
        queue = admission.anonymous_calls if rule.public else admission.calls
        turns = admission.large_requests if is_large(size) else None
        if rule.writes_many and _may_write(call):
            turns = admission.applies
        return queue, seats_for(rows, size), admission.wide_pages if is_wide(rows) else turns

    async def _authenticated(self, call: Call) -> Principal:
        """Looks up the owner of the credential. The call takes a seat of the caller's address, because the
        user is not known yet.

        Concurrent calls with the same credential share the look-up, and need no seat of their own: many calls
        of one caller take none from others at the same address.
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
    """Returns the key of the caller: the user's id, or the address if nobody has logged in."""
    return address_group(call.client_ip) if call.principal is None else call.principal.user_id


def _may_write(call: Call) -> bool:
    """Returns whether the caller has the right that a method asks for: one who is refused takes no turn from others.

    The namespace of a long request is not known yet; then a right in any namespace will do.
    """
    if call.principal is None:
        return False
    permission = call.rule.permission
    if call.request is None:
        return call.principal.granting_somewhere(permission) is not None
    return call.principal.allows(permission, call.namespace)


def _note_certificate(call: Call, error: Exception) -> None:
    """Puts the shown certificate into the record of a refusal, if there was one."""
    if isinstance(error, Unauthenticated) and (shown := error.metadata.get("fingerprint")):
        call.describe(certificate=shown)


def _from_elsewhere(credential: Credential) -> PermissionDenied:
    return PermissionDenied(
        f'key "{credential.name}" is not accepted from your address: it is restricted to some networks',
        reason="KEY_ADDRESS",
        metadata={"key": credential.name},
    )


class CallFailed(Exception):
    """The translated end of a failed call, which the transport carries."""

    def __init__(self, code: grpc.StatusCode, message: str, trailing: tuple[tuple[str, bytes], ...]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailing = trailing


def _ending(error: Exception) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """The code, the words and the trailing metadata with which a call ends by this error."""
    if isinstance(error, CallFailed):
        return error.code, error.message, error.trailing
    # A failure of the outermost layers themselves, as of a log that cannot be written: grpc would send its words.
    return grpc.StatusCode.INTERNAL, "internal error", ()


class _Answered:
    """The handler of one call that has one answer, as gRPC asks it: by its attributes."""

    __slots__ = ("stream_unary",)
    request_streaming = True
    response_streaming = False
    request_deserializer = response_serializer = None
    unary_unary = unary_stream = stream_stream = None

    def __init__(self, serve: Callable[[AsyncIterator[bytes], Context], Awaitable[bytes | None]]) -> None:
        self.stream_unary = serve


class _Conversation:
    """The same of a call that is answered by a stream."""

    __slots__ = ("stream_stream",)
    request_streaming = response_streaming = True
    request_deserializer = response_serializer = None
    unary_unary = unary_stream = stream_unary = None

    def __init__(self, serve: Callable[[AsyncIterator[bytes], Context], Awaitable[bytes | None]]) -> None:
        self.stream_stream = serve


def _compose(layers: Sequence[Layer], rule: Rule, handler: Callable[..., Any]) -> Runner:
    """Puts the layers around the handler once, at start."""
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
            # It knows the task, and that an error that knows this frame: see `Call.close`.
            del limit, writing
            await answers.aclose()
        return b""

    return innermost


class _Writing:
    """Lets a limit run out when one answer is being written for too long.

    A timer for each answer would cost a tenth of it. There is one for a stream, which looks again when the answer that
    is written then would be late.
    """

    __slots__ = ("_limit", "_loop", "_since", "_timer")

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def began(self) -> None:
        """An answer is being written from now on."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(WRITE_TIMEOUT_SECONDS, self._look)

    def ended(self) -> None:
        """It is written."""
        self._since = None

    def close(self) -> None:
        """Nothing more is written."""
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
    """Parses a body that is too short to have many fields; returns whether it is."""
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
    """Reads the first message of a stream of requests that acts on one namespace, because it names the namespace."""
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
    """Yields the messages of a stream of requests; the first one has arrived, and is EOF if there is none."""
    if first is grpc.aio.EOF:
        return
    yield await receiving.received(call.rule, first)
    del first
    async for raw in rest:
        yield await receiving.received(call.rule, raw)
