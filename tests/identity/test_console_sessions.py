"""Console sessions: one credential, which does not rotate.

They end some time after the last use.
"""

from __future__ import annotations

from typing import Any

from pilothouse.identity.v1 import identity_pb2 as pb
from tests.identity.console import begin
from tests.identity.server import Caller, IdentityServer, ended, refused
from tests.waiting import poll_until

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


async def lasts(server: IdentityServer, caller: Caller, column: str = "access_expires_at") -> float:
    """Returns the seconds until the session ends."""
    async with server.database.system() as connection:
        found: float = await connection.fetchval(
            f"SELECT extract(epoch FROM {column} - now())::float8 FROM sessions "
            "WHERE access_token_hash = sha256($1::text::bytea)",
            caller.access_token,
        )
    return found


async def change(server: IdentityServer, caller: Caller, **ages: float) -> None:
    """Sets times of the session's row to this many seconds from now."""
    async with server.database.system() as connection:
        for column, seconds in ages.items():
            await connection.execute(
                f"UPDATE sessions SET {column} = now() + make_interval(secs => $2) "
                "WHERE access_token_hash = sha256($1::text::bytea)",
                caller.access_token,
                seconds,
            )


async def moved_on(server: IdentityServer, caller: Caller, seconds: float) -> None:
    """Uses the session, and waits until its expiry times are `seconds` from now.

    The times may differ by a minute.
    """
    await caller.WhoAmI(pb.WhoAmIRequest())

    async def ends() -> list[float]:
        return [await lasts(server, caller, column) for column in ("access_expires_at", "refresh_expires_at")]

    await poll_until(ends, lambda found: all(abs(each - seconds) < MINUTE for each in found))


async def test_a_console_session_is_listed_and_ended_like_others(
    shared: IdentityServer, root: Caller
) -> None:
    await shared.user(root, "browsing", log_in=False)
    caller = await begin(shared, "browsing")
    (listed,) = (await caller.ListSessions(pb.ListSessionsRequest())).sessions
    assert (listed.kind, listed.method, listed.current) == (
        pb.SESSION_KIND_CONSOLE,
        pb.SESSION_METHOD_PASSWORD,
        True,
    )
    assert (listed.client_ip, listed.user_agent) == ("10.1.2.3", "a browser")
    other = await shared.log_in("browsing")
    assert {each.kind for each in (await other.ListSessions(pb.ListSessionsRequest())).sessions} == {
        pb.SESSION_KIND_CONSOLE,
        pb.SESSION_KIND_TOKENS,
    }
    await other.RevokeSession(pb.RevokeSessionRequest(session_id=listed.session_id))
    await poll_until(lambda: ended(caller), seconds=1.0)


async def test_each_use_extends_a_session_up_to_its_maximum_age(shared: IdentityServer, root: Caller) -> None:
    await shared.user(root, "using", log_in=False)
    caller = await begin(shared, "using")
    assert abs(await lasts(shared, caller) - 12 * HOUR) < MINUTE
    await change(shared, caller, last_used_at=-5 * MINUTE, access_expires_at=HOUR, refresh_expires_at=HOUR)
    await moved_on(shared, caller, 12 * HOUR)
    other = await begin(shared, "using")
    await change(shared, other, created_at=2 * HOUR - 7 * DAY, last_used_at=-5 * MINUTE)
    await moved_on(shared, other, 2 * HOUR)
    third = await begin(shared, "using")
    await change(shared, third, access_expires_at=0.0, refresh_expires_at=0.0)
    assert (await refused(third, "WhoAmI", pb.WhoAmIRequest())).reason == "INVALID_TOKEN"


async def test_use_does_not_extend_a_session_of_an_issuer(shared: IdentityServer, root: Caller) -> None:
    await shared.user(root, "federated", log_in=False)
    used, unused = [await begin(shared, "federated", method) for method in ("oidc", "password")]
    for caller in (used, unused):
        await change(shared, caller, last_used_at=-5 * MINUTE, access_expires_at=10 * MINUTE)
    await used.WhoAmI(pb.WhoAmIRequest())
    # Uses are recorded in the order of the calls.
    await moved_on(shared, unused, 12 * HOUR)

    async def noted() -> float:
        return await lasts(shared, used, "last_used_at")

    await poll_until(noted, lambda seconds: seconds > -MINUTE)
    assert await lasts(shared, used) <= 10 * MINUTE


async def test_the_credential_is_stored_as_a_hash(shared: IdentityServer, root: Caller) -> None:
    await shared.user(root, "hashed", log_in=False)
    caller = await begin(shared, "hashed")
    assert caller.access_token.startswith("phc_")
    async with shared.database.system() as connection:
        rows: Any = await connection.fetchval("SELECT json_agg(sessions)::text FROM sessions")
    assert caller.access_token[4:] not in rows
