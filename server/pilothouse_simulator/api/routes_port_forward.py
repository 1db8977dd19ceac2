"""portforward: connections to the ports of a pod, as channels of a websocket.

The protocol follows the kubelet (kubernetes, `pkg/kubelet/cri/streaming/portforward/websocket.go`), and the query
follows `PortForwardLocation` of `pkg/registry/core/pod/strategy.go`: `ports` lists the ports. Channel 2i has the bytes
of the i-th port, channel 2i + 1 its error; the first message of each channel is the port number, 16 bits,
little-endian. The connection closes when no port is open any more.

A program listens on its declared ports while it runs. It responds to an HTTP/1 request with the name of its pod and
closes the connection; it echoes any other bytes. The message for a port without a listener is that of containerd.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from pilothouse_simulator.api import routes_nodes
from pilothouse_simulator.api.context import ApiContext, RequestTarget
from pilothouse_simulator.nodes.kubelet import Kubelets
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.resources import PODS

JsonObject = dict[str, Any]

_PROTOCOLS = ("v4.channel.k8s.io",)
_FRAME_BYTES = 32_768
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"PATCH ", b"OPTIONS ")


class PortForwardRoutes:
    """The handler of pods/portforward; the kubelets know which containers run."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    async def forward(
        self, context: ApiContext, request: web.Request, target: RequestTarget
    ) -> web.StreamResponse:
        """Forwards the ports of the query; refuses an invalid query before the handshake."""
        pod = context.store.get(PODS, target.namespace, target.name)
        if pod is None:
            raise api_errors.not_found(PODS, target.name)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise api_errors.bad_request("Upgrade request required")
        kubelet = self._kubelets.by_node.get(pod["spec"].get("nodeName", ""))
        if kubelet is not None and kubelet.away:
            raise api_errors.failure(500, f"error dialing backend: {routes_nodes.refused_dial(kubelet)}")
        given = [text for value in request.query.getall("ports", []) for text in value.split(",")]
        if not given:
            return _plain(400, 'query parameter "port" is required')
        for text in given:
            if not text.isdigit() or not 0 < int(text) < 65536:
                return _plain(400, f'port "{text}" must be > 0')
        worker = self._kubelets.worker(pod)
        running = [entry for entry in worker.containers if entry.is_running] if worker else []
        if not running:
            return _plain(500, f"unable to do port forwarding: pod not found: {pod['metadata']['name']}")
        socket = web.WebSocketResponse(protocols=_PROTOCOLS, max_msg_size=4 * 1024 * 1024, timeout=1.0)
        await socket.prepare(request)
        declared = {int(port["containerPort"]) for entry in running for port in entry.spec.get("ports") or []}
        with suppress(ConnectionError):
            await _Connection(socket, pod, declared, [int(text) for text in given]).serve()
        return socket


class _Connection:
    def __init__(
        self, socket: web.WebSocketResponse, pod: JsonObject, declared: set[int], ports: list[int]
    ) -> None:
        self._socket = socket
        self._pod = pod
        self._declared = declared
        self._ports = ports
        self._open = set(range(len(ports)))

    async def serve(self) -> None:
        """Serves the ports until none is open, or the client disconnects."""
        for index, port in enumerate(self._ports):
            for channel in (2 * index, 2 * index + 1):
                await self._send(channel, port.to_bytes(2, "little"))
        for index, port in enumerate(self._ports):
            if port not in self._declared:
                await self._send(2 * index + 1, self._refusal(port).encode())
                self._open.discard(index)
        while self._open:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                break
            index, is_error = divmod(message.data[0], 2)
            if is_error or index not in self._open:
                continue
            await self._answer(index, bytes(message.data[1:]))
        await self._socket.close(code=1000)

    async def _answer(self, index: int, data: bytes) -> None:
        if not data.startswith(_METHODS):
            await self._send(2 * index, data)
            return
        body = f"{self._pod['metadata']['name']}\n".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        await self._send(2 * index, head + body)
        self._open.discard(index)

    def _refusal(self, port: int) -> str:
        place = f'localhost:{port} inside namespace "{self._pod["metadata"]["uid"]}"'
        return (
            f"error forwarding port {port} to pod {self._pod['metadata']['name']}, uid : failed to execute "
            f"portforward in network namespace: failed to connect to {place}, "
            f"IPv4: dial tcp4 127.0.0.1:{port}: connect: connection refused"
        )

    async def _send(self, channel: int, data: bytes) -> None:
        for start in range(0, len(data), _FRAME_BYTES):
            await self._socket.send_bytes(bytes([channel]) + data[start : start + _FRAME_BYTES])


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/plain", charset="utf-8")
