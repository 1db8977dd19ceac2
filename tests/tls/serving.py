"""A server that serves TLS by files, and the tests' changes of those."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from prometheus_client import REGISTRY

from pilothouse_client import AsyncClient, Tls
from tests.client.certificates import Made, made
from tests.conftest import Database
from tests.harness import PASSWORD, Server, running_server
from tests.waiting import patient


@dataclass
class Files:
    """The certificate of a server and its key, in a folder, and their signer."""

    folder: Path
    authority: Made

    @cached_property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @cached_property
    def key(self) -> Path:
        return self.folder / "server.key"

    @property
    def tls(self) -> Tls:
        """Returns a client's trust in the server."""
        return Tls(root_certificates=self.authority.pem)

    def renew(self) -> Made:
        """Another certificate, both files as a whole, one after the other."""
        pair = made("127.0.0.1", by=self.authority)
        replace(self.key, pair.key_pem)
        replace(self.certificate, pair.pem)
        return pair


def replace(path: Path, content: bytes) -> None:
    """Puts other content in the place of a file, as a whole."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


async def shown(address: str) -> int:
    """The serial number of the certificate that the server shows a new connection."""
    return await asyncio.to_thread(_shown, address)


def _shown(address: str) -> int:
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=patient(10.0))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def metric(name: str, what: str = "certificate") -> float:
    """Returns a metric of TLS."""
    return REGISTRY.get_sample_value(name, {"what": what}) or 0.0


def fingerprint(one: Made) -> str:
    """SHA-256 of a certificate, as the log shows it."""
    return "SHA256:" + one.certificate.fingerprint(hashes.SHA256()).hex(":").upper()


async def token_of_admin(server: Server, files: Files) -> str:
    """An access token, for clients that shall do nothing but one call."""
    async with AsyncClient(server.address, tls=files.tls) as client:
        return (await client.login("admin", PASSWORD)).access_token


@asynccontextmanager
async def serving_tls(
    database: Database, folder: Path, *, authority: Made | None = None, **settings: Any
) -> AsyncIterator[tuple[Server, Files]]:
    """A server by TLS, and its files."""
    files = Files(folder, authority or made(authority=True))
    files.renew()
    settings = {"tls_certificate_file": files.certificate, "tls_key_file": files.key, **settings}
    settings = {"with_cluster": "cluster" in settings, **settings}
    async with running_server(database, folder / "data", **settings) as server:
        # The harness speaks plain text.
        await server.admin.close()
        server.admin = AsyncClient(server.address, username="admin", password=PASSWORD, tls=files.tls)
        yield server, files
