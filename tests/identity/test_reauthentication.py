"""Recent proofs of identity: the limits of a stolen session.

Also covers the next step of the session's user.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import federation_pb2
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import second_factor_pb2 as factor_pb
from pilothouse.identity.v1.reauthentication_pb2 import ReauthenticateRequest
from tests.conftest import Database
from tests.identity.browser import browse
from tests.identity.factors import enrolled
from tests.identity.oidc_environment import HOME, Begun, OidcEnvironment, oidc_environment
from tests.identity.server import (
    PASSWORD,
    Caller,
    IdentityServer,
    Refused,
    ended,
    heard_until_limited,
    refused,
    running,
    valid,
)
from tests.identity.test_api_keys import listed, make
from tests.waiting import poll_until

_REQUIRED = "REAUTHENTICATION_REQUIRED"


async def grow_old(
    database: Database, username: str, proved: str = "proved_at - interval '10 minutes'"
) -> None:
    """Makes the user's last proof ten minutes older, or sets it to `proved`."""
    async with database.owner() as connection:
        await connection.execute(
            f"UPDATE sessions SET proved_at = {proved} "
            "WHERE user_id = (SELECT id FROM users WHERE username = $1)",
            username,
        )


async def _renewed(caller: Caller) -> Caller:
    request = pb.RefreshSessionRequest(refresh_token=caller.refresh_token)
    answer = await caller.RefreshSession(request)
    return Caller(caller.stub, answer.access_token, answer.refresh_token)


async def _refusals(caller: Caller, key_id: str) -> list[tuple[str, str, str]]:
    """Returns the refusals of calls without a proof: name, reason, required proof."""
    found = []
    for rpc, request in (
        ("EnrolTotp", factor_pb.EnrolTotpRequest()),
        ("ConfirmTotp", factor_pb.ConfirmTotpRequest(code="123456")),
        ("CreateApiKey", keys_pb.CreateApiKeyRequest(name="thief")),
        ("CreateApiKey", keys_pb.CreateApiKeyRequest(name="thief", validate_only=True)),
        ("RotateApiKey", keys_pb.RotateApiKeyRequest(api_key_id=key_id)),
    ):
        refusal = await refused(caller, rpc, request)
        assert refusal.code == "PERMISSION_DENIED", rpc
        found.append((rpc, refusal.reason, refusal.metadata.get("proof", "")))
    return found


async def test_a_session_without_a_recent_proof_creates_no_keys_and_no_factor(
    shared: IdentityServer, root: Caller
) -> None:
    """Regression: a stolen session could make its access permanent.

    It made a key that outlived it, and enrolled an authenticator that locked its owner out.
    """
    owner = await shared.user(root, "robbed")
    made, _ = await make(owner, "own")
    await grow_old(shared.database, "robbed")
    refusals = await _refusals(owner, made.api_key_id)
    assert {(reason, proof) for _, reason, proof in refusals} == {(_REQUIRED, "password")}
    assert [key.name for key in await listed(owner)] == ["own"]
    assert not (await owner.WhoAmI(pb.WhoAmIRequest())).user.second_factor
    # Newer tokens of the session are not a proof.
    owner = await _renewed(owner)
    refusals = await _refusals(owner, made.api_key_id)
    assert {reason for _, reason, _ in refusals} == {_REQUIRED}
    answer = await owner.Reauthenticate(ReauthenticateRequest(password=PASSWORD))
    assert 590 < answer.expire_time.seconds - time.time() < 610
    # The proof carries over to the tokens that follow.
    owner = await _renewed(owner)
    rotated = await owner.RotateApiKey(keys_pb.RotateApiKeyRequest(api_key_id=made.api_key_id))
    await make(owner, "another")
    await enrolled(shared, owner)
    await grow_old(shared.database, "robbed")
    refusals = await _refusals(owner, rotated.api_key.api_key_id)
    assert {(reason, proof) for _, reason, proof in refusals} == {(_REQUIRED, "code")}


async def test_a_login_is_a_proof_and_older_sessions_have_none(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "earlier")
    await make(owner, "first")
    await grow_old(shared.database, "earlier", "NULL")
    request = keys_pb.CreateApiKeyRequest(name="second")
    assert (await refused(owner, "CreateApiKey", request)).reason == _REQUIRED
    await make(await shared.log_in("earlier"), "second")


async def test_a_proof_far_in_the_future_is_not_accepted(shared: IdentityServer, root: Caller) -> None:
    """A database whose clock was wrong for a while may have stored such a proof."""
    owner = await shared.user(root, "ahead")
    await grow_old(shared.database, "ahead", "now() + interval '1 hour'")
    request = keys_pb.CreateApiKeyRequest(name="key")
    assert (await refused(owner, "CreateApiKey", request)).reason == _REQUIRED


async def test_the_proof_of_one_session_does_not_apply_to_another(
    shared: IdentityServer, root: Caller
) -> None:
    thief = await shared.user(root, "two-sessions")
    owner = await shared.log_in("two-sessions")
    await grow_old(shared.database, "two-sessions")
    await owner.Reauthenticate(ReauthenticateRequest(password=PASSWORD))
    await make(owner, "owner")
    request = keys_pb.CreateApiKeyRequest(name="thief")
    assert (await refused(thief, "CreateApiKey", request)).reason == _REQUIRED


async def test_codes_and_recovery_codes_are_proofs_once(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "coded")
    phone = await enrolled(shared, owner)
    request = keys_pb.CreateApiKeyRequest(name="key", validate_only=True)
    code = await phone.code()
    for shown in ({"code": code}, {"recovery_code": phone.recovery_codes[0]}, {"password": PASSWORD}):
        await grow_old(shared.database, "coded")
        assert (await refused(owner, "CreateApiKey", request)).reason == _REQUIRED
        await owner.Reauthenticate(ReauthenticateRequest(**shown))
        await owner.CreateApiKey(request)
    await grow_old(shared.database, "coded")
    for shown in ({"code": code}, {"recovery_code": phone.recovery_codes[0]}):
        refusal = await refused(owner, "Reauthenticate", ReauthenticateRequest(**shown))
        assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "WRONG_CODE")
    assert (await refused(owner, "CreateApiKey", request)).reason == _REQUIRED


async def test_an_invalid_proof_is_refused_with_its_reason(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "unproved")
    for request, code, reason in (
        (ReauthenticateRequest(), "INVALID_ARGUMENT", "REQUIRED"),
        (ReauthenticateRequest(password=""), "INVALID_ARGUMENT", "REQUIRED"),
        (ReauthenticateRequest(password="not my password"), "PERMISSION_DENIED", "WRONG_PASSWORD"),
        (ReauthenticateRequest(code="123456"), "FAILED_PRECONDITION", "NO_SECOND_FACTOR"),
        (ReauthenticateRequest(recovery_code="abcd-efgh"), "FAILED_PRECONDITION", "NO_SECOND_FACTOR"),
    ):
        refusal = await refused(owner, "Reauthenticate", request)
        assert (refusal.code, refusal.reason) == (code, reason)
    _, key = await make(owner, "key")
    request = ReauthenticateRequest(password=PASSWORD)
    assert (await refused(key, "Reauthenticate", request)).reason == "SESSION_NEEDED"
    assert (await refused(shared.stranger, "Reauthenticate", request)).reason == "NO_TOKEN"


async def test_an_ended_session_cannot_be_proved(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "left")
    await owner.Logout(pb.LogoutRequest())
    await poll_until(lambda: ended(owner))
    refusal = await refused(owner, "Reauthenticate", ReauthenticateRequest(password=PASSWORD))
    assert refusal.code == "UNAUTHENTICATED"


async def test_wrong_proofs_count_as_failed_logins(database: Database) -> None:
    async with running(database, login_failures_per_address=4) as server:
        admin = await server.admin()
        owner = await server.user(admin, "guessed")
        wrong = ReauthenticateRequest(password="not my password")
        login = pb.LoginRequest(username="guessed", password=PASSWORD)

        async def proved() -> str:
            return (await refused(owner, "Reauthenticate", wrong)).reason

        async def logged_in() -> str:
            """Returns why a login from the same address is refused: it has the same budget."""
            await heard_until_limited(proved)
            try:
                await server.stranger.Login(login)
            except Refused as refusal:
                return refusal.reason
            return ""

        assert await proved() == "WRONG_PASSWORD"
        await heard_until_limited(proved)
        # Checked before any login, because a successful login clears the failures of its account.
        async with database.system() as connection:
            assert await connection.fetchval("SELECT sum(failures) FROM login_throttles") >= 4
        await heard_until_limited(logged_in)


async def test_the_record_names_the_kind_of_proof(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "recorded")
    await owner.Reauthenticate(ReauthenticateRequest(password=PASSWORD))
    await refused(owner, "Reauthenticate", ReauthenticateRequest(password="not my password"))

    async def found() -> list[Any]:
        async with shared.database.system() as connection:
            rows: list[Any] = await connection.fetch(
                "SELECT error_code, metadata->>'proof' AS proof, o::text AS everything FROM operation_logs o "
                "WHERE request_path LIKE '%/Reauthenticate' AND username = 'recorded' ORDER BY o.id"
            )
            return rows

    rows = await poll_until(found, lambda rows: len(rows) == 2, what="the records")
    assert [row["proof"] for row in rows] == ["password", "password"]
    assert sorted(bool(row["error_code"]) for row in rows) == [False, True]
    assert not [row for row in rows if PASSWORD in row["everything"]]


@pytest.mark.parametrize("ends", [False, True])
async def test_a_password_change_counts_keys_and_revokes_them_on_request(
    shared: IdentityServer, root: Caller, ends: bool
) -> None:
    username = f"keyed-{ends}".lower()
    owner = await shared.user(root, username)
    _, first = await make(owner, "first")
    await make(owner, "second")
    changed = await owner.ChangePassword(
        pb.ChangePasswordRequest(current_password=PASSWORD, new_password=f"{PASSWORD} 2", revoke_keys=ends)
    )
    assert changed.valid_api_keys == (0 if ends else 2)
    if ends:
        await poll_until(lambda: ended(first))
        _, first = await make(owner, "third")
    request = pb.ResetPasswordRequest(username=username, one_time_code=True)
    assert (await root.ResetPassword(request)).valid_api_keys == (1 if ends else 2)
    assert await valid(first)
    request = pb.ResetPasswordRequest(username=username, new_password=f"{PASSWORD} 3", revoke_keys=True)
    assert (await root.ResetPassword(request)).valid_api_keys == 0
    await poll_until(lambda: ended(first))


@pytest_asyncio.fixture(loop_scope="session")
async def environment(database: Database) -> AsyncIterator[OidcEnvironment]:
    async with oidc_environment(database) as made:
        yield made


async def _begun(environment: OidcEnvironment, max_age_seconds: int) -> Begun:
    request = federation_pb2.BeginOidcLoginRequest(
        issuer="company", redirect_uri=HOME, max_age_seconds=max_age_seconds
    )
    answer = await environment.server.stranger.BeginOidcLogin(request)
    return Begun(answer, await browse(answer.authorization_url))


async def test_a_session_of_an_issuer_is_proved_by_a_new_login_with_max_age(
    environment: OidcEnvironment,
) -> None:
    ada = await environment.log_in("ada", ["devs"])
    await make(ada, "first")
    await grow_old(environment.server.database, "ada")
    request = keys_pb.CreateApiKeyRequest(name="second")
    refusal = await refused(ada, "CreateApiKey", request)
    assert (refusal.reason, refusal.metadata["proof"]) == (_REQUIRED, "log_in")
    # A password of this server does not replace a login at the issuer.
    shown = ReauthenticateRequest(password=PASSWORD)
    assert (await refused(ada, "Reauthenticate", shown)).reason == "ISSUER_SESSION"
    assert (await refused(ada, "CreateApiKey", request)).reason == _REQUIRED
    # A refresh sends a request to the issuer, but the issuer does not ask the user.
    assert (await refused(await environment.refresh(ada), "CreateApiKey", request)).reason == _REQUIRED
    environment.company.arrive("ada", preferred_username="ada", groups=["devs"], auth_time=int(time.time()))
    begun = await _begun(environment, 60)
    assert "max_age=60" in begun.answer.authorization_url
    answer = await environment.server.stranger.CompleteOidcLogin(begun.request())
    await make(Caller(environment.server.stub, answer.access_token, answer.refresh_token), "second")


@pytest.mark.parametrize("seconds_ago", [None, 300, 86_400])
async def test_a_login_with_max_age_needs_a_recent_authentication(
    environment: OidcEnvironment, seconds_ago: int | None
) -> None:
    claims = {} if seconds_ago is None else {"auth_time": int(time.time()) - seconds_ago}
    environment.company.arrive("eve", preferred_username="eve", groups=["devs"], **claims)
    begun = await _begun(environment, 60)
    refusal = await refused(environment.server.stranger, "CompleteOidcLogin", begun.request())
    assert (refusal.reason, refusal.metadata["rule"]) == ("ISSUER_TOKEN_REFUSED", "auth_time")


async def test_an_old_authentication_at_the_issuer_is_not_a_recent_proof(
    environment: OidcEnvironment,
) -> None:
    """Single sign-on: the user authenticated at the issuer an hour ago.

    The browser has a session at the issuer.
    """
    ada = await environment.log_in("ada", ["devs"], auth_time=int(time.time()) - 3600)
    request = keys_pb.CreateApiKeyRequest(name="key")
    assert (await refused(ada, "CreateApiKey", request)).metadata["proof"] == "log_in"
    bob = await environment.log_in("bob", ["devs"], auth_time=int(time.time()))
    await make(bob, "key")


@pytest.mark.parametrize("wrong", ["yesterday", True, -5, [1]])
async def test_an_invalid_auth_time_is_refused(environment: OidcEnvironment, wrong: object) -> None:
    environment.company.arrive("odd", preferred_username="odd", groups=["devs"], auth_time=wrong)
    refusal = await refused(
        environment.server.stranger, "CompleteOidcLogin", (await environment.begin()).request()
    )
    assert (refusal.reason, refusal.metadata["rule"]) == ("ISSUER_TOKEN_REFUSED", "auth_time")
