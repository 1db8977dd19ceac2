"""Logins that need a code: the limits of a password alone.

Also covers codes that are guessed, reused or lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import second_factor_pb2 as factor_pb
from pilothouse_server.identity.credentials.operations.login_throttle import FREE_FAILURES, LoginThrottle
from pilothouse_server.identity.credentials.operations.second_factors import MOST_WRONG_CODES
from pilothouse_server.identity.credentials.repository import second_factors
from tests.conftest import Database, number_changes
from tests.identity.factors import Authenticator, challenged, complete, enrolled, reason
from tests.identity.server import (
    PASSWORD,
    Caller,
    IdentityServer,
    ended,
    heard_until_limited,
    refused,
    running,
    valid,
)
from tests.waiting import poll_until

HOME, AWAY = "192.0.2.1", "192.0.2.77"
PROXY = {"trusted_proxies": "127.0.0.1"}


@pytest_asyncio.fixture(loop_scope="session")
async def server(database: Database) -> AsyncIterator[IdentityServer]:
    """Yields a server behind a proxy that reports the addresses of callers."""
    async with running(database, **PROXY) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def anna(server: IdentityServer, admin: Caller) -> Caller:
    """Returns a user who is logged in by password."""
    return await server.user(admin, "anna")


@pytest_asyncio.fixture(loop_scope="session")
async def phone(server: IdentityServer, anna: Caller) -> Authenticator:
    """Returns the user's confirmed authenticator."""
    return await enrolled(server, anna)


async def methods(caller: Caller) -> list[str]:
    """Returns how the caller's sessions began, newest first."""
    found = (await caller.ListSessions(pb.ListSessionsRequest())).sessions
    return [pb.SessionMethod.Name(each.method).removeprefix("SESSION_METHOD_").lower() for each in found]


async def test_a_password_leads_to_a_challenge_that_a_code_completes(
    server: IdentityServer, admin: Caller, anna: Caller, phone: Authenticator
) -> None:
    answer = await challenged(server.at(HOME), "anna")
    assert list(answer.steps) == [factor_pb.LOGIN_STEP_CODE]
    assert not answer.HasField("enrolment")
    done = await complete(server.at(HOME), answer.challenge, code=await phone.code())
    assert (done.user.username, done.user.second_factor, done.recovery_codes_left) == ("anna", True, 10)
    caller = Caller(server.stub, done.access_token, done.refresh_token)
    # The first session began with a password, and has shown a code since.
    assert await methods(caller) == ["password_totp", "password_totp"]
    renewed = await caller.RefreshSession(pb.RefreshSessionRequest(refresh_token=done.refresh_token))
    assert await valid(Caller(server.stub, renewed.access_token))
    users = await admin.ListUsers(pb.ListUsersRequest(filter="second_factor = true"))
    assert [user.username for user in users.users] == ["anna"]


async def test_invented_challenges_do_not_block_logins_of_their_address(
    database: Database,
) -> None:
    async with running(database, **PROXY, login_failures_per_address=8) as server:
        phone = await enrolled(server, await server.user(await server.admin(), "anna"))
        answer = await challenged(server.at(HOME), "anna")
        heard = await heard_until_limited(lambda: reason(server.at(HOME), "phl_" + "x" * 49, code="000000"))
        assert heard == {"INVALID_CHALLENGE", "LOGIN_LIMITED"}
        assert await reason(server.at(HOME), answer.challenge, code=await phone.code()) == ""


async def test_a_challenge_is_not_valid_as_another_credential(
    server: IdentityServer, phone: Authenticator
) -> None:
    answer = await challenged(server.at(HOME), "anna")
    async with server.database.system() as connection:
        before = await connection.fetchval("SELECT count(*) FROM sessions")
    bearer = Caller(server.stub, answer.challenge)
    for rpc, request in (
        ("WhoAmI", pb.WhoAmIRequest()),
        ("EnrolTotp", factor_pb.EnrolTotpRequest()),
        ("DisableTotp", factor_pb.DisableTotpRequest(password=PASSWORD)),
    ):
        assert (await refused(bearer, rpc, request)).reason == "INVALID_TOKEN"
    renewing = pb.RefreshSessionRequest(refresh_token=answer.challenge)
    assert (await refused(server.stranger, "RefreshSession", renewing)).reason == "INVALID_REFRESH_TOKEN"
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT count(*) FROM sessions") == before
        stored = await connection.fetchval("SELECT string_agg(c::text, '') FROM login_challenges AS c")
    assert answer.challenge not in stored


async def test_a_challenge_works_once_from_its_address_before_it_expires(
    server: IdentityServer, anna: Caller, phone: Authenticator
) -> None:
    device = "phd_" + "x" * 80
    home = server.at(HOME)
    answer = await challenged(home, "anna")
    code = await phone.code()
    assert await reason(server.at(AWAY), answer.challenge, code=code) == "INVALID_CHALLENGE"
    other = answer.challenge[:-4] + ("aaaa" if answer.challenge[-4:] != "aaaa" else "bbbb")
    assert await reason(home, other, code=code) == "INVALID_CHALLENGE"
    # An invalid device token counts as none.
    assert await reason(home, answer.challenge, code=code, device_token=device) == ""
    assert await reason(home, answer.challenge, code=await phone.code()) == "INVALID_CHALLENGE"

    known = await complete(home, (await challenged(home, "anna")).challenge, code=await phone.code())
    answer = await challenged(home, "anna", device_token=known.device_token)
    assert await reason(home, answer.challenge, code=await phone.code()) == "INVALID_CHALLENGE"
    shown = {"code": await phone.code(), "device_token": known.device_token}
    assert await reason(home, answer.challenge, **shown) == ""

    for change in (
        "UPDATE login_challenges SET expires_at = now()",
        "UPDATE users SET password_changed_at = now() WHERE username = 'anna'",
        "UPDATE users SET status = 'inactive' WHERE username = 'anna'",
    ):
        answer = await challenged(home, "anna")
        async with server.database.system() as connection:
            await connection.execute(change)
        assert await reason(home, answer.challenge, code=await phone.code()) == "INVALID_CHALLENGE"


async def test_exactly_the_required_proofs_must_be_given(
    server: IdentityServer, phone: Authenticator
) -> None:
    answer = await challenged(server.at(HOME), "anna")
    code = await phone.code()
    for shown, field, why in (
        ({}, "code", "REQUIRED"),
        ({"code": code, "recovery_code": "x"}, "recovery_code", "TWO_CODES"),
        ({"code": code, "new_password": "a password of her own"}, "new_password", "NOT_ASKED_FOR"),
    ):
        refusal = await complete(server.at(HOME), answer.challenge, **shown)
        assert (refusal.code, refusal.fields, refusal.reason) == ("INVALID_ARGUMENT", [field], why)
    assert await reason(server.at(HOME), answer.challenge, code=code) == ""


async def test_a_code_is_accepted_once(
    server: IdentityServer, anna: Caller, phone: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = server.at(HOME)
    code, later = await phone.code(), await phone.code(1, fresh=False)
    assert await reason(home, (await challenged(home, "anna")).challenge, code=code) == ""
    again = await challenged(home, "anna")
    assert await reason(home, again.challenge, code=code) == "WRONG_CODE"
    # A wrong code does not use up the challenge.
    assert await reason(home, again.challenge, code=later) == ""
    # The code that confirmed an authenticator counts as used, too.
    await anna.DisableTotp(factor_pb.DisableTotpRequest(password=PASSWORD))
    made = await anna.EnrolTotp(factor_pb.EnrolTotpRequest())
    fresh = Authenticator(server, made.secret, [])
    code = await fresh.code()
    await anna.ConfirmTotp(factor_pb.ConfirmTotpRequest(code=code))
    assert await reason(home, (await challenged(home, "anna")).challenge, code=code) == "WRONG_CODE"


async def test_concurrent_uses_of_a_code_succeed_once_across_servers(
    server: IdentityServer, phone: Authenticator
) -> None:
    async with running(server.database, **PROXY) as other:
        places = [server.at(HOME), other.at(HOME)] * 2
        given = [(await challenged(place, "anna")).challenge for place in places]
        code = await phone.code()
        outcomes = await asyncio.gather(
            *(reason(place, each, code=code) for place, each in zip(places, given, strict=True))
        )
        assert sorted(outcomes) == ["", "WRONG_CODE", "WRONG_CODE", "WRONG_CODE"]
        one = (await challenged(places[0], "anna")).challenge
        code = await phone.code()
        outcomes = await asyncio.gather(*(reason(place, one, code=code) for place in places))
        assert sorted(outcomes) == ["", "INVALID_CHALLENGE", "INVALID_CHALLENGE", "INVALID_CHALLENGE"]


@pytest.mark.full
async def test_a_code_that_is_accepted_twice_is_detected(
    server: IdentityServer, phone: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the stored last step refuses the second use."""

    async def never_used(*_arguments: object) -> second_factors.Used:
        return second_factors.Used(0, 0)

    async def taken(*_arguments: object) -> bool:
        return True

    monkeypatch.setattr(second_factors, "used", never_used)
    monkeypatch.setattr(second_factors, "use_step", taken)
    code = await phone.code()
    for _ in range(2):
        given = await challenged(server.at(HOME), "anna")
        assert await reason(server.at(HOME), given.challenge, code=code) == ""


async def test_wrong_codes_lock_the_account_despite_correct_passwords(
    server: IdentityServer, phone: Authenticator
) -> None:
    async with running(server.database, **PROXY) as other:
        given = await challenged(server.at(AWAY), "anna")
        for number in range(FREE_FAILURES):
            place = (server, other)[number % 2].at(AWAY)
            given = await challenged(place, "anna")
            assert await reason(place, given.challenge, code=await phone.wrong_code()) == "WRONG_CODE"
        late = pb.LoginRequest(username="anna", password=PASSWORD)
        for place in (server.at(AWAY), other.at(AWAY)):
            assert await reason(place, given.challenge, code=await phone.code()) == "LOGIN_THROTTLED"
            assert (await refused(place, "Login", late)).reason == "LOGIN_THROTTLED"
    async with server.database.system() as connection:
        await connection.execute("UPDATE login_throttles SET locked_until = NULL")
    given = await challenged(server.at(AWAY), "anna")
    # One more failure locks the account for twice as long; a complete login clears the failures.
    assert await reason(server.at(AWAY), given.challenge, recovery_code="0000-0000-0000-0000") == "WRONG_CODE"
    assert await reason(server.at(AWAY), given.challenge, code=await phone.code()) == "LOGIN_THROTTLED"
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT max(failures) FROM login_throttles") == FREE_FAILURES + 1
        await connection.execute("UPDATE login_throttles SET locked_until = NULL")
    assert await reason(server.at(AWAY), given.challenge, code=await phone.code()) == ""
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT count(*) FROM login_throttles") == 0


async def test_concurrent_guesses_at_codes_are_counted_individually(
    server: IdentityServer, phone: Authenticator
) -> None:
    given = (await challenged(server.at(AWAY), "anna")).challenge
    wrong = await phone.wrong_code()
    outcomes = await asyncio.gather(*(reason(server.at(AWAY), given, code=wrong) for _ in range(12)))
    assert sorted(outcomes) == ["LOGIN_THROTTLED"] * 7 + ["WRONG_CODE"] * FREE_FAILURES


@pytest.mark.full
async def test_unlimited_guesses_at_codes_are_detected(
    server: IdentityServer, phone: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: if failures are not counted, no account is locked."""

    async def nothing(*_arguments: object) -> None:
        return None

    monkeypatch.setattr(LoginThrottle, "failed", nothing)
    given = (await challenged(server.at(AWAY), "anna")).challenge
    wrong = await phone.wrong_code()
    outcomes = {await reason(server.at(AWAY), given, code=wrong) for _ in range(12)}
    assert outcomes == {"WRONG_CODE"}


async def test_after_a_hundred_wrong_codes_only_a_recovery_code_is_accepted(
    server: IdentityServer, anna: Caller, phone: Authenticator
) -> None:
    home = server.at(HOME)
    async with server.database.system() as connection:
        await connection.execute(
            "UPDATE users SET totp_failures = $1 - 1 WHERE username = 'anna'", MOST_WRONG_CODES
        )
    given = (await challenged(home, "anna")).challenge
    assert await reason(home, given, code=await phone.wrong_code()) == "WRONG_CODE"
    assert await reason(home, given, code=await phone.code()) == "SECOND_FACTOR_LOCKED"
    # This refusal is not a guess: it reveals nothing about the code, and is not counted.
    locked = factor_pb.DisableTotpRequest(code=await phone.code())
    assert (await refused(anna, "DisableTotp", locked)).reason == "SECOND_FACTOR_LOCKED"
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT failures FROM login_throttles") == 1
    assert await reason(home, given, recovery_code=phone.recovery_codes[0]) == ""
    given = (await challenged(home, "anna")).challenge
    assert await reason(home, given, code=await phone.wrong_code()) == "WRONG_CODE"
    assert await reason(home, given, code=await phone.code()) == ""
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT max(totp_failures) FROM users") == 0


async def test_an_address_that_guesses_challenges_is_limited(database: Database) -> None:
    async with running(database, **PROXY, login_failures_per_address=4) as server:
        outcomes = await heard_until_limited(lambda: reason(server.at(AWAY), "phl_none"))
        assert outcomes == {"INVALID_CHALLENGE", "LOGIN_LIMITED"}
        await challenged_by_bootstrap(server)


async def challenged_by_bootstrap(server: IdentityServer) -> None:
    """Checks that other addresses can still log in."""
    assert (await server.admin()).access_token


async def test_each_recovery_code_works_once(
    server: IdentityServer, admin: Caller, phone: Authenticator
) -> None:
    home = server.at(HOME)
    assert len(phone.recovery_codes) == 10
    first, second, *_ = phone.recovery_codes
    given = (await challenged(home, "anna")).challenge
    done = await complete(home, given, recovery_code=first.upper().replace("-", " "))
    assert done.recovery_codes_left == 9
    assert (await methods(Caller(server.stub, done.access_token)))[0] == "password_recovery"
    given = (await challenged(home, "anna")).challenge
    assert await reason(home, given, recovery_code=first) == "WRONG_CODE"
    several = [(await challenged(home, "anna")).challenge for _ in range(3)]
    outcomes = await asyncio.gather(*(reason(home, each, recovery_code=second) for each in several))
    assert sorted(outcomes) == ["", "WRONG_CODE", "WRONG_CODE"]
    # Another user's recovery code is refused.
    bert = await server.user(admin, "bert")
    await enrolled(server, bert)
    given = (await challenged(home, "bert")).challenge
    assert await reason(home, given, recovery_code=phone.recovery_codes[3]) == "WRONG_CODE"


async def test_an_authenticator_takes_effect_once_it_is_confirmed(
    server: IdentityServer, admin: Caller
) -> None:
    carl = await server.user(admin, "carl")
    elsewhere = await server.log_in("carl")
    former = await carl.EnrolTotp(factor_pb.EnrolTotpRequest())
    made = await carl.EnrolTotp(factor_pb.EnrolTotpRequest())
    assert former.secret != made.secret
    # A password is sufficient until then.
    await server.log_in("carl")
    old, new = Authenticator(server, former.secret, []), Authenticator(server, made.secret, [])
    wrong = factor_pb.ConfirmTotpRequest(code=await old.code())
    assert (await refused(carl, "ConfirmTotp", wrong)).reason == "WRONG_CODE"
    async with server.database.system() as connection:
        await connection.execute("UPDATE user_secrets SET updated_at = now() - interval '11 minutes'")
    right = factor_pb.ConfirmTotpRequest(code=await new.code())
    assert (await refused(carl, "ConfirmTotp", right)).reason == "WRONG_CODE"
    async with server.database.system() as connection:
        await connection.execute("UPDATE user_secrets SET updated_at = now()")
    await carl.ConfirmTotp(right)
    assert await poll_until(lambda: ended(elsewhere), seconds=1.0)
    assert await methods(carl) == ["password_totp"]
    assert (await refused(carl, "EnrolTotp", factor_pb.EnrolTotpRequest())).reason == "TOTP_ENROLLED"
    assert (await refused(carl, "ConfirmTotp", right)).reason == "TOTP_ENROLLED"
    async with server.database.system() as connection:
        kept = await connection.fetch("SELECT name FROM user_secrets WHERE secret_type = 'totp'")
        assert [row["name"] for row in kept] == [""]
        await connection.execute("UPDATE users SET password_hash = '!' WHERE username = 'admin'")
    assert (await refused(admin, "EnrolTotp", factor_pb.EnrolTotpRequest())).reason == "NO_PASSWORD"


@pytest.mark.parametrize("by", ["password", "code", "recovery_code"])
async def test_users_disable_their_authenticator_by_password_or_code(
    server: IdentityServer, anna: Caller, phone: Authenticator, by: str
) -> None:
    given = (await challenged(server.at(HOME), "anna")).challenge
    other = await complete(server.at(HOME), given, code=await phone.code())
    wrong = {"password": "a wrong password", "code": await phone.wrong_code(), "recovery_code": "0" * 16}
    refusal = await refused(anna, "DisableTotp", factor_pb.DisableTotpRequest(**{by: wrong[by]}))
    assert refusal.code == "PERMISSION_DENIED"
    assert refusal.reason == ("WRONG_PASSWORD" if by == "password" else "WRONG_CODE")
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT failures FROM login_throttles") == 1
    nothing = await refused(anna, "DisableTotp", factor_pb.DisableTotpRequest())
    assert nothing.reason == "REQUIRED"
    right = {"password": PASSWORD, "code": await phone.code(), "recovery_code": phone.recovery_codes[0]}
    await anna.DisableTotp(factor_pb.DisableTotpRequest(**{by: right[by]}))
    assert await poll_until(lambda: ended(Caller(server.stub, other.access_token)), seconds=1.0)
    assert await valid(anna)
    await server.log_in("anna")
    gone = await refused(anna, "DisableTotp", factor_pb.DisableTotpRequest(password=PASSWORD))
    assert gone.reason == "NO_SECOND_FACTOR"
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT count(*) FROM recovery_codes") == 0
        assert await connection.fetchval("SELECT count(*) FROM user_secrets") == 0


async def test_only_administrators_reset_the_authenticators_of_others(
    server: IdentityServer, admin: Caller, anna: Caller, phone: Authenticator
) -> None:
    await server.role(admin, "helpdesk", "user.update", "user.get")
    helper = await server.user(admin, "helper", ("helpdesk", ""))
    chief = await server.user(admin, "chief", ("operator", ""))
    await enrolled(server, chief)
    request = factor_pb.ResetSecondFactorRequest(username="chief")
    assert (await refused(helper, "ResetSecondFactor", request)).reason == "ESCALATION"
    assert (await refused(anna, "ResetSecondFactor", request)).reason == "PERMISSION_DENIED"
    own = factor_pb.ResetSecondFactorRequest(username="helper")
    assert (await refused(helper, "ResetSecondFactor", own)).reason == "OWN_SECOND_FACTOR"
    assert (
        await refused(helper, "ResetSecondFactor", factor_pb.ResetSecondFactorRequest(username="nobody"))
    ).code == "NOT_FOUND"
    await helper.ResetSecondFactor(factor_pb.ResetSecondFactorRequest(username="ANNA"))
    assert await poll_until(lambda: ended(anna), seconds=1.0)
    await server.log_in("anna")
    again = await refused(helper, "ResetSecondFactor", factor_pb.ResetSecondFactorRequest(username="anna"))
    assert again.reason == "NO_SECOND_FACTOR"


async def test_the_seed_is_deleted_with_its_user(
    server: IdentityServer, admin: Caller, anna: Caller, phone: Authenticator
) -> None:
    given = (await challenged(server.at(HOME), "anna")).challenge
    await admin.DeleteUser(pb.DeleteUserRequest(username="anna"))
    assert await reason(server.at(HOME), given, code=await phone.code()) == "INVALID_CHALLENGE"
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT count(*) FROM user_secrets") == 0
    # A new user with the same name starts with a password alone.
    user = pb.User(username="anna", email="another@example.org")
    await admin.CreateUser(pb.CreateUserRequest(user=user, password=PASSWORD))
    await server.log_in("anna")


async def test_codes_are_neither_recorded_nor_stored_in_plain_text(
    server: IdentityServer, anna: Caller, phone: Authenticator
) -> None:
    home = server.at(HOME)
    code, used = await phone.code(), phone.recovery_codes[0]
    first = await challenged(home, "anna")
    wrong = await phone.wrong_code()
    await reason(home, first.challenge, code=wrong)
    done = await complete(home, first.challenge, code=code)
    second = await challenged(home, "anna")
    await reason(home, second.challenge, recovery_code="canary-recovery")
    await reason(home, second.challenge, recovery_code=used, new_password="canary password")
    await reason(home, second.challenge, recovery_code=used)
    await refused(anna, "DisableTotp", factor_pb.DisableTotpRequest(code=wrong, recovery_code="canary-code"))
    async with server.database.system() as connection:
        await number_changes(connection)
        logged = await connection.fetchval("SELECT string_agg(log::text, ' ') FROM operation_logs AS log")
        kept = await connection.fetchval(
            "SELECT string_agg(t, ' ') FROM (SELECT u::text AS t FROM users AS u UNION ALL "
            "SELECT s::text FROM user_secrets AS s UNION ALL SELECT r::text FROM recovery_codes AS r UNION ALL "
            "SELECT c::text FROM login_challenges AS c) AS all_rows"
        )
        rows = await connection.fetch(
            "SELECT action, resource_name, username, metadata ->> 'method' AS method FROM operation_logs "
            "WHERE request_path LIKE '%/CompleteLogin' ORDER BY sequence"
        )
    for secret in (
        phone.secret,
        *phone.recovery_codes,
        first.challenge,
        second.challenge,
        done.access_token,
        "canary",
    ):
        assert secret not in logged
        assert secret not in kept
    # Six digits may occur in the records by chance, but not as the value of a field.
    for shown in (code, wrong):
        assert f'"{shown}"' not in logged
    assert [tuple(row)[:2] for row in rows] == [("login", "anna")] * 5
    assert [row["username"] for row in rows] == [None, "anna", None, None, "anna"]
    assert [row["method"] for row in rows] == [None, "password_totp", None, None, "password_recovery"]
