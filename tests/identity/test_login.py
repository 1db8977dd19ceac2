"""Login, renewal and revocation: attempts of callers, and uses of a token."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.credentials.operations.login_throttle import FREE_FAILURES
from pilothouse_server.values.names import normalise_username
from tests.conftest import Database, number_changes
from tests.identity.server import (
    ADMIN_PASSWORD,
    PASSWORD,
    Caller,
    IdentityServer,
    Refused,
    ended,
    refused,
    running,
    valid,
)
from tests.waiting import poll_until


async def test_login_returns_working_tokens(server: IdentityServer) -> None:
    answer = await server.stranger.Login(pb.LoginRequest(username="ADMIN", password=ADMIN_PASSWORD))
    assert answer.access_token.startswith("pht_")
    assert answer.refresh_token.startswith("phr_")
    assert answer.user.username == "admin"
    assert answer.user.HasField("last_login_time")
    assert answer.access_expire_time.seconds < answer.refresh_expire_time.seconds
    me = await Caller(server.stub, answer.access_token).WhoAmI(pb.WhoAmIRequest())
    assert (me.user.username, list(me.permissions)) == ("admin", ["*"])
    assert [(grant.role, grant.namespace) for grant in me.grants] == [("admin", "")]


async def test_unknown_users_and_wrong_passwords_get_the_same_error(
    server: IdentityServer, admin: Caller
) -> None:
    await server.user(admin, "idle", log_in=False)
    await admin.UpdateUser(
        pb.UpdateUserRequest(
            username="idle",
            user=pb.User(status=pb.USER_STATUS_INACTIVE),
            update_mask=FieldMask(paths=["status"]),
        )
    )
    refusals = [
        await refused(server.stranger, "Login", pb.LoginRequest(username=name, password=password))
        for name, password in (("nobody", PASSWORD), ("admin", "wrong"), ("idle", PASSWORD), ("a/../b", "x"))
    ]
    assert {(each.code, each.reason, each.message) for each in refusals} == {
        ("UNAUTHENTICATED", "INVALID_CREDENTIALS", "the user name or the password is wrong")
    }


@pytest.mark.parametrize("name", ["admin", "nobody"])
async def test_known_and_unknown_accounts_are_locked_after_failures(
    server: IdentityServer, name: str
) -> None:
    wrong = pb.LoginRequest(username=name, password="wrong")
    for _ in range(FREE_FAILURES):
        assert (await refused(server.stranger, "Login", wrong)).code == "UNAUTHENTICATED"
    right = pb.LoginRequest(username=name.upper(), password=ADMIN_PASSWORD)
    refusal = await refused(server.stranger, "Login", right)
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "LOGIN_THROTTLED")
    assert refusal.retry_seconds is not None
    assert 20 < refusal.retry_seconds <= 30


async def test_concurrent_guesses_are_counted_individually(server: IdentityServer) -> None:
    wrong = pb.LoginRequest(username="admin", password="wrong")
    refusals = await asyncio.gather(*(refused(server.stranger, "Login", wrong) for _ in range(12)))
    verified = [refusal for refusal in refusals if refusal.code == "UNAUTHENTICATED"]
    assert len(verified) == FREE_FAILURES


async def test_concurrent_correct_passwords_are_all_accepted(server: IdentityServer) -> None:
    callers = await asyncio.gather(*(server.admin() for _ in range(12)))
    assert len({caller.access_token for caller in callers}) == 12


async def test_success_clears_the_counter_and_old_failures_are_forgotten(server: IdentityServer) -> None:
    wrong = pb.LoginRequest(username="admin", password="wrong")
    for _ in range(2):
        for _ in range(FREE_FAILURES - 1):
            assert (await refused(server.stranger, "Login", wrong)).code == "UNAUTHENTICATED"
        await server.admin()
    for _ in range(FREE_FAILURES):
        await refused(server.stranger, "Login", wrong)
    async with server.database.system() as connection:
        await connection.execute(
            "UPDATE login_throttles SET locked_until = now() - interval '1 second', "
            "updated_at = now() - interval '2 days'"
        )
    await refused(server.stranger, "Login", wrong)
    assert await _failures(server.database, "admin") == 1


async def test_each_further_failure_locks_for_longer(server: IdentityServer) -> None:
    waits: list[float] = []
    wrong = pb.LoginRequest(username="admin", password="wrong")
    async with server.database.system() as connection:
        for failure in range(FREE_FAILURES + 7):
            assert (await refused(server.stranger, "Login", wrong)).code == "UNAUTHENTICATED"
            if failure + 1 >= FREE_FAILURES:
                refusal = await refused(server.stranger, "Login", wrong)
                waits.append(round((refusal.retry_seconds or 0) / 10) * 10)
            await connection.execute("UPDATE login_throttles SET locked_until = NULL")
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]


async def _failures(database: Database, username: str) -> int | None:
    digest = hashlib.sha256(normalise_username(username).encode()).digest()
    async with database.system() as connection:
        found: int | None = await connection.fetchval(
            "SELECT failures FROM login_throttles WHERE account_hash = $1", digest
        )
        return found


_FULL_WIDTH = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}


@st.composite
def _forms(draw: st.DrawFn) -> Sequence[str]:
    """Returns spellings of one name: either case, and full-width characters."""
    name = draw(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=3, max_size=12))
    return [
        "".join(draw(st.sampled_from([letter, letter.upper(), _FULL_WIDTH[letter]])) for letter in name)
        for _ in range(3)
    ]


@pytest.mark.full
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forms=_forms())
async def test_all_spellings_of_a_name_share_one_counter(
    server: IdentityServer, forms: Sequence[str]
) -> None:
    before = await _failures(server.database, forms[0]) or 0
    if before + len(forms) >= FREE_FAILURES:
        async with server.database.system() as connection:
            await connection.execute("DELETE FROM login_throttles")
        before = 0
    for form in forms:
        refusal = await refused(server.stranger, "Login", pb.LoginRequest(username=form, password="wrong"))
        assert refusal.reason == "INVALID_CREDENTIALS"
    assert await _failures(server.database, forms[-1]) == before + len(forms)


async def test_counters_are_shared_by_replicas(database: Database) -> None:
    async with running(database) as one, running(database) as other:
        wrong = pb.LoginRequest(username="admin", password="wrong")
        for number in range(FREE_FAILURES):
            await refused((one, other)[number % 2].stranger, "Login", wrong)
        for each in (one, other):
            assert (await refused(each.stranger, "Login", wrong)).reason == "LOGIN_THROTTLED"


async def test_renewal_replaces_both_tokens_and_keeps_the_session(
    server: IdentityServer, admin: Caller
) -> None:
    before = (await admin.ListSessions(pb.ListSessionsRequest())).sessions
    renewed = await server.stranger.RefreshSession(
        pb.RefreshSessionRequest(refresh_token=admin.refresh_token)
    )
    caller = Caller(server.stub, renewed.access_token, renewed.refresh_token)
    after = (await caller.ListSessions(pb.ListSessionsRequest())).sessions
    assert [each.session_id for each in after] == [each.session_id for each in before]
    assert after[0].create_time == before[0].create_time
    assert after[0].current
    assert await poll_until(lambda: ended(admin))
    assert await valid(caller)


async def test_a_replay_ends_the_family_and_no_other(server: IdentityServer, admin: Caller) -> None:
    bystander = await server.admin()
    renewed = await server.stranger.RefreshSession(
        pb.RefreshSessionRequest(refresh_token=admin.refresh_token)
    )
    caller = Caller(server.stub, renewed.access_token, renewed.refresh_token)
    for _ in range(2):
        refusal = await refused(
            server.stranger, "RefreshSession", pb.RefreshSessionRequest(refresh_token=admin.refresh_token)
        )
        assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "REFRESH_TOKEN_REPLAYED")
    assert await poll_until(lambda: ended(caller))
    refusal = await refused(
        server.stranger, "RefreshSession", pb.RefreshSessionRequest(refresh_token=caller.refresh_token)
    )
    assert refusal.reason == "INVALID_REFRESH_TOKEN"
    assert await valid(bystander)


async def test_one_of_many_renewals_with_the_same_token_succeeds(
    server: IdentityServer, admin: Caller
) -> None:
    request = pb.RefreshSessionRequest(refresh_token=admin.refresh_token)
    outcomes = await asyncio.gather(
        *(server.stranger.RefreshSession(request) for _ in range(8)), return_exceptions=True
    )
    won = [outcome for outcome in outcomes if isinstance(outcome, pb.RefreshSessionResponse)]
    lost = [outcome.reason for outcome in outcomes if isinstance(outcome, Refused)]
    assert len(won) == 1
    assert lost == ["REFRESH_TOKEN_REPLAYED"] * 7
    assert await poll_until(lambda: ended(Caller(server.stub, won[0].access_token)))


@pytest.mark.parametrize("token", ["phr_wrong", "x" * 512])
async def test_an_invalid_refresh_token_is_refused(server: IdentityServer, token: str) -> None:
    refusal = await refused(server.stranger, "RefreshSession", pb.RefreshSessionRequest(refresh_token=token))
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "INVALID_REFRESH_TOKEN")


async def test_access_and_refresh_tokens_are_not_interchangeable(
    server: IdentityServer, admin: Caller
) -> None:
    assert await ended(Caller(server.stub, admin.refresh_token))
    refusal = await refused(
        server.stranger, "RefreshSession", pb.RefreshSessionRequest(refresh_token=admin.access_token)
    )
    assert refusal.reason == "INVALID_REFRESH_TOKEN"


async def test_a_session_does_not_outlive_its_maximum_age(database: Database) -> None:
    async with running(database, session_max_age_seconds=60, session_refresh_seconds=3600) as server:
        answer = await server.stranger.Login(pb.LoginRequest(username="admin", password=ADMIN_PASSWORD))
        renewed = await server.stranger.RefreshSession(
            pb.RefreshSessionRequest(refresh_token=answer.refresh_token)
        )
        assert renewed.refresh_expire_time == answer.refresh_expire_time
        async with server.database.system() as connection:
            await connection.execute(
                "UPDATE sessions SET refresh_expires_at = now(), access_expires_at = now()"
            )
        late = pb.RefreshSessionRequest(refresh_token=renewed.refresh_token)
        assert (await refused(server.stranger, "RefreshSession", late)).reason == "INVALID_REFRESH_TOKEN"
        assert await poll_until(lambda: ended(Caller(server.stub, renewed.access_token)), seconds=1.0)


async def test_logout_ends_only_its_own_session_within_a_second(
    server: IdentityServer, admin: Caller
) -> None:
    other = await server.admin()
    await admin.Logout(pb.LogoutRequest())
    assert await poll_until(lambda: ended(admin), seconds=1.0)
    assert await valid(other)


async def test_a_revoked_session_stops_within_a_second_on_every_replica(database: Database) -> None:
    async with running(database) as one, running(database) as other:
        admin = await one.admin()
        there = Caller(other.stub, admin.access_token)
        assert await valid(there)
        current = [
            each.session_id
            for each in (await admin.ListSessions(pb.ListSessionsRequest())).sessions
            if each.current
        ]
        await admin.RevokeSession(pb.RevokeSessionRequest(session_id=current[0]))
        assert await poll_until(lambda: ended(there), seconds=1.0)
        assert await poll_until(lambda: ended(admin), seconds=1.0)


async def test_revocation_takes_effect_within_a_second_without_a_hint(
    server: IdentityServer, admin: Caller
) -> None:
    assert await valid(admin)
    async with server.database.system() as connection:
        await connection.execute("UPDATE sessions SET revoked_at = now()")
    assert await poll_until(lambda: ended(admin), seconds=1.5)


async def test_only_own_sessions_are_seen_and_ended(server: IdentityServer, admin: Caller) -> None:
    anna = await server.user(admin, "anna")
    mine = (await admin.ListSessions(pb.ListSessionsRequest())).sessions
    assert [each.current for each in mine] == [True]
    hers = (await anna.ListSessions(pb.ListSessionsRequest())).sessions
    foreign = await refused(anna, "RevokeSession", pb.RevokeSessionRequest(session_id=mine[0].session_id))
    missing = await refused(
        anna, "RevokeSession", pb.RevokeSessionRequest(session_id="00000000-0000-4000-8000-000000000000")
    )
    assert foreign.code == missing.code == "NOT_FOUND"
    # Another user's session must be named with that user, so no caller ends one by mistake.
    assert (
        await refused(admin, "RevokeSession", pb.RevokeSessionRequest(session_id=hers[0].session_id))
    ).code == "NOT_FOUND"


async def test_administrators_see_and_end_sessions_of_others(server: IdentityServer, admin: Caller) -> None:
    anna = await server.user(admin, "anna")
    await server.log_in("anna")
    await server.role(admin, "helpdesk", "user.update", "user.get")
    helper = await server.user(admin, "helper", ("helpdesk", ""))
    hers = (await helper.ListSessions(pb.ListSessionsRequest(username="ANNA"))).sessions
    assert [each.current for each in hers] == [False, False]
    assert {each.method for each in hers} == {pb.SESSION_METHOD_PASSWORD}
    assert all(each.client_ip and each.user_agent for each in hers)
    first = hers[-1].session_id
    # Without the permission a caller does not learn which users exist.
    for caller, name in ((anna, "helper"), (anna, "nobody")):
        for rpc, request in (
            ("ListSessions", pb.ListSessionsRequest(username=name)),
            ("RevokeSession", pb.RevokeSessionRequest(username=name, session_id=first)),
        ):
            refusal = await refused(caller, rpc, request)
            assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert (
        await refused(helper, "ListSessions", pb.ListSessionsRequest(username="nobody"))
    ).code == "NOT_FOUND"
    chief = (await helper.ListSessions(pb.ListSessionsRequest(username="admin"))).sessions[0].session_id
    above = pb.RevokeSessionRequest(username="admin", session_id=chief)
    assert (await refused(helper, "RevokeSession", above)).reason == "ESCALATION"
    mixed = pb.RevokeSessionRequest(username="anna", session_id=chief)
    assert (await refused(helper, "RevokeSession", mixed)).code == "NOT_FOUND"
    await helper.RevokeSession(pb.RevokeSessionRequest(username="anna", session_id=first))
    assert await poll_until(lambda: ended(anna), seconds=1.0)
    assert len((await helper.ListSessions(pb.ListSessionsRequest(username="anna"))).sessions) == 1
    assert await valid(admin)
    # A page token of one user's sessions is invalid for another user's.
    await server.log_in("helper")
    page = await helper.ListSessions(pb.ListSessionsRequest(username="helper", page_size=1))
    other = pb.ListSessionsRequest(username="anna", page_size=1, page_token=page.next_page_token)
    assert (await refused(helper, "ListSessions", other)).code == "INVALID_ARGUMENT"


async def test_sessions_are_listed_in_pages_newest_first(server: IdentityServer, admin: Caller) -> None:
    for _ in range(4):
        await server.admin()
    seen: list[pb.Session] = []
    token = ""
    while True:
        page = await admin.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token))
        seen.extend(page.sessions)
        token = page.next_page_token
        if not token:
            break
    assert len({each.session_id for each in seen}) == 5
    times = [each.create_time.ToNanoseconds() for each in seen]
    assert times == sorted(times, reverse=True)
    assert [each.current for each in seen] == [False] * 4 + [True]


async def test_password_change_ends_the_other_sessions(server: IdentityServer, admin: Caller) -> None:
    anna = await server.user(admin, "anna")
    elsewhere = await server.log_in("anna")
    wrong = pb.ChangePasswordRequest(current_password="wrong", new_password="another long password")
    refusal = await refused(anna, "ChangePassword", wrong)
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "WRONG_PASSWORD")
    assert await _failures(server.database, "anna") == 1
    await anna.ChangePassword(
        pb.ChangePasswordRequest(current_password=PASSWORD, new_password="another long password")
    )
    assert await poll_until(lambda: ended(elsewhere), seconds=1.0)
    assert await valid(anna)
    await server.log_in("anna", "another long password")
    assert (
        await refused(server.stranger, "Login", pb.LoginRequest(username="anna", password=PASSWORD))
    ).reason == "INVALID_CREDENTIALS"


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (PASSWORD, "PASSWORD_UNCHANGED"),
        ("Anna-with-a-long-name", "WEAK_PASSWORD"),
        ("short", "INVALID_FIELD"),
    ],
)
async def test_poor_new_passwords_are_refused(
    server: IdentityServer, admin: Caller, new: str, reason: str
) -> None:
    anna = await server.user(admin, "anna-with-a-long-name")
    refusal = await refused(
        anna, "ChangePassword", pb.ChangePasswordRequest(current_password=PASSWORD, new_password=new)
    )
    assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", reason, ["new_password"])


async def test_use_of_a_session_is_recorded(server: IdentityServer, admin: Caller) -> None:
    async with server.database.system() as connection:
        await connection.execute("UPDATE sessions SET last_used_at = now() - interval '2 minutes'")

        async def noted() -> bool:
            await admin.WhoAmI(pb.WhoAmIRequest())
            recent: bool = await connection.fetchval(
                "SELECT bool_and(last_used_at > now() - interval '1 minute') FROM sessions"
            )
            return recent

        assert await poll_until(noted)


async def test_logins_are_recorded_without_passwords_or_tokens(server: IdentityServer, admin: Caller) -> None:
    await refused(server.stranger, "Login", pb.LoginRequest(username="admin", password="canary-password"))
    await server.stranger.RefreshSession(pb.RefreshSessionRequest(refresh_token=admin.refresh_token))
    await refused(
        server.stranger, "RefreshSession", pb.RefreshSessionRequest(refresh_token=admin.refresh_token)
    )
    async with server.database.system() as connection:
        await number_changes(connection)
        rows = await connection.fetch(
            "SELECT action, username, resource_name, error_code, log::text AS everything FROM operation_logs AS log "
            "WHERE resource_type = 'session' ORDER BY sequence"
        )
    assert [(row["action"], row["username"], row["error_code"]) for row in rows] == [
        ("login", "admin", None),
        ("login", None, "UNAUTHENTICATED"),
        ("refresh", "admin", None),
        ("refresh", "admin", "UNAUTHENTICATED"),
    ]
    text = " ".join(row["everything"] for row in rows)
    for secret in ("canary-password", ADMIN_PASSWORD, admin.access_token, admin.refresh_token):
        assert secret not in text
