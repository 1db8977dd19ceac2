"""Explanations of permissions, their holders, and the changes of a grant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import permissions_pb2 as permissions
from tests.identity.server import Caller, IdentityServer, refused

_numbers = count(1)


def _name(word: str = "thing") -> str:
    return f"{word}{next(_numbers)}"


def _in(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return moment


async def _why(
    caller: Caller, permission: str = "", namespace: str = "", username: str = "", method: str = ""
) -> permissions.ExplainPermissionResponse:
    request = permissions.ExplainPermissionRequest(
        permission=permission, namespace=namespace, username=username, method=method
    )
    answer: permissions.ExplainPermissionResponse = await caller.ExplainPermission(request)
    return answer


async def _ended_grant(shared: IdentityServer, username: str, role: str, namespace_id: int | None) -> None:
    """Makes a grant that expired an hour ago.

    The row of an expired grant remains until the role is granted again.
    """
    async with shared.database.system() as connection:
        await connection.execute(
            "INSERT INTO user_roles (user_id, role_id, namespace_id, expires_at) "
            "SELECT u.id, r.id, $3, now() - interval '1 hour' FROM users u, roles r "
            "WHERE u.username = $1 AND r.name = $2",
            username,
            role,
            namespace_id,
        )


async def test_an_unknown_permission_is_refused_by_name(shared: IdentityServer, root: Caller) -> None:
    """Regression: unknown permissions were not refused.

    Holders of every permission got the response yes, and other users no.
    """
    caller = await shared.user(root, _name("user"))
    for who in (root, caller):
        for permission, near in (
            ("container.dlete", "container.delete"),
            ("contaner.delete", "container.delete"),
            ("container.remove", "container.create"),
            ("containers.*", ""),
            ("nothing.at_all", ""),
        ):
            for rpc, request in (
                ("CheckPermission", pb.CheckPermissionRequest(permission=permission)),
                ("ExplainPermission", permissions.ExplainPermissionRequest(permission=permission)),
            ):
                refusal = await refused(who, rpc, request)
                assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "UNKNOWN_PERMISSION"), (
                    permission
                )
                assert refusal.fields == ["permission"]
                assert near in refusal.message
    refusal = await refused(root, "ListPrincipals", permissions.ListPrincipalsRequest(permission="pod.get"))
    assert refusal.reason == "UNKNOWN_PERMISSION"
    for request in (
        permissions.ExplainPermissionRequest(permission="container.*"),
        permissions.ExplainPermissionRequest(permission="*"),
    ):
        assert (await refused(root, "ExplainPermission", request)).reason == "ONE_PERMISSION"
    for known in ("container.*", "*", "container.get", "config.use", "namespace.quota"):
        assert (await root.CheckPermission(pb.CheckPermissionRequest(permission=known))).allowed


async def test_methods_are_recognised_by_every_form_of_their_name(root: Caller) -> None:
    for name in (
        "GetContainer",
        "pilothouse.container.v1.ContainerService.GetContainer",
        "/pilothouse.container.v1.ContainerService/GetContainer",
    ):
        answer = await _why(root, method=name, namespace="anything")
        assert answer.permission == "container.get"
    unknown = permissions.ExplainPermissionRequest(method="GetContaner")
    refusal = await refused(root, "ExplainPermission", unknown)
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "UNKNOWN_METHOD")
    assert "GetContainer" in refusal.message
    nowhere = permissions.ExplainPermissionRequest(method="GetContainer")
    assert (await refused(root, "ExplainPermission", nowhere)).fields == ["namespace"]
    for request in (
        permissions.ExplainPermissionRequest(),
        permissions.ExplainPermissionRequest(permission="container.get", method="GetContainer"),
    ):
        assert (await refused(root, "ExplainPermission", request)).reason == "ONE_QUESTION"
    assert (await _why(root, method="WhoAmI")).summary == "WhoAmI needs no permission: every user may call it"
    assert "everybody" in (await _why(root, method="Login")).summary


async def test_an_explanation_names_the_grant_that_allows(shared: IdentityServer, root: Caller) -> None:
    here, username = _name("ns"), _name("user")
    await shared.namespace(here)
    caller = await shared.user(root, username, ("viewer", here))
    until = _in(3600)
    await root.GrantRole(
        pb.GrantRoleRequest(username=username, role="developer", namespace=here, expire_time=until)
    )
    answer = await _why(root, "container.delete", here, username)
    assert answer.allowed
    assert [(grant.role, grant.namespace, grant.expire_time.seconds) for grant in answer.grants] == [
        ("developer", here, until.seconds)
    ]
    assert answer.summary == (
        f'container.delete in namespace "{here}" is allowed by role "developer" in namespace "{here}", '
        f"until {until.ToDatetime():%Y-%m-%dT%H:%M:%SZ}"
    )
    assert (await _why(caller, "container.get", here)).grants[0].role == "viewer"


async def test_a_denial_names_its_reason_and_the_users_who_could_grant(
    shared: IdentityServer, root: Caller
) -> None:
    here, there = _name("ns"), _name("ns")
    namespace_id = await shared.namespace(here)
    await shared.namespace(there)
    username, chief = _name("user"), _name("chief")
    caller = await shared.user(root, username, ("viewer", here), ("developer", there))
    await shared.user(root, chief, ("admin", here), log_in=False)
    answer = await _why(caller, "container.delete", here)
    assert (answer.allowed, answer.denial) == (False, permissions.DENIAL_ELSEWHERE)
    assert [(grant.role, grant.namespace, grant.denial) for grant in answer.grants] == [
        ("developer", there, permissions.DENIAL_ELSEWHERE)
    ]
    # The narrowest shipped role that suffices. A tenant does not see the platform's administrators.
    assert [(giver.username, giver.roles[0]) for giver in answer.givers] == [(chief, "developer")]
    assert answer.summary.endswith(f'you hold it only in namespace "{there}"; {chief} could grant it')
    await _ended_grant(shared, username, "operator", namespace_id)
    ended = await _why(caller, "container.delete", here)
    assert ended.denial == permissions.DENIAL_EXPIRED
    assert 'your grant of role "operator"' in ended.summary
    excluded = await _why(caller, "config.reveal", there)
    assert excluded.denial == permissions.DENIAL_EXCLUDED
    assert [giver.username for giver in excluded.givers] == []
    guarded = await _why(caller, "namespace.quota", here)
    assert [giver.username for giver in guarded.givers] == []
    others = await _why(root, "config.reveal", there, username)
    assert [giver.username for giver in others.givers] == ["admin"]
    assert others.summary.startswith(
        f'config.reveal in namespace "{there}" is not allowed: {username}\'s role'
    )


async def test_only_users_who_could_grant_are_listed_as_givers(shared: IdentityServer, root: Caller) -> None:
    here = _name("ns")
    await shared.namespace(here)
    username = _name("user")
    caller = await shared.user(root, username, ("viewer", here))
    giving, narrow = _name("giving"), _name("narrow")
    await shared.role(root, giving, "grant.create")
    await shared.role(root, narrow, "container.stop")
    powerless, able, gone = _name("powerless"), _name("able"), _name("gone")
    # May create grants, but does not have the permission.
    await shared.user(root, powerless, (giving, here), log_in=False)
    # Has both permissions, by two grants together.
    await shared.user(root, able, (giving, here), (narrow, here), log_in=False)
    await shared.user(root, gone, ("admin", here), log_in=False)
    await root.UpdateUser(
        pb.UpdateUserRequest(
            username=gone,
            user=pb.User(status=pb.USER_STATUS_INACTIVE),
            update_mask=FieldMask(paths=["status"]),
        )
    )
    answer = await _why(caller, "container.stop", here)
    # A custom role is named only to callers that may list roles.
    assert [(giver.username, list(giver.roles)) for giver in answer.givers] == [(able, [])]
    asked = await _why(root, "container.stop", here, username)
    assert (asked.givers[0].username, list(asked.givers[0].roles)) == (able, [narrow])
    # The named role can indeed be granted.
    await root.GrantRole(pb.GrantRoleRequest(username=username, role=narrow, namespace=here))


async def test_a_caller_that_cannot_read_grants_sees_no_details_of_others(
    shared: IdentityServer, root: Caller
) -> None:
    role, username, here = _name("role"), _name("user"), _name("ns")
    await shared.namespace(here)
    await shared.role(root, role, "user.get")
    asking = await shared.user(root, _name("asking"), (role, ""))
    await shared.user(root, username, ("developer", here), log_in=False)
    allowed = await _why(asking, "container.get", here, username)
    assert (allowed.allowed, list(allowed.grants)) == (True, [])
    assert allowed.summary == f'container.get in namespace "{here}" is allowed'
    denied = await _why(asking, "config.reveal", here, username)
    assert (denied.denial, list(denied.grants)) == (permissions.DENIAL_EXCLUDED, [])
    assert "developer" not in denied.summary
    tenant = await shared.user(root, _name("tenant"), ("admin", here))
    request = permissions.ExplainPermissionRequest(permission="container.get", username=username)
    assert (await refused(tenant, "ExplainPermission", request)).metadata["permission"] == "user.get"


async def test_a_locked_user_has_no_permissions(shared: IdentityServer, root: Caller) -> None:
    username = _name("user")
    await shared.user(root, username, ("admin", ""), log_in=False)
    await root.UpdateUser(
        pb.UpdateUserRequest(
            username=username,
            user=pb.User(status=pb.USER_STATUS_LOCKED),
            update_mask=FieldMask(paths=["status"]),
        )
    )
    answer = await _why(root, "container.get", username=username)
    assert (answer.allowed, answer.denial) == (False, permissions.DENIAL_USER_INACTIVE)


async def test_a_permission_of_the_platform_is_not_held_in_a_namespace(
    shared: IdentityServer, root: Caller
) -> None:
    here = _name("ns")
    await shared.namespace(here)
    chief = await shared.user(root, _name("chief"), ("admin", here))
    for permission in ("user.get", "cluster.delete", "user.*", "namespace.quota", "namespace.create"):
        request = pb.CheckPermissionRequest(permission=permission, namespace=here)
        assert not (await chief.CheckPermission(request)).allowed, permission
        assert (await root.CheckPermission(request)).allowed, permission
    answer = await _why(chief, "user.get", here)
    assert answer.denial == permissions.DENIAL_OVER_ALL_NAMESPACES


async def test_a_refusal_contains_the_explanation(shared: IdentityServer, root: Caller) -> None:
    here = _name("ns")
    await shared.namespace(here)
    chief = _name("chief")
    caller = await shared.user(root, _name("user"), ("viewer", here))
    await shared.user(root, chief, ("admin", here), log_in=False)
    refusal = await refused(caller, "ListRoleGrants", pb.ListRoleGrantsRequest(namespace=here))
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert refusal.metadata == {
        "permission": "grant.list",
        "namespace": here,
        "why": "NO_GRANT",
        "ask": chief,
    }
    why = await _why(caller, method="ListRoleGrants", namespace=here)
    assert refusal.message == (
        f'permission grant.list is needed in namespace "{here}" '
        f'(your role "viewer" there does not hold it; {chief} could grant it)'
    )
    assert why.summary.partition(": ")[2] in refusal.message
    platform = await refused(caller, "ListUsers", pb.ListUsersRequest())
    assert platform.metadata == {"permission": "user.list", "why": "NO_GRANT"}
    nobody = await shared.user(root, _name("nobody"))
    unseen = await refused(nobody, "ListUsers", pb.ListUsersRequest())
    assert unseen.message == "permission user.list is needed (you have no grant over all namespaces)"
    by_handler = await refused(
        caller, "CheckPermission", pb.CheckPermissionRequest(permission="image.get", username="admin")
    )
    assert by_handler.metadata == {"permission": "user.get", "why": "NO_GRANT"}


@pytest.mark.parametrize("order_by", ["", "create_time desc"])
async def test_principals_are_paged_filtered_and_limited_to_visible_namespaces(
    shared: IdentityServer, root: Caller, order_by: str
) -> None:
    here, there = _name("ns"), _name("ns")
    await shared.namespace(here)
    await shared.namespace(there)
    users = [_name("holder") for _ in range(5)]
    for username in users:
        await shared.user(
            root, username, ("developer", here), ("viewer", here), ("viewer", there), log_in=False
        )
    chief = await shared.user(root, _name("chief"), ("admin", here))

    async def everybody(caller: Caller, namespace: str, filter_: str = "") -> list[tuple[str, str, str]]:
        found, token = [], ""
        while True:
            answer = await caller.ListPrincipals(
                permissions.ListPrincipalsRequest(
                    permission="container.get",
                    namespace=namespace,
                    page_size=3,
                    page_token=token,
                    filter=filter_,
                    order_by=order_by,
                )
            )
            assert answer.partial is (caller is chief)
            found += [(item.username, item.role, item.namespace) for item in answer.principals]
            token = answer.next_page_token
            if not token:
                return found

    of_here = await everybody(chief, here)
    assert len(of_here) == len(set(of_here)) == 11
    assert {namespace for _, _, namespace in of_here} == {here}
    assert set(await everybody(chief, "")) == set(of_here)
    whole = await everybody(root, here)
    assert set(whole) - set(of_here) == {("admin", "admin", "")}
    assert await everybody(root, here, f"username = {users[0]} AND role = developer") == [
        (users[0], "developer", here)
    ]
    elsewhere = permissions.ListPrincipalsRequest(permission="container.get", namespace=there)
    missing = permissions.ListPrincipalsRequest(permission="container.get", namespace="missing")
    foreign, none = [await refused(chief, "ListPrincipals", each) for each in (elsewhere, missing)]
    assert (foreign.code, foreign.message.replace(there, "missing")) == (none.code, none.message)
    viewer = await shared.log_in(users[0])
    assert (await refused(viewer, "ListPrincipals", elsewhere)).metadata["permission"] == "grant.list"
    first = await root.ListPrincipals(
        permissions.ListPrincipalsRequest(permission="container.get", namespace=here, page_size=1)
    )
    moved = permissions.ListPrincipalsRequest(
        permission="container.list", namespace=here, page_size=1, page_token=first.next_page_token
    )
    assert (await refused(root, "ListPrincipals", moved)).reason == "INVALID_PAGE_TOKEN"


async def test_a_simulated_grant_reports_its_changes_and_changes_nothing(
    shared: IdentityServer, root: Caller
) -> None:
    here, username, role = _name("ns"), _name("user"), _name("role")
    await shared.namespace(here)
    await shared.role(root, role, "container.get", "container.stop")
    await shared.user(root, username, ("viewer", here), log_in=False)
    request = permissions.SimulateGrantRequest(username=username, role=role, namespace=here)
    answer = await root.SimulateGrant(request)
    assert [(change.namespace, list(change.gained)) for change in answer.changes] == [
        (here, ["container.stop"])
    ]
    assert not answer.granted_already
    assert answer.summary == f'granting {username} role "{role}" in namespace "{here}" gives 1 permission'
    check = pb.CheckPermissionRequest(permission="container.stop", namespace=here, username=username)
    assert not (await root.CheckPermission(check)).allowed
    await root.GrantRole(pb.GrantRoleRequest(username=username, role=role, namespace=here))
    again = await root.SimulateGrant(request)
    assert (list(again.changes), again.granted_already) == ([], True)
    assert again.summary.endswith("changes nothing")
    sooner = permissions.SimulateGrantRequest(
        username=username, role=role, namespace=here, expire_time=_in(3600)
    )
    (change,) = (await root.SimulateGrant(sooner)).changes
    assert list(change.shortened) == ["container.stop"]
    everywhere = await root.SimulateGrant(permissions.SimulateGrantRequest(username=username, role=role))
    assert [(each.namespace, list(each.gained)) for each in everywhere.changes] == [
        ("", ["container.get", "container.stop"]),
        (here, []),
    ]


async def test_a_simulation_is_refused_in_the_same_way_as_the_grant(
    shared: IdentityServer, root: Caller
) -> None:
    here, there, username = _name("ns"), _name("ns"), _name("user")
    await shared.namespace(here)
    await shared.namespace(there)
    reading, revealing = _name("reading"), _name("revealing")
    await shared.role(root, reading, "grant.list", "container.get")
    await shared.role(root, revealing, "config.reveal")
    await shared.user(root, username, ("viewer", here), log_in=False)
    giving = _name("giving")
    await shared.role(root, giving, "grant.*", "container.get")
    clerk = await shared.user(root, _name("clerk"), (giving, here))
    cases: list[dict[str, Any]] = [
        {"role": "admin", "namespace": here},
        {"role": revealing, "namespace": here},
        {"role": "no-role", "namespace": here},
        {"role": reading, "namespace": there},
        {"role": reading, "namespace": "missing"},
        {"role": reading, "namespace": here, "username": "nobody-here"},
        {"role": reading, "namespace": here, "expire_time": _in(-1)},
    ]
    for fields in cases:
        values = {"username": username, **fields}
        simulated = await refused(clerk, "SimulateGrant", permissions.SimulateGrantRequest(**values))
        granted = await refused(clerk, "GrantRole", pb.GrantRoleRequest(**values))
        assert (simulated.code, simulated.reason, simulated.message, simulated.metadata) == (
            granted.code,
            granted.reason,
            granted.message,
            granted.metadata,
        ), fields
    reader = await shared.user(root, _name("reader"), (reading, here))
    request = permissions.SimulateGrantRequest(username=username, role=reading, namespace=here)
    refusal = await refused(reader, "SimulateGrant", request)
    assert (refusal.reason, refusal.metadata["permission"]) == ("PERMISSION_DENIED", "grant.create")
    last = permissions.SimulateGrantRequest(username="admin", role="admin", expire_time=_in(3600))
    assert (await refused(root, "SimulateGrant", last)).reason == "LAST_ADMINISTRATOR"


async def test_a_simulation_reveals_no_grants_that_a_tenant_cannot_read(
    shared: IdentityServer, root: Caller
) -> None:
    here, username = _name("ns"), _name("user")
    await shared.namespace(here)
    await shared.user(root, username, ("developer", ""), ("viewer", here), log_in=False)
    chief = await shared.user(root, _name("chief"), ("admin", here))
    request = permissions.SimulateGrantRequest(username=username, role="developer", namespace=here)
    seen = await chief.SimulateGrant(request)
    assert seen.partial
    assert "container.delete" in seen.changes[0].gained
    whole = await root.SimulateGrant(request)
    assert (whole.partial, list(whole.changes)) == (False, [])


async def test_many_questions_get_the_same_answers_as_single_ones(
    shared: IdentityServer, root: Caller
) -> None:
    place, username = _name("place"), _name("user")
    await shared.namespace(place)
    caller = await shared.user(root, username, ("viewer", place))
    questions: list[Any] = [
        {"permission": "container.get", "namespace": place},
        {"permission": "container.delete", "namespace": place},
        {"method": "CreateUser"},
        {"method": "WhoAmI"},
        {"permission": "container.get", "namespace": "nowhere"},
    ]
    answer = await caller.ExplainPermissions(permissions.ExplainPermissionsRequest(questions=questions))
    assert list(answer.explanations) == [await _why(caller, **each) for each in questions]
    assert [each.allowed for each in answer.explanations] == [True, False, False, True, False]
    about = permissions.ExplainPermissionsRequest(questions=questions, username=username)
    of_another = await root.ExplainPermissions(about)
    assert [each.allowed for each in of_another.explanations] == [True, False, False, True, False]
    wrong: Any
    for wrong, field in (
        ({"permission": "container.dlete"}, "questions[1].permission"),
        ({"method": "Nothing"}, "questions[1].method"),
        ({}, "questions[1].permission"),
    ):
        request = permissions.ExplainPermissionsRequest(questions=[questions[0], wrong])
        refusal = await refused(caller, "ExplainPermissions", request)
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", [field])
    refusal = await refused(caller, "ExplainPermissions", permissions.ExplainPermissionsRequest())
    assert refusal.fields == ["questions"]


async def test_the_who_am_i_call_lists_permissions_in_a_namespace(
    shared: IdentityServer, root: Caller
) -> None:
    place, foreign = _name("place"), _name("place")
    await shared.namespace(place)
    await shared.namespace(foreign)
    caller = await shared.user(root, _name("user"), ("viewer", place))
    me = await caller.WhoAmI(pb.WhoAmIRequest(namespace=place))
    assert {"container.get", "container.list"} <= set(me.namespace_permissions)
    assert not {"container.delete", "user.get"} & set(me.namespace_permissions)
    assert list((await caller.WhoAmI(pb.WhoAmIRequest())).namespace_permissions) == []
    for each in me.namespace_permissions:
        asked = pb.CheckPermissionRequest(permission=each, namespace=place)
        assert (await caller.CheckPermission(asked)).allowed
    # A namespace that the caller cannot see is reported as missing.
    refusals = [
        await refused(caller, "WhoAmI", pb.WhoAmIRequest(namespace=name)) for name in (foreign, "nowhere")
    ]
    assert {(each.code, each.reason) for each in refusals} == {("NOT_FOUND", "NAMESPACE_NOT_FOUND")}
    assert refusals[0].message.replace(foreign, "nowhere") == refusals[1].message
    everything = await root.WhoAmI(pb.WhoAmIRequest(namespace=foreign))
    assert "container.delete" in everything.namespace_permissions
    assert (await refused(root, "WhoAmI", pb.WhoAmIRequest(namespace="nowhere"))).code == "NOT_FOUND"
