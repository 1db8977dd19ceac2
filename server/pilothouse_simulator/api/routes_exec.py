"""exec: runs a program in a container, with its streams as channels of a websocket.

Every message begins with the number of its channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 the size of the
terminal as JSON, and, in `v5.channel.k8s.io` only, 255, which closes the channel named by the next byte. The
unversioned protocols send no Status: the connection just closes. As recorded, the first message is empty and on stdout.

A runtime needs some time to start a program; a terminal size that arrives before the start is the initial size.

A terminal is a line discipline: typed bytes are echoed, line ends become CR LF, Ctrl-C ends the program (in an
interactive shell, the command that it runs), Ctrl-D on an empty line ends the input. The only line editing is
backspace.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from pilothouse_simulator.api.context import ApiContext, RequestTarget
from pilothouse_simulator.api.routes_nodes import refused_dial
from pilothouse_simulator.exec.environment import environment_of, files_of
from pilothouse_simulator.exec.process import Pipe, Process, Terminal
from pilothouse_simulator.exec.shell import INTERRUPTED, SHELLS, CommandNotFound, Exited, run_command
from pilothouse_simulator.exec.tools import TOOLS
from pilothouse_simulator.nodes.kubelet import Kubelets
from pilothouse_simulator.nodes.pod_containers import ContainerAttempt, RunningContainer
from pilothouse_simulator.nodes.pod_programs import KILLED
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.resources import PODS

JsonObject = dict[str, Any]

_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_UNVERSIONED, _BASE64 = ("", "channel.k8s.io"), ("base64.channel.k8s.io", "v4.base64.channel.k8s.io")
_PROTOCOLS = (_V5, _V4, "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_FRAME_BYTES = 32_768
_BANNER = (
    b"\r\n\r\nBusyBox v1.37.0 (simulated) built-in shell (ash)\r\n"
    b"Enter 'help' for a list of built-in commands.\r\n\r\n"
)
# As recorded, a program starts some 30 ms after the connection; on a busy machine the size may arrive later.
_START_SECONDS = 0.1
_INTERRUPT, _END_OF_INPUT, _ERASES = 3, 4, b"\b\x7f"


class ExecRoutes:
    """The handler of pods/exec; the kubelets know which containers run."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    async def run(
        self, context: ApiContext, request: web.Request, target: RequestTarget
    ) -> web.StreamResponse:
        """Runs the program of the query; refuses an invalid query before the handshake."""
        query = request.query
        wanted = {
            name for name in ("stdin", "stdout", "stderr", "tty") if query.get(name, "") in ("true", "1")
        }
        pod = context.store.get(PODS, target.namespace, target.name)
        if pod is None:
            raise api_errors.not_found(PODS, target.name)
        name = _container_name(pod, query.get("container", ""))
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise api_errors.bad_request("Upgrade request required")
        kubelet = self._kubelets.by_node.get(pod["spec"].get("nodeName", ""))
        if kubelet is not None and kubelet.away:
            raise api_errors.failure(500, f"error dialing backend: {refused_dial(kubelet)}")
        worker = self._kubelets.worker(pod)
        container = (
            next((entry for entry in worker.containers if entry.name == name), None) if worker else None
        )
        if container is None or container.current is None:
            raise api_errors.not_found(PODS, target.name)
        if not container.is_running:
            return _plain(500, f'container not found ("{name}")')
        if not wanted & {"stdin", "stdout", "stderr"}:
            return _plain(400, "you must specify at least 1 of stdin, stdout, stderr")
        offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if any(offered) and not set(offered) & set(_PROTOCOLS):
            refusal = web.Response(status=403)
            refusal.force_close()
            return refusal
        socket = web.WebSocketResponse(protocols=_PROTOCOLS, max_msg_size=4 * 1024 * 1024, timeout=1.0)
        await socket.prepare(request)
        session = _Session(socket, wanted)
        attempt = container.current
        environment, files = _environment_and_files(context, pod, container, attempt)
        process = session.process(context, pod, environment, files)
        await session.serve(process, query.getall("command", []), attempt)
        return socket


def _environment_and_files(
    context: ApiContext, pod: JsonObject, container: RunningContainer, attempt: ContainerAttempt
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Returns the environment from the start of the container and its files.

    The environment of a restored container is computed now. The files are the mounted files as they are now, and those
    that programs have written.
    """
    if attempt.environment is None:
        attempt.environment = environment_of(context.store, pod, container.spec)
    for path, content in files_of(context.store, pod, container.spec).items():
        attempt.files[path] = content
    return dict(attempt.environment), attempt.files


def _container_name(pod: JsonObject, wanted: str) -> str:
    spec = pod["spec"]
    names = [entry["name"] for entry in spec["containers"]]
    if wanted:
        if wanted not in [*names, *(entry["name"] for entry in spec.get("initContainers") or [])]:
            raise api_errors.bad_request(f"container {wanted} is not valid for pod {pod['metadata']['name']}")
        return wanted
    chosen = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if chosen in names:
        return str(chosen)
    if len(names) > 1:
        raise api_errors.bad_request(
            f"a container name must be specified for pod {pod['metadata']['name']}, choose one of: [{' '.join(names)}]"
        )
    return str(names[0])


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/plain", charset="utf-8")


class _Session:
    """One exec connection."""

    def __init__(self, socket: web.WebSocketResponse, wanted: set[str]) -> None:
        self._socket = socket
        self._protocol = socket.ws_protocol or ""
        self._stdin = Pipe()
        self._wanted = wanted
        self._line = bytearray()
        self._interrupted, self._sized = asyncio.Event(), asyncio.Event()
        self._terminal = Terminal(interrupt=self._interrupted.set) if "tty" in wanted else None

    def process(
        self, context: ApiContext, pod: JsonObject, environment: dict[str, str], files: dict[str, bytes]
    ) -> Process:
        """Returns the process whose streams are this connection."""
        if self._terminal is not None:
            environment["TERM"] = "xterm"

        async def stdout(data: bytes) -> None:
            await self._write(_STDOUT, data)

        async def stderr(data: bytes) -> None:
            # A terminal has only one output stream.
            await self._write(_STDERR if self._terminal is None else _STDOUT, data)

        name = pod["spec"].get("hostname") or pod["metadata"]["name"]
        return Process(context.clock, self._stdin, stdout, stderr, environment, files, name, self._terminal)

    async def serve(self, process: Process, command: list[str], attempt: ContainerAttempt) -> None:
        """Runs the command until it ends, its container ends, or the client disconnects."""
        with suppress(ConnectionError):
            await self._send(_STDOUT, b"")
            if "stdin" not in self._wanted:
                await self._stdin.close()
            running = asyncio.create_task(self._run(process, command))
            reading = asyncio.create_task(self._read())
            over = asyncio.create_task(attempt.over.wait())
            interrupted = asyncio.create_task(self._interrupted.wait())
            tasks = (running, reading, over, interrupted)
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if running in done:
                await self._finish(running.result())
            elif over in done:
                await self._finish(_exit_status(KILLED))
            elif interrupted in done:
                await self._finish(_exit_status(INTERRUPTED))

    async def _run(self, process: Process, command: list[str]) -> JsonObject:
        """Returns the Status that describes how the program ended."""
        if self._terminal is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._sized.wait(), _START_SECONDS)
        if not command:
            return _start_failure("args must not be empty")
        if self._terminal is not None and command[0] in SHELLS and len(command) == 1:
            await self._send(_STDOUT, _BANNER)
        try:
            return _exit_status(await run_command(process, command, TOOLS))
        except Exited as end:
            return _exit_status(end.code)
        except CommandNotFound:
            found = "no such file or directory" if "/" in command[0] else "executable file not found in $PATH"
            return _start_failure(f'unable to start container process: exec: "{command[0]}": {found}')

    async def _finish(self, status: JsonObject) -> None:
        if self._protocol not in (*_UNVERSIONED, "base64.channel.k8s.io"):
            await self._send(_STATUS, json.dumps(status, separators=(",", ":")).encode())
        await self._socket.close(code=1000)

    # Input

    async def _read(self) -> None:
        """Receives the client's messages until it disconnects."""
        async for message in self._socket:
            if message.type == WSMsgType.BINARY and message.data:
                await self._receive(message.data[0], message.data[1:])
            elif message.type == WSMsgType.TEXT and message.data[:1].isdigit():
                await self._receive(int(message.data[0]), base64.b64decode(message.data[1:]))

    async def _receive(self, channel: int, data: bytes) -> None:
        if channel == _STDIN and "stdin" in self._wanted:
            await (self._stdin.write(data) if self._terminal is None else self._typed(data))
        elif channel == _RESIZE and self._terminal is not None:
            with suppress(ValueError, KeyError, TypeError):
                size = json.loads(data)
                self._terminal.width, self._terminal.height = int(size["Width"]), int(size["Height"])
                self._sized.set()
        elif channel == _CLOSE and self._protocol == _V5 and data[:1] == bytes([_STDIN]):
            await self._stdin.close()

    async def _typed(self, data: bytes) -> None:
        """Applies the line discipline: echoes, edits the line, and passes whole lines to the program."""
        echo = b""
        for byte in data:
            if byte == _INTERRUPT and self._terminal is not None:
                self._line.clear()
                await self._send(_STDOUT, echo + b"^C\r\n")
                echo = b""
                self._terminal.interrupt()
            elif byte == _END_OF_INPUT:
                if self._line:
                    await self._enter()
                else:
                    await self._stdin.close()
            elif byte in _ERASES:
                if self._line:
                    self._line.pop()
                    echo += b"\b \b"
            elif byte in b"\r\n":
                await self._send(_STDOUT, echo + b"\r\n")
                echo = b""
                self._line += b"\n"
                await self._enter()
            else:
                self._line.append(byte)
                echo += bytes([byte])
        if echo:
            await self._send(_STDOUT, echo)

    async def _enter(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        await self._stdin.write(line)

    # Output

    async def _write(self, channel: int, data: bytes) -> None:
        if {_STDOUT: "stdout", _STDERR: "stderr"}[channel] not in self._wanted:
            return
        if self._terminal is not None:
            data = data.replace(b"\n", b"\r\n")
        for start in range(0, len(data), _FRAME_BYTES):
            await self._send(channel, data[start : start + _FRAME_BYTES])

    async def _send(self, channel: int, data: bytes) -> None:
        if self._protocol in _BASE64:
            await self._socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes([channel]) + data)


def _exit_status(code: int) -> JsonObject:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _start_failure(why: str) -> JsonObject:
    message = (
        "Internal error occurred: error executing command in container: failed to exec in container: "
        f"failed to start exec: OCI runtime exec failed: exec failed: {why}: unknown"
    )
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }
