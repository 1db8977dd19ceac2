"""A client of the HTTP port that acts as a browser or as a program.

It uses gRPC-Web, JSON and WebSockets.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import aiohttp
import yarl
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from pilothouse_server.rpc import method_rules
from pilothouse_server.rpc.method_rules import Rule
from tests.harness import Server
from tests.services import SERVICES
from tests.waiting import patient

RULES = {rule.name: rule for rule in method_rules.load(SERVICES).values()}
_PREFIX = struct.Struct(">BI")


@dataclass
class Ended:
    """The result of a call: its status and its responses."""

    code: int
    message: str = ""
    details: bytes = b""
    trailers: Mapping[str, str] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)
    http: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Returns the reason of the error."""
        info = error_details_pb2.ErrorInfo()
        for each in status_pb2.Status.FromString(self.details).details:
            if each.Unpack(info):
                return str(info.reason)
        return ""


def framed(message: bytes, flags: int = 0) -> bytes:
    """Returns a message, or metadata, behind its prefix."""
    return _PREFIX.pack(flags, len(message)) + message


class Browser:
    """Calls the HTTP port from a page of `origin`; '' stands for a program.

    Cookies are stored as in a browser, but without regard to the scheme.
    """

    def __init__(self, port: int, *, name: str = "127.0.0.1", origin: str = "own", token: str = "") -> None:
        self.host = f"{name}:{port}"
        self.url = f"http://{self.host}"
        own = {"origin": self.url} if origin == "own" else {"origin": origin} if origin else {}
        self.headers = own | ({"authorization": f"Bearer {token}"} if token else {})
        self.session = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(patient(20.0))
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.session.close()

    async def call(
        self, method: str, fields: Message | Mapping[str, Any] | None = None, **headers: str
    ) -> Ended:
        """Calls a method by gRPC-Web; collects the responses of a stream until its end."""
        rule = RULES[method]
        request = fields if isinstance(fields, Message) else rule.request_class(**(fields or {}))
        sent = {**self.headers, "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(
            self.url + rule.method, data=framed(request.SerializeToString()), headers=sent
        ) as response:
            body = await response.read()
            if not response.content_type.startswith("application/grpc-web"):
                return Ended(-1, body.decode(), http=response.status, headers=response.headers)
            ended = read_all(body, rule.response_class)
            ended.http, ended.headers = response.status, response.headers
            return ended

    async def json(
        self, method: str, fields: Mapping[str, Any] | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Calls a method by JSON, and returns the HTTP status and the body."""
        sent = {**self.headers, "connect-protocol-version": "1"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(
            self.url + RULES[method].method, json=fields or {}, headers=sent
        ) as response:
            return response.status, json.loads(await response.read())

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Requests a file of the page; returns the HTTP status, headers and body."""
        url = yarl.URL(self.url + path, encoded=True)
        async with self.session.get(url, headers=headers) as response:
            return response.status, response.headers, await response.read()

    @asynccontextmanager
    async def stream(self, method: str, **metadata: str) -> AsyncIterator[Conversation]:
        """Opens a call over a WebSocket, and sends the metadata."""
        own = {name: value for name, value in self.headers.items() if name == "authorization"}
        async with self.talk(RULES[method], {**own, **metadata}) as talk:
            yield talk

    @asynccontextmanager
    async def talk(self, rule: Rule, metadata: Mapping[str, str]) -> AsyncIterator[Conversation]:
        """Opens a call of any rule over a WebSocket with exactly this metadata."""
        headers = {name: value for name, value in self.headers.items() if name == "origin"}
        async with self.session.ws_connect(f"{self.url}/ws{rule.method}", headers=headers) as socket:
            lines = "".join(f"{name}: {value}\r\n" for name, value in metadata.items())
            await socket.send_bytes(framed(lines.encode(), 0x80))
            yield Conversation(socket, rule.response_class)


class Conversation:
    """A stream over a WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, kind: type[Message]) -> None:
        self.socket = socket
        self._kind = kind

    async def send(self, request: Message) -> None:
        """Sends a request."""
        await self.socket.send_bytes(framed(request.SerializeToString()))

    async def done(self) -> None:
        """Sends no more requests."""
        await self.socket.send_bytes(framed(b"", 0x80))

    async def read(self) -> Any:
        """Returns the next response, or the result when the call has ended."""
        frame: bytes = await self.socket.receive_bytes(timeout=patient(20.0))
        flags, length = _PREFIX.unpack_from(frame)
        body = frame[5:]
        while len(body) < length:
            body += await self.socket.receive_bytes(timeout=patient(20.0))
        return _ended(body) if flags else self._kind.FromString(body)

    async def end(self) -> Ended:
        """Returns the result of the call, and skips the responses before it."""
        while not isinstance(found := await self.read(), Ended):
            pass
        return found


def read_all(body: bytes, kind: type[Message]) -> Ended:
    """Returns the responses and the result in the body of a gRPC-Web call."""
    answers: list[Any] = []
    while body:
        flags, length = _PREFIX.unpack_from(body)
        contents, body = body[5 : 5 + length], body[5 + length :]
        if flags & 0x80:
            ended = _ended(contents)
            ended.answers = answers
            return ended
        answers.append(kind.FromString(contents))
    raise AssertionError("the call has no end")


def _ended(text: bytes) -> Ended:
    # Envoy omits the space after the colon.
    lines = (line.partition(":") for line in text.decode().split("\r\n") if line)
    trailers = {name: value.removeprefix(" ") for name, _, value in lines}
    details = trailers.get("grpc-status-details-bin", "")
    return Ended(
        int(trailers["grpc-status"]),
        unquote(trailers.get("grpc-message", "")),
        base64.b64decode(details + "=" * (-len(details) % 4)),
        trailers,
    )


def port_of(server: Server) -> int:
    """Returns the HTTP port of a server."""
    assert server.application.gateway is not None
    return server.application.gateway.port
