"""API keys: permissions and expiry; no key gives more than its user has."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.authorization.access import Grant, KeyLimits, KeyNamespace, Principal, within
from pilothouse_server.identity import tokens
from pilothouse_server.identity.access.escalation import uncovered
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from pilothouse_server.identity.credentials.operations.api_keys import MOST_KEYS
from tests.conftest import Database
from tests.identity.server import (
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


async def make(caller: Caller, name: str = "ci", **fields: Any) -> tuple[keys_pb.ApiKey, Caller]:
    """Creates a key of the caller; returns it and a caller that uses it."""
    answer = await caller.CreateApiKey(keys_pb.CreateApiKeyRequest(name=name, **fields))
    return answer.api_key, Caller(caller.stub, answer.key)


async def listed(caller: Caller, username: str = "") -> list[keys_pb.ApiKey]:
    """Returns the current keys of a user."""
    answer = await caller.ListApiKeys(keys_pb.ListApiKeysRequest(username=username))
    return list(answer.api_keys)


def stamp(moment: datetime) -> Timestamp:
    """Returns a time as a protobuf timestamp."""
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def in_days(days: float) -> Timestamp:
    """Returns the time `days` from now."""
    return stamp(datetime.now(UTC) + timedelta(days=days))


async def test_a_key_is_shown_once_and_has_the_permissions_of_its_user(
    shared: IdentityServer, root: Caller
) -> None:
    owner = await shared.user(root, "once", ("viewer", ""))
    made, caller = await make(owner, "deploy")
    assert tokens.is_well_formed(caller.access_token, tokens.KEY_PREFIX)
    assert caller.access_token.startswith(made.prefix)
    assert len(made.prefix) == 10
    lives = made.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < lives <= timedelta(days=90)
    who = await caller.WhoAmI(pb.WhoAmIRequest())
    assert (who.user.username, who.api_key.api_key_id, who.api_key.name) == (
        "once",
        made.api_key_id,
        "deploy",
    )
    assert [grant.role for grant in who.grants] == ["viewer"]
    [shown] = await listed(owner)
    assert (shown.api_key_id, shown.username, shown.created_by) == (made.api_key_id, "once", "once")
    assert caller.access_token not in str(shown)
    async with shared.database.system() as connection:
        stored = await connection.fetchrow("SELECT * FROM api_keys WHERE uid = $1", made.api_key_id)

        async def record() -> Any:
            return await connection.fetchrow(
                "SELECT * FROM operation_logs WHERE request_path LIKE '%/CreateApiKey' AND resource_name = 'deploy'"
            )

        await poll_until(record)
        recorded = dict(await record())
    assert bytes(stored["key_hash"]) == tokens.token_hash(caller.access_token)
    assert caller.access_token not in str(dict(stored)) + str(recorded)

    # The record of the key's calls names the key.
    async def by_key() -> Any:
        async with shared.database.system() as connection:
            return await connection.fetchval(
                "SELECT metadata ->> 'credential' FROM operation_logs WHERE request_path LIKE '%/WhoAmI' "
                "AND username = 'once'"
            )

    said = json.loads(await poll_until(by_key))
    assert said == {"kind": "api_key", "id": made.api_key_id, "name": "deploy"}
    # The owner's grants are checked on every call.
    await root.RevokeRole(pb.RevokeRoleRequest(username="once", role="viewer"))
    assert list((await caller.WhoAmI(pb.WhoAmIRequest())).grants) == []


async def test_a_key_has_only_the_permissions_it_was_created_with(
    shared: IdentityServer, root: Caller
) -> None:
    _, caller = await make(root, "roles alone", permissions=["role.list", "role.get"])
    await caller.ListRoles(pb.ListRolesRequest())
    assert list((await caller.WhoAmI(pb.WhoAmIRequest())).permissions) == ["role.get", "role.list"]
    refusal = await refused(caller, "ListUsers", pb.ListUsersRequest())
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    answer = await caller.CheckPermission(pb.CheckPermissionRequest(permission="user.list"))
    assert not answer.allowed
    # Naming its own user does not bypass the limit.
    own = pb.CheckPermissionRequest(permission="user.list", username="ADMIN")
    assert not (await caller.CheckPermission(own)).allowed


async def test_a_read_only_key_cannot_change_anything(shared: IdentityServer, root: Caller) -> None:
    made, caller = await make(root, "reader", read_only=True)
    assert made.read_only
    await caller.ListUsers(pb.ListUsersRequest())
    refusal = await refused(caller, "CreateRole", pb.CreateRoleRequest(role=pb.Role(name="by-reader")))
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "KEY_READ_ONLY")


async def test_a_key_works_only_in_its_namespaces(shared: IdentityServer, root: Caller) -> None:
    for name in ("mine-a", "mine-b"):
        await shared.namespace(name)
    made, caller = await make(root, "kept", namespaces=["mine-a"])
    assert list(made.namespaces) == ["mine-a"]
    await caller.ListRoleGrants(pb.ListRoleGrantsRequest(namespace="mine-a"))
    elsewhere = await refused(caller, "ListRoleGrants", pb.ListRoleGrantsRequest(namespace="mine-b"))
    missing = await refused(caller, "ListRoleGrants", pb.ListRoleGrantsRequest(namespace="mine-c"))
    assert (elsewhere.code, elsewhere.message.replace("mine-b", "mine-c")) == (missing.code, missing.message)
    assert (await refused(caller, "ListUsers", pb.ListUsersRequest())).reason == "PERMISSION_DENIED"
    who = await caller.WhoAmI(pb.WhoAmIRequest())
    assert [(grant.role, grant.namespace) for grant in who.grants] == [("admin", "mine-a")]
    assert list(who.permissions) == []
    # The key grants roles that it has itself, and only in its namespaces.
    await shared.user(root, "granted", log_in=False)
    request = pb.GrantRoleRequest(username="granted", role="viewer", namespace="mine-a")
    await caller.GrantRole(request)
    request.namespace = ""
    assert (await refused(caller, "GrantRole", request)).reason == "PERMISSION_DENIED"


async def test_a_key_does_not_work_in_a_new_namespace_of_the_same_name(
    shared: IdentityServer, root: Caller
) -> None:
    await shared.namespace("again")
    made, caller = await make(root, "old one", namespaces=["again"])
    async with shared.database.system() as connection:
        await connection.execute("UPDATE namespaces SET deleted_at = now() WHERE name = 'again'")
        await connection.execute("NOTIFY pilothouse_grants")
    await shared.namespace("again")

    async def refuses() -> bool:
        answer = await caller.CheckPermission(
            pb.CheckPermissionRequest(permission="grant.list", namespace="again")
        )
        return not answer.allowed

    await poll_until(refuses)
    [shown] = [key for key in await listed(root) if key.api_key_id == made.api_key_id]
    assert (list(shown.namespaces), shown.hidden_namespaces) == ([], 1)


async def test_a_key_is_accepted_only_from_its_networks_despite_the_cache(database: Database) -> None:
    async with running(database, trusted_proxies="127.0.0.1") as server:
        admin = await server.admin()
        made, caller = await make(admin, "office", allowed_networks=["10.0.0.0/8", "2001:db8::7"])
        assert list(made.allowed_networks) == ["10.0.0.0/8", "2001:db8::7/128"]
        for address, taken in (
            ("10.1.2.3", True),
            ("11.1.2.3", False),
            ("2001:db8::7", True),
            ("2001:db8::8", False),
            ("10.1.2.3", True),
        ):
            caller.forwarded_for = address
            if taken:
                await caller.WhoAmI(pb.WhoAmIRequest())
            else:
                refusal = await refused(caller, "WhoAmI", pb.WhoAmIRequest())
                assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "KEY_ADDRESS")

        async def noted() -> bool:
            [shown] = await listed(admin)
            return shown.last_use_address != "" and shown.last_use_time.seconds > 0

        await poll_until(noted)
        [shown] = await listed(admin)
        assert shown.last_use_address == "10.1.2.3"
        wrong = keys_pb.CreateApiKeyRequest(name="x", allowed_networks=["10.0.0.1/8"])
        assert (await refused(admin, "CreateApiKey", wrong)).fields == ["allowed_networks[0]"]


@pytest.mark.parametrize(("days", "reason"), [(-1, "EXPIRED"), (367, "TOO_FAR")])
async def test_the_lifetime_of_a_key_is_limited(
    shared: IdentityServer, root: Caller, days: int, reason: str
) -> None:
    request = keys_pb.CreateApiKeyRequest(name="bounds", expire_time=in_days(days))
    refusal = await refused(root, "CreateApiKey", request)
    assert (refusal.reason, refusal.fields) == (reason, ["expire_time"])


async def test_an_expired_key_is_refused_and_frees_its_name(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "brief")
    _, caller = await make(owner, "same", expire_time=in_days(1))
    taken = await refused(owner, "CreateApiKey", keys_pb.CreateApiKeyRequest(name="same"))
    assert taken.code == "ALREADY_EXISTS"
    async with shared.database.system() as connection:
        await connection.execute("UPDATE api_keys SET expires_at = now() WHERE name = 'same'")
    await poll_until(lambda: ended(caller))
    await make(owner, "same")


async def test_the_number_of_a_users_keys_is_limited_under_concurrent_calls(
    shared: IdentityServer, root: Caller
) -> None:
    owner = await shared.user(root, "many")

    async def one(number: int) -> str:
        try:
            await make(owner, f"key-{number}")
        except Exception as error:  # noqa: BLE001 - looked at below
            return getattr(error, "reason", repr(error))
        return ""

    outcomes = await asyncio.gather(*(one(number) for number in range(MOST_KEYS + 10)))
    assert sorted(outcomes) == [""] * MOST_KEYS + ["TOO_MANY_KEYS"] * 10
    assert len(await listed(owner)) == MOST_KEYS


async def test_a_key_cannot_name_permissions_that_its_user_lacks(
    shared: IdentityServer, root: Caller
) -> None:
    await shared.namespace("narrow")
    await shared.role(root, "giver", "grant.list")
    owner = await shared.user(root, "narrow", ("giver", "narrow"))
    for permissions, namespaces, reason in (
        (["user.list"], [], "ESCALATION"),
        (["grant.list", "grant.create"], ["narrow"], "ESCALATION"),
        (["grant.list"], ["elsewhere"], "NAMESPACE_NOT_FOUND"),
        (["nothing.known"], [], "UNKNOWN_PERMISSION"),
    ):
        request = keys_pb.CreateApiKeyRequest(name="wide", permissions=permissions, namespaces=namespaces)
        assert (await refused(owner, "CreateApiKey", request)).reason == reason
    _, caller = await make(owner, "named", permissions=["grant.list"])
    await caller.ListRoleGrants(pb.ListRoleGrantsRequest(namespace="narrow"))


@pytest.mark.parametrize("form", ["*", "grant.*", "config.*", "user.*", "user.get", "namespace.quota"])
async def test_a_permission_pattern_that_the_user_lacks_in_part_is_refused(
    shared: IdentityServer, root: Caller, form: str
) -> None:
    """A key with `grant.*` would gain `grant.create` once its user has it."""
    place = f"part-{form.replace('.', '-').replace('*', 'all')}"
    await shared.namespace(place)
    await shared.role(root, place, "grant.list", "config.get")
    owner = await shared.user(root, place, (place, place))
    for namespaces in ([], [place]):
        request = keys_pb.CreateApiKeyRequest(name="wide", permissions=[form], namespaces=namespaces)
        refusal = await refused(owner, "CreateApiKey", request)
        assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "ESCALATION")
        assert refusal.metadata["permission"] == form


async def test_a_namespace_administrator_may_name_patterns_that_work_there(
    shared: IdentityServer, root: Caller
) -> None:
    await shared.namespace("forms")
    owner = await shared.user(root, "forms", ("admin", "forms"))
    for number, (permissions, namespaces) in enumerate(
        ((["*"], []), (["container.*"], ["forms"]), (["grant.*", "role.*"], []))
    ):
        await make(owner, f"works-{number}", permissions=permissions, namespaces=namespaces)
    for form in ("user.*", "user.get", "cluster.*", "container.privileged"):
        request = keys_pb.CreateApiKeyRequest(name="over-all", permissions=[form])
        assert (await refused(owner, "CreateApiKey", request)).reason == "ESCALATION", form


async def test_rotation_keeps_the_lifetime_of_the_key(shared: IdentityServer, root: Caller) -> None:
    """Regression: the successor of a seven-day key was valid for ninety days."""
    owner = await shared.user(root, "weekly")
    made, _ = await make(owner, "weekly", expire_time=in_days(7))
    rotated = await owner.RotateApiKey(keys_pb.RotateApiKeyRequest(api_key_id=made.api_key_id))
    life = rotated.api_key.expire_time.ToDatetime() - rotated.api_key.create_time.ToDatetime()
    assert abs(life - timedelta(days=7)) < timedelta(minutes=10)
    request = keys_pb.RotateApiKeyRequest(api_key_id=rotated.api_key.api_key_id, expire_time=in_days(30))
    longer = await owner.RotateApiKey(request)
    assert longer.api_key.expire_time == request.expire_time


async def test_a_key_grants_only_roles_that_its_own_grants_cover(
    shared: IdentityServer, root: Caller
) -> None:
    """Compares the granted roles with the model.

    A role is granted only if the key's share of its user's grants covers it.
    """
    spaces = {name: await shared.namespace(name) for name in ("far-a", "far-b")}
    everything = Grant("admin", None, None, frozenset({"*"}))
    await shared.user(root, "taker", log_in=False)
    for number, (permissions, namespaces) in enumerate(
        (
            ([], []),
            ([], ["far-a"]),
            (["grant.*", *SHIPPED_ROLES["viewer"].permissions], []),
            (["grant.create", *SHIPPED_ROLES["developer"].permissions], ["far-a"]),
            (["container.*"], ["far-a", "far-b"]),
        )
    ):
        _, caller = await make(root, f"giver-{number}", permissions=permissions, namespaces=namespaces)
        limits = KeyLimits(
            frozenset(permissions) if permissions else None,
            tuple(KeyNamespace(spaces[name], name) for name in namespaces) if namespaces else None,
        )
        principal = Principal(1, "admin", within([everything], limits))
        for role in SHIPPED_ROLES.values():
            for namespace in ("", *spaces):
                wanted = Grant(
                    role.name,
                    namespace or None,
                    spaces.get(namespace),
                    frozenset(role.permissions),
                    role.excluded,
                )
                may = principal.allows("grant.create", namespace or None)
                expected = may and uncovered(wanted, principal.grants) is None
                request = pb.GrantRoleRequest(
                    username="taker", role=role.name, namespace=namespace, validate_only=True
                )
                try:
                    await caller.GrantRole(request)
                    outcome = ""
                except Refused as refusal:
                    outcome = refusal.code
                assert (outcome == "") is expected, (permissions, namespaces, role.name, namespace)
                assert outcome in ("", "PERMISSION_DENIED", "NOT_FOUND")


async def test_a_key_cannot_manage_keys_passwords_or_sessions(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "keeper", ("admin", ""))
    made, caller = await make(owner)
    other, _ = await make(owner, "other")
    for rpc, request in (
        ("CreateApiKey", keys_pb.CreateApiKeyRequest(name="child")),
        ("ListApiKeys", keys_pb.ListApiKeysRequest()),
        ("RotateApiKey", keys_pb.RotateApiKeyRequest(api_key_id=made.api_key_id)),
        ("RevokeApiKey", keys_pb.RevokeApiKeyRequest(api_key_id=other.api_key_id)),
        ("ChangePassword", pb.ChangePasswordRequest(current_password=PASSWORD, new_password=PASSWORD * 2)),
        ("ResetPassword", pb.ResetPasswordRequest(username="admin", new_password=PASSWORD)),
        ("ListSessions", pb.ListSessionsRequest()),
    ):
        assert (await refused(caller, rpc, request)).reason == "SESSION_NEEDED", rpc
    assert (await refused(caller, "Logout", pb.LogoutRequest())).reason == "NO_SESSION"
    # A key may revoke itself: anyone who finds a leaked key can end it.
    await caller.RevokeApiKey(keys_pb.RevokeApiKeyRequest(api_key_id=made.api_key_id))
    await poll_until(lambda: ended(caller))


async def test_a_rotated_key_stays_valid_for_the_overlap(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "turning", ("viewer", ""))
    made, old = await make(owner, "turn", read_only=True, permissions=["config.get"])
    request = keys_pb.RotateApiKeyRequest(api_key_id=made.api_key_id, overlap=Duration(seconds=3600))
    answer = await owner.RotateApiKey(request)
    new = Caller(owner.stub, answer.key)
    assert await valid(old)
    assert await valid(new)
    assert (answer.api_key.name, answer.api_key.read_only, list(answer.api_key.permissions)) == (
        "turn",
        True,
        ["config.get"],
    )
    before = next(key for key in await listed(owner) if key.api_key_id == made.api_key_id)
    left = before.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(minutes=50) < left <= timedelta(hours=1)
    assert before.rotate_time.seconds
    assert (await refused(owner, "RotateApiKey", request)).reason == "KEY_ROTATED"
    # Without an overlap the old key ends immediately.
    last = await owner.RotateApiKey(keys_pb.RotateApiKeyRequest(api_key_id=answer.api_key.api_key_id))
    await poll_until(lambda: ended(new))
    assert await valid(Caller(owner.stub, last.key))
    for seconds in (-1, 8 * 86400):
        wrong = keys_pb.RotateApiKeyRequest(
            api_key_id=last.api_key.api_key_id, overlap=Duration(seconds=seconds)
        )
        assert (await refused(owner, "RotateApiKey", wrong)).fields == ["overlap"]


async def test_keys_are_revoked_by_their_user_and_by_administrators(
    shared: IdentityServer, root: Caller
) -> None:
    owner = await shared.user(root, "owner", ("viewer", ""))
    stranger = await shared.user(root, "other", ("viewer", ""))
    made, caller = await make(owner, "first")
    request = keys_pb.RevokeApiKeyRequest(api_key_id=made.api_key_id)
    unknown = str(uuid.uuid4())
    for rpc, kind in (
        ("RevokeApiKey", keys_pb.RevokeApiKeyRequest),
        ("RotateApiKey", keys_pb.RotateApiKeyRequest),
    ):
        theirs = await refused(stranger, rpc, kind(api_key_id=made.api_key_id))
        none = await refused(stranger, rpc, kind(api_key_id=unknown))
        assert theirs.code == "NOT_FOUND"
        assert theirs.message.replace(made.api_key_id, unknown) == none.message
    refusal = await refused(stranger, "ListApiKeys", keys_pb.ListApiKeysRequest(username="owner"))
    assert refusal.metadata["permission"] == "user.get"
    # An administrator finds the owner of a leaked key by its prefix.
    found = keys_pb.ListApiKeysRequest(all_users=True, filter=f'prefix = "{caller.access_token[:10]}"')
    everybody = await root.ListApiKeys(found)
    assert [(key.username, key.name) for key in everybody.api_keys] == [("owner", "first")]
    assert (await refused(stranger, "ListApiKeys", found)).metadata["permission"] == "user.get"
    found.username = "owner"
    assert (await refused(root, "ListApiKeys", found)).fields == ["username"]
    # An administrator sees and revokes a key, but cannot rotate it.
    assert [key.name for key in await listed(root, "owner")] == ["first"]
    rotate = keys_pb.RotateApiKeyRequest(api_key_id=made.api_key_id)
    assert (await refused(root, "RotateApiKey", rotate)).code == "NOT_FOUND"
    await root.RevokeApiKey(keys_pb.RevokeApiKeyRequest(api_key_id=made.api_key_id, validate_only=True))
    assert [key.name for key in await listed(root, "owner")] == ["first"]
    assert await valid(caller)
    await root.RevokeApiKey(request)
    await poll_until(lambda: ended(caller))
    assert (await refused(root, "RevokeApiKey", request)).code == "NOT_FOUND"
    second, caller = await make(owner, "second")
    await owner.RevokeApiKey(keys_pb.RevokeApiKeyRequest(api_key_id=second.api_key_id))
    await poll_until(lambda: ended(caller))
    assert await listed(owner) == []


async def test_keys_end_with_their_user(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "leaving")
    _, caller = await make(owner)
    change = pb.UpdateUserRequest(username="leaving", user=pb.User(status=pb.USER_STATUS_LOCKED))
    change.update_mask.paths.append("status")
    await root.UpdateUser(change)
    await poll_until(lambda: ended(caller))
    change.user.status = pb.USER_STATUS_ACTIVE
    await root.UpdateUser(change)
    assert await valid(caller)
    await root.DeleteUser(pb.DeleteUserRequest(username="leaving"))
    await poll_until(lambda: ended(caller))


async def test_validation_creates_no_key_and_a_replay_shows_none(
    shared: IdentityServer, root: Caller
) -> None:
    owner = await shared.user(root, "trying")
    tried = await owner.CreateApiKey(keys_pb.CreateApiKeyRequest(name="tried", validate_only=True))
    assert tried.key == ""
    assert await listed(owner) == []
    request = keys_pb.CreateApiKeyRequest(name="once", request_id=str(uuid.uuid4()))
    first, again = [await owner.CreateApiKey(request) for _ in range(2)]
    assert first.key
    assert again.key == ""
    assert again.api_key.api_key_id == first.api_key.api_key_id
    assert len(await listed(owner)) == 1
