"""The listener of the HTTP port, and the path of each of its requests.

A request is for health or the page, a preflight, a WebSocket, or a call by POST. A request runs in a task with an empty
context: aiohttp handles all requests of a connection in one task, so the context variables that one call sets would
still be set for the next. The task also writes the response, so that a response that waits to be sent counts for its
caller (`flowcontrol.pending_responses`).
"""

from __future__ import annotations

import asyncio
import contextvars
import gzip
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import structlog
from aiohttp import web

from pilothouse_server.errors import PilothouseError, ResourceExhausted, Unimplemented
from pilothouse_server.gateway import bodies, frames, websockets
from pilothouse_server.gateway.bodies import BodyForm, GrpcWeb, HttpAnswer, Json
from pilothouse_server.gateway.browsers import Browsers, console_metadata, two_credentials
from pilothouse_server.gateway.connections import HttpConnections
from pilothouse_server.gateway.context import CallContext, Metadata
from pilothouse_server.gateway.pages import ConsoleFiles
from pilothouse_server.identity.tokens import CONSOLE_PREFIX
from pilothouse_server.rpc.method_rules import UNKNOWN_METHOD, Rule
from pilothouse_server.rpc.pipeline import WRITE_TIMEOUT_SECONDS, Pipeline
from pilothouse_server.rpc.status import HTTP_STATUS
from pilothouse_server.rpc.tls.serving import Serving
from pilothouse_server.runtime.log_lines import without_values
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import Settings, address_refused, header_names, origins, trusted_peers
from pilothouse_server.values import listening

log = structlog.get_logger(__name__)

_IDLE_SECONDS: Final = 75.0
_LINGERING_SECONDS: Final = 5.0
_READ_BYTES: Final = 64 * 1024
# The most headers of a request, of which each may have 8 KiB.
_MOST_HEADERS: Final = 48
# Longer responses are compressed for clients that accept gzip, and sent in pieces.
_LONG_BYTES: Final = 16 * 1024
_PIECE_BYTES: Final = 64 * 1024
_GRPC_WEB: Final = ("application/grpc-web", "application/grpc-web+proto")
_TEXT: Final = {"content-type": "text/plain"}
_USUAL: Final = {"x-content-type-options": "nosniff", "cache-control": "no-store", "server": "pilothouse"}
_OWN: Final = {**_USUAL, "content-type": Json.content_type}
# Bidirectional streams for programs that open a socket on the caller's machine, which a browser cannot do.
_NOT_FOR_BROWSERS: Final = frozenset({"PortForward"})


class HttpGateway:
    """The port. `start` listens, and `close` ends it within the grace period.

    It listens only while the server serves and does not drain, so it is ready whenever it responds. `name`: the
    id of the installation. `log_ins`: the issuers where people log in, as `ConsoleFiles` has them.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        rules: Mapping[str, Rule],
        name: str,
        tls: Serving | None = None,
        log_ins: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._rules = rules
        self._tls = tls
        self._browsers = Browsers(
            name,
            origins(settings.http_allowed_origins),
            header_names(settings.audit_headers),
            settings.console_max_age_seconds,
        )
        self.connections = HttpConnections(trusted_peers(settings.trusted_proxies))
        self._pages = ConsoleFiles(log_ins)
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens. Raises SettingsError if the address cannot be bound."""
        self._server = web.Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            read_bufsize=_READ_BYTES,
            auto_decompress=False,
            max_headers=_MOST_HEADERS,
        )
        make = partial(self.connections.protocol, self._server)
        host, port = listening.split(self._settings.http_listen)
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                make,
                host or None,
                port,
                ssl=None if self._tls is None else self._tls.http_context(),
                reuse_port=self._settings.processes > 1 or None,
            )
        except (OSError, OverflowError):
            raise address_refused(self._settings.http_listen, "HTTP_LISTEN") from None
        self.port = int(self._listener.sockets[0].getsockname()[1])

    async def close(self, grace_seconds: float) -> None:
        """Closes the listener and idle connections; waits at most the grace for other requests."""
        if self._listener is None or self._server is None:
            return
        self._listener.close()
        self._server.pre_shutdown()
        await self._server.shutdown(grace_seconds)
        self.connections.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.connections.began(request.transport)
        work = self._respond(request)
        task = asyncio.create_task(work, name="HTTP request", context=contextvars.Context())
        try:
            await asyncio.wait([task])
            return task.result()
        finally:
            await cancel_and_wait(task)
            self.connections.ended(request.transport, self._browsers.sender(request))

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._route(request)
        except PilothouseError as error:
            await self._record(request, error)
            return await self._sent(request, _refused(error))
        except ConnectionError:
            raise asyncio.CancelledError from None
        except Exception as error:
            log.error(
                "HTTP request failed unexpectedly",
                error=type(error).__name__,
                exc_info=without_values(error),
            )
            return await self._sent(request, HttpAnswer(bodies.error_body("INTERNAL", "internal error"), 500))

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path in ("/livez", "/healthz", "/readyz"):
            return await self._sent(request, HttpAnswer(b"ok\n", 200, _TEXT))
        if (
            request.method in ("GET", "HEAD")
            and (page := self._pages.find(path, request.headers)) is not None
        ):
            return await self._sent(request, HttpAnswer(page.body, page.status), page.headers)
        if request.method == "OPTIONS":
            return await self._sent(request, HttpAnswer(b"", 204, self._browsers.preflight(request)))
        self._browsers.check_origin(request)
        if path.startswith("/ws/"):
            return await self._converse(request, path.removeprefix("/ws"))
        rule = self._rules.get(path, UNKNOWN_METHOD)
        if request.method != "POST" or (rule is UNKNOWN_METHOD and path.count("/") != 2):
            return await self._sent(request, HttpAnswer(b"not found\n", 404, _TEXT))
        form = _form(request)
        if form is None:
            message = f"the content-type must be {', '.join(_GRPC_WEB)} or {Json.content_type}"
            return await self._sent(request, HttpAnswer(bodies.error_body("UNKNOWN", message), 415))
        return await self._call(request, rule, path, form)

    async def _record(self, request: web.BaseRequest, error: PilothouseError) -> None:
        """Makes the pipeline record a call that breaks a rule of this port, like a call that the pipeline refuses."""
        method = request.path.removeprefix("/ws")
        if method in self._rules or method.count("/") == 2:
            context = CallContext(request.remote or "", None, _nothing, _unheard)
            await context.run(self._pipeline, method, self._browsers.described(request), error)

    async def _call(
        self, request: web.BaseRequest, rule: Rule, method: str, form: BodyForm
    ) -> web.StreamResponse:
        """Serves a call by POST."""
        _check_shape(rule, form)
        metadata = self._browsers.metadata(request)
        logs_in = _logs_in(rule)
        if logs_in and self._browsers.begins_console(request):
            metadata += console_metadata()
        body = _Body(request, rule, form)
        stream = _Stream(request, self._headers(request, form))
        context = CallContext(request.remote or "", _seconds(request), body.read, stream.write)
        answer = await context.run(self._pipeline, method, metadata)
        if rule.answers_stream and stream.response is not None:
            end = frames.trailers_frame(context.code, context.message, context.trailing)
            return await stream.end(end)
        cookie = None
        if answer is not None and logs_in:
            answer, cookie = _kept_back(rule, answer)
        elif answer is not None and rule.action == "logout":
            cookie = ""
        made = await form.answer(None if rule.answers_stream else answer, rule, context)
        return await self._sent(request, made, self._headers(request, form), cookie)

    async def _converse(self, request: web.BaseRequest, method: str) -> web.StreamResponse:
        """Serves a call by a WebSocket."""
        name = method.rpartition("/")[2]
        if name in _NOT_FOR_BROWSERS or request.headers.get("upgrade", "").lower() != "websocket":
            return await self._sent(request, HttpAnswer(b"not found\n", 404, _TEXT))
        own = self._browsers.metadata(request, upgrade=True)

        async def serve(context: CallContext, first: Metadata) -> bytes | None:
            added = self._browsers.taken(first)
            if any(name == "authorization" for name, _ in own) and any(
                name == "authorization" for name, _ in added
            ):
                return await context.run(self._pipeline, method, (), two_credentials())
            return await context.run(self._pipeline, method, own + added)

        return await websockets.converse(request, request.remote or "", serve)

    def _headers(self, request: web.BaseRequest, form: BodyForm) -> dict[str, str]:
        return {**_USUAL, **self._browsers.cors(request), "content-type": form.content_type}

    async def _sent(
        self,
        request: web.BaseRequest,
        answer: HttpAnswer,
        headers: Mapping[str, str] = _OWN,
        cookie: str | None = None,
    ) -> web.StreamResponse:
        """Sends a response in pieces, and aborts the connection of a client that does not take it.

        `cookie`: the credential that the browser stores, '' to delete it; None for neither.
        """
        made = {**headers, **answer.headers}
        body = answer.body
        if (
            len(body) > _LONG_BYTES
            and "content-encoding" not in made
            and "gzip" in request.headers.get("accept-encoding", "")
        ):
            body = await asyncio.to_thread(gzip.compress, body, 1)
            made["content-encoding"] = "gzip"
        response = web.StreamResponse(status=answer.status, headers=made)
        if cookie is not None:
            self._browsers.set_cookie(request, response, cookie)
        if answer.status not in (204, 304):
            response.content_length = len(body)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
                await response.prepare(request)
                for at in range(0, len(body), _PIECE_BYTES):
                    await response.write(body[at : at + _PIECE_BYTES])
                await response.write_eof()
        except TimeoutError:
            _cut(request)
        return response


class _Body:
    """The request of a call by POST.

    It is read when the pipeline awaits it, so the pipeline bounds the wait.
    """

    def __init__(self, request: web.BaseRequest, rule: Rule, form: BodyForm) -> None:
        self._request = request
        self._rule = rule
        self._form = form
        self._most_bytes = form.most_bytes(rule)
        self._was_read = False

    async def read(self) -> bytes | None:
        """Returns the message, and None from the second call on.

        Raises InvalidArgument, ResourceExhausted.
        """
        if self._was_read:
            return None
        self._was_read = True
        if (self._request.content_length or 0) > self._most_bytes:
            raise self._too_large()
        if self._request.content.is_eof():
            raw = await self._whole()
        else:
            # An object that fails while it is awaited would look like a refusal by gRPC (`rpc.request_stream`). That
            # module also closes this coroutine when the call is cancelled; nothing may be awaited then.
            reading = asyncio.create_task(self._whole(), name="read request")
            try:
                await asyncio.wait([reading])
            finally:
                reading.cancel()
            raw = reading.result()
        return await self._form.request(raw, self._rule)

    async def _whole(self) -> bytes:
        parts, size = [], 0
        async for part in self._request.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > self._most_bytes:
                raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> ResourceExhausted:
        return ResourceExhausted(
            f"the request has more than {self._most_bytes} bytes", reason="MESSAGE_TOO_LARGE"
        )


class _Stream:
    """The responses of a stream over gRPC-Web, in the body of one HTTP response."""

    def __init__(self, request: web.BaseRequest, headers: Mapping[str, str]) -> None:
        self._request = request
        self._headers = headers
        self.response: web.StreamResponse | None = None

    async def write(self, answer: bytes) -> None:
        """Sends a response; the pipeline bounds how long it may wait for its reader."""
        if self.response is None:
            self.response = web.StreamResponse(headers=self._headers)
            await self.response.prepare(self._request)
        framed = frames.message_frame(answer)
        for at in range(0, len(framed), _PIECE_BYTES):
            await self.response.write(framed[at : at + _PIECE_BYTES])

    async def end(self, trailers: bytes) -> web.StreamResponse:
        """Sends the last frame; aborts the connection if the reader does not take it in time."""
        assert self.response is not None
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
                await self.response.write_eof(trailers)
        except TimeoutError:
            _cut(self._request)
        return self.response


async def _nothing() -> None:
    """Returns no request, because the call is refused before it would be read."""


async def _unheard(_answer: bytes) -> None:
    """Sends nothing, because a refused call has no responses."""


def _cut(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


def _form(request: web.BaseRequest) -> BodyForm | None:
    kind = request.content_type
    if kind in _GRPC_WEB:
        return GrpcWeb(kind)
    return Json() if kind == Json.content_type else None


def _check_shape(rule: Rule, form: BodyForm) -> None:
    if rule.takes_stream or (rule.answers_stream and isinstance(form, Json) and rule is not UNKNOWN_METHOD):
        raise Unimplemented(
            f"{rule.name} is a stream: call it by a WebSocket, at /ws{rule.method}",
            reason="NOT_BY_POST",
        )


def _logs_in(rule: Rule) -> bool:
    """Returns whether a method begins a session of a person."""
    return rule.action == "login" and "access_token" in rule.response_class.DESCRIPTOR.fields_by_name


def _kept_back(rule: Rule, answer: bytes) -> tuple[bytes, str | None]:
    """Returns the response to a log-in without the credential of a console session, and that for the cookie."""
    message: Any = rule.response_class.FromString(answer)
    credential: str = message.access_token
    if not credential.startswith(CONSOLE_PREFIX):
        return answer, None
    message.ClearField("access_token")
    return message.SerializeToString(), credential


def _seconds(request: web.BaseRequest) -> float | None:
    """Returns the seconds to the deadline that the client set; None without one."""
    milliseconds = request.headers.get("connect-timeout-ms", "")
    if milliseconds.isdecimal() and len(milliseconds) <= 10:
        return int(milliseconds) / 1000
    return frames.timeout_seconds(request.headers.get("grpc-timeout", ""))


def _refused(error: PilothouseError) -> HttpAnswer:
    body = bodies.error_body(error.code, error.message, error.reason)
    return HttpAnswer(body, HTTP_STATUS[error.code])
