"""A server that trusts the test's issuers, and its file of issuers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Database
from tests.identity.issuer import Issuer
from tests.identity.server import IdentityServer, running

CLIENT = "pilothouse"
SECRET = "the secret of the client"
# The audience of workload tokens.
AUDIENCE = "https://pilothouse.example.com"


def entry(name: str, issuer: Issuer, **more: Any) -> dict[str, Any]:
    """Returns the entry of the file of issuers for an issuer where users log in."""
    return {"name": name, "issuer": issuer.url, "insecure_http": True} | more


def accounts(*given: tuple[str, Mapping[str, object]], **more: Any) -> dict[str, Any]:
    """Returns the section `workloads`: each user name for programs with these claims."""
    return {
        "audiences": [AUDIENCE],
        "accounts": [
            {
                "username": username,
                "when": [{"claim": claim, "equals": value} for claim, value in claims.items()],
            }
            for username, claims in given
        ],
        **more,
    }


@asynccontextmanager
async def trusting(
    database: Database, folder: Path, *entries: Mapping[str, Any], **changes: Any
) -> AsyncIterator[IdentityServer]:
    """Runs a server that trusts the issuers of these entries."""
    path = folder / "issuers.yaml"
    path.write_text(json.dumps({"issuers": list(entries)}))
    async with running(database, oidc_issuers_file=path, **changes) as server:
        yield server
