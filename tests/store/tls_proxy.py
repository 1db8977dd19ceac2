"""A TLS proxy for the tests' PostgreSQL, which was built without TLS.

It serves TLS to clients that request it, and refuses all others.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.client.certificates import Made
from tests.conftest import Database

# A client's request for TLS: the length of the message, and a special number in place of a protocol version.
_ASKS = struct.pack("!ii", 8, 80877103)
_BLOCK = 1 << 16


@dataclass
class Proxy:
    """The proxy's port, and how many TLS connections it has had, by database user."""

    port: int
    folder: Path
    authority: Path
    offers_tls: bool = True
    connections: dict[str, int] = field(default_factory=dict)

    def database(self, of: Database, *, host: str = "localhost", authority: Path | None = None) -> Database:
        """Returns the same database through this proxy, with full verification of its certificate."""
        query = f"sslmode=verify-full&sslrootcert={authority or self.authority}"

        def through(dsn: str) -> str:
            return f"postgresql://{urlsplit(dsn).username}@{host}:{self.port}/{of.name}?{query}"

        changed = {
            name: through(getattr(of, name))
            for name in ("app_dsn", "system_dsn", "maintenance_dsn", "admin_dsn")
        }
        return replace(of, **changed)


@asynccontextmanager
async def tls_before(
    database: Database, folder: Path, certificate: Made, authority: Made
) -> AsyncIterator[Proxy]:
    """Runs a proxy on this machine with this certificate."""
    folder.mkdir(exist_ok=True)
    (folder / "c.pem").write_bytes(certificate.pem + certificate.key_pem)
    (folder / "ca.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c.pem")
    query = parse_qs(urlsplit(database.app_dsn).query)
    behind = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
    proxy = Proxy(0, folder, folder / "ca.pem")
    open_now: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        task.add_done_callback(open_now.discard)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if await reader.readexactly(len(_ASKS)) == _ASKS:
                    writer.write(b"S" if proxy.offers_tls else b"N")
                    if proxy.offers_tls:
                        await writer.start_tls(context)
                        await _joined(proxy, behind, reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in list(open_now):
            await cancel_and_wait(task)


async def _joined(
    proxy: Proxy, behind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Copies the bytes in both directions, until one side ends."""
    first = await reader.read(_BLOCK)
    words = first[8:].split(b"\0")
    if b"user" in words:
        user = words[words.index(b"user") + 1].decode()
        proxy.connections[user] = proxy.connections.get(user, 0) + 1
    there, back = await asyncio.open_unix_connection(behind)
    back.write(first)

    async def hand_on(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_BLOCK):
                to.write(data)
                await to.drain()

    both = [asyncio.create_task(hand_on(reader, back)), asyncio.create_task(hand_on(there, writer))]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # First, because the end of the proxy may cancel the wait for the two tasks.
        back.close()
        for each in both:
            await cancel_and_wait(each)
