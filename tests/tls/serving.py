"""A server with TLS from files, and helpers that replace these files."""

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
    """A server's certificate and key in a folder, and the authority that signs them."""

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
        """Returns the TLS options of a client that trusts the server."""
        return Tls(root_certificates=self.authority.pem)

    def renew(self) -> Made:
        """Replaces the key and then the certificate, each atomically, with a new pair."""
        pair = made("127.0.0.1", by=self.authority)
        replace(self.key, pair.key_pem)
        replace(self.certificate, pair.pem)
        return pair


def replace(path: Path, content: bytes) -> None:
    """Replaces the content of a file atomically."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


async def shown(address: str) -> int:
    """Returns the serial number of the certificate on a new connection."""
    return await asyncio.to_thread(_shown, address)


def _shown(address: str) -> int:
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=patient(10.0))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def metric(name: str, what: str = "certificate") -> float:
    """Returns the value of a TLS metric."""
    return REGISTRY.get_sample_value(name, {"what": what}) or 0.0


def fingerprint(one: Made) -> str:
    """Returns the SHA-256 fingerprint of a certificate in the form used by the log."""
    return "SHA256:" + one.certificate.fingerprint(hashes.SHA256()).hex(":").upper()


async def token_of_admin(server: Server, files: Files) -> str:
    """Returns an access token, for clients that must send only one call."""
    async with AsyncClient(server.address, tls=files.tls) as client:
        return (await client.login("admin", PASSWORD)).access_token


@asynccontextmanager
async def serving_tls(
    database: Database, folder: Path, *, authority: Made | None = None, **settings: Any
) -> AsyncIterator[tuple[Server, Files]]:
    """Runs a server with TLS, and yields it with its files."""
    files = Files(folder, authority or made(authority=True))
    files.renew()
    settings = {"tls_certificate_file": files.certificate, "tls_key_file": files.key, **settings}
    settings = {"with_cluster": "cluster" in settings, **settings}
    async with running_server(database, folder / "data", **settings) as server:
        # The harness's own client uses plain text.
        await server.admin.close()
        server.admin = AsyncClient(server.address, username="admin", password=PASSWORD, tls=files.tls)
        yield server, files
