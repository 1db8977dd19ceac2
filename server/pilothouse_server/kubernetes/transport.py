"""One request to an API server: rate limit, deadline, credentials, and the answer's body or its error.

The Kubernetes client library gives the connection pool, TLS, proxy and credentials; its models, its retries and its
writing of bodies are not used. A body is decoded by msgspec straight into the struct that is wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

import msgspec
from yarl import URL

from pilothouse_server.kubernetes.errors import (
    ClusterError,
    InternalError,
    NotTrusted,
    Refused,
    Status,
    Throttled,
    Unreachable,
    from_response,
    from_status,
)
from pilothouse_server.kubernetes.http import aiohttp
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.kubernetes.rate_limit import RateLimit

JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
_AT_ONCE_BYTES = 256 * 1024
# A program that is broken off by a drain has a second; a cluster that does not answer the close of its socket, less.
_CLOSE_SECONDS = 0.5
V = TypeVar("V")


def accepted(metadata_only: bool, *, listed: bool = False) -> str:
    """Returns the `Accept` header: JSON, or metadata alone; a watch sends single objects, not a list."""
    return _METADATA.format("List" if listed else "") if metadata_only else JSON


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one cluster's client; times in seconds."""

    request_seconds: float = 15.0
    connect_seconds: float = 5.0
    list_seconds: float = 60.0
    # The server is asked to end a watch after a random time between one and two of these, so that they
    # spread out.
    watch_seconds: int = 60
    # Bookmarks come about every minute from an idle server, and when it suits it from a busy one; no silence below the
    # end that was asked for says that the connection is dead.
    watch_idle_seconds: float = 140.0
    connections: int = 64
    # Logs and programs that callers follow, which last: apart from the others, so that they never wait for one.
    streams: int = 1000
    requests_per_second: float = 200.0
    burst: int = 400
    page_size: int = 500


DEFAULT_LIMITS = Limits()

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode(body: bytes | msgspec.Raw, type_: type[V]) -> V:
    """Decode an answer. Raises Unreachable where it is not what it should be: somebody else answered."""
    decoder = _decoders.get(type_)
    if decoder is None:
        decoder = _decoders[type_] = msgspec.json.Decoder(type_)
    try:
        return cast("V", decoder.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreachable(f"the cluster's answer cannot be read: {error}") from error


def clock_ahead(date: str, now: datetime) -> timedelta | None:
    """Returns how far a clock is ahead that an answer's `Date` was read from; None where it says nothing."""
    try:
        sent = parsedate_to_datetime(date)
        return (sent if sent.tzinfo is not None else sent.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return None


def _payload(body: bytes) -> bytes | BytesIO:
    """A large body is sent piece by piece: at once it would hold up the loop, of which aiohttp warns."""
    return body if len(body) <= _AT_ONCE_BYTES else BytesIO(body)


class Transport:
    """Requests to one API server. Bound to the event loop it is first used on.

    `ahead`: how far its clock is ahead of ours (behind: below zero), to a second, by its last answer. Ages of objects
    are read by that clock.
    """

    def __init__(self, api_client: Any, *, name: str, limits: Limits) -> None:
        self.name = name
        self._limits = limits
        self._api = api_client
        self._api.user_agent = "pilothouse"
        self.ahead = timedelta(0)
        self._quiet_until, self._quiet_words = 0.0, ""
        self._rate = RateLimit(limits.requests_per_second, limits.burst)
        # The same credentials and authorities, with connections of its own, which are made when they are needed.
        self._streams = copy(api_client.rest_client)
        self._streams.maxsize, self._streams.pool_manager = limits.streams, None

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

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
        body: Manifest | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        seconds: float | None = None,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(
            total=seconds or self._limits.request_seconds, sock_connect=self._limits.connect_seconds
        )
        async with self.answer(
            method, path, query, body=body, content_type=content_type, accept=accept, timeout=timeout
        ) as response:
            ahead = clock_ahead(response.headers.get("Date", ""), datetime.now(UTC))
            self.ahead = self.ahead if ahead is None else ahead
            return await response.read()

    async def _admit(self) -> None:
        """Raises Throttled while the server has asked not to be asked, and where our own limit cannot be kept."""
        left = self._quiet_until - asyncio.get_running_loop().time()
        if left > 0:
            raise Throttled(self._quiet_words, retry_after_seconds=left)
        await self._rate.acquire(self._limits.request_seconds)

    def _quieten(self, error: ClusterError) -> None:
        """What one request was answered holds for all: the server counts them by who asks, and that is always us."""
        if isinstance(error, Throttled):
            until = asyncio.get_running_loop().time() + error.retry_after_seconds
            self._quiet_until, self._quiet_words = max(self._quiet_until, until), error.message

    @asynccontextmanager
    async def answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Manifest | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        timeout: aiohttp.ClientTimeout,
        stream: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request, if it is below 400; released at the end. Raises ClusterError.

        `stream`: a caller reads it as long as it pleases.
        """
        await self._admit()
        url = self.server + path + ("?" + urlencode(query) if query else "")
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": self._api.user_agent}
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
            rest = self._streams if stream else self._api.rest_client
            response = await self._send(rest, method, url, headers, body, timeout)
            try:
                if response.status >= 400:
                    error = from_response(response.status, response.headers, await response.read())
                    self._quieten(error)
                    raise error
                yield response
            finally:
                # A body read to its end gives the connection back; any other is closed with it.
                response.release() if response.content.at_eof() else response.close()
        except TimeoutError as late:
            raise Unreachable(f"cluster {self.name!r} did not answer in time") from late
        except aiohttp.ClientConnectorCertificateError as doubted:
            raise NotTrusted(
                f"the certificate of cluster {self.name!r} at {self.server} is not trusted: "
                f"{getattr(doubted.certificate_error, 'verify_message', '') or doubted.certificate_error}"
            ) from doubted
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as broken:
            raise Unreachable(f"cluster {self.name!r} cannot be reached: {broken}") from broken

    async def _send(
        self,
        rest: Any,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Manifest | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """One request over the library's pool. Its own `request` writes what is not ASCII as escapes, up to three times
        as long, so that text which a cluster takes would be too large for it.
        """
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()
        given = {
            "data": None if body is None else _payload(msgspec.json.encode(body)),
            "server_hostname": rest.configuration.tls_server_name,
            "proxy": rest.proxy,
            "proxy_headers": rest.proxy_headers,
        }
        arguments = {name: value for name, value in given.items() if value}
        # Names of objects are safe in a path, and the query is quoted: nothing is to be quoted again.
        address = URL(url, encoded=True)
        answer = await rest.pool_manager.request(
            method, address, headers=headers, timeout=timeout, **arguments
        )
        return cast("aiohttp.ClientResponse", answer)

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """An open websocket; closed at the end. Raises ClusterError where the handshake is refused."""
        await self._admit()
        headers = {"User-Agent": self._api.user_agent}
        rest = self._streams
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
            opening = rest.pool_manager.ws_connect(
                f"{self.server}{path}?{urlencode(query)}",
                headers=headers,
                protocols=protocols,
                proxy=rest.proxy,
                max_msg_size=4 * 1024 * 1024,
                heartbeat=20.0,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
            )
            async with asyncio.timeout(self._limits.request_seconds):
                socket = await opening
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 500:
                # The node's own answer is plain text, for a container that does not run (any more). A Status is the
                # API server's: it did not reach the node.
                kind = "" if error.headers is None else error.headers.get("Content-Type", "")
                if kind.startswith("text/plain"):
                    raise Refused("the container does not run", code=500) from error
                raise InternalError("the node of the pod does not answer") from error
            raise from_status(
                Status(message=f"the cluster refused the connection: {error.message}"), code=error.status
            ) from error
        except TimeoutError as error:
            raise Unreachable(f"cluster {self.name!r} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"cluster {self.name!r} cannot be reached: {error}") from error
        try:
            yield socket
        finally:
            await socket.close()
