"""No forged token is taken (promise 6): every one of the forge's, wherever the server takes a token of an issuer.

Each is refused by the rule that it breaks. The same holds while the issuer changes its keys, and while it is away. Who
leaves out one check of the product's verifier takes what that check refuses, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

import pytest
import pytest_asyncio

from pilothouse.identity.v1.token_exchange_pb2 import ExchangeTokenRequest
from pilothouse_server.embedded.postgres import EmbeddedPostgres
from pilothouse_server.identity.oidc import verify
from pilothouse_server.identity.oidc.issuers import ALGORITHMS
from pilothouse_server.identity.oidc.jwks import PublicKey
from pilothouse_server.identity.oidc.trusted import TrustedIssuer
from pilothouse_server.identity.oidc.verify import Expected, VerifiedToken
from tests.conftest import Database, new_database
from tests.identity.careful import CHECKS
from tests.identity.forge import FORGERIES, FORGERS_KEYS, Forge, Forgery
from tests.identity.issuer import Claims, Issuer, issuer
from tests.identity.jose import SigningKey
from tests.identity.server import IdentityServer, Refused
from tests.identity.trusting import CLIENT, trusted
from tests.identity.trusting_server import AUDIENCE, accounts, entry, trusting

# What the product calls a check of the forge's; it looks at some things earlier than the forge's own verifier does.
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
class Exchanges:
    """Where programs' tokens are taken."""

    server: IdentityServer
    issuer: Issuer
    forge: Forge

    def claims(self) -> Claims:
        return self.issuer.claims("repo:example/shop", AUDIENCE, repository="example/shop")

    async def outcome(self, token: str) -> str:
        """`taken`, or by which rule it is refused."""
        try:
            await self.server.stranger.ExchangeToken(ExchangeTokenRequest(subject_token=token))
        except Refused as refusal:
            return refusal.metadata.get("rule", refusal.reason)
        return "taken"


def keys() -> list[SigningKey]:
    return [SigningKey.of("key-2", number=2, use="enc"), SigningKey.of("key-1")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def exchanges(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Exchanges]:
    async with (
        issuer(keys()) as forge,
        new_database(postgres, template_database.name) as database,
        trusting(
            database,
            tmp_path_factory.mktemp("issuers"),
            entry("forge", forge, workloads=accounts(("robot", {"repository": "example/shop"}))),
            login_failures_per_address=MANY,
        ) as server,
    ):
        await server.user(await server.admin(), "robot", log_in=False)
        yield Exchanges(server, forge, Forge(forge))


def rules_of(forgery: Forgery) -> Collection[str]:
    """By which rule the product refuses it."""
    return {rule for check in forgery.checks.split("+") for rule in RULES.get(check, {check})}


async def test_no_forged_token_is_exchanged(exchanges: Exchanges) -> None:
    wrong = {}
    for forgery in FORGERIES:
        if forgery.of_log_ins:
            continue
        outcome = await exchanges.outcome(forgery.make(exchanges.forge, exchanges.claims()))
        if outcome not in rules_of(forgery):
            wrong[forgery.name] = outcome
    assert not wrong, "\n".join(map(str, wrong.items()))
    assert exchanges.issuer.asked(FORGERS_KEYS) == 0
    assert await exchanges.outcome(exchanges.forge.honest(exchanges.claims())) == "taken"


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
            except Exception:  # noqa: BLE001 - whatever a verifier without a check stumbles over, it takes nothing
                continue
            taken.append(forgery)
        assert taken, f"nothing is taken without {check}: the check refuses nothing by itself"
        assert not [str(forgery) for forgery in taken if check not in forgery.checks.split("+")]


def _leave_out(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the product's verifier go on where a check refuses."""
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
