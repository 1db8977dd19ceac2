"""The tests' issuer is a real one: libraries accept its tokens.

It follows the rules of the flows. The forgeries are well made: the reference verifier refuses each by the
checks that it names, and accepts it without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import jwt
import pytest
import pytest_asyncio

from tests.identity import reference_verifier
from tests.identity.browser import Landing, browse
from tests.identity.faults import Fault
from tests.identity.forge import FORGERIES, Forge, Forgery
from tests.identity.issuer import AUTHORIZE, DEVICE, DEVICE_GRANT, DISCOVERY, KEYS, TOKEN, Issuer, issuer
from tests.identity.jose import SigningKey, b64
from tests.identity.reference_verifier import CHECKS, Expected
from tests.waiting import patient, runs_out

CLIENT = "pilothouse"
SECRET = "a secret: with % and +"
REDIRECT = "http://127.0.0.1:7777/callback"
VERIFIER = "a-verifier-of-at-least-forty-three-characters-"
CHALLENGE = b64(hashlib.sha256(VERIFIER.encode()).digest())
ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


@pytest_asyncio.fixture(loop_scope="session")
async def company() -> AsyncIterator[Issuer]:
    async with issuer() as started:
        started.register(CLIENT, SECRET)
        yield started


async def fetch(url: str, form: dict[str, str] | None = None) -> tuple[int, Any]:
    """Returns the status and JSON of a response."""
    timeout = aiohttp.ClientTimeout(total=patient(10.0))
    async with aiohttp.ClientSession(timeout=timeout) as session:
        method = "GET" if form is None else "POST"
        async with session.request(method, url, data=form, allow_redirects=False) as answer:
            return answer.status, await answer.json(content_type=None)


async def authorize(company: Issuer, **changes: str) -> Landing:
    """Logs in with the browser, and returns the redirect."""
    query = {
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": REDIRECT,
        "scope": "openid offline_access",
        "state": "s",
        "nonce": "n",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    } | changes
    return await browse(f"{company.url}{AUTHORIZE}?{urlencode(query)}")


async def token(company: Issuer, grant_type: str, **form: str) -> Any:
    """Returns the response of the token endpoint."""
    sent = {"grant_type": grant_type, "client_id": CLIENT, "client_secret": SECRET, **form}
    return (await fetch(company.url + TOKEN, sent))[1]


async def by_code(company: Issuer, code: str, **changes: str) -> Any:
    form = {"code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER} | changes
    return await token(company, "authorization_code", **form)


async def taken_by_a_library(company: Issuer, made: str) -> Any:
    """Returns the claims as PyJWT reads them with the keys that the issuer publishes."""
    _, document = await fetch(company.url + DISCOVERY)
    _, published = await fetch(document["jwks_uri"])
    key = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(made)["kid"]]
    return jwt.decode(made, key, algorithms=ALGORITHMS, audience=CLIENT, issuer=document["issuer"])


@pytest.mark.parametrize("alg", ALGORITHMS)
async def test_a_library_accepts_honest_tokens(company: Issuer, alg: str) -> None:
    company.keys = [SigningKey.of("key-1", alg)]
    claims = company.claims("ada", CLIENT, groups=["ops"])
    assert await taken_by_a_library(company, company.sign(claims)) == claims
    former = company.sign(claims)
    company.rotate(keep=True)
    assert await taken_by_a_library(company, former) == claims
    assert await taken_by_a_library(company, company.sign(claims)) == claims
    company.rotate()
    with pytest.raises(KeyError):
        await taken_by_a_library(company, former)


async def test_a_code_works_once_and_only_for_its_client(company: Issuer) -> None:
    person = company.arrive("ada", groups=["ops"])
    landing = await authorize(company)
    assert (landing.status, landing.state, landing.issuer) == (302, "s", company.url)
    assert landing.location.startswith(REDIRECT)
    answer = await by_code(company, landing.code)
    claims = await taken_by_a_library(company, answer["id_token"])
    assert (claims["sub"], claims["nonce"], claims["groups"]) == ("ada", "n", ["ops"])
    person.claims["groups"] = []
    renewed = await token(company, "refresh_token", refresh_token=answer["refresh_token"])
    assert (await taken_by_a_library(company, renewed["id_token"]))["groups"] == []
    again = await token(company, "refresh_token", refresh_token=answer["refresh_token"])
    assert again == {"error": "invalid_grant"}
    person.left = True
    gone = await token(company, "refresh_token", refresh_token=renewed["refresh_token"])
    assert gone == {"error": "invalid_grant"}

    company.arrive("ada")
    landing = await authorize(company)
    answer = await by_code(company, landing.code)
    assert await by_code(company, landing.code) == {"error": "invalid_grant"}
    ended = await token(company, "refresh_token", refresh_token=answer["refresh_token"])
    assert ended == {"error": "invalid_grant"}, "the second use of a code ends what the first began"
    for wrong in ({"code_verifier": "x" * 43}, {"redirect_uri": f"{REDIRECT}/other"}):
        landing = await authorize(company)
        assert await by_code(company, landing.code, **wrong) == {"error": "invalid_grant"}
    landing = await authorize(company)
    assert await by_code(company, landing.code, client_secret="guessed") == {"error": "invalid_client"}


async def test_an_invalid_request_gets_no_code(company: Issuer) -> None:
    company.arrive("ada")
    assert (await authorize(company, redirect_uri="https://forger.example/callback")).status == 400
    assert (await authorize(company, client_id="nobody")).status == 400
    assert (await authorize(company, code_challenge_method="plain")).error == "invalid_request"
    assert (await authorize(company, scope="profile")).error == "invalid_scope"
    assert (await authorize(company, response_type="token")).error == "unsupported_response_type"
    company.person = None
    assert (await authorize(company)).error == "access_denied"


async def test_a_device_login_is_approved_on_another_device(company: Issuer) -> None:
    async def begin() -> Any:
        form = {"client_id": CLIENT, "client_secret": SECRET, "scope": "openid"}
        return (await fetch(company.url + DEVICE, form))[1]

    async def poll(begun: Any) -> Any:
        return await token(company, DEVICE_GRANT, device_code=begun["device_code"])

    company.slow_downs = 1
    begun = await begin()
    assert (begun["interval"], begun["expires_in"]) == (5, 600)
    assert await poll(begun) == {"error": "slow_down"}
    assert await poll(begun) == {"error": "authorization_pending"}
    company.approve(begun["user_code"], "ada")
    claims = await taken_by_a_library(company, (await poll(begun))["id_token"])
    assert claims["sub"] == "ada"
    assert await poll(begun) == {"error": "invalid_grant"}
    company.slow_downs = 0
    refused = await begin()
    company.deny(refused["user_code"])
    assert await poll(refused) == {"error": "access_denied"}
    company.device_seconds = 0.0
    assert await poll(await begin()) == {"error": "expired_token"}


async def test_the_issuer_stops_and_starts_on_the_same_port(company: Issuer) -> None:
    url = company.url
    await company.go_away()
    with pytest.raises(aiohttp.ClientConnectorError):
        await fetch(company.url + KEYS)
    await company.come_back()
    assert company.url == url
    assert (await fetch(company.url + KEYS))[0] == 200


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
async def test_each_fault_breaks_the_response(company: Issuer, fault: Fault) -> None:
    company.faults[KEYS] = fault
    endless = (Fault.SLOW, Fault.STALLED, Fault.ENDLESS, Fault.BOMB)
    timeout = aiohttp.ClientTimeout(total=runs_out(0.3) if fault in endless else patient(10.0))

    async def length() -> int:
        read = 0
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(company.url + KEYS, allow_redirects=False) as answer,
        ):
            assert answer.status == {Fault.REDIRECT: 302, Fault.FAILED: 500, Fault.THROTTLED: 429}.get(
                fault, 200
            )
            async for part in answer.content.iter_any():
                read += len(part)
                if read > 4 * 1024 * 1024:
                    break
        return read

    try:
        outcome: object = await length()
    except aiohttp.ClientError as error:
        outcome = type(error).__name__
    except TimeoutError:
        outcome = "no end"
    expected: dict[Fault, object] = {
        Fault.CUT: "ServerDisconnectedError",
        Fault.SLOW: "no end",
        Fault.STALLED: "no end",
        Fault.TORN: "ClientPayloadError",
        Fault.EMPTY: 0,
    }
    if fault in (Fault.ENDLESS, Fault.BOMB):
        assert outcome == "no end" or (isinstance(outcome, int) and outcome > 4 * 1024 * 1024)
    elif fault in expected:
        assert outcome == expected[fault]
    else:
        with pytest.raises((ValueError, KeyError, TypeError, RecursionError)):
            assert isinstance((await fetch(company.url + KEYS))[1]["keys"][0]["kid"], str)
    company.faults.clear()
    assert (await fetch(company.url + KEYS))[0] == 200


async def test_each_forgery_is_refused_only_by_its_checks() -> None:
    async with issuer([SigningKey.of("key-2", number=2, use="enc"), SigningKey.of("key-1")]) as company:
        forge = Forge(company)
        expected = Expected(forge, CLIENT, "n")
        honest = company.claims("ada", CLIENT, nonce="n")
        reference_verifier.verify(forge.honest(honest), expected)
        assert {check for forgery in FORGERIES for check in forgery.checks.split("+")} == set(CHECKS)
        assert len({forgery.name for forgery in FORGERIES}) == len(FORGERIES)
        wrong = [problem for forgery in FORGERIES for problem in _problems(forgery, expected, honest)]
        assert not wrong


def _problems(forgery: Forgery, expected: Expected, honest: dict[str, Any]) -> list[str]:
    made, checks = forgery.make(expected.forge, dict(honest)), forgery.checks.split("+")
    problems = []
    try:
        reference_verifier.verify(made, expected)
        problems.append(f"{forgery.name}: taken by who checks everything")
    except reference_verifier.Refused as refusal:
        if str(refusal) not in checks:
            problems.append(f"{forgery.name}: refused by {refusal}")
    try:
        reference_verifier.verify(made, expected, checks)
    except reference_verifier.Refused as refusal:
        problems.append(f"{forgery.name}: refused by {refusal}, without {checks}")
    return problems
