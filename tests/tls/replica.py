"""A second server, with TLS, on the database of an environment.

Its callers use client certificates only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tests.client.certificates import made
from tests.promises.calling import Caller
from tests.promises.environment import ROLES, Environment
from tests.tls.serving import serving_tls

# The user name of each caller in an environment with tenants.
USERS = {
    "nobody": "nobody",
    **{f"{role} of {where}": f"{where}-{role}" for role in ROLES for where in ("own", "all")},
}


@asynccontextmanager
async def by_certificate(environment: Environment, folder: Path) -> AsyncIterator[Environment]:
    """Yields the environment with the same users and rows.

    Each caller has a certificate instead of a token.
    """
    authority = made("clients", authority=True)
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "users").write_text(
        "".join(f"dns {each}.example {each}\n" for each in (*USERS.values(), "admin"))
    )
    settings: dict[str, Any] = {
        "tls_client_ca_file": folder / "ca.pem",
        "tls_client_users_file": folder / "users",
        "tls_client_listen": "127.0.0.1:0",
        "secret_key_file": environment.server.application.settings.key_file,
    }
    async with (
        serving_tls(environment.server.database, folder, cluster=environment.server.cluster, **settings) as (
            server,
            files,
        ),
        AsyncExitStack() as channels,
    ):
        address = f"127.0.0.1:{server.application.asking_port}"

        async def caller(username: str) -> Caller:
            own = made(f"{username}.example", by=authority)
            credentials = grpc.ssl_channel_credentials(files.authority.pem, own.key_pem, own.pem)
            return Caller(await channels.enter_async_context(grpc.aio.secure_channel(address, credentials)))

        callers = {name: await caller(username) for name, username in USERS.items()}
        yield replace(environment, admin=await caller("admin"), callers=callers)
