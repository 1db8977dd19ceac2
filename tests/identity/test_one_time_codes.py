"""Resets by a one-time code: only the user ever knows the new password."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import second_factor_pb2 as factor_pb
from tests.conftest import number_changes
from tests.identity.factors import challenged, complete, enrolled, reason
from tests.identity.server import PASSWORD, Caller, IdentityServer, ended, refused, valid
from tests.waiting import poll_until

NEW = "a password of her own"


async def reset(admin: Caller, username: str = "anna") -> pb.ResetPasswordResponse:
    """Returns the response to an administrator who requests a code."""
    answer: pb.ResetPasswordResponse = await admin.ResetPassword(
        pb.ResetPasswordRequest(username=username, one_time_code=True)
    )
    return answer


async def test_a_code_only_lets_its_user_set_a_new_password(server: IdentityServer, admin: Caller) -> None:
    anna = await server.user(admin, "anna")
    answer = await reset(admin)
    left = answer.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24, minutes=5)
    assert await poll_until(lambda: ended(anna), seconds=1.0)
    old = pb.LoginRequest(username="anna", password=PASSWORD)
    assert (await refused(server.stranger, "Login", old)).reason == "INVALID_CREDENTIALS"
    given = await challenged(server.stranger, "anna", answer.one_time_code)
    assert list(given.steps) == [factor_pb.LOGIN_STEP_NEW_PASSWORD]
    for shown, why in (
        ({}, "REQUIRED"),
        ({"new_password": "short"}, "INVALID_FIELD"),
        ({"new_password": "Anna-and-more-of-it"}, "WEAK_PASSWORD"),
    ):
        assert await reason(server.stranger, given.challenge, **shown) == why
    second = await challenged(server.stranger, "anna", answer.one_time_code)
    done = await complete(server.stranger, given.challenge, new_password=NEW)
    assert await valid(Caller(server.stub, done.access_token))
    assert await reason(server.stranger, second.challenge, new_password=NEW) == "INVALID_CHALLENGE"
    used = pb.LoginRequest(username="anna", password=answer.one_time_code)
    assert (await refused(server.stranger, "Login", used)).reason == "INVALID_CREDENTIALS"
    await server.log_in("anna", NEW)


async def test_concurrent_uses_of_a_code_set_one_password(server: IdentityServer, admin: Caller) -> None:
    await server.user(admin, "anna", log_in=False)
    answer = await reset(admin)
    given = [(await challenged(server.stranger, "anna", answer.one_time_code)).challenge for _ in range(3)]
    chosen = [f"{NEW} {number}" for number in range(3)]
    outcomes = await asyncio.gather(
        *(
            reason(server.stranger, challenge, new_password=password)
            for challenge, password in zip(given, chosen, strict=True)
        )
    )
    assert sorted(outcomes) == ["", "INVALID_CHALLENGE", "INVALID_CHALLENGE"]
    assert await valid(await server.log_in("anna", chosen[outcomes.index("")]))


async def test_a_code_expires_and_a_wrong_one_counts_as_a_wrong_password(
    server: IdentityServer, admin: Caller
) -> None:
    await server.user(admin, "anna", log_in=False)
    answer = await reset(admin)
    given = await challenged(server.stranger, "anna", answer.one_time_code)
    async with server.database.system() as connection:
        await connection.execute("UPDATE users SET password_expires_at = now() WHERE username = 'anna'")
    late = await refused(
        server.stranger, "Login", pb.LoginRequest(username="anna", password=answer.one_time_code)
    )
    unknown = await refused(
        server.stranger, "Login", pb.LoginRequest(username="nobody", password=answer.one_time_code)
    )
    assert (late.code, late.reason, late.message) == (unknown.code, unknown.reason, unknown.message)
    assert await reason(server.stranger, given.challenge, new_password=NEW) == "INVALID_CHALLENGE"
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT sum(failures) FROM login_throttles") == 2


async def test_a_second_factor_stays_and_is_required_for_the_new_password(
    server: IdentityServer, admin: Caller
) -> None:
    phone = await enrolled(server, await server.user(admin, "anna"))
    answer = await reset(admin)
    given = await challenged(server.stranger, "anna", answer.one_time_code)
    assert list(given.steps) == [factor_pb.LOGIN_STEP_CODE, factor_pb.LOGIN_STEP_NEW_PASSWORD]
    wrong = {"code": await phone.wrong_code(), "new_password": NEW}
    assert await reason(server.stranger, given.challenge, **wrong) == "WRONG_CODE"
    # A caller that has only the reset code has changed nothing.
    assert (await challenged(server.stranger, "anna", answer.one_time_code)).challenge
    assert await reason(server.stranger, given.challenge, code=await phone.code(), new_password=NEW) == ""


async def test_a_reset_requires_either_a_password_or_a_code(server: IdentityServer, admin: Caller) -> None:
    await server.user(admin, "anna", log_in=False)
    nothing = await refused(admin, "ResetPassword", pb.ResetPasswordRequest(username="anna"))
    assert (nothing.reason, nothing.fields) == ("REQUIRED", ["new_password"])
    both = pb.ResetPasswordRequest(username="anna", new_password=NEW, one_time_code=True)
    assert (await refused(admin, "ResetPassword", both)).reason == "TWO_PASSWORDS"


async def test_a_replay_returns_no_code_and_records_contain_none(
    server: IdentityServer, admin: Caller
) -> None:
    await server.user(admin, "anna", log_in=False)
    request = pb.ResetPasswordRequest(
        username="anna", one_time_code=True, request_id="6f1c7f0e-5c1c-4b5b-9f77-0d3cf6f0f111"
    )
    first, again = await admin.ResetPassword(request), await admin.ResetPassword(request)
    assert (again.one_time_code, again.expire_time) == ("", first.expire_time)
    given = await challenged(server.stranger, "anna", first.one_time_code)
    await reason(server.stranger, given.challenge, new_password=NEW)
    async with server.database.system() as connection:
        await number_changes(connection)
        logged = await connection.fetchval("SELECT string_agg(log::text, ' ') FROM operation_logs AS log")
    for secret in (first.one_time_code, given.challenge, NEW):
        assert secret not in logged
