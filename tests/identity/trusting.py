"""The server's side of a test's issuer: its configuration and its verifier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pilothouse_server.identity.federation.oidc.issuers import IssuerConfig
from pilothouse_server.identity.federation.oidc.trusted import TrustedIssuer
from pilothouse_server.outbound.destinations import LOOPBACK, Reach
from tests.identity.issuer import Issuer

CLIENT = "pilothouse"
REACH = Reach(LOOPBACK)


class Clock:
    """A clock that tests set, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def config_of(company: Issuer, **changes: Any) -> IssuerConfig:
    """Returns the entry of an issuer as the file would define it."""
    values: dict[str, Any] = {
        "name": "company",
        "issuer": company.url,
        "display_name": "Company",
        "client_id": CLIENT,
        "algorithms": ("RS256", "PS256", "ES256", "ES384", "EdDSA"),
    }
    return IssuerConfig(**(values | changes))


@asynccontextmanager
async def trusted(
    company: Issuer, clock: Clock | None = None, reach: Reach = REACH, **changes: Any
) -> AsyncIterator[TrustedIssuer]:
    """Yields the trusted issuer, and closes it at the end of the block."""
    made = TrustedIssuer(config_of(company, **changes), reach, clock=clock or Clock())
    try:
        yield made
    finally:
        await made.close()
