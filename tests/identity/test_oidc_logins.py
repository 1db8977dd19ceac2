"""Login at an issuer with a browser.

Covers accepted responses, and the refusal of foreign, used or forged ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import device_login_pb2, federation_pb2, identity_pb2
from pilothouse_server.errors import NotFound
from pilothouse_server.identity.federation.oidc.trusted import TrustedIssuer, TrustedIssuers
from pilothouse_server.identity.federation.operations import oidc_logins
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.identity.browser import browse
from tests.identity.faults import TRAP, Fault
from tests.identity.forge import FORGERIES, Forge
from tests.identity.issuer import TOKEN, Claims, issuer
from tests.identity.oidc_environment import HOME, RULES, SECRET, OidcEnvironment, oidc_environment
from tests.identity.server import Caller, Refused, heard_until_limited, refused, running
from tests.identity.trusting import CLIENT, REACH, config_of, trusted
from tests.waiting import poll_until, within


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_environment(
    postgres: EmbeddedPostgres, template_database: Database
) -> AsyncIterator[OidcEnvironment]:
    async with new_database(postgres, template_database.name) as database, oidc_environment(database) as made:
        yield made


@pytest.fixture
def environment(shared_environment: OidcEnvironment) -> OidcEnvironment:
    """Returns the environment, reset; each test uses its own names."""
    shared_environment.at_rest()
    return shared_environment


async def _not_completed(
    environment: OidcEnvironment, request: federation_pb2.CompleteOidcLoginRequest
) -> Refused:
    return await refused(environment.server.stranger, "CompleteOidcLogin", request)


async def test_a_user_logs_in_and_gets_the_grants_of_the_rules(environment: OidcEnvironment) -> None:
    ada = await environment.log_in("ada", ["devs", "no rule's"], name="company")
    answer = await ada.WhoAmI(identity_pb2.WhoAmIRequest())
    assert (answer.user.username, answer.user.email) == ("ada", "ada@example.com")
    assert answer.user.HasField("last_login_time")
    assert await environment.held(ada) == {
        ("developer", "shop", "company"),
        ("developer", "bakery", "company"),
    }
    (session,) = (await ada.ListSessions(identity_pb2.ListSessionsRequest())).sessions
    assert session.method == identity_pb2.SESSION_METHOD_OIDC
    # The second login gives the same user, even if the issuer has changed the user's name.
    again = await environment.log_in("ada", ["devs"], preferred_username="ada.lovelace")
    assert (await again.WhoAmI(identity_pb2.WhoAmIRequest())).user.uid == answer.user.uid


async def test_the_secrets_of_a_login_are_neither_stored_nor_logged(
    environment: OidcEnvironment, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    environment.company.arrive("nina", preferred_username="nina", groups=["devs"])
    tokens: list[str] = []

    def keeping(claims: Claims) -> str:
        tokens.append(environment.company.sign(claims))
        return tokens[-1]

    environment.company.forged = keeping
    begun = await environment.begin()
    exchanged = len(environment.company.seen)
    answer = await environment.server.stranger.CompleteOidcLogin(begun.request())
    renewed = await environment.refresh(
        Caller(environment.server.stub, answer.access_token, answer.refresh_token)
    )
    asked, again = (seen.parameters for seen in environment.company.seen[exchanged:] if seen.path == TOKEN)
    # Refused logins are recorded with their request, too.
    await _not_completed(environment, begun.request())
    issuers = [*tokens, again["refresh_token"], SECRET]
    secrets = [
        begun.answer.login_token,
        begun.answer.state,
        begun.landing.code,
        asked["code_verifier"],
        answer.access_token,
        answer.refresh_token,
        renewed.access_token,
        *issuers,
    ]
    # Bytes in a row are shown in hexadecimal.
    shapes = [shape for secret in secrets for shape in (secret, secret.encode().hex())]
    tables = await environment.rows(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'operation_logs_%'"
    )
    for table in tables:
        for row in await environment.rows(f"SELECT t::text AS row FROM {table['tablename']} AS t"):
            assert not [shape for shape in shapes if shape in row["row"]], table["tablename"]
    # The issuer's own log is in this process as well; it contains the browser's requests.
    ours = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    said = "\n".join([*capfd.readouterr(), *ours])
    assert begun.answer.state in caplog.text
    assert not [shape for shape in shapes if shape in said]
    # The search covers the row of the issuer's next refresh token, where the token is encrypted.
    assert await environment.rows(
        "SELECT 1 FROM user_secrets s JOIN users u ON u.id = s.user_id WHERE u.username = 'nina'"
    )
    # The address contains the PKCE challenge of the verifier, but not the verifier.
    assert asked["code_verifier"] not in begun.answer.authorization_url


async def test_the_record_names_the_user_and_the_grants_of_the_rules(environment: OidcEnvironment) -> None:
    await environment.log_in("rita", ["viewers"])
    found = await poll_until(
        lambda: environment.rows(
            "SELECT resource_name, metadata::text AS metadata FROM operation_logs "
            "WHERE request_path LIKE '%CompleteOidcLogin' AND username = 'rita' AND error_code IS NULL"
        ),
        lambda rows: len(rows) == 1,
        what="the record",
    )
    assert found[0]["resource_name"] == "company:rita"
    assert "viewer in all namespaces" in found[0]["metadata"]


async def test_a_login_works_once(environment: OidcEnvironment) -> None:
    environment.company.arrive("once", preferred_username="once", groups=["devs"])
    begun = await environment.begin()
    await environment.server.stranger.CompleteOidcLogin(begun.request())
    assert (await _not_completed(environment, begun.request())).reason == "INVALID_LOGIN"
    # A code that is still valid does not help.
    fresh = await browse(begun.answer.authorization_url)
    assert (await _not_completed(environment, begun.request(code=fresh.code))).reason == "INVALID_LOGIN"


async def test_concurrent_calls_complete_a_login_once(environment: OidcEnvironment) -> None:
    environment.company.arrive("twice", preferred_username="twice", groups=["devs"])
    begun = await environment.begin()
    fresh = await browse(begun.answer.authorization_url)
    requests = [begun.request(), begun.request(code=fresh.code)]
    outcomes = await asyncio.gather(
        *(environment.server.stranger.CompleteOidcLogin(request) for request in requests),
        return_exceptions=True,
    )
    lost = [each for each in outcomes if isinstance(each, Refused)]
    assert [each.reason for each in lost] == ["INVALID_LOGIN"]
    assert (
        len(
            await environment.rows(
                "SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id WHERE u.username = 'twice'"
            )
        )
        == 1
    )


async def test_a_login_may_complete_on_another_server_but_only_once(environment: OidcEnvironment) -> None:
    environment.company.arrive("wanderer", preferred_username="wanderer", groups=["devs"])
    begun = await environment.begin()
    fresh = await browse(begun.answer.authorization_url)
    entry = config_of(environment.company, client_secret=SECRET, rules=RULES)
    issuers = TrustedIssuers([TrustedIssuer(entry, REACH)])
    try:
        async with running(environment.server.database, issuers=issuers) as second:
            answer = await second.stranger.CompleteOidcLogin(begun.request())
            assert answer.user.username == "wanderer"
            again = begun.request(code=fresh.code)
            assert (await refused(second.stranger, "CompleteOidcLogin", again)).reason == "INVALID_LOGIN"
            assert (await _not_completed(environment, again)).reason == "INVALID_LOGIN"
    finally:
        await issuers.close()


async def test_a_used_code_is_refused_in_another_login(environment: OidcEnvironment) -> None:
    environment.company.arrive("coder", preferred_username="coder", groups=["devs"])
    first, second = await environment.begin(), await environment.begin()
    await environment.server.stranger.CompleteOidcLogin(first.request())
    refusal = await _not_completed(environment, second.request(code=first.landing.code))
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "CODE_REFUSED")


async def test_the_code_of_another_browser_is_refused(environment: OidcEnvironment) -> None:
    environment.company.arrive("mallory", preferred_username="mallory", groups=["devs"])
    mallorys, victims = await environment.begin(), await environment.begin()
    # Mallory's code and state in the victim's browser, and Mallory's code with the victim's own state.
    slipped = victims.request(state=mallorys.landing.state, code=mallorys.landing.code)
    assert (await _not_completed(environment, slipped)).reason == "INVALID_LOGIN"
    assert (
        await _not_completed(environment, victims.request(code=mallorys.landing.code))
    ).reason == "CODE_REFUSED"
    assert not await environment.rows("SELECT 1 FROM users WHERE username = 'mallory'")


async def test_a_forged_login_token_or_state_is_refused(environment: OidcEnvironment) -> None:
    begun = await environment.begin()
    token = begun.answer.login_token
    body, _, mac = token.partition(".")
    for forged in (
        token[:-1],
        body,
        f".{mac}",
        f"{body[:-4]}AAAA.{mac}",
        f"{body}.{mac[::-1]}",
        "phl_.",
        "é",
    ):
        refusal = await _not_completed(environment, begun.request(login_token=forged))
        assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "INVALID_LOGIN"), forged
    for state in ("x", begun.landing.state[:-1], begun.landing.state + "a"):
        assert (await _not_completed(environment, begun.request(state=state))).reason == "INVALID_LOGIN"


async def test_a_log_in_ends_after_minutes(
    environment: OidcEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_logins, "LOGIN_LASTS", -oidc_logins.LOGIN_LASTS)
    begun, asked = await environment.begin(), environment.company.asked(TOKEN)
    refusal = await _not_completed(environment, begun.request())
    assert refusal.reason == "INVALID_LOGIN"
    assert "expired" in refusal.message
    assert environment.company.asked(TOKEN) == asked


async def test_issuers_are_not_mixed_up(environment: OidcEnvironment) -> None:
    environment.company.arrive("mixed", preferred_username="mixed", groups=["devs"])
    environment.other.arrive("mixed", preferred_username="mixed", groups=["devs"])
    at_company, at_other = await environment.begin(), await environment.begin("other")
    # The response of one issuer, in the login that began at the other: the response names its issuer.
    crossed = at_company.request(code=at_other.landing.code, iss=at_other.landing.issuer)
    assert (await _not_completed(environment, crossed)).reason == "INVALID_LOGIN"
    assert (await _not_completed(environment, at_company.request(iss=""))).reason == "INVALID_LOGIN"
    # The code of a response that names no issuer is sent only to the issuer of the login.
    asked = environment.other.asked(TOKEN)
    crossed = at_company.request(code=at_other.landing.code)
    assert (await _not_completed(environment, crossed)).reason == "CODE_REFUSED"
    assert environment.other.asked(TOKEN) == asked
    # An ID token of one issuer is not valid as one of the other.
    environment.company.forged = lambda claims: environment.other.sign(
        claims | {"iss": environment.other.url}
    )
    refusal = await _not_completed(environment, at_company.request())
    assert refusal.reason == "ISSUER_TOKEN_REFUSED"


async def test_an_id_token_of_another_login_or_party_is_refused(environment: OidcEnvironment) -> None:
    tried = 0
    for forgery in (each for each in FORGERIES if each.of_log_ins or each.checks == "azp"):
        environment.company.arrive("forged", preferred_username="forged", groups=["admins"])
        begun = await environment.begin()
        environment.company.forged = lambda claims, forgery=forgery: forgery.make(
            Forge(environment.company), claims
        )
        refusal = await _not_completed(environment, begun.request())
        assert (refusal.reason, refusal.metadata["rule"]) == ("ISSUER_TOKEN_REFUSED", forgery.checks), forgery
        tried += 1
    assert tried >= 4
    # The nonce of an earlier login, with a valid signature.
    first = await environment.begin()
    kept: list[str] = []

    def keeping(claims: Claims) -> str:
        kept.append(environment.company.sign(claims))
        return kept[0]

    environment.company.forged = keeping
    await environment.server.stranger.CompleteOidcLogin(first.request())
    environment.company.forged = lambda _claims: kept[0]
    assert (await _not_completed(environment, (await environment.begin()).request())).metadata[
        "rule"
    ] == "nonce"


@pytest.mark.parametrize(
    "fault", [each for each in Fault if each not in (Fault.SLOW, Fault.STALLED)], ids=str
)
@pytest.mark.usefixtures("no_finalizers")
async def test_a_faulty_response_of_an_issuer_is_refused_and_harms_nothing(
    environment: OidcEnvironment, fault: Fault
) -> None:
    name = f"faulty-{fault.name.lower().replace('_', '-')}"
    environment.company.arrive(name, preferred_username=name, groups=["devs"])
    begun = await environment.begin()
    environment.company.faults[TOKEN] = fault
    async with within(10.0):
        refusal = await _not_completed(environment, begun.request())
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "ISSUER_UNAVAILABLE")
    assert "secret words" not in refusal.message
    assert environment.company.asked(TRAP) == 0
    environment.company.faults.clear()
    await environment.server.stranger.CompleteOidcLogin(begun.request())


async def test_an_unavailable_issuer_is_reported(environment: OidcEnvironment) -> None:
    begun = await environment.begin()
    await environment.company.go_away()
    environment.at_rest()
    refusal = await _not_completed(environment, begun.request())
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "ISSUER_UNAVAILABLE")
    assert "the connection is refused" in refusal.message
    await environment.company.come_back()


@pytest.mark.parametrize(
    "address",
    [
        "https://forger.example/callback",
        "http://forger.example/callback",
        "http://127.0.0.1.forger.example/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1/?code=1",
        "http://127.0.0.1/#fragment",
        "https://127.0.0.1/callback",
        "http://10.0.0.1/callback",
        "javascript:alert(1)",
        "127.0.0.1:80",
    ],
)
async def test_a_browser_is_redirected_only_to_this_machine(
    environment: OidcEnvironment, address: str
) -> None:
    request = federation_pb2.BeginOidcLoginRequest(issuer="company", redirect_uri=address)
    refusal = await refused(environment.server.stranger, "BeginOidcLogin", request)
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "REDIRECT_REFUSED")
    assert refusal.fields == ["redirect_uri"]


async def test_the_issuer_must_be_named_if_there_are_several(environment: OidcEnvironment) -> None:
    request = federation_pb2.BeginOidcLoginRequest(redirect_uri=HOME)
    refusal = await refused(environment.server.stranger, "BeginOidcLogin", request)
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["issuer"])
    request = federation_pb2.BeginOidcLoginRequest(issuer="nobody", redirect_uri=HOME)
    assert (
        await refused(environment.server.stranger, "BeginOidcLogin", request)
    ).reason == "ISSUER_NOT_FOUND"


async def test_a_server_without_issuers_reports_that(database: Database) -> None:
    async with running(database) as server:
        browser = federation_pb2.BeginOidcLoginRequest(redirect_uri=HOME)
        device = device_login_pb2.BeginDeviceLoginRequest()
        for method, request in (("BeginOidcLogin", browser), ("BeginDeviceLogin", device)):
            refusal = await refused(server.stranger, method, request)
            assert (refusal.code, refusal.reason) == ("NOT_FOUND", "ISSUER_NOT_FOUND")
            assert refusal.message == (
                "this server has no issuer configured: PILOTHOUSE_OIDC_ISSUERS_FILE is not set"
            )


async def test_issuers_without_a_client_id_are_not_for_logins() -> None:
    async with issuer() as company, trusted(company, client_id="") as at:
        with pytest.raises(
            NotFound, match="PILOTHOUSE_OIDC_ISSUERS_FILE has no entry with a client_id"
        ) as found:
            TrustedIssuers([at]).of_log_ins("")
        assert found.value.reason == "ISSUER_NOT_FOUND"


async def test_no_account_is_taken_over_by_name_or_address(environment: OidcEnvironment) -> None:
    admin = await environment.server.admin()
    await environment.server.user(admin, "boss", ("admin", ""))
    claims: Claims = {"preferred_username": "BOSS", "email": "Boss@Example.org", "email_verified": True}
    caller = await environment.log_in("not-the-boss", ["devs"], **claims)
    user = (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user
    assert user.username.startswith("BOSS-")
    assert len(user.username) == len("BOSS-") + 8
    assert user.email.endswith("@company.invalid")
    assert {role for role, _, _ in await environment.held(caller)} == {"developer"}
    # The same subject at another issuer is another user.
    another = await environment.log_in("not-the-boss", ["devs"], name="other", **claims)
    assert (await another.WhoAmI(identity_pb2.WhoAmIRequest())).user.uid != user.uid


@pytest.mark.parametrize(
    ("verified", "is_stored"), [(True, True), (False, False), (None, False), ("true", False)]
)
async def test_an_address_is_stored_only_if_its_issuer_has_verified_it(
    environment: OidcEnvironment, verified: object, is_stored: bool
) -> None:
    name = f"reached-{type(verified).__name__}-{verified}".lower()
    caller = await environment.log_in(name, ["devs"], email_verified=verified)
    email = (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user.email
    assert (email == f"{name}@example.com") is is_stored
    assert is_stored or email.endswith("@company.invalid")


@pytest.mark.parametrize(
    ("claims", "username"),
    [
        ({"preferred_username": "Jörg Müller/../x"}, "J-rg-M-ller-.-x-"),
        ({"preferred_username": "../../etc"}, "etc"),
        ({"preferred_username": "n" * 200}, "n" * 41 + "-"),
        ({"preferred_username": ""}, "company-"),
        ({"preferred_username": 7}, "company-"),
        ({"preferred_username": "system:serviceaccount:shop:ci"}, "system-serviceaccount-shop-ci"),
        ({"preferred_username": "System"}, "System-"),
        ({"preferred_username": "anonymous"}, "anonymous-"),
    ],
)
async def test_an_invalid_name_is_converted_to_a_valid_one(
    environment: OidcEnvironment, claims: Claims, username: str
) -> None:
    caller = await environment.log_in(f"named-{abs(hash(username))}", ["devs"], **claims)
    made = (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user.username
    assert made.startswith(username)
    assert len(made) <= 50


async def test_a_name_that_is_taken_concurrently_gets_a_suffix(environment: OidcEnvironment) -> None:
    environment.company.arrive(
        "racer", preferred_username="racer", email="racer@example.com", groups=["devs"]
    )
    begun = await environment.begin()
    async with environment.server.database.owner() as connection:
        change = connection.transaction()
        await change.start()
        await connection.execute(
            "INSERT INTO users (username, username_normalized, email, email_normalized, password_hash) "
            "VALUES ('racer', 'racer', 'racer@example.com', 'racer@example.com', '!')"
        )
        completing = asyncio.ensure_future(environment.server.stranger.CompleteOidcLogin(begun.request()))
        await poll_until(
            lambda: environment.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
            what="the log-in that waits for the name",
        )
        await change.commit()
    answer = await completing
    assert answer.user.username.startswith("racer-")
    assert answer.user.email.endswith("@company.invalid")


async def test_a_deleted_user_returns_as_another_user(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("phoenix", ["devs"])
    former = (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user
    admin = await environment.server.admin()
    await admin.GrantRole(
        identity_pb2.GrantRoleRequest(username="phoenix", role="operator", namespace="shop")
    )
    await admin.DeleteUser(identity_pb2.DeleteUserRequest(username="phoenix"))
    again = await environment.log_in("phoenix", ["viewers"])
    assert (await again.WhoAmI(identity_pb2.WhoAmIRequest())).user.uid != former.uid
    assert await environment.held(again) == {("viewer", "", "company")}


async def test_calls_that_wait_for_a_slow_issuer_hold_no_connections(database: Database) -> None:
    async with oidc_environment(database) as environment:
        caller = await environment.log_in("bystander", ["devs"])
        environment.company.arrive("waiting", preferred_username="waiting", groups=["devs"])
        begun = [await environment.begin() for _ in range(20)]
        environment.company.faults[TOKEN] = Fault.SLOW
        asked = environment.company.asked(TOKEN)
        completing = [
            asyncio.ensure_future(environment.server.stranger.CompleteOidcLogin(each.request()))
            for each in begun
        ]

        async def waiting() -> int:
            return environment.company.asked(TOKEN) - asked

        # Anonymous callers have this many connections to the issuer. More calls wait than the database pool
        # has connections.
        await poll_until(waiting, lambda count: count == 8, what="those who wait")
        held = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'"
        )
        # The server's own work holds a connection for a moment now and then; waiting calls would hold theirs
        # all the time.
        await poll_until(
            lambda: environment.rows(held), lambda rows: not rows, what="no connection that is held"
        )
        # Known users have separate connections to the issuer, and all other calls have connections to the
        # database.
        assert (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user.username == "bystander"
        environment.company.faults.clear()
        renewed = await environment.refresh(caller)
        assert await environment.held(renewed)
        environment.company.released.set()
        outcomes = await asyncio.gather(*completing, return_exceptions=True)
        assert {getattr(each, "reason", "") for each in outcomes} <= {"", "ISSUER_UNAVAILABLE"}


async def test_a_user_without_a_matching_rule_gets_no_account(environment: OidcEnvironment) -> None:
    environment.company.arrive("guest", preferred_username="guest", groups=["guests"])
    refusal = await _not_completed(environment, (await environment.begin()).request())
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "NO_ACCOUNT")
    assert not await environment.rows("SELECT 1 FROM users WHERE username = 'guest'")


async def test_a_deactivated_user_cannot_log_in(environment: OidcEnvironment) -> None:
    caller = await environment.log_in("leaver", ["devs"])
    admin = await environment.server.admin()
    change = identity_pb2.UpdateUserRequest(
        username="leaver", user=identity_pb2.User(status=identity_pb2.USER_STATUS_INACTIVE)
    )
    change.update_mask.paths.append("status")
    await admin.UpdateUser(change)
    refusal = await _not_completed(environment, (await environment.begin()).request())
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "ACCOUNT_CLOSED")
    request = identity_pb2.RefreshSessionRequest(refresh_token=caller.refresh_token)
    assert (await refused(environment.server.stranger, "RefreshSession", request)).code == "UNAUTHENTICATED"


async def test_an_address_with_many_failed_logins_is_limited(database: Database) -> None:
    async with running(database, login_failures_per_address=5) as server:
        request = federation_pb2.CompleteOidcLoginRequest(login_token="none", state="none", code="none")

        async def completed() -> str:
            return (await refused(server.stranger, "CompleteOidcLogin", request)).reason

        assert [await completed() for _ in range(5)] == ["INVALID_LOGIN"] * 5
        assert await heard_until_limited(completed) <= {"INVALID_LOGIN", "LOGIN_LIMITED"}


async def test_a_client_that_the_issuer_does_not_know_is_reported(environment: OidcEnvironment) -> None:
    environment.company.arrive("secretive", preferred_username="secretive", groups=["devs"])
    begun = await environment.begin()
    kept = environment.company.clients.pop(CLIENT)
    refusal = await _not_completed(environment, begun.request())
    assert refusal.reason == "ISSUER_UNAVAILABLE"
    assert "check the client_id and the secret" in refusal.message
    environment.company.clients[CLIENT] = kept
