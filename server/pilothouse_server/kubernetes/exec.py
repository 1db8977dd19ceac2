"""Programs run in a container of a pod (`exec`).

A program runs over a websocket in the sub-protocol `v5.channel.k8s.io`: each message begins with the number of its
channel (0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 the terminal's size; 255 closes the channel named by the
second byte, in v5 only).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal

import msgspec

from pilothouse_server.flowcontrol.token_bucket import TokenBucket
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.decoding import AT_ONCE_BYTES
from pilothouse_server.kubernetes.errors import UNREADABLE, ClusterError, Status, Unreachable, shown
from pilothouse_server.kubernetes.http import aiohttp
from pilothouse_server.kubernetes.objects import PODS

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
# The rate of messages without output of the program. A cluster sends a few a minute to check the connection.
_IDLE_PER_SECOND, _IDLE_BURST = 100.0, 100
_NUMBER = re.compile(r"-?[0-9]{1,10}", re.ASCII)


class Output(msgspec.Struct, frozen=True):
    """Bytes that a program wrote."""

    stream: Literal["stdout", "stderr"]
    data: bytes


class Ended(msgspec.Struct, frozen=True):
    """The end of a program; `message` is empty, or the cluster's message if the program could not be run."""

    exit_code: int
    message: str = ""


class RunningProgram:
    """A program that runs in a pod. `output` yields its output and, last, its result."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, too_long: Callable[[], ClusterError]) -> None:
        self._socket = socket
        self._too_long = too_long

    async def write(self, data: bytes) -> None:
        """Sends standard input."""
        await self._send(_STDIN, data)

    async def close_input(self) -> None:
        """Closes standard input, if the protocol supports it (v5)."""
        if self._socket.protocol == PROTOCOLS[0]:
            await self._send(_CLOSE, bytes([_STDIN]))

    async def resize(self, width: int, height: int) -> None:
        """Sends the terminal's size."""
        await self._send(_RESIZE, msgspec.json.encode({"Width": width, "Height": height}))

    async def output(self) -> AsyncGenerator[Output | Ended, None]:
        """Yields the program's output, then `Ended`. Raises Unreachable if the connection breaks."""
        idle = TokenBucket(_IDLE_PER_SECOND, _IDLE_BURST)
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.ERROR and _is_too_long(message.data):
                raise self._too_long()
            channel, data = _parts(message)
            if channel == _STATUS:
                yield _ended(data)
                return
            if channel in (_STDOUT, _STDERR) and data:
                yield Output("stdout" if channel == _STDOUT else "stderr", data)
                continue
            if message.type is aiohttp.WSMsgType.PING:
                await self._pong(message.data)
            # Received data is available immediately: without a pause this loop would occupy the event loop for as long
            # as more is sent.
            await asyncio.sleep(idle.reserve())
        raise Unreachable("the connection to the program broke")

    async def _pong(self, data: bytes) -> None:
        with suppress(ConnectionError, aiohttp.ClientError):
            await self._socket.pong(data)

    async def _send(self, channel: int, data: bytes) -> None:
        try:
            await self._socket.send_bytes(bytes([channel]) + data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise Unreachable("the connection to the program broke") from error


@asynccontextmanager
async def program(
    client: ClusterClient,
    namespace: str,
    pod: str,
    *,
    container: str,
    command: Sequence[str],
    stdin: bool,
    tty: bool,
) -> AsyncIterator[RunningProgram]:
    """Runs a program in a container of a pod; leaving the block ends the connection.

    Raises ClusterError: Refused if the pod or container does not run, Unreachable.
    """
    query = [("container", container), ("stdout", "true")]
    query += [("stdin", "true")] if stdin else []
    query += [("tty", "true")] if tty else [("stderr", "true")]
    query += [("command", part) for part in command]
    path = f"{PODS.path(namespace, pod)}/exec"
    async with client.websocket(path, query, PROTOCOLS) as socket:
        yield RunningProgram(socket, client.too_long_a_message)


def _parts(message: aiohttp.WSMessage) -> tuple[int, bytes]:
    """Returns the number of the channel and the data; -1 for a message on no channel."""
    if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
        return -1, b""
    return message.data[0], bytes(message.data[1:])


def _is_too_long(error: object) -> bool:
    return getattr(error, "code", None) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


def _ended(data: bytes) -> Ended:
    if len(data) > AT_ONCE_BYTES:
        return Ended(-1, "the cluster's response is longer than permitted")
    try:
        status = msgspec.json.decode(data, type=Status)
    except UNREADABLE:
        return Ended(-1, "the cluster's response cannot be read")
    if status.status == "Success":
        return Ended(0)
    for cause in (status.details.causes or ()) if status.details else ():
        if cause.reason == "ExitCode" and (code := _exit_code(cause.message)) is not None:
            return Ended(code)
    return Ended(-1, shown(status.message))


def _exit_code(text: str) -> int | None:
    """Parses an exit code (int32); returns None for other text.

    Windows codes may be unsigned: 4294967295 is -1.
    """
    number = int(text) if _NUMBER.fullmatch(text) else 1 << 32
    number -= (1 << 32) if (1 << 31) <= number < (1 << 32) else 0
    return number if -(1 << 31) <= number < (1 << 31) else None
