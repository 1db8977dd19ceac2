"""A second server on the database of an environment.

Its callers exchange their platform's tokens.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc.aio

from tests.harness import running_server
from tests.identity.issuer import issuer
from tests.identity.trusting_server import AUDIENCE, accounts, entry
from tests.promises.calling import Caller
from tests.promises.environment import Environment
from tests.tls.replica import USERS


@asynccontextmanager
async def by_exchanged_token(environment: Environment, folder: Path) -> AsyncIterator[Environment]:
    """Yields the environment with the same users and rows.

    Each caller has a short session without a login.
    """
    async with issuer() as platform:
        given = accounts(*((each, {"job": each}) for each in (*USERS.values(), "admin")))
        path = folder / "issuers.json"
        path.write_text(json.dumps({"issuers": [entry("platform", platform, workloads=given)]}))
        async with (
            running_server(
                environment.server.database,
                folder,
                cluster=environment.server.cluster,
                secret_key_file=environment.server.application.settings.key_file,
                oidc_issuers_file=path,
                outbound_networks="127.0.0.0/8",
            ) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            second = replace(environment, admin=Caller(channel))

            async def caller(username: str) -> Caller:
                token = platform.sign(platform.claims(f"job of {username}", AUDIENCE, job=username))
                answer = await second.must("ExchangeToken", {"subjectToken": token}, second.stranger)
                assert answer.user.username == username
                return Caller(channel, answer.access_token)

            callers = {name: await caller(username) for name, username in USERS.items()}
            yield replace(environment, admin=await caller("admin"), callers=callers)
