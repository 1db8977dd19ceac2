"""Honest tokens of an issuer are accepted, and forged ones refused.

This holds during any fault of the issuer.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest

from pilothouse_server.errors import Unauthenticated, Unavailable
from pilothouse_server.identity.federation.oidc import fetching
from pilothouse_server.identity.federation.oidc.fetching import IssuerFailed
from pilothouse_server.identity.federation.oidc.jwks import read_keys
from pilothouse_server.identity.federation.oidc.trusted import (
    FRESH_SECONDS,
    PAUSE_SECONDS,
    STALE_SECONDS,
    TrustedIssuer,
)
from pilothouse_server.identity.federation.oidc.verify import MOST_TOKEN_LENGTH, issuer_named_by
from pilothouse_server.outbound.destinations import Reach
from tests.client.certificates import made
from tests.identity.faults import TRAP, Fault
from tests.identity.forge import FORGERIES, Forge
from tests.identity.issuer import DISCOVERY, KEYS, Claims, Issuer, issuer
from tests.identity.jose import SigningKey
from tests.identity.trusting import CLIENT, Clock, trusted
from tests.waiting import within

NONCE = "the nonce of this log-in"
# Another rule of the product may refuse earlier than the named check: `form` refuses a missing signature, and
# `header` refuses a header that contains a key.
RULES = {
    "algorithm": {"algorithm", "form"},
    "critical": {"header"},
    "expiry": {"expiry", "form"},
    "form": {"form", "header"},
    "key": {"key", "header"},
    "signature": {"signature", "header", "form"},
}


async def _refused(at: TrustedIssuer, token: str, nonce: str | None = NONCE) -> str:
    """Returns the rule by which a token is refused."""
    with pytest.raises(Unauthenticated) as caught:
        await at.verify(token, at.of_log_ins(nonce))
    assert caught.value.reason == "ISSUER_TOKEN_REFUSED"
    return caught.value.metadata["rule"]


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
async def test_an_honest_token_is_accepted(alg: str) -> None:
    async with issuer([SigningKey.of("key-1", alg)]) as company, trusted(company) as at:
        token = company.sign(company.claims("ada", CLIENT, nonce=NONCE, azp=CLIENT, groups=["ops"]))
        verified = await at.verify(token, at.of_log_ins(NONCE))
        assert (verified.issuer, verified.subject) == (company.url, "ada")
        assert verified.claims["groups"] == ["ops"]
        assert issuer_named_by(token) == company.url
        several = company.claims("ada", CLIENT, nonce=NONCE, azp=CLIENT, aud=["other", CLIENT])
        assert (await at.verify(company.sign(several), at.of_log_ins(NONCE))).subject == "ada"


@pytest.mark.usefixtures("no_finalizers")
async def test_each_forged_token_is_refused_by_its_rule() -> None:
    keys = [SigningKey.of("key-enc", "RS256", 7, use="enc"), SigningKey.of("key-1")]
    clock, wrong = Clock(), []
    async with issuer(keys) as company, trusted(company, clock) as at:
        for forgery in FORGERIES:
            # Ends the pause, so that each key name that no earlier rule refuses causes a request.
            clock.now += PAUSE_SECONDS
            token = forgery.make(Forge(company), company.claims("ada", CLIENT, nonce=NONCE))
            expected = set().union(*(RULES.get(each, {each}) for each in forgery.checks.split("+")))
            try:
                await at.verify(token, at.of_log_ins(NONCE))
                wrong.append(f"{forgery} is taken")
            except Unauthenticated as refusal:
                if refusal.metadata["rule"] not in expected:
                    wrong.append(f"{forgery} is refused by {refusal.metadata['rule']}")
        assert not wrong, wrong
        assert company.asked(TRAP) == 0
        # The issuer is unharmed, and the next honest token is accepted.
        honest = company.sign(company.claims("ada", CLIENT, nonce=NONCE))
        assert (await at.verify(honest, at.of_log_ins(NONCE))).subject == "ada"


async def test_times_may_differ_only_by_the_clock_skew() -> None:
    async with issuer() as company, trusted(company, clock_skew_seconds=100) as at:
        now = int(time.time())
        for shifted in ({"exp": now - 60}, {"nbf": now + 60}, {"iat": now + 60}):
            token = company.sign(company.claims("ada", CLIENT, nonce=NONCE) | shifted)
            assert (await at.verify(token, at.of_log_ins(NONCE))).subject == "ada"
        for rule, shifted in (
            ("expiry", {"exp": now - 200}),
            ("not before", {"nbf": now + 200}),
            ("issued at", {"iat": now + 200}),
        ):
            token = company.sign(company.claims("ada", CLIENT, nonce=NONCE) | shifted)
            assert await _refused(at, token) == rule


async def test_a_token_that_is_too_long_is_not_parsed() -> None:
    async with issuer() as company, trusted(company) as at:
        token = company.sign(company.claims("ada", CLIENT, nonce=NONCE, groups=["g" * MOST_TOKEN_LENGTH]))
        assert await _refused(at, token) == "form"
        assert not company.seen
        assert issuer_named_by(token) == ""


async def test_a_duplicate_claim_is_refused() -> None:
    async with issuer() as company, trusted(company) as at:
        payload = f'{{"iss": "{company.url}", "sub": "ada", "sub": "admin"}}'
        assert await _refused(at, company.key.sign(payload)) == "form"


async def test_a_weak_key_verifies_nothing() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    weak = SigningKey("key-1", "RS256", rsa.generate_private_key(65537, 1024))
    async with issuer([weak]) as company, trusted(company) as at:
        assert await _refused(at, company.sign(company.claims("ada", CLIENT, nonce=NONCE))) == "signature"


@pytest.mark.parametrize(
    "changes",
    [
        {"n": "A" * 1367},
        {"n": 7},
        {"n": None},
        {"kty": "oct"},
        {"kty": ["RSA"]},
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"kid": "../key-1"},
        {"kid": ["key-1"]},
        {"kid": None},
    ],
)
def test_a_published_key_that_is_unfit_for_signatures_is_ignored(changes: dict[str, object]) -> None:
    honest = SigningKey.of("key-2", "ES256").jwk()
    assert set(read_keys({"keys": [SigningKey.of("key-1").jwk() | changes, 7, honest]})) == {"key-2"}


def test_an_invalid_document_of_keys_is_refused() -> None:
    twice = [SigningKey.of("key-1").jwk(), SigningKey.of("key-1", "ES256").jwk()]
    documents: list[Claims] = [{"keys": twice}, {"keys": {}}, {}, {"keys": [SigningKey.of("k").jwk()] * 101}]
    for document in documents:
        with pytest.raises(IssuerFailed):
            read_keys(document)


async def _takes(at: TrustedIssuer, company: Issuer) -> bool:
    """Returns whether a new token of the issuer is accepted."""
    try:
        await at.verify(company.sign(company.claims("ada", CLIENT)), at.of_log_ins(None))
    except Unauthenticated:
        return False
    return True


async def test_a_rotated_key_is_accepted_and_the_former_one_refused() -> None:
    clock = Clock()
    async with issuer() as company, trusted(company, clock) as at:
        assert await _takes(at, company)
        former = company.key
        company.rotate()
        # The new key works immediately, after a single request.
        assert await _takes(at, company)
        assert company.asked(KEYS) == 2
        # The withdrawn key is no longer accepted.
        old = former.sign(company.claims("ada", CLIENT))
        assert await _refused(at, old, None) == "key"


async def test_a_withdrawn_key_expires_even_if_no_new_key_is_used() -> None:
    clock = Clock()
    async with issuer() as company, trusted(company, clock) as at:
        assert await _takes(at, company)
        former = company.key
        company.rotate()
        old = former.sign(company.claims("ada", CLIENT))
        assert (await at.verify(old, at.of_log_ins(None))).subject == "ada"
        clock.now += FRESH_SECONDS
        assert await _refused(at, old, None) == "key"


async def test_many_unknown_keys_cause_one_request() -> None:
    clock = Clock()
    async with issuer() as company, trusted(company, clock) as at:
        assert await _takes(at, company)
        stranger = SigningKey.of("key-9", "RS256", 9)
        tokens = [SigningKey(f"unknown-{n}", "RS256", stranger.private).sign({"n": n}) for n in range(100)]
        rules = await asyncio.gather(*(_refused(at, token) for token in tokens))
        assert set(rules) == {"key"}
        assert company.asked(KEYS) == 2
        # A rotation in that time is noticed once the pause is over.
        company.rotate()
        assert not await _takes(at, company)
        clock.now += PAUSE_SECONDS
        assert await _takes(at, company)
        assert company.asked(KEYS) == 3


async def test_keys_stay_valid_for_a_day_while_the_issuer_is_away() -> None:
    clock = Clock()
    async with issuer() as company, trusted(company, clock) as at:
        assert await _takes(at, company)
        await company.go_away()
        clock.now += FRESH_SECONDS
        assert await _takes(at, company)
        clock.now += STALE_SECONDS - FRESH_SECONDS - 1
        assert await _takes(at, company)
        clock.now += 2
        with pytest.raises(Unavailable) as caught:
            await _takes(at, company)
        assert caught.value.reason == "ISSUER_UNAVAILABLE"
        assert caught.value.metadata == {"issuer": "company"}
        await company.come_back()
        clock.now += PAUSE_SECONDS
        assert await _takes(at, company)


@pytest.mark.parametrize("path", [DISCOVERY, KEYS])
@pytest.mark.usefixtures("no_finalizers")
async def test_an_issuer_with_faulty_responses_is_unavailable(path: str) -> None:
    clock = Clock()
    for fault in (each for each in Fault if each not in (Fault.SLOW, Fault.STALLED)):
        async with issuer() as company, trusted(company, clock) as at:
            company.faults[path] = fault
            async with within(10.0):
                with pytest.raises(Unavailable) as caught:
                    await _takes(at, company)
            assert caught.value.reason == "ISSUER_UNAVAILABLE"
            assert "secret words" not in caught.value.message
            # The message does not claim that the issuer cannot be reached: it was reached, and has responded.
            assert caught.value.message.startswith('the issuer "company" cannot be used: ')
            assert company.asked(TRAP) == 0
            # The server sends the next request only after a pause.
            asked = len(company.seen)
            with pytest.raises(Unavailable):
                await _takes(at, company)
            assert len(company.seen) == asked
            company.faults.clear()
            clock.now += PAUSE_SECONDS
            assert await _takes(at, company), fault


@pytest.mark.parametrize("fault", [Fault.SLOW, Fault.STALLED], ids=str)
async def test_an_issuer_that_does_not_respond_in_time_is_unavailable(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.2)
    async with issuer() as company, trusted(company) as at:
        company.faults[KEYS] = fault
        with pytest.raises(Unavailable) as caught:
            await _takes(at, company)
        assert "no response in time" in caught.value.message


@pytest.mark.parametrize(
    ("announced", "words"),
    [
        ({"issuer": "https://forger.example"}, "does not name this issuer"),
        ({"issuer": None}, "does not name this issuer"),
        ({"jwks_uri": None}, "has no jwks_uri"),
        ({"jwks_uri": 7}, "jwks_uri of its discovery document is not a string"),
        ({"jwks_uri": "file:///etc/passwd"}, "must begin with"),
        ({"jwks_uri": "http://169.254.169.254/keys"}, "is a local or reserved address"),
        ({"jwks_uri": "http://user:secret@127.0.0.1/keys"}, "no user or password"),
    ],
)
async def test_a_discovery_document_with_forbidden_addresses_is_refused(
    announced: dict[str, object], words: str
) -> None:
    async with issuer() as company, trusted(company) as at:
        company.announced = announced
        with pytest.raises(Unavailable) as caught:
            await at.discovery()
        assert words in caught.value.message
        assert "secret@" not in caught.value.message


async def test_no_connection_is_made_to_an_issuer_at_a_forbidden_address() -> None:
    async with issuer() as company:
        # The address is given by name, so that the server detects it only when it connects.
        company.url = company.url.replace("127.0.0.1", "localhost")
        async with trusted(company, reach=Reach()) as at:
            with pytest.raises(Unavailable):
                await at.discovery()
        assert not company.seen


async def test_an_issuer_is_trusted_only_by_the_authority_of_its_entry(tmp_path: Path) -> None:
    authority = made(authority=True)
    own = made("127.0.0.1", by=authority)
    (tmp_path / "own.pem").write_bytes(own.key_pem + own.pem)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "own.pem")
    async with issuer(tls=served) as company:
        async with trusted(company, authority=authority.pem.decode()) as at:
            assert await _takes(at, company)
            # With HTTPS, the discovery document must not lead to plain HTTP.
            company.announced = {"token_endpoint": company.url.replace("https", "http") + "/token"}
        for stranger in ("", made(authority=True).pem.decode()):
            async with trusted(company, authority=stranger) as at:
                with pytest.raises(Unavailable) as caught:
                    await _takes(at, company)
                assert "its certificate is not trusted" in caught.value.message
        async with trusted(company, authority=authority.pem.decode()) as at:
            with pytest.raises(Unavailable) as caught:
                await at.discovery()
            assert "token_endpoint of its discovery document must begin with https://" in caught.value.message


async def test_concurrent_verifications_share_one_request() -> None:
    async with issuer() as company, trusted(company) as at:
        await asyncio.gather(*(_takes(at, company) for _ in range(20)))
        assert (company.asked(DISCOVERY), company.asked(KEYS)) == (1, 1)
