"""HTTP receivers and OTLP collectors: a POST for each batch, which a status of 2xx acknowledges.

An HTTP receiver gets a batch as JSON lines (`application/x-ndjson`), or as a batch of CloudEvents. With a signing key a
request is signed according to Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature: v1,` with
the HMAC-SHA256 of `id.timestamp.body` in base64. The id is computed from the records, so a batch that is sent again has
the same id.

Redirects are not followed, proxies of the environment are not used, and only a few kilobytes of a response are read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from pilothouse_server.audit.sinks.formats import OTLP_HEAD, OTLP_TAIL
from pilothouse_server.audit.sinks.senders import SEND_SECONDS, SinkFailed
from pilothouse_server.outbound.destinations import Reach, TooLong, failure, read

if TYPE_CHECKING:
    import aiohttp

_MOST_ANSWER_BYTES = 16 * 1024
_CONNECT_SECONDS = 10.0
_TOO_LARGE = 413


class Body(msgspec.Struct, frozen=True):
    """The form in which items are joined to a request body."""

    content_type: str
    head: bytes
    between: bytes
    tail: bytes

    def of(self, items: Sequence[bytes]) -> bytes:
        """Returns the body of a batch."""
        return self.head + self.between.join(items) + self.tail


LINES = Body("application/x-ndjson", b"", b"\n", b"\n")
CLOUD_EVENTS = Body("application/cloudevents-batch+json", b"[", b",", b"]")
OTLP = Body("application/json", OTLP_HEAD, b",", OTLP_TAIL)


class HttpSender:
    """Posts to one address, over connections that stay open."""

    def __init__(
        self,
        url: str,
        body: Body,
        reach: Reach,
        *,
        headers: Mapping[str, str] | None = None,
        signing_key: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._body = body
        self._reach = reach
        self._headers = {"content-type": body.content_type, "user-agent": "pilothouse", **(headers or {})}
        self._signing_key = signing_key
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def send(self, items: Sequence[bytes]) -> None:
        """Returns once the receiver has responded with 2xx. Raises SinkFailed."""
        body = self._body.of(items)
        headers = {**self._headers, **self._signature(items, body)} if self._signing_key else self._headers
        try:
            async with (
                asyncio.timeout(SEND_SECONDS),
                self._opened().post(self._url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                status = response.status
                answer = await _beginning(response)
        except Exception as error:  # noqa: BLE001 - any exception that a receiver provokes is a failure of the sink
            raise SinkFailed(
                "UNREACHABLE", f"the records cannot be sent to the sink: {failure(error)}"
            ) from None
        if not 200 <= status < 300:
            raise SinkFailed(
                f"HTTP_{status}", f"the sink responds with {status}", too_large=status == _TOO_LARGE
            )
        if self._body is OTLP and (rejected := _rejected(answer)):
            raise SinkFailed("REJECTED", f"the collector rejects {rejected} records of a batch")

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            options = {} if self._tls is None else {"ssl": self._tls}
            self._session = aiohttp.ClientSession(
                connector=self._reach.connector(limit=2, **options),
                timeout=aiohttp.ClientTimeout(total=SEND_SECONDS, connect=_CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    def _signature(self, items: Sequence[bytes], body: bytes) -> dict[str, str]:
        identity = "msg_" + hashlib.sha256(b"\n".join(items)).hexdigest()[:32]
        moment = str(int(time.time()))
        signed = f"{identity}.{moment}.".encode() + body
        digest = base64.b64encode(hmac.digest(self._signing_key, signed, "sha256")).decode()
        return {"webhook-id": identity, "webhook-timestamp": moment, "webhook-signature": f"v1,{digest}"}


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Returns the body of the response, or b"" if it is too long for an acknowledgement."""
    try:
        return await read(response, _MOST_ANSWER_BYTES)
    except TooLong:
        return b""


class _Partial(msgspec.Struct, rename="camel"):
    # Protobuf's JSON writes 64-bit numbers as text.
    rejected_log_records: int | str = 0


class _Answer(msgspec.Struct, rename="camel"):
    partial_success: _Partial | None = None


def _rejected(answer: bytes) -> int:
    """Returns the number of records that a collector reports as rejected."""
    try:
        found = msgspec.json.decode(answer, type=_Answer).partial_success
        return int(found.rejected_log_records) if found is not None else 0
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        return 0
