"""HTTP requests to an issuer, with a deadline, a size limit, and only to allowed addresses.

The addresses come from the issuer's own discovery document. So they follow the rules of `outbound` for addresses that
callers supply: loopback, link-local and cloud metadata addresses are refused, unless the operator's networks include
them. Redirects are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from pilothouse_server.errors import PilothouseError, Unavailable
from pilothouse_server.identity.federation.oidc.issuers import IssuerConfig
from pilothouse_server.outbound.destinations import Reach, Redirected, cut, failure, read
from pilothouse_server.runtime.tasks import cancel_and_wait

if TYPE_CHECKING:
    import aiohttp

# Parsing more would block the event loop for too long, and no honest issuer needs more.
MOST_BYTES: Final = 64 * 1024
SECONDS: Final = 5.0
_CONNECTIONS = 8

T = TypeVar("T")


class IssuerFailed(Exception):
    """An issuer's response is missing or wrong.

    The text gives the reason and is not copied from the response.
    """


class IssuerHttp:
    """Requests to one issuer, over persistent connections."""

    def __init__(self, config: IssuerConfig, reach: Reach) -> None:
        self._config = config
        self._reach = reach
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> dict[str, Any]:
        """Returns the JSON object at an address. Raises IssuerFailed."""
        status, raw = await self._ask("GET", url, None, {})
        if status != 200:
            raise IssuerFailed(f"it responds with {status}")
        return parse_object(raw)

    async def post(self, url: str, fields: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Sends a form as this server's client of the issuer; returns the status and the JSON object of the response.

        Raises IssuerFailed: no response, a status other than 2xx, 400, 401 and 403, or no JSON object.
        """
        config, headers, form = self._config, {}, dict(fields)
        form["client_id"] = config.client_id
        if config.client_secret and config.client_authentication == "post":
            form["client_secret"] = config.client_secret
        elif config.client_secret:
            # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
            pair = ":".join(quote(part, safe="") for part in (config.client_id, config.client_secret))
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        status, raw = await self._ask("POST", url, urlencode(form), headers)
        # Other statuses, such as 405 or 429, contain no decision about a person.
        if not (200 <= status < 300 or status in (400, 401, 403)):
            raise IssuerFailed(f"it responds with {status}")
        return status, parse_object(raw)

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _ask(
        self, method: str, url: str, form: str | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        sent = {"accept": "application/json", "user-agent": "pilothouse", **headers}
        if form is not None:
            sent["content-type"] = "application/x-www-form-urlencoded"
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._opened().request(
                    method, url, data=form, headers=sent, allow_redirects=False
                ) as response,
            ):
                status, raw = response.status, b""
                if status < 300 or 400 <= status < 500:
                    raw = await read(response, MOST_BYTES)
                else:
                    cut(response)
                if 300 <= status < 400:
                    raise Redirected
        except Exception as error:  # noqa: BLE001 - any exception that a server provokes in the library is a failure of the issuer
            raise IssuerFailed(failure(error)) from None
        return status, raw

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            context = ssl.create_default_context(cadata=self._config.authority or None)
            self._session = aiohttp.ClientSession(
                connector=self._reach.connector(limit=_CONNECTIONS, ssl=context),
                timeout=aiohttp.ClientTimeout(total=SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


def parse_object(raw: bytes) -> dict[str, Any]:
    """Returns the JSON object in `raw`. Raises IssuerFailed, also for duplicate names and non-finite numbers."""
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_each_once, parse_constant=_refuse, parse_float=_finite
        )
    except (ValueError, RecursionError):
        raise IssuerFailed("its response is not valid JSON, or contains a name twice") from None
    if not isinstance(value, dict):
        raise IssuerFailed("its response is not a JSON object")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated")
    return found


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("too large a number")
    return number


def issuer_away(name: str, why: str) -> Unavailable:
    """Returns the error for an issuer that cannot be reached, or that sends a useless response."""
    return Unavailable(
        f'the issuer "{name}" cannot be used: {why}',
        reason="ISSUER_UNAVAILABLE",
        metadata={"issuer": name},
        retry_after_seconds=5.0,
    )


class Kept(Generic[T]):
    """A document of an issuer, fetched when it is needed and cached.

    It is fetched again once it is `fresh_seconds` old, or if a caller misses something in it. While the issuer is
    unreachable, the cached document remains in use until it is `stale_seconds` old. After a failed request, and between
    two requests for something missing, no request is sent for `pause_seconds`. Concurrent callers share one request.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[T]],
        *,
        fresh_seconds: float,
        stale_seconds: float,
        pause_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._fresh = fresh_seconds
        self._stale = stale_seconds
        self._pause = pause_seconds
        self._clock = clock
        self._value: T | None = None
        # When the cached document was requested, and the number of documents received so far.
        self._since = 0.0
        self._came = 0
        # No request is sent until the first time because one failed; none for something missing until the second.
        self._paused_until = 0.0
        self._complete_until = 0.0
        self._why = "no request has been sent to it yet"
        self._fetching: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """Returns the document. Raises Unavailable: ISSUER_UNAVAILABLE, and no cached document is young enough."""
        if self._value is None or self._clock() - self._since >= self._fresh:
            await self._renew()
        if self._value is None or self._clock() - self._since >= self._stale:
            raise issuer_away(self._name, self._why)
        return self._value

    async def newer(self) -> T | None:
        """Returns a newly fetched document; None if the request fails, or during the pause after an earlier one."""
        came, now = self._came, self._clock()
        if self._fetching is None and now < self._complete_until:
            return None
        self._complete_until = now + self._pause
        await self._renew()
        return self._value if self._came > came else None

    async def close(self) -> None:
        """Cancels a running request."""
        if self._fetching is not None:
            await cancel_and_wait(self._fetching)

    async def _renew(self) -> None:
        if self._fetching is None:
            if self._clock() < self._paused_until:
                return
            self._fetching = asyncio.create_task(self._ask(), name=f"ask issuer {self._name}")
            self._fetching.add_done_callback(self._asked)
        # A caller that is cancelled must not cancel the request that other callers share.
        await asyncio.shield(self._fetching)

    async def _ask(self) -> None:
        started = self._clock()
        try:
            self._value = await self._fetch()
        except (IssuerFailed, PilothouseError) as error:
            self._why = error.message if isinstance(error, PilothouseError) else str(error)
            self._paused_until = self._clock() + self._pause
        else:
            self._since = started
            self._came += 1

    def _asked(self, done: asyncio.Task[None]) -> None:
        self._fetching = None
        if not done.cancelled():
            done.exception()
