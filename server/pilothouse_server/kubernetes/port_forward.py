"""A connection to a port of a pod (`portforward`).

It runs over a websocket in the sub-protocol `v4.channel.k8s.io`, which the kubelet serves (kubernetes,
`pkg/kubelet/cri/streaming/portforward/websocket.go`): each message begins with the number of its channel. A port has
two, 0 for its bytes and 1 for an error, and the first message of either is the port's number, in two bytes. Then
channel 0 has the bytes both ways, and the error channel a text if the port cannot be connected to. One direction
cannot be closed alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from pilothouse_server.flowcontrol.token_bucket import TokenBucket
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError, Refused, Unreachable, shown
from pilothouse_server.kubernetes.http import aiohttp
from pilothouse_server.kubernetes.objects import PODS

PROTOCOLS = ("v4.channel.k8s.io",)
_DATA, _ERROR = 0, 1
_PORT_BYTES = 2
# The rate of messages without data of the port. A cluster sends a few a minute to check the connection.
_IDLE_PER_SECOND, _IDLE_BURST = 100.0, 100


class ForwardedPort:
    """An open connection to a port of a pod."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, too_long: Callable[[], ClusterError]) -> None:
        self._socket = socket
        self._too_long = too_long

    async def write(self, data: bytes) -> None:
        """Sends bytes to the port. Raises Unreachable if the connection to the cluster breaks."""
        try:
            await self._socket.send_bytes(bytes([_DATA]) + data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise Unreachable("the connection to the pod broke") from error

    async def output(self) -> AsyncGenerator[bytes, None]:
        """Yields the bytes of the port until it is closed.

        Raises Refused, with the cluster's message, if the port cannot be connected to; Unreachable if the connection
        breaks.
        """
        begun, idle = set[int](), TokenBucket(_IDLE_PER_SECOND, _IDLE_BURST)
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.ERROR:
                raise self._failure(message.data)
            channel, data = _parts(message)
            if channel in (_DATA, _ERROR) and channel not in begun:
                begun.add(channel)
                data = data[_PORT_BYTES:]
            if data and channel == _DATA:
                yield data
                continue
            if data and channel == _ERROR:
                raise Refused(shown(data.decode("utf-8", "replace")), code=500)
            if message.type is aiohttp.WSMsgType.PING:
                with suppress(ConnectionError, aiohttp.ClientError):
                    await self._socket.pong(message.data)
            # Received data is available immediately: without a pause this loop would occupy the event loop for as long
            # as more is sent.
            await asyncio.sleep(idle.reserve())
        if self._socket.close_code not in (aiohttp.WSCloseCode.OK, None):
            raise Unreachable("the connection to the pod broke")

    def _failure(self, error: object) -> ClusterError:
        if getattr(error, "code", None) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            return self._too_long()
        return Unreachable("the connection to the pod broke")


@asynccontextmanager
async def forwarded_port(
    client: ClusterClient, namespace: str, pod: str, port: int
) -> AsyncIterator[ForwardedPort]:
    """Connects to a port of a pod; leaving the block ends the connection.

    Raises ClusterError: Refused if the pod does not run, Unreachable.
    """
    path = f"{PODS.path(namespace, pod)}/portforward"
    async with client.websocket(path, [("ports", str(port))], PROTOCOLS) as socket:
        yield ForwardedPort(socket, client.too_long_a_message)


def _parts(message: aiohttp.WSMessage) -> tuple[int, bytes]:
    """Returns the number of the channel and the data; -1 for a message on no channel."""
    if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
        return -1, b""
    return message.data[0], bytes(message.data[1:])
