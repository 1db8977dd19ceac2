"""No forged token is accepted (promise 6), on any route.

A route is a way in which the server accepts an issuer's token. Each forgery is refused by the rule that it
violates. The same holds while the issuer changes its keys, and while it is unavailable. A verifier without
one of the product's checks accepts tokens that this check refuses, and no others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1.device_login_pb2 import BeginDeviceLoginRequest, CompleteDeviceLoginRequest
from pilothouse.identity.v1.federation_pb2 import BeginOidcLoginRequest, CompleteOidcLoginRequest
from pilothouse.identity.v1.token_exchange_pb2 import ExchangeTokenRequest
from pilothouse_server.identity.federation.oidc import verify
from pilothouse_server.identity.federation.oidc.issuers import ALGORITHMS
from pilothouse_server.identity.federation.oidc.jwks import PublicKey
from pilothouse_server.identity.federation.oidc.trusted import TrustedIssuer
from pilothouse_server.identity.federation.oidc.verify import Expected, VerifiedToken
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.identity.browser import browse
from tests.identity.forge import FORGERIES, FORGERS_KEYS, Forge, Forgery
from tests.identity.issuer import Claims, Issuer, issuer
from tests.identity.jose import SigningKey
from tests.identity.reference_verifier import CHECKS
from tests.identity.server import Caller, IdentityServer, Refused, valid
from tests.identity.trusting import CLIENT, trusted
from tests.identity.trusting_server import AUDIENCE, SECRET, accounts, entry, trusting
from tests.waiting import poll_until

# The product's names for the forge's checks. The product makes some checks earlier than the reference
# verifier does.
RULES = {
    "algorithm": {"algorithm", "form"},
    "critical": {"header"},
    "expiry": {"expiry", "form"},
    "form": {"form", "header"},
    "issuer": {"issuer", "form"},
    "key": {"key", "header"},
    "signature": {"signature", "header", "form"},
}
MANY = 100_000
NONCE = "the nonce of this log-in"


@dataclass
class Routes:
    """The routes by which the server accepts an issuer's token.

    A caller shows the token, or the issuer returns it. Each route returns `taken`, or the rule that refuses
    the token.
    """

    server: IdentityServer
    issuer: Issuer
    forge: Forge
    jobs: Iterator[int] = field(default_factory=count)

    def made(self, forgery: Forgery | None, claims: Claims) -> str:
        """Returns the forged token, or an honest one if there is no forgery."""
        return self.forge.honest(claims) if forgery is None else forgery.make(self.forge, claims)

    async def exchange(self, forgery: Forgery | None) -> str:
        # Each token belongs to another job, because the refusals of one job are limited.
        subject = f"repo:example/shop:{next(self.jobs)}"
        claims = self.issuer.claims(subject, AUDIENCE, repository="example/shop")
        request = ExchangeTokenRequest(subject_token=self.made(forgery, claims))
        return await self._outcome(self.server.stranger.ExchangeToken(request))

    async def log_in(self, forgery: Forgery | None) -> str:
        request = await self._begun()
        self.issuer.forged = lambda claims: self.made(forgery, claims)
        return await self._outcome(self.server.stranger.CompleteOidcLogin(request))

    async def _begun(self) -> CompleteOidcLoginRequest:
        """Returns the request that completes a login, after the login at the issuer."""
        begun = await self.server.stranger.BeginOidcLogin(
            BeginOidcLoginRequest(issuer="company", redirect_uri="http://127.0.0.1:9/callback")
        )
        self.issuer.arrive("ada")
        landing = await browse(begun.authorization_url)
        return CompleteOidcLoginRequest(
            login_token=begun.login_token, state=landing.state, code=landing.code, iss=landing.issuer
        )

    async def roles_after_a_refresh(self, forgery: Forgery | None) -> list[str]:
        """Returns a user's roles after a refresh whose token names the group `ops`."""
        request = await self._begun()
        person = self.issuer.person
        answer = await self.server.stranger.CompleteOidcLogin(request)
        assert person is not None
        person.claims["groups"] = ["ops"]
        self.issuer.forged = lambda claims: self.made(forgery, claims)
        try:
            answer = await self.server.stranger.RefreshSession(
                pb.RefreshSessionRequest(refresh_token=answer.refresh_token)
            )
        finally:
            self.issuer.forged = None
        me = await Caller(self.server.stub, answer.access_token).WhoAmI(pb.WhoAmIRequest())
        return [grant.role for grant in me.grants]

    async def log_in_by_device(self, forgery: Forgery | None) -> str:
        stranger = self.server.stranger
        begun = await stranger.BeginDeviceLogin(BeginDeviceLoginRequest(issuer="company"))
        self.issuer.approve(begun.user_code, "ada")
        self.issuer.forged = lambda claims: self.made(forgery, claims)
        async with self.server.database.system() as connection:
            await connection.execute("UPDATE device_logins SET next_poll_at = now()")
        try:
            return await self._outcome(
                stranger.CompleteDeviceLogin(CompleteDeviceLoginRequest(login_token=begun.login_token))
            )
        finally:
            async with self.server.database.system() as connection:
                await connection.execute("DELETE FROM device_logins")

    async def _outcome(self, call: Awaitable[Any]) -> str:
        try:
            await call
        except Refused as refusal:
            return refusal.metadata.get("rule", refusal.reason)
        finally:
            self.issuer.forged = None
        return "taken"


Route = Callable[[Routes, Forgery | None], Awaitable[str]]
LOG_INS = (Routes.log_in, Routes.log_in_by_device)


def keys() -> list[SigningKey]:
    return [SigningKey.of("key-2", number=2, use="enc"), SigningKey.of("key-1")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def routes(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Routes]:
    folder = tmp_path_factory.mktemp("issuers")
    (folder / "secret").write_text(SECRET)
    async with (
        issuer(keys()) as company,
        new_database(postgres, template_database.name) as database,
        trusting(
            database,
            folder,
            entry(
                "company",
                company,
                client_id=CLIENT,
                client_secret_file="secret",
                provision="everybody",
                rules=[
                    {
                        "when": [{"claim": "groups", "contains": "ops"}],
                        "role": "viewer",
                        "namespaces": ["*"],
                    }
                ],
                workloads=accounts(("robot", {"repository": "example/shop"})),
            ),
            login_failures_per_address=MANY,
        ) as server,
    ):
        company.register(CLIENT, SECRET)
        await server.user(await server.admin(), "robot", log_in=False)
        yield Routes(server, company, Forge(company))


def rules_of(forgery: Forgery) -> Collection[str]:
    """Returns the rules by which the product may refuse a forgery."""
    return {rule for check in forgery.checks.split("+") for rule in RULES.get(check, {check})}


def of(route: Route) -> Sequence[Forgery]:
    """Returns the forgeries that apply to a route.

    Device logins have no nonce, and `of_log_ins` does not apply to exchanges.
    """
    if route is Routes.log_in:
        return FORGERIES
    if route is Routes.log_in_by_device:
        return [forgery for forgery in FORGERIES if forgery.checks != "nonce"]
    return [forgery for forgery in FORGERIES if not forgery.of_log_ins]


def one_of_each(forgeries: Sequence[Forgery]) -> Sequence[Forgery]:
    """Returns one forgery for each check."""
    return list({forgery.checks: forgery for forgery in forgeries}.values())


async def taken_or_refused_wrongly(
    routes: Routes, route: Route, forgeries: Sequence[Forgery]
) -> dict[str, str]:
    """Returns the forgeries that are not refused as they must be, with the outcomes."""
    wrong = {}
    for forgery in forgeries:
        outcome = await route(routes, forgery)
        if outcome not in rules_of(forgery):
            wrong[forgery.name] = outcome
    return wrong


@pytest.mark.parametrize(
    "route",
    [
        Routes.exchange,
        *(pytest.param(route, marks=pytest.mark.full) for route in LOG_INS),
    ],
)
async def test_no_forged_token_is_accepted(routes: Routes, route: Route) -> None:
    assert await taken_or_refused_wrongly(routes, route, of(route)) == {}
    assert routes.issuer.asked(FORGERS_KEYS) == 0
    assert await route(routes, None) == "taken"


@pytest.mark.parametrize("route", LOG_INS)
async def test_logins_refuse_a_forged_token_of_each_kind(routes: Routes, route: Route) -> None:
    assert await taken_or_refused_wrongly(routes, route, one_of_each(of(route))) == {}
    assert await route(routes, None) == "taken"


async def test_a_forged_token_at_a_refresh_gives_no_roles(routes: Routes) -> None:
    # A refresh has no nonce, because it begins no login.
    forgeries = one_of_each([forgery for forgery in FORGERIES if forgery.checks != "nonce"])
    gained = {forgery.name: await routes.roles_after_a_refresh(forgery) for forgery in forgeries}
    assert [name for name, roles in gained.items() if roles] == []
    assert await routes.roles_after_a_refresh(None) == ["viewer"]


async def test_a_log_in_without_one_check_takes_what_it_refuses(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (forgery,) = [forgery for forgery in FORGERIES if forgery.name == "another audience"]
    ways = (Routes.exchange, *LOG_INS)
    assert [await route(routes, forgery) for route in ways] == ["audience"] * 3
    _leave_out("audience", monkeypatch)
    assert [await route(routes, forgery) for route in ways] == ["taken"] * 3


async def test_forgeries_are_refused_while_keys_change_or_the_issuer_is_away(routes: Routes) -> None:
    company = routes.issuer
    former = company.keys
    for keep in (True, False):
        company.rotate(keep=keep)
        company.keys = [*former[:1], *(key for key in company.keys if key.use == "sig")]
        # Tokens with the former key's name, and tokens with the new key's name.
        for published in (former[-1], company.key):
            routes.forge.published = published
            assert "taken" not in [await routes.exchange(forgery) for forgery in of(Routes.exchange)]
    company.keys = former
    routes.forge.published = company.key
    await company.go_away()
    try:
        assert "taken" not in [await routes.exchange(forgery) for forgery in of(Routes.exchange)]
    finally:
        await company.come_back()
        # The server does not request the keys again immediately, and the next test needs them.
        await poll_until(partial(routes.exchange, None), lambda outcome: outcome == "taken", seconds=60.0)


async def test_a_token_for_one_use_is_refused_for_another(routes: Routes) -> None:
    company, stranger = routes.issuer, routes.server.stranger
    id_token = company.sign(company.claims("ada", CLIENT, repository="example/shop"))
    subject_token = company.sign(company.claims("repo:example/shop", AUDIENCE, repository="example/shop"))
    # An ID token is not a subject token, a subject token is not an ID token, and neither is an access token.
    assert await routes._outcome(stranger.ExchangeToken(ExchangeTokenRequest(subject_token=id_token))) == (
        "audience"
    )
    company.forged = lambda _claims: subject_token
    begun = await stranger.BeginDeviceLogin(BeginDeviceLoginRequest(issuer="company"))
    company.approve(begun.user_code, "ada")
    async with routes.server.database.system() as connection:
        await connection.execute("UPDATE device_logins SET next_poll_at = now()")
    request = CompleteDeviceLoginRequest(login_token=begun.login_token)
    assert await routes._outcome(stranger.CompleteDeviceLogin(request)) == "audience"
    for token in (id_token, subject_token):
        assert not await valid(Caller(routes.server.stub, token))


@pytest.mark.parametrize("check", CHECKS)
async def test_who_leaves_out_a_check_takes_what_it_refuses(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with issuer(keys()) as company, trusted(company) as at:
        claims = company.claims("ada", CLIENT, nonce=NONCE)
        await at.verify(company.sign(claims), at.of_log_ins(NONCE))
        _leave_out(check, monkeypatch)
        taken = []
        for forgery in FORGERIES:
            try:
                await at.verify(forgery.make(Forge(company), dict(claims)), at.of_log_ins(NONCE))
            except Exception:  # noqa: BLE001 - with any error, a verifier without a check accepts nothing
                continue
            taken.append(forgery)
        assert taken, f"nothing is taken without {check}: the check refuses nothing by itself"
        assert not [str(forgery) for forgery in taken if check not in forgery.checks.split("+")]


def _leave_out(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the product's verifier continue where a check would refuse."""
    left_out = "header" if check == "critical" else check
    refuse, key_of, verifies = verify._refuse, TrustedIssuer.key, PublicKey.verifies
    checked = TrustedIssuer.verify

    def refused(rule: str, message: str) -> None:
        if rule != left_out:
            refuse(rule, message)

    async def any_key(self: TrustedIssuer, kid: str) -> PublicKey | None:
        return await key_of(self, kid) or PublicKey(ALGORITHMS, {})

    def by_whatever_it_says(self: PublicKey, algorithm: str, signed: bytes, signature: bytes) -> bool:
        return (
            not self.parts or algorithm not in self.algorithms or verifies(self, algorithm, signed, signature)
        )

    async def read_kindly(self: TrustedIssuer, token: str, expected: Expected) -> VerifiedToken:
        return await checked(self, ".".join(token.strip().replace("=", "").split(".")[:3]), expected)

    monkeypatch.setattr(verify, "_refuse", refused)
    if check == "form":
        monkeypatch.setattr(TrustedIssuer, "verify", read_kindly)
    if check == "key":
        monkeypatch.setattr(TrustedIssuer, "key", any_key)
    if check in ("key", "algorithm"):
        monkeypatch.setattr(PublicKey, "verifies", by_whatever_it_says)
