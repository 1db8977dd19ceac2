"""Users: names, addresses, status, passwords, and the last administrator."""

from __future__ import annotations

import asyncio
from itertools import count
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from structlog.testing import capture_logs

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.accounts.bootstrap import bootstrap
from pilothouse_server.values.actors import RESERVED_USERNAMES
from tests.conftest import number_changes
from tests.identity.server import (
    ADMIN_PASSWORD,
    PASSWORD,
    Caller,
    IdentityServer,
    Refused,
    ended,
    refused,
    valid,
)
from tests.waiting import poll_until

_numbers = count(1)


def _name(word: str = "user") -> str:
    return f"{word}{next(_numbers)}"


def _create(
    username: str, email: str = "", full_name: str = "", avatar_url: str = ""
) -> pb.CreateUserRequest:
    user = pb.User(
        username=username,
        email=email or f"{username}@example.org",
        full_name=full_name,
        avatar_url=avatar_url,
    )
    return pb.CreateUserRequest(user=user, password=PASSWORD)


def _update(username: str, *paths: str, etag: str = "", **fields: object) -> pb.UpdateUserRequest:
    return pb.UpdateUserRequest(
        username=username,
        user=pb.User(**({"full_name": "x"} | fields)),  # type: ignore[arg-type]
        update_mask=FieldMask(paths=paths),
        etag=etag,
    )


async def test_a_created_user_is_read_back_unchanged(shared: IdentityServer, root: Caller) -> None:
    name = _name("Anna.B-")
    created = (await root.CreateUser(_create(name, full_name="Anna B", avatar_url="https://x/a.png"))).user
    assert created.username == name
    assert created.created_by == "admin"
    assert created.status == pb.USER_STATUS_ACTIVE
    assert created.uid
    assert created.etag
    read = (await root.GetUser(pb.GetUserRequest(username=name.upper()))).user
    assert read == created
    me = await (await shared.log_in(name)).WhoAmI(pb.WhoAmIRequest())
    assert (me.user.username, list(me.grants), list(me.permissions)) == (name, [], [])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"username": ""}, "user.username"),
        ({"username": "has space"}, "user.username"),
        ({"username": "аdmin"}, "user.username"),
        ({"email": ""}, "user.email"),
        ({"email": "nowhere"}, "user.email"),
    ],
)
async def test_invalid_names_and_addresses_are_refused(
    root: Caller, fields: dict[str, str], field: str
) -> None:
    request = _create(_name())
    for key, value in fields.items():
        setattr(request.user, key, value)
    refusal = await refused(root, "CreateUser", request)
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", [field])


@pytest.mark.parametrize("name", sorted(name for name in RESERVED_USERNAMES if " " not in name))
async def test_reserved_names_are_refused_for_new_users(root: Caller, name: str) -> None:
    for form in (name, name.upper()):
        refusal = await refused(root, "CreateUser", _create(form))
        assert (refusal.code, refusal.reason, refusal.fields) == (
            "INVALID_ARGUMENT",
            "RESERVED_NAME",
            ["user.username"],
        )


async def test_a_user_who_has_such_a_name_stays(shared: IdentityServer, root: Caller) -> None:
    former = _name()
    await root.CreateUser(_create(former))
    async with shared.database.owner() as connection:
        await connection.execute(
            "UPDATE users SET username = 'Root', username_normalized = 'root' WHERE username = $1", former
        )
    caller = await shared.log_in("root")
    assert (await caller.WhoAmI(pb.WhoAmIRequest())).user.username == "Root"
    await root.UpdateUser(_update("root", "full_name", full_name="Ruth"))
    with capture_logs() as lines:
        await bootstrap(shared.store, shared.new_passwords, "")
    warned = [line for line in lines if line.get("username")]
    assert [(line["log_level"], line["username"]) for line in warned] == [("warning", "Root")]
    await root.DeleteUser(pb.DeleteUserRequest(username="root"))
    assert (await refused(root, "CreateUser", _create("root"))).reason == "RESERVED_NAME"


async def test_passwords_that_are_short_or_the_user_name_are_refused(root: Caller) -> None:
    for password in ("short", "A.Name-That-Is-Long"):
        request = _create("a.name-that-is-long")
        request.password = password
        refusal = await refused(root, "CreateUser", request)
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["password"])


async def test_names_and_addresses_are_unique_regardless_of_case(root: Caller) -> None:
    name = _name()
    await root.CreateUser(_create(name))
    taken = await refused(root, "CreateUser", _create(name.upper(), email=f"{_name()}@example.org"))
    assert (taken.code, taken.reason) == ("ALREADY_EXISTS", "USER_ALREADY_EXISTS")
    taken = await refused(root, "CreateUser", _create(_name(), email=f"{name.upper()}@Example.ORG"))
    assert (taken.code, taken.reason) == ("ALREADY_EXISTS", "EMAIL_ALREADY_EXISTS")
    other = _name()
    await root.CreateUser(_create(other))
    taken = await refused(root, "UpdateUser", _update(other, "email", email=f"{name}@example.org"))
    assert taken.reason == "EMAIL_ALREADY_EXISTS"


async def test_one_of_several_concurrent_creations_succeeds(root: Caller) -> None:
    name = _name()
    outcomes = await asyncio.gather(
        *(root.CreateUser(_create(name)) for _ in range(6)), return_exceptions=True
    )
    # Both the name and the address are taken, and either may be reported.
    codes = sorted(each.code if isinstance(each, Refused) else "" for each in outcomes)
    assert codes == ["", *["ALREADY_EXISTS"] * 5]


async def test_only_the_fields_of_the_mask_change(root: Caller) -> None:
    name = _name()
    created = (await root.CreateUser(_create(name, full_name="Before"))).user
    changed = (
        await root.UpdateUser(_update(name, "avatar_url", avatar_url="https://x/a", full_name="No"))
    ).user
    assert (changed.full_name, changed.avatar_url) == ("Before", "https://x/a")
    assert changed.etag != created.etag
    cleared = (await root.UpdateUser(_update(name, "full_name", "avatar_url", full_name=""))).user
    assert (cleared.full_name, cleared.avatar_url) == ("", "")
    for path, reason in (
        ("username", "INVALID_UPDATE_MASK"),
        ("nothing", "INVALID_UPDATE_MASK"),
        ("email", "REQUIRED"),
        ("status", "REQUIRED"),
    ):
        refusal = await refused(root, "UpdateUser", _update(name, path))
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", reason)


async def test_a_stale_etag_is_refused(root: Caller) -> None:
    name = _name()
    created = (await root.CreateUser(_create(name))).user
    await root.UpdateUser(_update(name, "full_name", etag=created.etag, full_name="One"))
    refusal = await refused(
        root, "UpdateUser", _update(name, "full_name", etag=created.etag, full_name="Two")
    )
    assert (refusal.code, refusal.reason) == ("ABORTED", "ETAG_MISMATCH")
    refusal = await refused(root, "DeleteUser", pb.DeleteUserRequest(username=name, etag=created.etag))
    assert refusal.code == "ABORTED"


@pytest.mark.parametrize("status", [pb.USER_STATUS_INACTIVE, pb.USER_STATUS_LOCKED])
async def test_a_deactivated_user_loses_all_sessions(
    shared: IdentityServer, root: Caller, status: pb.UserStatus
) -> None:
    name = _name()
    caller = await shared.user(root, name)
    await root.UpdateUser(_update(name, "status", status=status))
    assert await poll_until(lambda: ended(caller), seconds=1.0)
    login = pb.LoginRequest(username=name, password=PASSWORD)
    assert (await refused(shared.stranger, "Login", login)).reason == "INVALID_CREDENTIALS"
    renewal = pb.RefreshSessionRequest(refresh_token=caller.refresh_token)
    assert (await refused(shared.stranger, "RefreshSession", renewal)).code == "UNAUTHENTICATED"
    await root.UpdateUser(_update(name, "status", status=pb.USER_STATUS_ACTIVE))
    assert await ended(caller)
    await shared.log_in(name)


async def test_a_deleted_user_is_removed_and_the_name_is_free(shared: IdentityServer, root: Caller) -> None:
    name = _name()
    caller = await shared.user(root, name, ("viewer", ""))
    before = (await root.GetUser(pb.GetUserRequest(username=name))).user
    await root.DeleteUser(pb.DeleteUserRequest(username=name))
    assert await poll_until(lambda: ended(caller), seconds=1.0)
    missing = await refused(root, "GetUser", pb.GetUserRequest(username=name))
    assert (missing.code, missing.reason) == ("NOT_FOUND", "USER_NOT_FOUND")
    login = pb.LoginRequest(username=name, password=PASSWORD)
    assert (await refused(shared.stranger, "Login", login)).reason == "INVALID_CREDENTIALS"
    again = await shared.user(root, name)
    me = await again.WhoAmI(pb.WhoAmIRequest())
    assert me.user.uid != before.uid
    assert not me.grants


async def test_a_user_may_delete_its_own_account(shared: IdentityServer, root: Caller) -> None:
    name = _name()
    caller = await shared.user(root, name, ("admin", ""))
    await caller.DeleteUser(pb.DeleteUserRequest(username=name))
    assert await poll_until(lambda: ended(caller), seconds=1.0)
    assert (await refused(root, "GetUser", pb.GetUserRequest(username=name))).code == "NOT_FOUND"


async def test_a_password_reset_ends_the_sessions(shared: IdentityServer, root: Caller) -> None:
    name = _name()
    caller = await shared.user(root, name)
    await root.ResetPassword(pb.ResetPasswordRequest(username=name, new_password="quite another one"))
    assert await poll_until(lambda: ended(caller), seconds=1.0)
    await shared.log_in(name, "quite another one")
    own = await refused(
        root, "ResetPassword", pb.ResetPasswordRequest(username="Admin", new_password="quite another one")
    )
    assert (own.code, own.reason) == ("FAILED_PRECONDITION", "OWN_PASSWORD")


async def test_a_login_during_a_reset_leaves_no_session(shared: IdentityServer, root: Caller) -> None:
    name = _name()
    await shared.user(root, name, log_in=False)
    login = pb.LoginRequest(username=name, password=PASSWORD)
    reset = pb.ResetPasswordRequest(username=name, new_password="quite another one")
    outcomes = await asyncio.gather(
        *(shared.stranger.Login(login) for _ in range(3)),
        root.ResetPassword(reset),
        *(shared.stranger.Login(login) for _ in range(3)),
        return_exceptions=True,
    )
    assert outcomes[3] == pb.ResetPasswordResponse()
    begun = [each for each in outcomes if isinstance(each, pb.LoginResponse)]
    assert len(begun) + sum(isinstance(each, Refused) for each in outcomes) == 6
    # If all six logins came after the reset, the next login waits for its turn.
    last = await poll_until(
        lambda: refused(shared.stranger, "Login", login), lambda last: last.code != "RESOURCE_EXHAUSTED"
    )
    assert last.code == "UNAUTHENTICATED"
    for answer in begun:
        caller = Caller(shared.stub, answer.access_token)
        assert await poll_until(lambda caller=caller: ended(caller))  # type: ignore[misc]


async def test_a_request_id_makes_a_change_only_once(root: Caller) -> None:
    name = _name()
    request = _create(name)
    request.request_id = str(uuid4())
    first = await root.CreateUser(request)
    assert await root.CreateUser(request) == first
    request.user.full_name = "Another"
    assert (await refused(root, "CreateUser", request)).reason == "REQUEST_ID_REUSED"


async def test_validate_only_checks_and_changes_nothing(root: Caller) -> None:
    name = _name()
    request = _create(name)
    request.validate_only = True
    assert (await root.CreateUser(request)).user.username == name
    assert (await refused(root, "GetUser", pb.GetUserRequest(username=name))).code == "NOT_FOUND"
    await root.CreateUser(_create(name))
    assert (await refused(root, "CreateUser", request)).code == "ALREADY_EXISTS"
    await root.DeleteUser(pb.DeleteUserRequest(username=name, validate_only=True))
    assert (await root.GetUser(pb.GetUserRequest(username=name))).user.username == name


async def test_users_are_listed_by_filter_in_pages(root: Caller) -> None:
    names = sorted(_name("listed") for _ in range(5))
    for name in names:
        await root.CreateUser(_create(name))
    await root.UpdateUser(_update(names[0], "status", status=pb.USER_STATUS_LOCKED))
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListUsersRequest(
            page_size=2, page_token=token, filter="username = listed* AND status = ACTIVE"
        )
        page = await root.ListUsers(request)
        seen += [user.username for user in page.users]
        token = page.next_page_token
        if not token:
            break
    assert seen == names[1:]
    newest = await root.ListUsers(pb.ListUsersRequest(page_size=1, order_by="create_time desc"))
    assert newest.users[0].username == names[-1]
    other = pb.ListUsersRequest(page_size=1, page_token=newest.next_page_token)
    assert (await refused(root, "ListUsers", other)).code == "INVALID_ARGUMENT"
    unknown = pb.ListUsersRequest(filter="password_hash = x")
    assert (await refused(root, "ListUsers", unknown)).code == "INVALID_ARGUMENT"


async def test_the_last_administrator_cannot_be_removed(server: IdentityServer, admin: Caller) -> None:
    second = await server.user(admin, "second", ("admin", ""))
    await server.user(admin, "brief", log_in=False)
    inactive = _update("admin", "status", status=pb.USER_STATUS_INACTIVE)
    await second.UpdateUser(inactive)
    assert await poll_until(lambda: ended(admin))
    revoke = pb.RevokeRoleRequest(username="second", role="admin")
    shorter = pb.GrantRoleRequest(username="second", role="admin")
    shorter.expire_time.FromSeconds(4_000_000_000)
    off = _update("second", "status", status=pb.USER_STATUS_LOCKED)
    for rpc, request in (
        ("DeleteUser", pb.DeleteUserRequest(username="second")),
        ("UpdateUser", off),
        ("RevokeRole", revoke),
        ("GrantRole", shorter),
    ):
        refusal = await refused(second, rpc, request)
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "LAST_ADMINISTRATOR"), rpc
    # An administrator with a temporary grant does not count.
    shorter.username = "brief"
    await second.GrantRole(shorter)
    assert (await refused(second, "RevokeRole", revoke)).reason == "LAST_ADMINISTRATOR"
    await second.GrantRole(pb.GrantRoleRequest(username="brief", role="admin"))
    await second.RevokeRole(revoke)
    # Either the server refuses first, or the database, which no longer shows any users.
    refusal = await refused(second, "DeleteUser", pb.DeleteUserRequest(username="brief"))
    assert refusal.code in ("PERMISSION_DENIED", "NOT_FOUND")


async def test_administrators_cannot_delete_each_other_concurrently(
    server: IdentityServer, admin: Caller
) -> None:
    second = await server.user(admin, "second", ("admin", ""))
    outcomes = await asyncio.gather(
        admin.DeleteUser(pb.DeleteUserRequest(username="second")),
        second.DeleteUser(pb.DeleteUserRequest(username="admin")),
        return_exceptions=True,
    )
    assert sum(isinstance(each, pb.DeleteUserResponse) for each in outcomes) == 1
    assert [await valid(each) for each in (admin, second)].count(True) == 1


async def test_changes_are_recorded_without_passwords(shared: IdentityServer, root: Caller) -> None:
    name = _name("recorded")
    await root.CreateUser(_create(name))
    await root.ResetPassword(pb.ResetPasswordRequest(username=name, new_password="quite another one"))
    await root.DeleteUser(pb.DeleteUserRequest(username=name))
    async with shared.database.system() as connection:
        await number_changes(connection)
        rows = await connection.fetch(
            "SELECT action, log::text AS everything FROM operation_logs AS log "
            "WHERE resource_type = 'user' AND resource_name = $1 ORDER BY sequence",
            name,
        )
    assert [row["action"] for row in rows] == ["create", "reset", "delete"]
    text = " ".join(row["everything"] for row in rows)
    for secret in (PASSWORD, "quite another one", ADMIN_PASSWORD, "argon2"):
        assert secret not in text
