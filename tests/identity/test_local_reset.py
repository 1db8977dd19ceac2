"""A password that is set on the server's machine.

Covers the affected users, the record, and the sessions that the reset ends.
"""

from __future__ import annotations

import pytest

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.errors import InvalidArgument, NotFound
from pilothouse_server.identity.credentials.local_reset import reset_locally
from tests.conftest import connection, number_changes
from tests.identity.factors import challenged, enrolled, reason
from tests.identity.server import Caller, IdentityServer, Refused

NEW = "quite another password"


async def test_a_locked_out_user_can_log_in_again(server: IdentityServer, admin: Caller) -> None:
    ada = await server.user(admin, "ada")
    for _ in range(6):
        with pytest.raises(Refused):
            await server.log_in("ada", "wrong")
    with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
        await server.log_in("ada")
    await reset_locally(server.store, server.new_passwords, "ADA", NEW, {"account": "root"})
    await server.log_in("ada", NEW)
    with pytest.raises(Refused) as old:
        await server.log_in("ada")
    assert old.value.code == "UNAUTHENTICATED"
    with pytest.raises(Refused) as ended:
        await ada.RefreshSession(pb.RefreshSessionRequest(refresh_token=ada.refresh_token))
    assert ended.value.code == "UNAUTHENTICATED"
    # Sessions of other users continue.
    await admin.WhoAmI(pb.WhoAmIRequest())
    async with connection(server.database.admin_dsn) as sql:
        await number_changes(sql)
        (record,) = await sql.fetch("SELECT * FROM operation_logs WHERE action = 'reset'")
    assert (record["username"], record["user_id"], record["resource_name"]) == ("system", None, "ada")
    assert (record["metadata"], record["status_code"]) == ('{"local": true, "account": "root"}', 200)


@pytest.mark.parametrize(
    ("username", "password", "error"),
    [
        ("nobody", NEW, NotFound),
        ("admin", "short", InvalidArgument),
        ("admin", "x" * 1025, InvalidArgument),
        ("long-user-name", "Long-User-Name", InvalidArgument),
    ],
)
async def test_a_refused_reset_changes_nothing(
    server: IdentityServer, admin: Caller, username: str, password: str, error: type[Exception]
) -> None:
    await server.user(admin, "long-user-name")
    with pytest.raises(error):
        await reset_locally(server.store, server.new_passwords, username, password, {})
    await admin.WhoAmI(pb.WhoAmIRequest())
    async with connection(server.database.admin_dsn) as sql:
        await number_changes(sql)
        assert await sql.fetchval("SELECT count(*) FROM operation_logs WHERE action = 'reset'") == 0


async def test_the_lost_authenticator_of_the_last_administrator_is_removed(
    server: IdentityServer, admin: Caller
) -> None:
    await enrolled(server, admin)
    await reset_locally(server.store, server.new_passwords, "admin", NEW, {})
    # A reset of the password alone keeps the authenticator.
    given = await challenged(server.stranger, "admin", NEW)
    await reset_locally(server.store, server.new_passwords, "admin", NEW, {}, without_factor=True)
    assert await reason(server.stranger, given.challenge, recovery_code="0" * 16) == "INVALID_CHALLENGE"
    again = await server.log_in("admin", NEW)
    assert not (await again.WhoAmI(pb.WhoAmIRequest())).user.second_factor
    async with connection(server.database.admin_dsn) as sql:
        assert await sql.fetchval("SELECT count(*) FROM user_secrets") == 0
        assert await sql.fetchval("SELECT count(*) FROM recovery_codes") == 0
