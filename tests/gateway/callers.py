"""Callers over HTTP in an environment of the promise tests.

They use gRPC-Web, or a WebSocket for streamed requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from pilothouse_server.rpc.method_rules import Rule
from tests.gateway.browser import Browser, Ended, framed, port_of, read_all
from tests.promises.calling import STATUS_KEY, Caller, Outcome, token_of
from tests.promises.environment import Environment

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class HttpCaller(Caller):
    """A caller over HTTP with the token of another caller."""

    def __init__(self, browser: Browser, like: Caller) -> None:
        super().__init__(like.channel, token_of(like) if like.metadata else "")
        self._browser = browser

    async def invoke(
        self, rule: Rule, request: Message | bytes, *, most: int = 1, timeout: float = 30.0
    ) -> Outcome:
        """Calls a method once, as the gRPC caller does."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        try:
            async with asyncio.timeout(timeout):
                return await (self._talk if rule.streams else self._post)(rule, body)
        except TimeoutError:
            return Outcome("DEADLINE_EXCEEDED")

    async def _post(self, rule: Rule, body: bytes) -> Outcome:
        headers = {**dict(self.metadata), "content-type": "application/grpc-web+proto"}
        url = self._browser.url + rule.method
        async with self._browser.session.post(url, data=framed(body), headers=headers) as response:
            return _outcome(read_all(await response.read(), rule.response_class))

    async def _talk(self, rule: Rule, body: bytes) -> Outcome:
        async with self._browser.talk(rule, dict(self.metadata)) as talk:
            await talk.socket.send_bytes(framed(body))
            await talk.done()
            found = await talk.read()
        return _outcome(found) if isinstance(found, Ended) else Outcome("OK", answers=(found,))


@asynccontextmanager
async def by_http(environment: Environment, without: Collection[str] = ()) -> AsyncIterator[Environment]:
    """Yields the environment with HTTP callers, except those in `without`.

    They use the tokens of the environment's callers.
    """
    async with Browser(port_of(environment.server), origin="") as browser:
        callers: dict[str, Any] = {
            name: HttpCaller(browser, each)
            for name, each in environment.callers.items()
            if name not in without
        }
        yield replace(environment, callers=callers)


def _outcome(ended: Ended) -> Outcome:
    details = status_pb2.Status.FromString(ended.details).details
    trailing: dict[str, str | bytes] = {
        name: value for name, value in ended.trailers.items() if not name.startswith("grpc-")
    }
    if ended.details:
        trailing[STATUS_KEY] = ended.details
    return Outcome(_CODES[ended.code], ended.message, trailing, tuple(details), tuple(ended.answers))
