"""Roles and grants: their permissions, namespaces and expiry.

No caller grants more than it has.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.identity.v1 import identity_pb2 as pb
from tests.conftest import connection, number_changes
from tests.identity.server import Caller, IdentityServer, ended, refused
from tests.waiting import patient, poll_until

_numbers = count(1)


def _name(word: str = "thing") -> str:
    return f"{word}{next(_numbers)}"


def _in(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return moment


def _grant(
    username: str, role: str, namespace: str = "", expires: Timestamp | None = None
) -> pb.GrantRoleRequest:
    return pb.GrantRoleRequest(username=username, role=role, namespace=namespace, expire_time=expires)


def _update_role(name: str, *permissions: str) -> pb.UpdateRoleRequest:
    return pb.UpdateRoleRequest(
        name=name,
        role=pb.Role(permissions=permissions, display_name="x"),
        update_mask=FieldMask(paths=["permissions"]),
    )


async def _can(caller: Caller, permission: str, namespace: str = "", username: str = "") -> bool:
    request = pb.CheckPermissionRequest(permission=permission, namespace=namespace, username=username)
    return bool((await caller.CheckPermission(request)).allowed)


async def test_shipped_roles_are_as_documented(root: Caller) -> None:
    roles = {
        role.name: role for role in (await root.ListRoles(pb.ListRolesRequest())).roles if role.is_system
    }
    assert set(roles) == {"admin", "operator", "developer", "responder", "observer", "viewer", "auditor"}
    assert list(roles["admin"].permissions) == ["*"]
    for name in ("operator", "developer"):
        excluded = {
            "config.reveal",
            "storage.host_path",
            "container.privileged",
            "object.privileged",
            "object.rbac",
        }
        assert set(roles[name].excluded_permissions) == excluded
    for request in (
        ("UpdateRole", _update_role("viewer", "*")),
        ("DeleteRole", pb.DeleteRoleRequest(name="viewer")),
    ):
        refusal = await refused(root, *request)
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "SYSTEM_ROLE")


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (
            "operator",
            "container.exec storage.create config.delete namespace.create namespace.quota namespace.security "
            "cluster.get metrics.record audit.watch",
            "config.reveal container.privileged config.* user.get role.list grant.list cluster.update audit.export "
            "image.delete *",
        ),
        (
            "developer",
            "container.exec container.create config.create namespace.watch metrics.query audit.list image.list",
            "config.reveal container.privileged container.* namespace.create namespace.quota cluster.get "
            "metrics.record audit.export grant.create",
        ),
        (
            "viewer",
            "container.get storage.watch config.list namespace.list metrics.query audit.get image.get",
            "container.logs container.exec config.reveal container.create storage.* user.get grant.list",
        ),
    ],
)
async def test_a_shipped_role_gives_its_permissions(
    shared: IdentityServer, root: Caller, role: str, may: str, may_not: str
) -> None:
    caller = await shared.user(root, _name("holder"), (role, ""))
    for permission in may.split():
        assert await _can(caller, permission), permission
    for permission in may_not.split():
        assert not await _can(caller, permission), permission
    mine = set((await caller.WhoAmI(pb.WhoAmIRequest())).permissions)
    assert "config.reveal" not in mine
    assert "config.*" not in mine
    assert "config.get" in mine


async def test_roles_are_created_changed_and_deleted(root: Caller) -> None:
    name = _name("role")
    request = pb.CreateRoleRequest(role=pb.Role(name=name, permissions=["audit.get", "audit.get", "user.*"]))
    created = (await root.CreateRole(request)).role
    assert (created.display_name, list(created.permissions)) == (name, ["audit.get", "user.*"])
    assert not created.is_system
    assert (await refused(root, "CreateRole", request)).reason == "ROLE_ALREADY_EXISTS"
    changed = (await root.UpdateRole(_update_role(name, "audit.list"))).role
    assert (changed.display_name, list(changed.permissions)) == (name, ["audit.list"])
    stale = _update_role(name, "*")
    stale.etag = created.etag
    assert (await refused(root, "UpdateRole", stale)).code == "ABORTED"
    assert (await root.GetRole(pb.GetRoleRequest(name=name))).role == changed
    listed = (await root.ListRoles(pb.ListRolesRequest(filter=f"name = {name} AND is_system = false"))).roles
    assert list(listed) == [changed]
    await root.DeleteRole(pb.DeleteRoleRequest(name=name))
    assert (await refused(root, "GetRole", pb.GetRoleRequest(name=name))).reason == "ROLE_NOT_FOUND"


async def test_a_role_accepts_only_existing_permissions(shared: IdentityServer, root: Caller) -> None:
    name = _name("role")
    for wrong in ("container.gett", "kontainer.get", "kontainer.*"):
        role = pb.Role(name=name, permissions=["container.get", wrong])
        refusal = await refused(root, "CreateRole", pb.CreateRoleRequest(role=role))
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "UNKNOWN_PERMISSION"), wrong
        assert "role.permissions" in refusal.message
    forms = ["container.*", "config.use", "namespace.quota"]
    await root.CreateRole(pb.CreateRoleRequest(role=pb.Role(name=name, permissions=forms)))
    refusal = await refused(root, "UpdateRole", _update_role(name, "container.gett"))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "UNKNOWN_PERMISSION")
    assert list((await root.GetRole(pb.GetRoleRequest(name=name))).role.permissions) == forms
    # An unknown permission that is already stored may stay, and does not block other changes.
    async with connection(shared.database.admin_dsn) as sql:
        await sql.execute("""UPDATE roles SET permissions = '["container.gett"]' WHERE name = $1""", name)
    changed = await root.UpdateRole(_update_role(name, "container.gett", "container.get"))
    assert list(changed.role.permissions) == ["container.gett", "container.get"]
    assert (await refused(root, "UpdateRole", _update_role(name, "container.put"))).code == "INVALID_ARGUMENT"
    await root.UpdateRole(_update_role(name, "container.get"))


async def test_a_role_in_use_cannot_be_deleted(shared: IdentityServer, root: Caller) -> None:
    role, username = _name("role"), _name("user")
    await shared.role(root, role, "audit.get")
    await shared.user(root, username, (role, ""), log_in=False)
    refusal = await refused(root, "DeleteRole", pb.DeleteRoleRequest(name=role))
    assert (refusal.code, refusal.reason, refusal.metadata["grants"]) == (
        "FAILED_PRECONDITION",
        "ROLE_IN_USE",
        "1",
    )
    await root.RevokeRole(pb.RevokeRoleRequest(username=username, role=role))
    await root.DeleteRole(pb.DeleteRoleRequest(name=role))


async def test_a_grant_works_in_its_namespace_until_it_is_revoked(
    shared: IdentityServer, root: Caller
) -> None:
    here, there, username = _name("ns"), _name("ns"), _name("user")
    for name in (here, there):
        await shared.namespace(name)
    caller = await shared.user(root, username)
    granted = (await root.GrantRole(_grant(username, "developer", here))).grant
    assert (granted.username, granted.role, granted.namespace) == (username, "developer", here)
    assert granted.assigned_by == "admin"

    async def may() -> bool:
        return await _can(caller, "container.create", here)

    async def may_not() -> bool:
        return not await may()

    assert await poll_until(may, seconds=1.0)
    for namespace in (there, "", "missing"):
        assert not await _can(caller, "container.create", namespace)
    await root.RevokeRole(pb.RevokeRoleRequest(username=username, role="developer", namespace=here))
    assert await poll_until(may_not, seconds=1.0)
    for namespace in (here, ""):
        again = pb.RevokeRoleRequest(username=username, role="developer", namespace=namespace)
        assert (await refused(root, "RevokeRole", again)).reason == "ROLE_GRANT_NOT_FOUND"


async def test_a_grant_expires_and_may_be_renewed(shared: IdentityServer, root: Caller) -> None:
    username = _name("user")
    caller = await shared.user(root, username)
    # Long enough for the test to see the grant in effect before it expires.
    await root.GrantRole(_grant(username, "viewer", expires=_in(patient(0.5))))

    async def may() -> bool:
        return await _can(caller, "container.get")

    async def may_not() -> bool:
        return not await may()

    assert await poll_until(may, seconds=0.5)
    assert await poll_until(may_not, seconds=2.0)
    assert not (await caller.WhoAmI(pb.WhoAmIRequest())).grants
    await root.GrantRole(_grant(username, "viewer", expires=_in(3600)))
    longer = (await root.GrantRole(_grant(username, "viewer"))).grant
    assert not longer.HasField("expire_time")
    assert await poll_until(may, seconds=1.0)
    # The last microsecond of a Timestamp cannot be stored.
    for never in (_in(-1), Timestamp(seconds=253_402_300_799, nanos=999_999_000)):
        assert (await refused(root, "GrantRole", _grant(username, "viewer", expires=never))).fields == [
            "expire_time"
        ]
    last = (
        await root.GrantRole(
            _grant(username, "viewer", expires=Timestamp(seconds=253_402_300_799, nanos=999_998_999))
        )
    ).grant
    assert last.expire_time.nanos == 999_998_000


async def test_a_missing_user_role_or_namespace_is_reported(shared: IdentityServer, root: Caller) -> None:
    username = _name("user")
    await shared.user(root, username, log_in=False)
    for request, reason in (
        (_grant("nobody-here", "viewer"), "USER_NOT_FOUND"),
        (_grant(username, "no-role"), "ROLE_NOT_FOUND"),
        (_grant(username, "viewer", "no-namespace"), "NAMESPACE_NOT_FOUND"),
    ):
        refusal = await refused(root, "GrantRole", request)
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", reason)


async def test_a_namespace_administrator_grants_only_in_its_namespace(
    shared: IdentityServer, root: Caller
) -> None:
    here, there = _name("ns"), _name("ns")
    for name in (here, there):
        await shared.namespace(name)
    chief = await shared.user(root, _name("chief"), ("admin", here))
    peer, stranger = _name("peer"), _name("stranger")
    await shared.user(root, peer, ("viewer", here), log_in=False)
    await shared.user(root, stranger, ("viewer", there), log_in=False)
    await chief.GrantRole(_grant(peer, "developer", here))
    assert await _can(root, "container.create", here, username=peer)
    foreign = await refused(chief, "GrantRole", _grant(peer, "developer", there))
    missing = await refused(chief, "GrantRole", _grant(peer, "developer", "missing"))
    assert (
        (foreign.code, foreign.reason)
        == (missing.code, missing.reason)
        == ("NOT_FOUND", "NAMESPACE_NOT_FOUND")
    )
    assert foreign.message.replace(there, "*") == missing.message.replace("missing", "*")
    unseen = await refused(chief, "GrantRole", _grant(stranger, "developer", here))
    nobody = await refused(chief, "GrantRole", _grant("nobody-here", "developer", here))
    assert unseen.message.replace(stranger, "*") == nobody.message.replace("nobody-here", "*")
    assert (await refused(chief, "GrantRole", _grant(peer, "developer"))).code == "PERMISSION_DENIED"
    listed = (await chief.ListRoleGrants(pb.ListRoleGrantsRequest())).role_grants
    assert {grant.namespace for grant in listed} == {here}
    of_one = pb.ListRoleGrantsRequest(namespace=here, filter=f"username = {peer}")
    roles = [grant.role for grant in (await chief.ListRoleGrants(of_one)).role_grants]
    assert roles == ["viewer", "developer"]
    elsewhere = pb.ListRoleGrantsRequest(namespace=there)
    assert (await refused(chief, "ListRoleGrants", elsewhere)).code == "NOT_FOUND"
    await chief.RevokeRole(pb.RevokeRoleRequest(username=peer, role="developer", namespace=here))


async def test_no_caller_gives_permissions_that_it_lacks(shared: IdentityServer, root: Caller) -> None:
    clerk_role, narrow = _name("clerk"), _name("narrow")
    held = ("user.*", "role.*", "grant.*", "audit.get")
    await shared.role(root, clerk_role, *held)
    await shared.role(root, narrow, "audit.get")
    name, other, chief = _name("clerk"), _name("user"), _name("chief")
    clerk = await shared.user(root, name, (clerk_role, ""))
    await shared.user(root, other, log_in=False)
    await shared.user(root, chief, ("viewer", ""), log_in=False)
    too_much = pb.CreateRoleRequest(role=pb.Role(name=_name("role"), permissions=["audit.list"]))
    password = pb.ResetPasswordRequest(username=chief, new_password="quite another one")
    email = pb.UpdateUserRequest(
        username=chief, user=pb.User(email="x@example.org"), update_mask=FieldMask(paths=["email"])
    )
    for rpc, request, permission in (
        ("CreateRole", too_much, "audit.list"),
        ("UpdateRole", _update_role(narrow, "audit.*"), "audit.*"),
        ("UpdateRole", _update_role(narrow, "*"), "*"),
        ("GrantRole", _grant(other, "viewer"), ""),
        ("GrantRole", _grant(name, "admin"), "*"),
        ("ResetPassword", password, ""),
        ("UpdateUser", email, ""),
        ("DeleteUser", pb.DeleteUserRequest(username=chief), ""),
    ):
        refusal = await refused(clerk, rpc, request)
        assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "ESCALATION"), rpc
        assert permission in ("", refusal.metadata["permission"])
    # The grants of a locked user still count, because the user can be unlocked.
    await root.UpdateUser(
        pb.UpdateUserRequest(
            username=chief,
            user=pb.User(status=pb.USER_STATUS_LOCKED),
            update_mask=FieldMask(paths=["status"]),
        )
    )
    assert (await refused(clerk, "ResetPassword", password)).reason == "ESCALATION"
    await clerk.CreateRole(pb.CreateRoleRequest(role=pb.Role(name=_name("role"), permissions=["user.get"])))
    await clerk.GrantRole(_grant(other, narrow))
    await clerk.ResetPassword(pb.ResetPasswordRequest(username=other, new_password="quite another one"))


async def test_a_temporary_grant_cannot_be_extended_by_its_holder(
    shared: IdentityServer, root: Caller
) -> None:
    name, other = _name("brief"), _name("user")
    brief = await shared.user(root, name)
    await shared.user(root, other, log_in=False)
    until = _in(3600)
    await root.GrantRole(_grant(name, "admin", expires=until))

    async def promoted() -> bool:
        return await _can(brief, "*")

    assert await poll_until(promoted)
    for request in (
        _grant(name, "admin"),
        _grant(other, "viewer"),
        _grant(name, "admin", expires=_in(7200)),
    ):
        assert (await refused(brief, "GrantRole", request)).reason == "ESCALATION"
    await brief.GrantRole(_grant(other, "viewer", expires=until))
    reset = pb.ResetPasswordRequest(username="admin", new_password="quite another one")
    assert (await refused(brief, "ResetPassword", reset)).reason == "ESCALATION"


async def test_an_operator_may_grant_the_developer_role_with_equal_exclusions(
    shared: IdentityServer, root: Caller
) -> None:
    granting, revealing = _name("granting"), _name("revealing")
    await shared.role(root, granting, "grant.*")
    await shared.role(root, revealing, "config.reveal")
    other = _name("user")
    await shared.user(root, other, log_in=False)
    operator = await shared.user(root, _name("operator"), ("operator", ""), (granting, ""))
    await operator.GrantRole(_grant(other, "developer"))
    assert (await refused(operator, "GrantRole", _grant(other, revealing))).reason == "ESCALATION"


async def test_a_changed_role_applies_to_its_holders_within_a_second(
    shared: IdentityServer, root: Caller
) -> None:
    role = _name("role")
    await shared.role(root, role, "audit.get")
    caller = await shared.user(root, _name("user"), (role, ""))
    assert await _can(caller, "audit.get")
    await root.UpdateRole(_update_role(role, "audit.list"))

    async def changed() -> bool:
        return await _can(caller, "audit.list") and not await _can(caller, "audit.get")

    assert await poll_until(changed, seconds=1.0)


async def test_the_last_role_with_all_permissions_cannot_lose_them(
    server: IdentityServer, admin: Caller
) -> None:
    await server.role(admin, "everything", "*")
    second = await server.user(admin, "second", ("everything", ""))
    await second.DeleteUser(pb.DeleteUserRequest(username="admin"))
    assert await poll_until(lambda: ended(admin), seconds=1.0)
    refusal = await refused(second, "UpdateRole", _update_role("everything", "audit.get"))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "LAST_ADMINISTRATOR")


async def test_checking_other_users_needs_user_get_in_all_namespaces(
    shared: IdentityServer, root: Caller
) -> None:
    name, here = _name("user"), _name("ns")
    await shared.namespace(here)
    caller = await shared.user(root, name, ("admin", here))
    # Users belong to the platform: the grant includes `user.get`, but no method accepts it in one namespace.
    assert not await _can(caller, "user.get", here)
    about = pb.CheckPermissionRequest(permission="audit.get", username="admin")
    refusal = await refused(caller, "CheckPermission", about)
    assert (refusal.code, refusal.metadata["permission"]) == ("PERMISSION_DENIED", "user.get")
    assert await _can(caller, "audit.get", here, username=name.upper())
    assert await _can(root, "audit.get", here, username=name)
    assert not await _can(root, "audit.get", username=name)
    assert not await _can(root, "audit.get", "missing")
    assert await _can(root, "audit.*", here)
    missing = pb.CheckPermissionRequest(permission="audit.get", username="nobody-here")
    assert (await refused(root, "CheckPermission", missing)).reason == "USER_NOT_FOUND"


async def test_a_role_without_permissions_gives_no_access(shared: IdentityServer, root: Caller) -> None:
    role, here = _name("role"), _name("ns")
    await shared.namespace(here)
    await shared.role(root, role)
    caller = await shared.user(root, _name("user"), (role, here))
    request = pb.ListRoleGrantsRequest(namespace=here)
    assert (await refused(caller, "ListRoleGrants", request)).code == "NOT_FOUND"


async def test_grants_are_recorded_in_their_namespace(shared: IdentityServer, root: Caller) -> None:
    here, username = _name("ns"), _name("user")
    namespace_id = await shared.namespace(here)
    await shared.user(root, username, ("viewer", here), log_in=False)
    await root.RevokeRole(pb.RevokeRoleRequest(username=username, role="viewer", namespace=here))
    async with shared.database.system() as connection:
        await number_changes(connection)
        rows = await connection.fetch(
            "SELECT action, resource_name, metadata ->> 'role' AS role FROM operation_logs "
            "WHERE namespace_id = $1 ORDER BY sequence",
            namespace_id,
        )
    assert [tuple(row) for row in rows] == [("grant", username, "viewer"), ("revoke", username, "viewer")]
