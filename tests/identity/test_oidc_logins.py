"""Log-in at an issuer by a browser: the accepted answers, and the refusal of others', used or forged ones."""

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
from tests.identity.oidc_world import HOME, RULES, SECRET, OidcWorld, oidc_world
from tests.identity.server import Caller, Refused, heard_until_limited, refused, running
from tests.identity.trusting import CLIENT, REACH, config_of, trusted
from tests.waiting import poll_until, within


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_world(postgres: EmbeddedPostgres, template_database: Database) -> AsyncIterator[OidcWorld]:
    async with new_database(postgres, template_database.name) as database, oidc_world(database) as made:
        yield made


@pytest.fixture
def world(shared_world: OidcWorld) -> OidcWorld:
    """A world for the tests of this module, which use names of their own."""
    shared_world.at_rest()
    return shared_world


async def _not_completed(world: OidcWorld, request: federation_pb2.CompleteOidcLoginRequest) -> Refused:
    return await refused(world.server.stranger, "CompleteOidcLogin", request)


async def test_somebody_logs_in_and_is_what_the_rules_say(world: OidcWorld) -> None:
    ada = await world.log_in("ada", ["devs", "no rule's"], name="company")
    answer = await ada.WhoAmI(identity_pb2.WhoAmIRequest())
    assert (answer.user.username, answer.user.email) == ("ada", "ada@example.com")
    assert answer.user.HasField("last_login_time")
    assert await world.held(ada) == {
        ("developer", "shop", "company"),
        ("developer", "bakery", "company"),
    }
    (session,) = (await ada.ListSessions(identity_pb2.ListSessionsRequest())).sessions
    assert session.method == identity_pb2.SESSION_METHOD_OIDC
    # Again: the same user, whatever the issuer calls them by now.
    again = await world.log_in("ada", ["devs"], preferred_username="ada.lovelace")
    assert (await again.WhoAmI(identity_pb2.WhoAmIRequest())).user.uid == answer.user.uid


async def test_what_a_log_in_needs_is_written_nowhere(
    world: OidcWorld, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    world.company.arrive("nina", preferred_username="nina", groups=["devs"])
    tokens: list[str] = []

    def keeping(claims: Claims) -> str:
        tokens.append(world.company.sign(claims))
        return tokens[-1]

    world.company.forged = keeping
    begun = await world.begin()
    exchanged = len(world.company.seen)
    answer = await world.server.stranger.CompleteOidcLogin(begun.request())
    renewed = await world.refresh(Caller(world.server.stub, answer.access_token, answer.refresh_token))
    asked, again = (seen.parameters for seen in world.company.seen[exchanged:] if seen.path == TOKEN)
    # Refused ones, too: they are recorded with their request.
    await _not_completed(world, begun.request())
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
    # Bytes of a row are shown in hexadecimal.
    shapes = [shape for secret in secrets for shape in (secret, secret.encode().hex())]
    tables = await world.rows(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'operation_logs_%'"
    )
    for table in tables:
        for row in await world.rows(f"SELECT t::text AS row FROM {table['tablename']} AS t"):
            assert not [shape for shape in shapes if shape in row["row"]], table["tablename"]
    # The issuer's own log is in this process, too; it shows what the browser asked for.
    ours = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    said = "\n".join([*capfd.readouterr(), *ours])
    assert begun.answer.state in caplog.text
    assert not [shape for shape in shapes if shape in said]
    # The search can find it: the issuer's next refresh token is there, sealed.
    assert await world.rows(
        "SELECT 1 FROM user_secrets s JOIN users u ON u.id = s.user_id WHERE u.username = 'nina'"
    )
    # PKCE holds: the challenge in the address is the verifier's, and nothing else of it is.
    assert asked["code_verifier"] not in begun.answer.authorization_url


async def test_the_record_says_who_and_what_the_rules_gave(world: OidcWorld) -> None:
    await world.log_in("rita", ["viewers"])
    found = await poll_until(
        lambda: world.rows(
            "SELECT resource_name, metadata::text AS metadata FROM operation_logs "
            "WHERE request_path LIKE '%CompleteOidcLogin' AND username = 'rita' AND error_code IS NULL"
        ),
        lambda rows: len(rows) == 1,
        what="the record",
    )
    assert found[0]["resource_name"] == "company:rita"
    assert "viewer in all namespaces" in found[0]["metadata"]


async def test_a_log_in_works_once(world: OidcWorld) -> None:
    world.company.arrive("once", preferred_username="once", groups=["devs"])
    begun = await world.begin()
    await world.server.stranger.CompleteOidcLogin(begun.request())
    assert (await _not_completed(world, begun.request())).reason == "INVALID_LOGIN"
    # Also with a code that is good still.
    fresh = await browse(begun.answer.authorization_url)
    assert (await _not_completed(world, begun.request(code=fresh.code))).reason == "INVALID_LOGIN"


async def test_of_two_who_complete_one_log_in_one_is_let_in(world: OidcWorld) -> None:
    world.company.arrive("twice", preferred_username="twice", groups=["devs"])
    begun = await world.begin()
    fresh = await browse(begun.answer.authorization_url)
    requests = [begun.request(), begun.request(code=fresh.code)]
    outcomes = await asyncio.gather(
        *(world.server.stranger.CompleteOidcLogin(request) for request in requests), return_exceptions=True
    )
    lost = [each for each in outcomes if isinstance(each, Refused)]
    assert [each.reason for each in lost] == ["INVALID_LOGIN"]
    assert (
        len(
            await world.rows(
                "SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id WHERE u.username = 'twice'"
            )
        )
        == 1
    )


async def test_a_log_in_is_completed_at_another_server_and_works_once_at_both(world: OidcWorld) -> None:
    world.company.arrive("wanderer", preferred_username="wanderer", groups=["devs"])
    begun = await world.begin()
    fresh = await browse(begun.answer.authorization_url)
    entry = config_of(world.company, client_secret=SECRET, rules=RULES)
    issuers = TrustedIssuers([TrustedIssuer(entry, REACH)])
    try:
        async with running(world.server.database, issuers=issuers) as second:
            answer = await second.stranger.CompleteOidcLogin(begun.request())
            assert answer.user.username == "wanderer"
            again = begun.request(code=fresh.code)
            assert (await refused(second.stranger, "CompleteOidcLogin", again)).reason == "INVALID_LOGIN"
            assert (await _not_completed(world, again)).reason == "INVALID_LOGIN"
    finally:
        await issuers.close()


async def test_a_code_that_was_used_is_refused_in_another_log_in(world: OidcWorld) -> None:
    world.company.arrive("coder", preferred_username="coder", groups=["devs"])
    first, second = await world.begin(), await world.begin()
    await world.server.stranger.CompleteOidcLogin(first.request())
    refusal = await _not_completed(world, second.request(code=first.landing.code))
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "CODE_REFUSED")


async def test_what_another_browser_brings_is_refused(world: OidcWorld) -> None:
    world.company.arrive("mallory", preferred_username="mallory", groups=["devs"])
    mallorys, victims = await world.begin(), await world.begin()
    # Her code and state slipped into the victim's browser, and her code together with the victim's own state.
    slipped = victims.request(state=mallorys.landing.state, code=mallorys.landing.code)
    assert (await _not_completed(world, slipped)).reason == "INVALID_LOGIN"
    assert (await _not_completed(world, victims.request(code=mallorys.landing.code))).reason == "CODE_REFUSED"
    assert not await world.rows("SELECT 1 FROM users WHERE username = 'mallory'")


async def test_a_log_in_token_that_is_not_ours_is_refused(world: OidcWorld) -> None:
    begun = await world.begin()
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
        refusal = await _not_completed(world, begun.request(login_token=forged))
        assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "INVALID_LOGIN"), forged
    for state in ("x", begun.landing.state[:-1], begun.landing.state + "a"):
        assert (await _not_completed(world, begun.request(state=state))).reason == "INVALID_LOGIN"


async def test_a_log_in_ends_after_minutes(world: OidcWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc_logins, "LOGIN_LASTS", -oidc_logins.LOGIN_LASTS)
    begun, asked = await world.begin(), world.company.asked(TOKEN)
    refusal = await _not_completed(world, begun.request())
    assert refusal.reason == "INVALID_LOGIN"
    assert "expired" in refusal.message
    assert world.company.asked(TOKEN) == asked


async def test_issuers_are_not_mixed_up(world: OidcWorld) -> None:
    world.company.arrive("mixed", preferred_username="mixed", groups=["devs"])
    world.other.arrive("mixed", preferred_username="mixed", groups=["devs"])
    at_company, at_other = await world.begin(), await world.begin("other")
    # The answer of one issuer, in the log-in that was begun at the other: it names its issuer.
    crossed = at_company.request(code=at_other.landing.code, iss=at_other.landing.issuer)
    assert (await _not_completed(world, crossed)).reason == "INVALID_LOGIN"
    assert (await _not_completed(world, at_company.request(iss=""))).reason == "INVALID_LOGIN"
    # One that names nobody gives its codes to nobody but the issuer of the log-in.
    asked = world.other.asked(TOKEN)
    crossed = at_company.request(code=at_other.landing.code)
    assert (await _not_completed(world, crossed)).reason == "CODE_REFUSED"
    assert world.other.asked(TOKEN) == asked
    # And an ID token of the one is none of the other.
    world.company.forged = lambda claims: world.other.sign(claims | {"iss": world.other.url})
    refusal = await _not_completed(world, at_company.request())
    assert refusal.reason == "ISSUER_TOKEN_REFUSED"


async def test_an_id_token_of_another_log_in_or_party_is_refused(world: OidcWorld) -> None:
    tried = 0
    for forgery in (each for each in FORGERIES if each.of_log_ins or each.checks == "azp"):
        world.company.arrive("forged", preferred_username="forged", groups=["admins"])
        begun = await world.begin()
        world.company.forged = lambda claims, forgery=forgery: forgery.make(Forge(world.company), claims)
        refusal = await _not_completed(world, begun.request())
        assert (refusal.reason, refusal.metadata["rule"]) == ("ISSUER_TOKEN_REFUSED", forgery.checks), forgery
        tried += 1
    assert tried >= 4
    # The nonce of a log-in that was there, with its own valid signature.
    first = await world.begin()
    kept: list[str] = []

    def keeping(claims: Claims) -> str:
        kept.append(world.company.sign(claims))
        return kept[0]

    world.company.forged = keeping
    await world.server.stranger.CompleteOidcLogin(first.request())
    world.company.forged = lambda _claims: kept[0]
    assert (await _not_completed(world, (await world.begin()).request())).metadata["rule"] == "nonce"


@pytest.mark.parametrize(
    "fault", [each for each in Fault if each not in (Fault.SLOW, Fault.STALLED)], ids=str
)
@pytest.mark.usefixtures("no_finalizers")
async def test_an_issuer_that_answers_wrongly_lets_nobody_in_and_harms_nobody(
    world: OidcWorld, fault: Fault
) -> None:
    name = f"faulty-{fault.name.lower().replace('_', '-')}"
    world.company.arrive(name, preferred_username=name, groups=["devs"])
    begun = await world.begin()
    world.company.faults[TOKEN] = fault
    async with within(10.0):
        refusal = await _not_completed(world, begun.request())
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "ISSUER_UNAVAILABLE")
    assert "secret words" not in refusal.message
    assert world.company.asked(TRAP) == 0
    world.company.faults.clear()
    await world.server.stranger.CompleteOidcLogin(begun.request())


async def test_an_issuer_that_is_away_is_told(world: OidcWorld) -> None:
    begun = await world.begin()
    await world.company.go_away()
    world.at_rest()
    refusal = await _not_completed(world, begun.request())
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "ISSUER_UNAVAILABLE")
    assert "the connection is refused" in refusal.message
    await world.company.come_back()


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
async def test_a_browser_is_led_back_to_this_machine_only(world: OidcWorld, address: str) -> None:
    request = federation_pb2.BeginOidcLoginRequest(issuer="company", redirect_uri=address)
    refusal = await refused(world.server.stranger, "BeginOidcLogin", request)
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "REDIRECT_REFUSED")
    assert refusal.fields == ["redirect_uri"]


async def test_an_issuer_is_named_where_there_are_several(world: OidcWorld) -> None:
    request = federation_pb2.BeginOidcLoginRequest(redirect_uri=HOME)
    refusal = await refused(world.server.stranger, "BeginOidcLogin", request)
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["issuer"])
    request = federation_pb2.BeginOidcLoginRequest(issuer="nobody", redirect_uri=HOME)
    assert (await refused(world.server.stranger, "BeginOidcLogin", request)).reason == "ISSUER_NOT_FOUND"


async def test_a_server_without_issuers_says_so(database: Database) -> None:
    async with running(database) as server:
        browser = federation_pb2.BeginOidcLoginRequest(redirect_uri=HOME)
        device = device_login_pb2.BeginDeviceLoginRequest()
        for method, request in (("BeginOidcLogin", browser), ("BeginDeviceLogin", device)):
            refusal = await refused(server.stranger, method, request)
            assert (refusal.code, refusal.reason) == ("NOT_FOUND", "ISSUER_NOT_FOUND")
            assert refusal.message == (
                "this server has no issuer configured: they are named by PILOTHOUSE_OIDC_ISSUERS_FILE"
            )


async def test_issuers_of_programs_alone_are_none_to_log_in_at() -> None:
    async with issuer() as company, trusted(company, client_id="") as at:
        with pytest.raises(
            NotFound, match="PILOTHOUSE_OIDC_ISSUERS_FILE names none with a client_id"
        ) as found:
            TrustedIssuers([at]).of_log_ins("")
        assert found.value.reason == "ISSUER_NOT_FOUND"


async def test_no_account_is_taken_over_by_name_or_address(world: OidcWorld) -> None:
    admin = await world.server.admin()
    await world.server.user(admin, "boss", ("admin", ""))
    claims: Claims = {"preferred_username": "BOSS", "email": "Boss@Example.org", "email_verified": True}
    caller = await world.log_in("not-the-boss", ["devs"], **claims)
    user = (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user
    assert user.username.startswith("BOSS-")
    assert len(user.username) == len("BOSS-") + 8
    assert user.email.endswith("@company.invalid")
    assert {role for role, _, _ in await world.held(caller)} == {"developer"}
    # The same subject at another issuer is somebody else.
    another = await world.log_in("not-the-boss", ["devs"], name="other", **claims)
    assert (await another.WhoAmI(identity_pb2.WhoAmIRequest())).user.uid != user.uid


@pytest.mark.parametrize(
    ("verified", "is_stored"), [(True, True), (False, False), (None, False), ("true", False)]
)
async def test_an_address_is_stored_only_if_its_issuer_has_verified_it(
    world: OidcWorld, verified: object, is_stored: bool
) -> None:
    name = f"reached-{type(verified).__name__}-{verified}".lower()
    caller = await world.log_in(name, ["devs"], email_verified=verified)
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
async def test_a_name_that_is_none_is_made_one(world: OidcWorld, claims: Claims, username: str) -> None:
    caller = await world.log_in(f"named-{abs(hash(username))}", ["devs"], **claims)
    made = (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user.username
    assert made.startswith(username)
    assert len(made) <= 50


async def test_a_name_that_somebody_takes_at_this_moment_gets_a_suffix(world: OidcWorld) -> None:
    world.company.arrive("racer", preferred_username="racer", email="racer@example.com", groups=["devs"])
    begun = await world.begin()
    async with world.server.database.owner() as connection:
        change = connection.transaction()
        await change.start()
        await connection.execute(
            "INSERT INTO users (username, username_normalized, email, email_normalized, password_hash) "
            "VALUES ('racer', 'racer', 'racer@example.com', 'racer@example.com', '!')"
        )
        completing = asyncio.ensure_future(world.server.stranger.CompleteOidcLogin(begun.request()))
        await poll_until(
            lambda: world.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
            what="the log-in that waits for the name",
        )
        await change.commit()
    answer = await completing
    assert answer.user.username.startswith("racer-")
    assert answer.user.email.endswith("@company.invalid")


async def test_a_user_who_was_deleted_comes_back_as_another(world: OidcWorld) -> None:
    caller = await world.log_in("phoenix", ["devs"])
    former = (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user
    admin = await world.server.admin()
    await admin.GrantRole(
        identity_pb2.GrantRoleRequest(username="phoenix", role="operator", namespace="shop")
    )
    await admin.DeleteUser(identity_pb2.DeleteUserRequest(username="phoenix"))
    again = await world.log_in("phoenix", ["viewers"])
    assert (await again.WhoAmI(identity_pb2.WhoAmIRequest())).user.uid != former.uid
    assert await world.held(again) == {("viewer", "", "company")}


async def test_a_slow_issuer_takes_nobodys_connection(database: Database) -> None:
    async with oidc_world(database) as world:
        caller = await world.log_in("bystander", ["devs"])
        world.company.arrive("waiting", preferred_username="waiting", groups=["devs"])
        begun = [await world.begin() for _ in range(20)]
        world.company.faults[TOKEN] = Fault.SLOW
        asked = world.company.asked(TOKEN)
        completing = [
            asyncio.ensure_future(world.server.stranger.CompleteOidcLogin(each.request())) for each in begun
        ]

        async def waiting() -> int:
            return world.company.asked(TOKEN) - asked

        # As many as anonymous callers have connections to the issuer; more wait than the pool has to the database.
        await poll_until(waiting, lambda count: count == 8, what="those who wait")
        held = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'"
        )
        # The server's own work holds one for a moment now and then; those who wait would hold theirs all the time.
        await poll_until(lambda: world.rows(held), lambda rows: not rows, what="no connection that is held")
        # Somebody who is known has a connection of their own to the issuer, and everybody else to the database.
        assert (await caller.WhoAmI(identity_pb2.WhoAmIRequest())).user.username == "bystander"
        world.company.faults.clear()
        renewed = await world.refresh(caller)
        assert await world.held(renewed)
        world.company.released.set()
        outcomes = await asyncio.gather(*completing, return_exceptions=True)
        assert {getattr(each, "reason", "") for each in outcomes} <= {"", "ISSUER_UNAVAILABLE"}


async def test_who_gets_nothing_by_a_rule_gets_no_account(world: OidcWorld) -> None:
    world.company.arrive("guest", preferred_username="guest", groups=["guests"])
    refusal = await _not_completed(world, (await world.begin()).request())
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "NO_ACCOUNT")
    assert not await world.rows("SELECT 1 FROM users WHERE username = 'guest'")


async def test_a_user_who_was_switched_off_stays_out(world: OidcWorld) -> None:
    caller = await world.log_in("leaver", ["devs"])
    admin = await world.server.admin()
    change = identity_pb2.UpdateUserRequest(
        username="leaver", user=identity_pb2.User(status=identity_pb2.USER_STATUS_INACTIVE)
    )
    change.update_mask.paths.append("status")
    await admin.UpdateUser(change)
    refusal = await _not_completed(world, (await world.begin()).request())
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "ACCOUNT_CLOSED")
    request = identity_pb2.RefreshSessionRequest(refresh_token=caller.refresh_token)
    assert (await refused(world.server.stranger, "RefreshSession", request)).code == "UNAUTHENTICATED"


async def test_who_begins_too_often_waits(database: Database) -> None:
    async with running(database, login_failures_per_address=5) as server:
        request = federation_pb2.CompleteOidcLoginRequest(login_token="none", state="none", code="none")

        async def completed() -> str:
            return (await refused(server.stranger, "CompleteOidcLogin", request)).reason

        assert [await completed() for _ in range(5)] == ["INVALID_LOGIN"] * 5
        assert await heard_until_limited(completed) <= {"INVALID_LOGIN", "LOGIN_LIMITED"}


async def test_the_client_is_one_that_the_issuer_knows(world: OidcWorld) -> None:
    world.company.arrive("secretive", preferred_username="secretive", groups=["devs"])
    begun = await world.begin()
    kept = world.company.clients.pop(CLIENT)
    refusal = await _not_completed(world, begun.request())
    assert refusal.reason == "ISSUER_UNAVAILABLE"
    assert "check the client_id and the secret" in refusal.message
    world.company.clients[CLIENT] = kept
