"""An environment with a server that trusts two issuers, and with their users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pilothouse.identity.v1 import federation_pb2, identity_pb2
from pilothouse_server.identity.federation.oidc.rules import ClaimCondition, ClaimRule
from pilothouse_server.identity.federation.oidc.trusted import PAUSE_SECONDS, TrustedIssuer, TrustedIssuers
from tests.conftest import Database
from tests.identity.browser import Landing, browse
from tests.identity.issuer import Issuer, issuer
from tests.identity.jose import SigningKey
from tests.identity.server import Caller, IdentityServer, running
from tests.identity.trusting import CLIENT, REACH, Clock, config_of

HOME = "http://127.0.0.1:4321/callback"
SECRET = "secret of the client"


def rule(group: str, role: str, *namespaces: str) -> ClaimRule:
    """Returns the rule for a group; it covers all namespaces if none is given."""
    condition = ClaimCondition(("groups",), "contains", group)
    return ClaimRule("issuers[0].rules[0]", (condition,), role, namespaces or ("*",))


RULES = (rule("admins", "admin"), rule("devs", "developer", "shop", "bakery"), rule("viewers", "viewer"))


@dataclass
class Begun:
    """A login that has begun, and the redirect that the browser received."""

    answer: federation_pb2.BeginOidcLoginResponse
    landing: Landing

    def request(self, **changes: str) -> federation_pb2.CompleteOidcLoginRequest:
        """Returns the request that completes the login."""
        values = {
            "login_token": self.answer.login_token,
            "state": self.landing.state,
            "code": self.landing.code,
            "iss": self.landing.issuer,
        }
        return federation_pb2.CompleteOidcLoginRequest(**(values | changes))


class OidcEnvironment:
    """The server, its issuers, and the clock of the cache of their documents."""

    def __init__(self, server: IdentityServer, company: Issuer, other: Issuer, clock: Clock) -> None:
        self.server = server
        self.company = company
        self.other = other
        self.clock = clock

    def at_rest(self) -> None:
        """Resets the issuers, and moves the clock so that the cache expires."""
        for each in (self.company, self.other):
            each.faults.clear()
            each.announced = {}
            each.forged = None
        self.clock.now += PAUSE_SECONDS + 300

    async def begin(self, name: str = "company", redirect_uri: str = HOME) -> Begun:
        """Begins a login, and lets the browser follow it to the redirect."""
        request = federation_pb2.BeginOidcLoginRequest(issuer=name, redirect_uri=redirect_uri)
        answer = await self.server.stranger.BeginOidcLogin(request)
        return Begun(answer, await browse(answer.authorization_url))

    async def log_in(
        self, sub: str, groups: Sequence[str] = (), name: str = "company", **claims: Any
    ) -> Caller:
        """Logs in a user of the issuer; a claim that is None is omitted."""
        at = self.company if name == "company" else self.other
        claimed: dict[str, Any] = {
            "preferred_username": sub,
            "email": f"{sub}@example.com",
            "groups": list(groups),
        }
        claimed["email_verified"] = True
        at.arrive(sub, **{claim: value for claim, value in (claimed | claims).items() if value is not None})
        answer = await self.server.stranger.CompleteOidcLogin((await self.begin(name)).request())
        return Caller(self.server.stub, answer.access_token, answer.refresh_token)

    async def refresh(self, caller: Caller) -> Caller:
        """Returns the caller with new tokens."""
        request = identity_pb2.RefreshSessionRequest(refresh_token=caller.refresh_token)
        answer = await self.server.stranger.RefreshSession(request)
        return Caller(self.server.stub, answer.access_token, answer.refresh_token)

    async def held(self, caller: Caller) -> set[tuple[str, str, str]]:
        """Returns the caller's grants: role, namespace, and the issuer that gives it."""
        answer = await caller.WhoAmI(identity_pb2.WhoAmIRequest())
        return {(grant.role, grant.namespace, grant.source) for grant in answer.grants}

    async def rows(self, query: str, *values: object) -> list[Any]:
        """Returns rows of the database."""
        async with self.server.database.owner() as connection:
            found: list[Any] = await connection.fetch(query, *values)
            return found


@asynccontextmanager
async def oidc_environment(database: Database, **changes: Any) -> AsyncIterator[OidcEnvironment]:
    """Yields the environment; `changes` apply to the entry of `company`."""
    clock = Clock()
    # The keys of the two issuers have the same name but differ.
    async with issuer() as company, issuer([SigningKey.of("key-1", "RS256", 50)]) as other:
        company.register(CLIENT, SECRET)
        other.register(CLIENT, SECRET)
        entries = (
            config_of(company, **({"client_secret": SECRET, "rules": RULES} | changes)),
            config_of(other, name="other", client_secret=SECRET, rules=RULES, client_authentication="post"),
        )
        issuers = TrustedIssuers(TrustedIssuer(entry, REACH, clock=clock) for entry in entries)
        try:
            async with running(database, issuers=issuers, login_failures_per_address=10_000) as server:
                for name in ("shop", "bakery"):
                    await server.namespace(name)
                yield OidcEnvironment(server, company, other, clock)
        finally:
            await issuers.close()
