"""What goes on inside a pod right now: its log as lines, and programs run in it.

Logs are asked for with timestamps, so every line has a place by which a cut log goes on: `sinceTime` counts
whole seconds only, so the caller drops what it has seen. A program runs over a websocket in the
sub-protocol `v5.channel.k8s.io`: each message begins with the number of its channel (0 stdin, 1 stdout, 2
stderr, 3 the final Status, 4 the terminal's size; 255 closes the channel named by the second byte, which v4
cannot).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Literal

import aiohttp
import msgspec

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import Status, Unreachable
from pilothouse_server.kubernetes.objects import PODS

LONGEST_LINE = 256 * 1024
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_NANOSECONDS = 1_000_000_000


class LogLine(msgspec.Struct, frozen=True):
    """One line: nanoseconds since 1970 in UTC, and its bytes without the end."""

    nanoseconds: int
    text: bytes


class Output(msgspec.Struct, frozen=True):
    """Bytes that a program wrote."""

    stream: Literal["stdout", "stderr"]
    data: bytes


class Ended(msgspec.Struct, frozen=True):
    """How a program ended; `message` is empty, or the cluster's words where it could not be run."""

    exit_code: int
    message: str = ""


async def pod_log(
    client: ClusterClient,
    namespace: str,
    pod: str,
    *,
    container: str,
    follow: bool = False,
    previous: bool = False,
    since_nanoseconds: int | None = None,
    since_seconds: int | None = None,
    tail_lines: int | None = None,
) -> AsyncGenerator[LogLine, None]:
    """The lines of one container of a pod, in order; with `follow` until it ends.

    `since_nanoseconds` is a time that the cluster wrote, `since_seconds` how long ago, whatever its clock says. A line
    over 256 KiB is cut. Raises ClusterError: Refused where there is no such log (yet), Unreachable
    where the connection breaks.
    """
    query = {"container": container, "timestamps": "true"}
    if follow:
        query["follow"] = "true"
    if previous:
        query["previous"] = "true"
    if since_nanoseconds is not None:
        since = datetime.fromtimestamp(since_nanoseconds // _NANOSECONDS, UTC)
        query["sinceTime"] = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    elif since_seconds is not None:
        query["sinceSeconds"] = str(max(1, since_seconds))
    if tail_lines is not None:
        query["tailLines"] = str(tail_lines)
    path = f"{PODS.path(namespace, pod)}/log"
    async with client.streaming(path, query, idle_seconds=None if follow else 60.0) as response:
        async for line in _lines(response.content.iter_any()):
            yield line


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[LogLine]:
    """Whole lines; one that is still being written when the stream ends is a line, too."""
    pending = bytearray()
    async for chunk in chunks:
        pending += chunk
        while (end := pending.find(b"\n")) >= 0:
            yield _line(bytes(pending[:end]))
            del pending[: end + 1]
        if len(pending) > 2 * LONGEST_LINE:
            # The rest of an over-long line has no timestamp of its own and would not be told apart: drop
            # it.
            del pending[LONGEST_LINE + 64 :]
    if pending:
        yield _line(bytes(pending))


def _line(raw: bytes) -> LogLine:
    stamp, _, text = raw.partition(b" ")
    nanoseconds = parse_nanoseconds(stamp.decode("ascii", "replace"))
    if nanoseconds is None:
        return LogLine(0, raw[:LONGEST_LINE])
    return LogLine(nanoseconds, text[:LONGEST_LINE])


def parse_nanoseconds(stamp: str) -> int | None:
    """An RFC 3339 time with up to nine digits of a second; None where it is none."""
    whole, _, rest = stamp.partition(".")
    digits = rest.rstrip("Z") if rest else ""
    try:
        second = datetime.fromisoformat((whole if rest else whole.rstrip("Z")) + "+00:00")
        fraction = int(digits.ljust(9, "0")[:9]) if digits else 0
    except ValueError:
        return None
    return int(second.timestamp()) * _NANOSECONDS + fraction


class Program:
    """A program that runs in a pod. `output` yields what it writes and, last, how it ended."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def write(self, data: bytes) -> None:
        """Sends standard input."""
        await self._send(_STDIN, data)

    async def close_input(self) -> None:
        """Ends standard input, where the cluster's protocol can."""
        if self._socket.protocol == PROTOCOLS[0]:
            await self._send(_CLOSE, bytes([_STDIN]))

    async def resize(self, width: int, height: int) -> None:
        """Tells the terminal's size."""
        await self._send(_RESIZE, msgspec.json.encode({"Width": width, "Height": height}))

    async def output(self) -> AsyncGenerator[Output | Ended, None]:
        """What the program writes, then `Ended`. Raises Unreachable if the connection breaks."""
        async for message in self._socket:
            if message.type != aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], bytes(message.data[1:])
            if channel == _STATUS:
                yield _ended(data)
                return
            if channel in (_STDOUT, _STDERR) and data:
                yield Output("stdout" if channel == _STDOUT else "stderr", data)
        raise Unreachable("the connection to the program broke")

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
) -> AsyncIterator[Program]:
    """Runs a program in a container of a pod; leaving the block ends the connection.

    Raises ClusterError: Refused where the pod or container does not run, Unreachable.
    """
    query = [("container", container), ("stdout", "true")]
    query += [("stdin", "true")] if stdin else []
    query += [("tty", "true")] if tty else [("stderr", "true")]
    query += [("command", part) for part in command]
    path = f"{PODS.path(namespace, pod)}/exec"
    async with client.websocket(path, query, PROTOCOLS) as socket:
        yield Program(socket)


def _ended(data: bytes) -> Ended:
    try:
        status = msgspec.json.decode(data, type=Status)
    except msgspec.MsgspecError:
        return Ended(-1, "the cluster's answer cannot be read")
    if status.status == "Success":
        return Ended(0)
    for cause in (status.details.causes or ()) if status.details else ():
        if cause.reason == "ExitCode" and cause.message.lstrip("-").isdigit():
            return Ended(int(cause.message))
    return Ended(-1, status.message)
