"""A server that accepts client certificates, and users mapped to certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilothouse.identity.v1 import identity_pb2
from pilothouse_client import AsyncClient, RetryPolicy, Tls
from tests.client.certificates import Made, made
from tests.conftest import Database
from tests.harness import PASSWORD, Server
from tests.tls.serving import Files, serving_tls

ONCE = RetryPolicy(attempts=1)
CI = "spiffe://example.org/ns/shop/sa/ci"
_RULES = f"""
# whose certificates are whose
uri    {CI}                               ci-bot
uri    spiffe://example.org/ns/shop/*      shop
email  *@example.net                       mail
dns    deployer.example.com                sa:made-by-ci:deployer
dns    leaver.example.com                  leaver
dns    gone.example.com                    nobody-is-called-so
"""


@dataclass
class Environment:
    """A server that accepts client certificates at `address`.

    `server.address` accepts only tokens.
    """

    server: Server
    files: Files
    authority: Made
    address: str
    folder: Path
    clients: list[AsyncClient] = field(default_factory=list)

    def tls(self, own: Made) -> Tls:
        return Tls(
            root_certificates=self.files.authority.pem, client_certificate=own.pem, client_key=own.key_pem
        )

    def client(self, own: Made, **options: Any) -> AsyncClient:
        """Returns a client that presents this certificate and does not retry calls."""
        client = AsyncClient(self.address, tls=self.tls(own), retry=ONCE, **options)
        self.clients.append(client)
        return client

    def signed(self, *names: str, days: tuple[float, float] = (-1, 1)) -> Made:
        return made(*names, by=self.authority, days=days)

    async def user(self, name: str, role: str = "admin", namespace: str = "") -> None:
        await self.server.admin.identity.create_user(
            user=identity_pb2.User(username=name, email=f"{name}@example.org"), password=PASSWORD
        )
        await self.server.admin.identity.grant_role(username=name, role=role, namespace=namespace)


@asynccontextmanager
async def environment(database: Database, folder: Path, **settings: Any) -> AsyncIterator[Environment]:
    """Runs a server that accepts client certificates.

    It has the users `ci-bot`, `shop` and `leaver`.
    """
    authority = made("clients", authority=True)
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "users").write_text(_RULES)
    settings = {
        "tls_client_ca_file": folder / "ca.pem",
        "tls_client_users_file": folder / "users",
        "tls_client_listen": "127.0.0.1:0",
        **settings,
    }
    async with serving_tls(database, folder, **settings) as (server, files):
        made_environment = Environment(
            server, files, authority, f"127.0.0.1:{server.application.asking_port}", folder
        )
        for name in ("ci-bot", "shop", "leaver"):
            await made_environment.user(name)
        try:
            yield made_environment
        finally:
            for client in made_environment.clients:
                await client.close()
