"""`pilothouse port-forward`: forwards connections to ports of this machine to a container.

Each connection is a call of its own, with a thread for each direction. Other machines can connect only if `--address`
allows it. Connections need no log-in.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.container_columns import ContainerName
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Namespace, namespace_or_default
from pilothouse_client.commands.terminal import plain, say

if TYPE_CHECKING:
    from pilothouse_client import Client

_WRONG_COMMAND_LINE, _NOT_ALLOWED = 2, 5
_PERMISSION = "container.port_forward"
_CHUNK_BYTES = 32 * 1024
_MOST_CONNECTIONS = 64
_MOST_PORT = 65535
# The number of chunks of a connection that may wait to be sent.
_QUEUE_PARTS = 16
_LINGER_SECONDS = 5.0
# Failures that would also fail every other connection.
_FINAL = ("PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND")


@dataclass(frozen=True, slots=True)
class PortPair:
    """A local port, 0 for any free one, and the port of the container."""

    local: int
    remote: int


def port_pair(text: str) -> PortPair:
    """Returns the ports that PORT, LOCAL:PORT or :PORT names.

    Raises CommandError for another form."""
    local, colon, remote = text.rpartition(":")
    numbers = (remote if not colon else local or "0", remote)
    if not all(each.isascii() and each.isdigit() and int(each) <= _MOST_PORT for each in numbers) or not int(
        remote
    ):
        forms = f"PORT, LOCAL:PORT or :PORT, with numbers up to {_MOST_PORT}"
        raise CommandError(f"a port is {forms}, not {text!r}", _WRONG_COMMAND_LINE)
    return PortPair(*map(int, numbers))


def port_forward(
    name: ContainerName,
    ports: Annotated[
        list[str],
        verbs.Argument(help="PORT, LOCAL:PORT, or :PORT for any free local port.", metavar="PORT..."),
    ],
    namespace: Namespace = "",
    pod: Annotated[str, verbs.Option("--pod", help="This pod; default the newest that is ready.")] = "",
    address: Annotated[
        str, verbs.Option("--address", help="Address to listen on; warns unless it is a loopback address.")
    ] = "127.0.0.1",
) -> None:
    """Forward ports of this machine to a container until interrupted."""
    pairs = [port_pair(each) for each in ports]
    where = namespace_or_default(namespace)
    bare = name.rpartition("/")[2]
    with connect() as client:
        # A connection would be refused for the same reason, but the first one may come much later.
        client.containers.get(namespace=where, name=bare)
        if not client.identity.check_permission(permission=_PERMISSION, namespace=where):
            raise CommandError(
                f'permission {_PERMISSION} is needed in namespace "{where}"',
                _NOT_ALLOWED,
                "PERMISSION_DENIED",
            )
        start = pb.PortForwardStart(namespace=where, name=bare, pod=pod)
        forwarder = _Forwarder(client, start)
        with contextlib.ExitStack() as stack:
            listeners = [
                (stack.enter_context(_listening(address, pair.local)), pair.remote) for pair in pairs
            ]
            if not _is_loopback(address):
                words = f"everybody who reaches {address} can connect to {bare} without logging in"
                say(f"warning: {words}", err=True)
            for listener, remote in listeners:
                host, port, *_ = listener.getsockname()
                say(plain(f"forwarding {_shown(host)}:{port} -> {bare}:{remote}"))
            forwarder.serve(listeners)


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=_MOST_CONNECTIONS)
    except OSError as error:
        raise CommandError(f"cannot listen on {_shown(address)}:{port}: {error.strerror or error}") from error


class _Forwarder:
    """Accepts connections and forwards each, at most `_MOST_CONNECTIONS` at a time."""

    def __init__(self, client: Client, start: pb.PortForwardStart) -> None:
        self._client = client
        self._start = start
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        # The error that ends the command.
        self._failed: queue.Queue[Exception] = queue.Queue()

    def serve(self, listeners: list[tuple[socket.socket, int]]) -> None:
        """Serves until interrupted; raises the error after which no connection can be served."""
        for listener, remote in listeners:
            threading.Thread(target=self._accept, args=(listener, remote), daemon=True).start()
        raise self._failed.get()

    def _accept(self, listener: socket.socket, remote: int) -> None:
        while True:
            self._free.acquire()
            try:
                connection, _ = listener.accept()
            except OSError as error:
                self._failed.put(error)
                return
            threading.Thread(target=self._forward, args=(connection, remote), daemon=True).start()

    def _forward(self, connection: socket.socket, remote: int) -> None:
        from pilothouse_client import PilothouseError

        start = pb.PortForwardStart()
        start.CopyFrom(self._start)
        start.port = remote
        given = _Given(connection, start)
        try:
            with self._client.containers.port_forward(given) as answers:
                given.read_on(answers.close)
                for answer in answers:
                    if answer.data:
                        given.note_answer()
                        connection.sendall(answer.data)
        except PilothouseError as error:
            if error.code.name in _FINAL:
                self._failed.put(error)
            elif error.code.name != "CANCELLED":
                say(plain(f"port {remote}: {error.message}"), err=True)
        except OSError:
            # The local program has closed the connection.
            pass
        finally:
            given.end()
            connection.close()
            self._free.release()


class _Given:
    """The requests of a connection: the start, then the bytes of the local program as they arrive.

    A program that has nothing more to send may still read, but a cluster cannot close one direction alone. So the call
    ends once no bytes have come back for `_LINGER_SECONDS`.
    """

    def __init__(self, connection: socket.socket, start: pb.PortForwardStart) -> None:
        self._connection = connection
        self._queue: queue.Queue[pb.PortForwardRequest | None] = queue.Queue(_QUEUE_PARTS)
        self._queue.put(pb.PortForwardRequest(start=start))
        self._ended = threading.Event()
        self._answered = threading.Event()

    def __iter__(self) -> Iterator[pb.PortForwardRequest]:
        while not self._ended.is_set() and (request := self._queue.get()) is not None:
            yield request

    def note_answer(self) -> None:
        """Records that bytes have come back."""
        self._answered.set()

    def read_on(self, hang_up: Callable[[], object]) -> None:
        """Begins to read from the connection; `hang_up` ends the call."""
        threading.Thread(target=self._read, args=(hang_up,), daemon=True).start()

    def end(self) -> None:
        """Ends the requests and shuts the connection down; closing alone would not end a pending read."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    def _read(self, hang_up: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):
            while data := self._connection.recv(_CHUNK_BYTES):
                if not self._put(pb.PortForwardRequest(data=data)):
                    return
        self._put(None)
        while not self._ended.wait(_LINGER_SECONDS):
            if not self._answered.is_set():
                hang_up()
                return
            self._answered.clear()

    def _put(self, request: pb.PortForwardRequest | None) -> bool:
        """Adds a request once the queue has room.

        Returns False if the call has ended before."""
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(request, timeout=_LINGER_SECONDS)
                return True
        return False
