"""One request to an API server: rate limit, deadline, credentials, and the response's body or its error.

The Kubernetes client library provides the connection pool, TLS, proxy and credentials. Its models, retries and
encoding of bodies are not used. A body is decoded by msgspec straight into the requested struct.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from io import BytesIO
from random import uniform
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

import msgspec
from yarl import URL

from pilothouse_server.flowcontrol.token_bucket import TokenBucket
from pilothouse_server.kubernetes import warnings
from pilothouse_server.kubernetes.decoding import (
    AT_ONCE_BYTES,
    MOST_OF_USERS_BYTES,
    MOST_VALUES,
    TooMany,
    check_values,
)
from pilothouse_server.kubernetes.errors import (
    AnswerTooLarge,
    ClusterError,
    InternalError,
    NotTrusted,
    Refused,
    Status,
    Throttled,
    TooManyValues,
    Unreachable,
    from_response,
    from_status,
)
from pilothouse_server.kubernetes.http import aiohttp
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.outbound import destinations
from pilothouse_server.outbound.destinations import ANYWHERE, Reach, Redirected, TooLong
from pilothouse_server.runtime.event_loop import Share, long_work

JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
_AT_ONCE_BYTES = 256 * 1024
# A program that a drain breaks off gets one second; a cluster that does not acknowledge a websocket's close gets less.
_CLOSE_SECONDS = 0.5
# Read-ahead of a connection: enough for a busy watch, and little if a thousand are open. Up to three times as much is
# decompressed in one step.
_READ_AHEAD_BYTES = 64 * 1024
# An error response has a few KB, with one entry for each wrong field.
_ERROR_BYTES = 256 * 1024
# A clock that was never set begins in 1970.
_FARTHEST_CLOCK = timedelta(days=100 * 365)
# How long an oversized response counts as recent.
EXCESS_SECONDS = 60.0
# The pause without requests after an oversized response: the first value, doubled for each further one in a row, and at
# most the second value, which is below EXCESS_SECONDS. Without it, all observers would read as much again.
EXCESS_PAUSE_SECONDS, MOST_EXCESS_PAUSE_SECONDS = 4.0, 45.0
# A watch sleeps only if its accumulated wait is longer than this.
_LINES_SECONDS = 0.005
# The most messages that are read while waiting for the other side's close frame.
_MOST_LAST_MESSAGES = 64
# The first bytes of a response are read while other responses are read, too; beyond them, one long response at a time.
# Its pieces are read with pauses in between, which are several times as long as reading a piece takes.
_LONG_BYTES, _LONG_PAUSE_SECONDS = 256 * 1024, 0.001


def accepted(metadata_only: bool, *, listed: bool = False) -> str:
    """Returns the `Accept` header: JSON, or metadata alone; a watch sends single objects, not a list."""
    return _METADATA.format("List" if listed else "") if metadata_only else JSON


class TransportLimits(msgspec.Struct, frozen=True):
    """Bounds of one cluster's client; times in seconds, sizes in bytes after decompression."""

    request_seconds: float = 15.0
    connect_seconds: float = 5.0
    list_seconds: float = 60.0
    # The server is asked to end a watch after a random time between one and two of these, so that they
    # spread out.
    watch_seconds: int = 60
    # An idle server sends bookmarks about every minute, a busy one irregularly. So silence shows a dead connection only
    # after the requested end of the watch.
    watch_idle_seconds: float = 140.0
    connections: int = 64
    # Connections for logs and programs that callers follow. They last long, so they have a pool of their own, and other
    # requests never wait for one of them.
    streams: int = 1000
    requests_per_second: float = 200.0
    burst: int = 400
    # Lines of all watches; lines that arrive faster wait in the connection.
    lines_per_second: float = 4000.0
    lines_burst: int = 5000
    page_size: int = 500
    # An object has 1.5 MiB at most unless its cluster's storage is configured otherwise. If a page is too large, a
    # smaller one is requested.
    body_bytes: int = 8 * 1024 * 1024
    message_bytes: int = 4 * 1024 * 1024
    page_bytes: int = 8 * 1024 * 1024
    list_bytes: int = 1024 * 1024 * 1024
    # More than Kubernetes itself is made for.
    objects: int = 250_000


DEFAULT_LIMITS = TransportLimits()


class PageBound(NamedTuple):
    """Bounds of a response in bytes.

    `fewer`: whether fewer objects can be requested. Reading such a response stops as soon as another page was too long:
    this one may be too long as well, and a smaller request costs little.
    """

    most: int
    fewer: bool = False


def clock_ahead(date: str, now: datetime) -> timedelta | None:
    """Returns how far the clock of a response's `Date` is ahead; None if it is missing or absurd.

    Times that are computed with an absurd clock would be out of range.
    """
    try:
        sent = _parsed_date(date)
        ahead = (sent if sent.tzinfo is not None else sent.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return None
    return ahead if abs(ahead) <= _FARTHEST_CLOCK else None


@lru_cache(maxsize=16)
def _parsed_date(date: str) -> datetime:
    """Parses a `Date` header. All responses of one second have the same, so results are cached. Raises ValueError."""
    return parsedate_to_datetime(date)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _payload(body: bytes) -> bytes | BytesIO:
    """Returns a body for aiohttp: a large one as a stream, since sending it in one piece would block the loop."""
    return body if len(body) <= _AT_ONCE_BYTES else BytesIO(body)


class ClusterTransport:
    """Requests to one API server. Bound to the event loop of its first use.

    `ahead`: how far the cluster's clock was ahead of our clock (negative: behind) at the last response. Ages of
    objects are computed with that clock.
    """

    def __init__(self, api_client: Any, *, name: str, limits: TransportLimits) -> None:
        self.name = name
        # The last oversized response and its time; the number of all and of those in a row; the end of the pause.
        self._excess: tuple[str, float] | None = None
        self._excesses = self._in_a_row = 0
        self._asked_again_at = 0.0
        # The locks for reading and for checking a long response; the number of pages that were too long so far.
        self._long = asyncio.Lock()
        self._checking = asyncio.Lock()
        self._long_pages = 0
        self._limits = limits
        self._api = api_client
        self._api.user_agent = "pilothouse"
        self.ahead = timedelta(0)
        self._quiet_until, self._quiet_words = 0.0, ""
        self._rate = TokenBucket(limits.requests_per_second, limits.burst)
        self._lines = TokenBucket(limits.lines_per_second, limits.lines_burst)
        # The same credentials and authorities with a connection pool of its own, created on first use.
        self._streams = copy(api_client.rest_client)
        self._streams.maxsize, self._streams.pool_manager = limits.streams, None
        self._reach: Reach = getattr(api_client.configuration, "reach", ANYWHERE)

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

    @property
    def place(self) -> str:
        """Host and port of the API server, the only part of its address that messages name."""
        return destinations.place_of(self.server)

    def too_large(self, what: str) -> AnswerTooLarge:
        """Returns the error for oversized content, and records it for `excess`.

        Requests to the cluster then pause, for longer each time in a row.
        """
        words = f"cluster {self.name!r} at {self.place} sends too much: {what}"
        now = _now()
        if now >= self._asked_again_at:
            # `_excesses` only grows, so concurrent readers notice each change.
            self._in_a_row = self._in_a_row + 1 if self.excess() is not None else 1
            self._excesses += 1
            pause = min(MOST_EXCESS_PAUSE_SECONDS, EXCESS_PAUSE_SECONDS * 2.0 ** (self._in_a_row - 1))
            self._asked_again_at = now + pause * uniform(0.8, 1.0)  # noqa: S311 - jitter
        self._excess = (words, now)
        return AnswerTooLarge(words)

    def excess(self) -> AnswerTooLarge | None:
        """Returns the error for the last oversized response, if it is recent; None otherwise."""
        if self._excess is None or _now() - self._excess[1] > EXCESS_SECONDS:
            return None
        # A new exception each time, because a raised one keeps its traceback.
        return AnswerTooLarge(self._excess[0])

    async def close(self) -> None:
        """Closes all connections."""
        await self._streams.close()
        await self._api.close()

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Manifest | list[Manifest] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        seconds: float | None = None,
        page: PageBound | None = None,
    ) -> bytes:
        """Returns the body of the response. Raises ClusterError; TooLong if a `page` exceeds its bound: request less.

        Without `page`, a response may have no more values than may be decoded in one step.
        """
        timeout = aiohttp.ClientTimeout(
            total=seconds or self._limits.request_seconds, sock_connect=self._limits.connect_seconds
        )
        async with self.answer(
            method, path, query, body=body, content_type=content_type, accept=accept, timeout=timeout
        ) as response:
            ahead = clock_ahead(response.headers.get("Date", ""), datetime.now(UTC))
            self.ahead = self.ahead if ahead is None else ahead
            if method != "GET":
                warnings.note(response.headers.getall("Warning", ()))
            try:
                found = await self._body(response, page or PageBound(self._limits.body_bytes), timeout.total)
            except TooLong:
                if page is not None:
                    raise
                raise self.too_large(f"a response has more than {self._limits.body_bytes} bytes") from None
        # Nobody reads the body of a deletion's response.
        if page is None and method != "DELETE":
            await self.check_values(found, "a response")
        return found

    async def check_values(self, text: bytes | msgspec.Raw, what: str) -> None:
        """Checks the number of values of an object, and waits for a turn to decode it.

        Raises TooManyValues, after a turn to decode the object's name; AnswerTooLarge if no user of the cluster can
        have created such an object.
        """
        async with self.checks(text):
            try:
                await check_values(text)
            except TooMany:
                holds = f"{what} has more than {MOST_VALUES} values"
                if len(text) > MOST_OF_USERS_BYTES:
                    raise self.too_large(holds) from None
                await long_work()
                raise TooManyValues(f"{holds} at cluster {self.name!r}, so it is not read") from None

    @asynccontextmanager
    async def checks(self, text: bytes | msgspec.Raw) -> AsyncIterator[None]:
        """Holds the lock under which one long response at a time is checked.

        Raises AnswerTooLarge if another response was found too large while this one waited.
        """
        if len(text) <= AT_ONCE_BYTES:
            yield
            return
        excesses = self._excesses
        async with self._checking:
            if excesses != self._excesses and (excess := self.excess()) is not None:
                raise excess
            yield

    async def _body(self, response: aiohttp.ClientResponse, bound: PageBound, seconds: float | None) -> bytes:
        """Reads a response within `seconds`, in shares of the event loop's time; only one long response at a time.

        All observers of the cluster send requests at the same time. If all responses were read concurrently, each would
        be read to its bound before the first is found too long. So once one is too long, the others are not read
        further. Raises TooLong, AnswerTooLarge.
        """
        share, alone, given_up = Share(), False, False
        excesses, long_pages = self._excesses, self._long_pages

        async def more(size: int) -> None:
            nonlocal alone, given_up
            if size >= _LONG_BYTES and not alone:
                await self._long.acquire()
                alone = True
            await share.used()
            if alone:
                await asyncio.sleep(_LONG_PAUSE_SECONDS)
            if excesses != self._excesses and (excess := self.excess()) is not None:
                raise excess
            if bound.fewer and long_pages != self._long_pages:
                given_up = True
                raise TooLong

        try:
            async with asyncio.timeout(seconds):
                body = await destinations.read(response, bound.most, more)
        except TooLong:
            self._long_pages += not given_up
            raise
        finally:
            if alone:
                self._long.release()
        return body

    def pace(self) -> Callable[[], Awaitable[None]]:
        """Returns a function to await before each line of a watch; other tasks then run however fast lines arrive."""
        share = Share()

        async def turn() -> None:
            wait = self._lines.reserve()
            # Short waits accumulate: a timer for each line would cost more than the line.
            if wait > _LINES_SECONDS:
                await asyncio.sleep(wait)
            await share.used()

        return turn

    async def _admit(self) -> None:
        """Waits for the rate limit before a request.

        Raises AnswerTooLarge during the pause after an oversized response; Throttled while the server has asked for a
        pause, or if our own rate limit would delay the request beyond its deadline.
        """
        now = _now()
        if now < self._asked_again_at and (excess := self.excess()) is not None:
            raise excess
        left = self._quiet_until - now
        if left > 0:
            raise Throttled(self._quiet_words, retry_after_seconds=left)
        wait = self._rate.seconds_until_one()
        if wait > self._limits.request_seconds:
            raise Throttled("too many requests for this cluster are waiting", retry_after_seconds=wait)
        self._rate.take()
        if wait:
            await asyncio.sleep(wait)

    def _quieten(self, error: ClusterError) -> None:
        """Delays all requests after a 429 if the server counts by client: all requests are ours."""
        if isinstance(error, Throttled) and error.of_client:
            until = _now() + error.retry_after_seconds
            self._quiet_until, self._quiet_words = max(self._quiet_until, until), error.message

    @asynccontextmanager
    async def answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Manifest | list[Manifest] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        timeout: aiohttp.ClientTimeout,
        stream: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yields the response to a request if its status is below 400; releases it at the end. Raises ClusterError.

        `stream`: whether the response comes from the pool of streams, because a caller reads it for an unlimited time.
        """
        await self._admit()
        url = self.server + path + ("?" + urlencode(query) if query else "")
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": self._api.user_agent}
        try:
            # A stream has no deadline, but its response headers have one.
            async with asyncio.timeout(timeout.total or self._limits.request_seconds):
                await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
                rest = self._streams if stream else self._api.rest_client
                response = await self._send(rest, method, url, headers, body, timeout)
            try:
                if response.status >= 400:
                    raise await self._refusal(response)
                yield response
            finally:
                # After a body is read to its end, the connection returns to the pool; otherwise it is closed.
                response.release() if response.content.at_eof() else destinations.cut(response)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError, Redirected) as broken:
            raise self._unreachable(broken) from broken

    async def _refusal(self, response: aiohttp.ClientResponse) -> ClusterError:
        """Returns the error for a response of 400 or more; an oversized body is ignored."""
        if response.status == 407:
            # The response may repeat the credentials that the proxy received.
            return Unreachable(
                f"cluster {self.name!r} at {self.place} cannot be reached: the proxy in front of it "
                "responds with 407"
            )
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                body = await destinations.read(response, _ERROR_BYTES)
        except TooLong:
            body = b""
        error = from_response(response.status, response.headers, body)
        self._quieten(error)
        return error

    def _unreachable(self, error: BaseException) -> Unreachable:
        """Returns the error for a library's exception, without the library's text, which may contain credentials."""
        if isinstance(error, TimeoutError):
            return Unreachable(f"cluster {self.name!r} did not respond in time")
        why = destinations.failure(error, self.server)
        kind = NotTrusted if isinstance(error, aiohttp.ClientConnectorCertificateError) else Unreachable
        what = "cannot be used" if destinations.is_reached(error) else "cannot be reached"
        return kind(f"cluster {self.name!r} at {self.place} {what}: {why}")

    def _session(self, rest: Any) -> aiohttp.ClientSession:
        """Returns the session of a connection pool, created on first use."""
        if rest.pool_manager is None:
            rest.pool_manager = aiohttp.ClientSession(
                connector=self._reach.connector(limit=rest.maxsize, ssl=rest.ssl_context),
                read_bufsize=_READ_AHEAD_BYTES,
                middlewares=(destinations.refuse_redirects,),
                cookie_jar=aiohttp.DummyCookieJar(),
                **getattr(self._api.configuration, "session_options", {"trust_env": False}),
            )
        return cast("aiohttp.ClientSession", rest.pool_manager)

    async def _send(
        self,
        rest: Any,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Manifest | list[Manifest] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Sends one request over the library's pool.

        The library's own `request` escapes characters beyond ASCII, which makes text up to three times as long, so that
        a cluster would refuse it as too large.
        """
        given = {
            "data": None if body is None else _payload(msgspec.json.encode(body)),
            "server_hostname": rest.configuration.tls_server_name,
            "proxy": rest.proxy,
            "proxy_headers": rest.proxy_headers,
        }
        arguments = {name: value for name, value in given.items() if value}
        # Names of objects are safe in a path, and the query is quoted: nothing may be quoted again.
        address = URL(url, encoded=True)
        return await self._session(rest).request(
            method, address, headers=headers, timeout=timeout, **arguments
        )

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Yields an open websocket, and closes it at the end. Raises ClusterError if the handshake is refused."""
        await self._admit()
        headers = {"User-Agent": self._api.user_agent}
        rest = self._streams
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
            opening = self._session(rest).ws_connect(
                f"{self.server}{path}?{urlencode(query)}",
                headers=headers,
                protocols=protocols,
                server_hostname=rest.configuration.tls_server_name,
                proxy=rest.proxy,
                proxy_headers=rest.proxy_headers,
                max_msg_size=self._limits.message_bytes,
                heartbeat=20.0,
                # A server may send pings between responses: with `autoping`, the library would read on without a pause
                # for as long as they come.
                autoping=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
            )
            async with asyncio.timeout(self._limits.request_seconds):
                socket = await opening
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 500:
                # The kubelet responds in plain text if the container does not run (any more). A Status comes from the
                # API server, which did not reach the node.
                kind = "" if error.headers is None else error.headers.get("Content-Type", "")
                if kind.startswith("text/plain"):
                    raise Refused("the container does not run", code=500) from error
                raise InternalError("the node of the pod does not respond") from error
            raise from_status(
                Status(message=f"the cluster refused the connection ({error.status})"), code=error.status
            ) from error
        except (aiohttp.ClientError, OSError, Redirected) as error:
            raise self._unreachable(error) from error
        # `cutting` comes first, because the library releases the connection when it ends a websocket itself.
        with destinations.cutting(socket._response):
            try:
                yield socket
            finally:
                await _farewell(socket)


async def _farewell(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Sends a close frame, and waits briefly for the other side's, which may follow messages that were sent before.

    The library's own close reads any number of such messages, without a pause, and waits as long for each.
    """
    kinds = aiohttp.WSMsgType
    try:
        if not socket.closed:
            with suppress(TimeoutError, ConnectionError, aiohttp.ClientError, RuntimeError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await socket._writer.close(aiohttp.WSCloseCode.OK, b"")
                    for _ in range(_MOST_LAST_MESSAGES):
                        if (await socket.receive()).type in (
                            kinds.CLOSE,
                            kinds.CLOSING,
                            kinds.CLOSED,
                            kinds.ERROR,
                        ):
                            break
    finally:
        # This must also run on cancellation.
        socket._set_closed()
        socket._response.close()
