"""Minimal receivers of records: real sockets that store the bytes that they received."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.waiting import patient


@dataclass
class Posted:
    """A request as it was received."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpReceiver:
    """Stores every POST, waits for `open`, and responds with `status` and `answer`."""

    url: str = ""
    status: int = 200
    answer: bytes = b""
    # Longer bodies get the status 413; 0: bodies of any length are accepted.
    longest: int = 0
    posted: list[Posted] = field(default_factory=list)
    # The number of requests that got a response.
    answered: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.longest and len(body) > self.longest:
            return web.Response(status=413)
        self.posted.append(
            Posted(request.path, {name.lower(): value for name, value in request.headers.items()}, body)
        )
        await self.open.wait()
        self.answered += 1
        return web.Response(status=self.status, body=self.answer)


@asynccontextmanager
async def http_receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpReceiver]:
    """Runs a receiver on its own port."""
    receiver = HttpReceiver()
    receiver.open.set()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{path:.*}", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        receiver.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()


@dataclass
class SyslogReceiver:
    """Reads octet-counted frames.

    A `careless` receiver resets each connection before it has read everything.
    """

    address: str = ""
    frames: list[bytes] = field(default_factory=list)
    connections: int = 0
    careless: bool = False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.careless:
            await reader.readexactly(1)
            # asyncio may have read more than requested, and with nothing left unread the kernel would close in order.
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        received: list[bytes] = []
        try:
            while length := await reader.readuntil(b" "):
                received.append(await reader.readexactly(int(length)))
        except asyncio.IncompleteReadError as end:
            if end.partial:
                received.append(b"torn")
        self.frames += received
        writer.close()


@asynccontextmanager
async def syslog_receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[SyslogReceiver]:
    """Runs a receiver on its own port."""
    receiver = SyslogReceiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    receiver.address = f"{'tcp' if tls is None else 'tls'}://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def blunt_receiver(tls: ssl.SSLContext) -> AsyncIterator[SyslogReceiver]:
    """Runs a receiver that closes without a `close_notify`, as rsyslog does with GnuTLS.

    It first reads to the client's `close_notify`. A `careless` receiver does so after the first octets.
    """
    receiver = SyslogReceiver()
    listening = socket.create_server(("127.0.0.1", 0))
    receiver.address = f"tls://127.0.0.1:{listening.getsockname()[1]}"

    def read(connection: socket.socket) -> bytes:
        connection.settimeout(patient(10.0))
        received = b""
        # Closed without `unwrap`, so no alert is sent.
        with tls.wrap_socket(connection, server_side=True) as secured:
            while (part := secured.recv(8 if receiver.careless else 65536)) and not receiver.careless:
                received += part
        return received

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            receiver.connections += 1
            with connection, suppress(OSError):
                receiver.frames += _frames(read(connection))

    serving = asyncio.create_task(asyncio.to_thread(serve))
    try:
        yield receiver
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        await serving
        listening.close()


def _frames(received: bytes) -> list[bytes]:
    found = []
    while received:
        length, _, rest = received.partition(b" ")
        found.append(rest[: int(length)])
        received = rest[int(length) :]
    return found


def self_signed(address: str) -> tuple[str, str]:
    """Returns a self-signed certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver of a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Returns the TLS context of a receiver."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context
