"""Permission questions that a key asks.

Also covers keys and service accounts in the responses.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import permissions_pb2 as permissions
from tests.identity.server import Caller, IdentityServer, ended, refused
from tests.identity.test_api_keys import make
from tests.identity.test_service_accounts import account
from tests.waiting import poll_until

_numbers = count(1)


def _name(word: str) -> str:
    return f"by-key-{word}{next(_numbers)}"


async def _why(caller: Caller, permission: str = "", namespace: str = "", **more: str) -> Any:
    request = permissions.ExplainPermissionRequest(permission=permission, namespace=namespace, **more)
    return await caller.ExplainPermission(request)


async def _holders(caller: Caller, permission: str, namespace: str) -> dict[tuple[str, str], list[str]]:
    request = permissions.ListPrincipalsRequest(permission=permission, namespace=namespace, page_size=1000)
    answer = await caller.ListPrincipals(request)
    return {(each.username, each.role): list(each.api_keys) for each in answer.principals}


async def test_a_denial_shows_whether_the_key_or_its_owner_refuses(
    shared: IdentityServer, root: Caller
) -> None:
    here = _name("ns")
    await shared.namespace(here)
    owner = await shared.user(root, _name("owner"), ("developer", here))
    _, narrow = await make(owner, "narrow", permissions=["container.get"], namespaces=[here])
    _, reading = await make(owner, "reading", read_only=True)
    allowed = await _why(narrow, "container.get", here)
    assert (allowed.allowed, allowed.grants[0].role) == (True, "developer")
    by_key = await _why(narrow, "container.delete", here)
    assert (by_key.denial, by_key.key_refuses, by_key.owner_refuses) == (
        permissions.DENIAL_CREDENTIAL,
        True,
        False,
    )
    assert by_key.summary.endswith("the key does not give it, though its owner holds it")
    both = await _why(narrow, "grant.create", here)
    assert (both.key_refuses, both.owner_refuses) == (True, True)
    by_owner = await _why(reading, "config.reveal", here)
    assert (by_owner.denial, by_owner.owner_refuses) == (permissions.DENIAL_EXCLUDED, True)
    changing = await _why(reading, "container.delete", here)
    assert (changing.allowed, changing.key_refuses, changing.owner_refuses) == (False, True, False)
    assert (await _why(reading, "container.get", here)).allowed
    for method in ("DeleteContainer", "ChangePassword"):
        answer = await _why(reading, namespace=here, method=method)
        assert (answer.allowed, answer.denial) == (False, permissions.DENIAL_CREDENTIAL), method
    assert (await _why(reading, namespace=here, method="GetContainer")).allowed
    refusal = await refused(narrow, "ListRoleGrants", pb.ListRoleGrantsRequest(namespace=here))
    assert refusal.metadata["why"] == "NO_GRANT"


async def test_a_read_only_key_is_shown_no_changing_permissions(shared: IdentityServer, root: Caller) -> None:
    """Regression: CheckPermission returned yes, and every changing call was refused."""
    _, reading = await make(root, _name("reading"), read_only=True)
    for permission, allowed in (
        ("container.get", True),
        ("container.logs", True),
        ("container.delete", False),
        ("container.*", False),
        ("container.exec", False),
        ("config.reveal", False),
        ("config.use", False),
        ("*", False),
    ):
        answer = await reading.CheckPermission(pb.CheckPermissionRequest(permission=permission))
        assert answer.allowed is allowed, permission
    # The key is also not shown as having all permissions.
    shown = (await reading.WhoAmI(pb.WhoAmIRequest())).permissions
    assert {"container.get", "container.logs", "user.list"} <= set(shown)
    assert not {"*", "container.delete", "config.reveal", "container.exec"} & set(shown)


async def test_a_read_only_key_may_revoke_only_itself(shared: IdentityServer, root: Caller) -> None:
    """Regression: the call was refused as read-only.

    Anyone who finds a key must be able to revoke it.
    """
    made, reading = await make(root, _name("found"), read_only=True)
    other, _ = await make(root, _name("other"))
    request = keys_pb.RevokeApiKeyRequest(api_key_id=other.api_key_id)
    assert (await refused(reading, "RevokeApiKey", request)).reason == "SESSION_NEEDED"
    await reading.RevokeApiKey(keys_pb.RevokeApiKeyRequest(api_key_id=made.api_key_id))
    assert await poll_until(lambda: ended(reading), seconds=1.0)


async def test_a_key_reveals_nothing_of_its_owners_other_namespaces(
    shared: IdentityServer, root: Caller
) -> None:
    here, there = _name("ns"), _name("ns")
    await shared.namespace(here)
    await shared.namespace(there)
    username = _name("owner")
    owner = await shared.user(root, username, ("admin", here), ("admin", there))
    # A user who could grant in the other namespace.
    await shared.user(root, _name("chief"), ("admin", there), log_in=False)
    _, caller = await make(owner, "here-alone", namespaces=[here])
    missing = "missing-as-long"[: len(there)].ljust(len(there), "x")
    for permission in ("container.get", "config.reveal", "user.get", "namespace.quota"):
        heard = []
        for namespace in (there, missing):
            explained = await _why(caller, permission, namespace)
            checked = await caller.CheckPermission(
                pb.CheckPermissionRequest(permission=permission, namespace=namespace)
            )
            told = explained.SerializeToString(deterministic=True) + checked.SerializeToString()
            heard.append(told.replace(namespace.encode(), b"*"))
        assert heard[0] == heard[1], permission
    listed = await _holders(caller, "container.get", "")
    assert set(listed) == {(username, "admin")}
    for rpc, request in (
        ("ListPrincipals", permissions.ListPrincipalsRequest(permission="container.get", namespace=there)),
        (
            "SimulateGrant",
            permissions.SimulateGrantRequest(username=username, role="viewer", namespace=there),
        ),
    ):
        refusal = await refused(caller, rpc, request)
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "NAMESPACE_NOT_FOUND"), rpc


async def test_holders_include_service_accounts_and_matching_keys(
    shared: IdentityServer, root: Caller
) -> None:
    here, there = _name("ns"), _name("ns")
    await shared.namespace(here)
    await shared.namespace(there)
    chief_name = _name("chief")
    chief = await shared.user(root, chief_name, ("admin", here), ("viewer", there))
    made = await account(chief, here, "ci")
    await chief.GrantRole(pb.GrantRoleRequest(username=made.username, role="developer", namespace=here))
    for name, fields in (
        ("all", {}),
        ("deletes", {"permissions": ["container.delete"], "namespaces": [here]}),
        ("gets", {"permissions": ["container.get"]}),
        ("reads", {"read_only": True}),
    ):
        await chief.CreateApiKey(
            keys_pb.CreateApiKeyRequest(name=name, service_account=made.username, **fields)
        )
    _, own = await make(chief, "own")
    revoked, _ = await make(chief, "revoked")
    await chief.RevokeApiKey(keys_pb.RevokeApiKeyRequest(api_key_id=revoked.api_key_id))
    other = _name("dev")
    developer = await shared.user(root, other, ("developer", here))
    await make(developer, "private")
    found = await _holders(chief, "container.delete", here)
    assert found == {
        (chief_name, "admin"): ["own"],
        (made.username, "developer"): ["all", "deletes"],
        # Keys of users whose keys the caller may not list are not shown.
        (other, "developer"): [],
    }
    # A caller that uses a key sees no keys.
    assert not any((await _holders(own, "container.delete", here)).values())
    of_root = await _holders(root, "container.get", here)
    assert of_root[(other, "developer")] == ["private"]
    assert of_root[(made.username, "developer")] == ["all", "gets", "reads"]
    programs = permissions.ListPrincipalsRequest(
        permission="container.get", namespace=here, filter="service_account = true"
    )
    answer = await root.ListPrincipals(programs)
    assert [(each.username, each.service_account) for each in answer.principals] == [(made.username, True)]


async def test_service_accounts_can_be_queried_but_are_not_listed_as_givers(
    shared: IdentityServer, root: Caller
) -> None:
    here, username = _name("ns"), _name("user")
    await shared.namespace(here)
    chief = await shared.user(root, _name("chief"), ("admin", here))
    caller = await shared.user(root, username, ("viewer", here))
    made = await account(chief, here, "boss")
    await chief.GrantRole(pb.GrantRoleRequest(username=made.username, role="admin", namespace=here))
    answer = await _why(root, "container.delete", here, username=made.username)
    assert (answer.allowed, answer.grants[0].role) == (True, "admin")
    denied = await _why(caller, "container.delete", here)
    assert made.username not in {giver.username for giver in denied.givers}
    assert denied.givers
    simulated = await chief.SimulateGrant(
        permissions.SimulateGrantRequest(username=made.username, role="viewer", namespace=here)
    )
    assert list(simulated.changes) == []
