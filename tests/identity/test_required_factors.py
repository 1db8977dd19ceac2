"""Roles whose users must have a second factor.

Covers the calls that work without one, and the time when a rule takes effect.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.identity.v1 import api_keys_pb2
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import second_factor_pb2 as factor_pb
from pilothouse_server.identity.credentials.operations.second_factors import SecondFactors
from pilothouse_server.identity.model import SessionMethod
from pilothouse_server.settings.model import SettingsError
from tests.conftest import Database
from tests.harness import running_server
from tests.identity.console import begin
from tests.identity.factors import Authenticator, challenged, complete, enrolled, reason
from tests.identity.oidc_environment import oidc_environment
from tests.identity.server import ADMIN_PASSWORD, Caller, ended, refused, running, valid
from tests.waiting import poll_until

CONSOLES: tuple[tuple[str, SessionMethod], ...] = (
    ("plain", "password"),
    ("careful", "password_totp"),
    ("other", "password"),
)
POLICY = {"second_factor_roles": "operator, admin"}


async def test_a_user_who_needs_a_factor_can_only_enrol_one(database: Database) -> None:
    async with running(database, **POLICY) as server:
        answer = await challenged(server.stranger, "admin", ADMIN_PASSWORD)
        assert list(answer.steps) == [factor_pb.LOGIN_STEP_ENROLMENT]
        assert answer.enrolment.secret in answer.enrolment.otpauth_uri
        async with database.system() as connection:
            # No session exists yet.
            assert await connection.fetchval("SELECT count(*) FROM sessions") == 0
        bearer = Caller(server.stub, answer.challenge)
        assert (await refused(bearer, "WhoAmI", pb.WhoAmIRequest())).reason == "INVALID_TOKEN"
        phone = Authenticator(server, answer.enrolment.secret, [])
        for shown in ({"recovery_code": "0000-0000-0000-0000"}, {}):
            assert await reason(server.stranger, answer.challenge, **shown) == "REQUIRED"
        wrong = await phone.wrong_code()
        assert await reason(server.stranger, answer.challenge, code=wrong) == "WRONG_CODE"
        done = await complete(server.stranger, answer.challenge, code=await phone.code())
        assert len(done.recovery_codes) == done.recovery_codes_left == 10
        admin = Caller(server.stub, done.access_token, done.refresh_token)
        assert await valid(admin)
        given = await challenged(server.stranger, "admin", ADMIN_PASSWORD)
        assert list(given.steps) == [factor_pb.LOGIN_STEP_CODE]
        assert await reason(server.stranger, given.challenge, recovery_code=done.recovery_codes[0]) == ""
        # The user may not remove the authenticator.
        refusal = await refused(admin, "DisableTotp", factor_pb.DisableTotpRequest(password=ADMIN_PASSWORD))
        assert refusal.reason == "SECOND_FACTOR_REQUIRED"
        # Other users need none.
        assert await valid(await server.user(admin, "anna"))


async def test_each_login_challenge_confirms_only_its_own_seed(database: Database) -> None:
    async with running(database, **POLICY) as server:
        thief = await challenged(server.stranger, "admin", ADMIN_PASSWORD)
        owner = await challenged(server.stranger, "admin", ADMIN_PASSWORD)
        assert thief.enrolment.secret != owner.enrolment.secret
        stolen = Authenticator(server, thief.enrolment.secret, [])
        own = Authenticator(server, owner.enrolment.secret, [])
        assert await reason(server.stranger, owner.challenge, code=await stolen.code()) == "WRONG_CODE"
        assert await reason(server.stranger, owner.challenge, code=await own.code()) == ""
        # The challenge of the other login now requires a code of the owner's authenticator.
        assert await reason(server.stranger, thief.challenge, code=await stolen.code()) == "WRONG_CODE"
        async with database.system() as connection:
            assert await connection.fetchval("SELECT count(*) FROM user_secrets") == 1


async def test_a_new_rule_applies_from_the_next_login_or_renewal(database: Database) -> None:
    async with running(database) as server:
        admin = await server.admin()
        plain = await server.user(admin, "plain", ("operator", ""))
        other = await server.user(admin, "other", ("viewer", ""))
        careful = await server.user(admin, "careful", ("operator", ""))
        await enrolled(server, careful)
        key = (await plain.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(name="ci"))).key
        consoles = [await begin(server, name, method) for name, method in CONSOLES]
    async with running(database, second_factor_roles="operator") as server:
        # Keys are not logins by password.
        assert await valid(Caller(server.stub, key))
        callers = [
            Caller(server.stub, each.access_token, each.refresh_token) for each in (plain, other, careful)
        ]
        # Console sessions are not renewed, so those that began with a password alone end immediately.
        assert [await valid(Caller(server.stub, each.access_token)) for each in consoles] == [
            False,
            True,
            True,
        ]
        # Other existing sessions continue until their access token expires.
        assert [await valid(each) for each in callers] == [True, True, True]
        renewing = pb.RefreshSessionRequest(refresh_token=plain.refresh_token)
        refusal = await refused(server.stranger, "RefreshSession", renewing)
        assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "SECOND_FACTOR_NEEDED")
        assert await poll_until(lambda: ended(callers[0]), seconds=1.0)
        for each in (other, careful):
            await server.stranger.RefreshSession(pb.RefreshSessionRequest(refresh_token=each.refresh_token))
        given = await challenged(server.stranger, "plain")
        assert list(given.steps) == [factor_pb.LOGIN_STEP_ENROLMENT]
        # A grant of the role has the same effect, and its revocation removes it.
        admin = await server.admin()
        await admin.GrantRole(pb.GrantRoleRequest(username="other", role="operator"))
        assert list((await challenged(server.stranger, "other")).steps) == [factor_pb.LOGIN_STEP_ENROLMENT]
        await admin.RevokeRole(pb.RevokeRoleRequest(username="other", role="operator"))
        await server.log_in("other")


async def test_the_rule_does_not_apply_to_sessions_of_an_issuer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def everybody(*_arguments: object) -> bool:
        return True

    async with oidc_environment(database) as environment:
        plain = await environment.server.admin()
        monkeypatch.setattr(SecondFactors, "must_have_one", everybody)
        caller = await environment.log_in("anna", ["devs"])
        assert await valid(await environment.refresh(caller))
        refusal = await refused(
            environment.server.stranger,
            "RefreshSession",
            pb.RefreshSessionRequest(refresh_token=plain.refresh_token),
        )
        assert refusal.reason == "SECOND_FACTOR_NEEDED"


@pytest.mark.full
async def test_an_unchecked_rule_is_detected(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the check of the roles a password is sufficient."""

    async def nobody(*_arguments: object) -> bool:
        return False

    monkeypatch.setattr(SecondFactors, "must_have_one", nobody)
    async with running(database, **POLICY) as server:
        assert await valid(await server.admin())


async def test_a_missing_role_is_reported_at_start(database: Database, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match='SECOND_FACTOR_ROLES: there is no role "operators"'):
        async with running_server(
            database, tmp_path, with_cluster=False, second_factor_roles="operator, operators"
        ):
            pass
