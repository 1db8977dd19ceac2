"""Service accounts are programs of a namespace.

Creating one gives its creator no further permissions.
"""

from __future__ import annotations

import pytest

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.errors import NotFound
from pilothouse_server.identity.credentials.local_reset import reset_locally
from pilothouse_server.identity.credentials.operations.account_credentials import end_in_namespace
from tests.identity.server import PASSWORD, Caller, IdentityServer, Refused, ended, refused, valid
from tests.identity.test_api_keys import listed, make
from tests.waiting import poll_until


async def account(caller: Caller, namespace: str, name: str, description: str = "") -> keys_pb.ServiceAccount:
    """Creates a service account."""
    answer = await caller.CreateServiceAccount(
        keys_pb.CreateServiceAccountRequest(
            namespace=namespace, service_account=keys_pb.ServiceAccount(name=name, description=description)
        )
    )
    made: keys_pb.ServiceAccount = answer.service_account
    return made


async def accounts(caller: Caller, namespace: str = "") -> list[str]:
    """Returns the user names of the service accounts that a caller sees."""
    answer = await caller.ListServiceAccounts(keys_pb.ListServiceAccountsRequest(namespace=namespace))
    return [each.username for each in answer.service_accounts]


async def grants_seen(caller: Caller, namespace: str) -> bool:
    """Returns whether a caller sees the grants of a namespace."""
    try:
        await caller.ListRoleGrants(pb.ListRoleGrantsRequest(namespace=namespace))
    except Refused:
        return False
    return True


async def tenant(shared: IdentityServer, root: Caller, name: str) -> Caller:
    """Creates a namespace and its administrator, named after the namespace."""
    await shared.namespace(name)
    return await shared.user(root, name, ("admin", name))


async def test_a_namespace_administrator_creates_service_accounts_there(
    shared: IdentityServer, root: Caller
) -> None:
    one, other = await tenant(shared, root, "acct-one"), await tenant(shared, root, "acct-two")
    made = await account(one, "acct-one", "ci", description="Deploys")
    assert (made.username, made.namespace, made.name, made.description, made.created_by) == (
        "sa:acct-one:ci",
        "acct-one",
        "ci",
        "Deploys",
        "acct-one",
    )
    await account(other, "acct-two", "ci")
    platform = await account(root, "", "ci-of-all")
    assert platform.username == "sa:ci-of-all"
    assert await accounts(one) == ["sa:acct-one:ci"]
    assert await accounts(other, "acct-two") == ["sa:acct-two:ci"]
    assert {"sa:acct-one:ci", "sa:acct-two:ci", "sa:ci-of-all"} <= set(await accounts(root))
    request = keys_pb.CreateServiceAccountRequest(
        namespace="acct-one", service_account=keys_pb.ServiceAccount(name="ci")
    )
    assert (await refused(one, "CreateServiceAccount", request)).reason == "SERVICE_ACCOUNT_ALREADY_EXISTS"
    # Another namespace is reported as missing; an account without a namespace needs more than the caller has.
    request.namespace = "acct-two"
    elsewhere = await refused(one, "CreateServiceAccount", request)
    request.namespace = "acct-xyz"
    missing = await refused(one, "CreateServiceAccount", request)
    assert (elsewhere.code, elsewhere.message.replace("acct-two", "acct-xyz")) == (
        missing.code,
        missing.message,
    )
    request.namespace = ""
    assert (await refused(one, "CreateServiceAccount", request)).reason == "PERMISSION_DENIED"
    request.service_account.name = "a" * 44
    request.namespace = "acct-one"
    assert (await refused(one, "CreateServiceAccount", request)).fields == ["service_account.name"]


async def test_a_namespace_in_the_wrong_field_is_refused(shared: IdentityServer, root: Caller) -> None:
    await shared.namespace("misplaced")
    wanted = keys_pb.ServiceAccount(name="misplaced", namespace="misplaced")
    refusal = await refused(
        root, "CreateServiceAccount", keys_pb.CreateServiceAccountRequest(service_account=wanted)
    )
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["service_account.namespace"])
    assert "sa:misplaced" not in await accounts(root)
    request = keys_pb.CreateServiceAccountRequest(namespace="misplaced", service_account=wanted)
    made = await root.CreateServiceAccount(request)
    assert made.service_account.username == "sa:misplaced:misplaced"


async def test_a_service_account_authenticates_only_by_its_keys(shared: IdentityServer, root: Caller) -> None:
    owner = await tenant(shared, root, "acct-acts")
    await account(owner, "acct-acts", "ci")
    made, caller = await make(owner, "runner", service_account="sa:acct-acts:ci")
    assert made.username == "sa:acct-acts:ci"
    ask = pb.ListRoleGrantsRequest(namespace="acct-acts")
    assert (await refused(caller, "ListRoleGrants", ask)).code == "NOT_FOUND"
    await owner.GrantRole(
        pb.GrantRoleRequest(username="sa:acct-acts:ci", role="admin", namespace="acct-acts")
    )
    # The server loads the grants again once the hint arrives.
    await poll_until(lambda: grants_seen(caller, "acct-acts"))
    who = await caller.WhoAmI(pb.WhoAmIRequest())
    assert (who.user.username, [grant.namespace for grant in who.grants]) == (
        "sa:acct-acts:ci",
        ["acct-acts"],
    )
    assert [key.name for key in await listed(owner, "sa:acct-acts:ci")] == ["runner"]
    attempt = pb.LoginRequest(username="sa:acct-acts:ci", password="!")
    unknown = pb.LoginRequest(username="sa:acct-acts:no", password="!")
    told, other = [await refused(shared.stranger, "Login", each) for each in (attempt, unknown)]
    assert (told.code, told.reason, told.message) == (other.code, other.reason, other.message)
    # A password in the account's row, which no operation writes, does not help.
    hashed = await shared.passwords.hash(PASSWORD)
    async with shared.database.system() as connection:
        await connection.execute(
            "UPDATE users SET password_hash = $1 WHERE username = 'sa:acct-acts:ci'", hashed
        )
    assert (
        await refused(
            shared.stranger, "Login", pb.LoginRequest(username="sa:acct-acts:ci", password=PASSWORD)
        )
    ).message == other.message
    with pytest.raises(NotFound):
        await reset_locally(shared.store, shared.new_passwords, "sa:acct-acts:ci", PASSWORD, {})
    # A service account is not a user: it is neither listed nor accepted as one.
    people = await root.ListUsers(pb.ListUsersRequest(page_size=1000))
    assert not [user for user in people.users if user.username.startswith("sa:")]
    named = pb.ResetPasswordRequest(username="sa:acct-acts:ci", new_password=PASSWORD)
    assert (await refused(root, "ResetPassword", named)).code == "INVALID_ARGUMENT"
    taken = pb.CreateUserRequest(
        user=pb.User(username="sa:acct-acts:new", email="a@example.org"), password=PASSWORD
    )
    assert (await refused(root, "CreateUser", taken)).fields == ["user.username"]
    await owner.DeleteServiceAccount(keys_pb.DeleteServiceAccountRequest(namespace="acct-acts", name="ci"))
    await poll_until(lambda: ended(caller))
    assert await accounts(owner, "acct-acts") == []
    # A new account with the same name has none of the old one's keys or grants.
    await account(owner, "acct-acts", "ci")
    assert await listed(owner, "sa:acct-acts:ci") == []
    held = await owner.ListRoleGrants(pb.ListRoleGrantsRequest(namespace="acct-acts"))
    assert [grant.username for grant in held.role_grants] == ["acct-acts"]


async def test_a_key_of_a_service_account_gives_no_more_than_its_creator_has(
    shared: IdentityServer, root: Caller
) -> None:
    await shared.namespace("acct-keys")
    await shared.namespace("acct-else")
    await shared.role(root, "account-keeper", "service_account.*", "role.list")
    keeper = await shared.user(root, "keeper-of", ("account-keeper", "acct-keys"))
    await account(keeper, "acct-keys", "ci")
    name = "sa:acct-keys:ci"
    request = keys_pb.CreateApiKeyRequest(name="k", service_account=name)
    # The account's permissions in namespaces that the creator does not see count, too.
    for role, namespace in (("admin", "acct-else"), ("admin", ""), ("viewer", "acct-keys")):
        grant = pb.GrantRoleRequest(username=name, role=role, namespace=namespace)
        await root.GrantRole(grant)
        assert (await refused(keeper, "CreateApiKey", request)).reason == "ESCALATION", namespace
        await root.RevokeRole(pb.RevokeRoleRequest(username=name, role=role, namespace=namespace))
    await root.GrantRole(pb.GrantRoleRequest(username=name, role="admin", namespace=""))
    # A key within the creator's permissions may be created and rotated; a wider key may not.
    request.permissions.append("role.list")
    request.namespaces.append("acct-keys")
    answer = await keeper.CreateApiKey(request)
    await keeper.RotateApiKey(keys_pb.RotateApiKeyRequest(api_key_id=answer.api_key.api_key_id))
    wide, caller = await make(root, "wide", service_account=name)
    rotate = keys_pb.RotateApiKeyRequest(api_key_id=wide.api_key_id)
    assert (await refused(keeper, "RotateApiKey", rotate)).reason == "ESCALATION"
    assert await valid(caller)
    await keeper.RevokeApiKey(keys_pb.RevokeApiKeyRequest(api_key_id=wide.api_key_id))
    await poll_until(lambda: ended(caller))


async def test_a_key_of_a_service_account_names_only_permissions_it_has(
    shared: IdentityServer, root: Caller
) -> None:
    await shared.namespace("account-names")
    await account(root, "account-names", "ci")
    name = "sa:account-names:ci"
    await root.GrantRole(pb.GrantRoleRequest(username=name, role="viewer", namespace="account-names"))
    for form in ("container.*", "container.delete", "*"):
        request = keys_pb.CreateApiKeyRequest(name="wide", service_account=name, permissions=[form])
        refusal = await refused(root, "CreateApiKey", request)
        assert (refusal.reason, refusal.metadata["permission"]) == ("ESCALATION", form)
        assert name in refusal.message
    await make(root, "reads", service_account=name, permissions=["container.get"])


async def test_service_accounts_of_other_namespaces_are_reported_as_missing(
    shared: IdentityServer, root: Caller
) -> None:
    one, other = await tenant(shared, root, "acct-its"), await tenant(shared, root, "acct-his")
    await account(one, "acct-its", "ci")
    made, caller = await make(one, "k", service_account="sa:acct-its:ci")
    foreign = keys_pb.CreateApiKeyRequest(name="k", service_account="sa:acct-its:ci")
    missing = keys_pb.CreateApiKeyRequest(name="k", service_account="sa:acct-its:no")
    told, none = [await refused(other, "CreateApiKey", each) for each in (foreign, missing)]
    assert (told.code, told.message.replace(":ci", ":no")) == (none.code, none.message)
    for rpc, request in (
        ("RevokeApiKey", keys_pb.RevokeApiKeyRequest(api_key_id=made.api_key_id)),
        ("RotateApiKey", keys_pb.RotateApiKeyRequest(api_key_id=made.api_key_id)),
        ("ListApiKeys", keys_pb.ListApiKeysRequest(username="sa:acct-its:ci")),
        ("DeleteServiceAccount", keys_pb.DeleteServiceAccountRequest(namespace="acct-its", name="ci")),
    ):
        assert (await refused(other, rpc, request)).code == "NOT_FOUND", rpc
    assert await valid(caller)


async def test_service_accounts_end_with_their_namespace(shared: IdentityServer, root: Caller) -> None:
    number = await shared.namespace("acct-ends")
    owner = await shared.user(root, "acct-ends", ("admin", "acct-ends"))
    await account(owner, "acct-ends", "ci")
    await root.GrantRole(pb.GrantRoleRequest(username="sa:acct-ends:ci", role="viewer", namespace=""))
    _, caller = await make(root, "k", service_account="sa:acct-ends:ci")
    assert await valid(caller)
    async with shared.store.system_write() as transaction:
        await end_in_namespace(transaction, number)
    await poll_until(lambda: ended(caller))
    assert "sa:acct-ends:ci" not in await accounts(root)


async def test_a_service_account_does_not_count_as_the_last_administrator(
    shared: IdentityServer, root: Caller
) -> None:
    await account(root, "", "robot")
    await root.GrantRole(pb.GrantRoleRequest(username="sa:robot", role="admin"))
    delete = pb.DeleteUserRequest(username="admin")
    assert (await refused(root, "DeleteUser", delete)).reason == "LAST_ADMINISTRATOR"
