"""Keys that are created, rotated and revoked concurrently.

No key survives wrongly or has two successors.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import identity_pb2 as pb
from tests.identity.server import Caller, IdentityServer, Refused, ended, valid
from tests.identity.test_api_keys import listed, make
from tests.identity.test_service_accounts import account
from tests.waiting import poll_until


async def _tried(call: Any) -> Any:
    """Returns the response of a call, or its refusal."""
    try:
        return await call
    except Refused as refusal:
        return refusal


async def test_one_of_several_concurrent_rotations_succeeds(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "race-rotates", ("viewer", ""))
    made, before = await make(owner, "ci")
    request = keys_pb.RotateApiKeyRequest(api_key_id=made.api_key_id, overlap=Duration(seconds=0))
    outcomes = await asyncio.gather(*(_tried(owner.RotateApiKey(request)) for _ in range(6)))
    keys = [each.key for each in outcomes if not isinstance(each, Refused)]
    reasons = {each.reason for each in outcomes if isinstance(each, Refused)}
    assert len(keys) == 1
    assert reasons <= {"KEY_ROTATED", "API_KEY_NOT_FOUND"}
    assert await valid(Caller(owner.stub, keys[0]))
    assert await poll_until(lambda: ended(before), seconds=1.0)
    assert [key.name for key in await listed(owner)] == ["ci"]


async def test_concurrent_rotation_and_revocation_leave_no_unknown_key(
    shared: IdentityServer, root: Caller
) -> None:
    owner = await shared.user(root, "race-revokes", ("viewer", ""))
    for number in range(6):
        made, before = await make(owner, f"ci-{number}")
        rotate = keys_pb.RotateApiKeyRequest(api_key_id=made.api_key_id, overlap=Duration(seconds=3600))
        revoke = keys_pb.RevokeApiKeyRequest(api_key_id=made.api_key_id)
        rotated, revoked = await asyncio.gather(
            _tried(owner.RotateApiKey(rotate)), _tried(owner.RevokeApiKey(revoke))
        )
        # The old key is revoked in either order: the caller that revoked it succeeded.
        assert not isinstance(revoked, Refused)
        assert await poll_until(partial(ended, before), seconds=1.0)
        living = {key.api_key_id for key in await listed(owner) if key.name == f"ci-{number}"}
        expected = set() if isinstance(rotated, Refused) else {rotated.api_key.api_key_id}
        assert living == expected


@pytest.mark.parametrize("ends", ["DeleteUser", "DeleteServiceAccount"])
async def test_no_key_survives_the_concurrent_deletion_of_its_owner(
    shared: IdentityServer, root: Caller, ends: str
) -> None:
    made: list[Caller] = []
    for number in range(6):
        if ends == "DeleteUser":
            name = f"race-gone-{number}"
            owner = await shared.user(root, name, ("viewer", ""))
            create = owner.CreateApiKey(keys_pb.CreateApiKeyRequest(name="late"))
            delete = root.DeleteUser(pb.DeleteUserRequest(username=name))
        else:
            name = f"race-account-{number}"
            gone = await account(root, "", name)
            request = keys_pb.CreateApiKeyRequest(name="late", service_account=gone.username)
            create = root.CreateApiKey(request)
            delete = root.DeleteServiceAccount(keys_pb.DeleteServiceAccountRequest(name=name))
        outcome, deleted = await asyncio.gather(_tried(create), _tried(delete))
        assert not isinstance(deleted, Refused), deleted
        if not isinstance(outcome, Refused):
            made.append(Caller(root.stub, outcome.key))
    for caller in made:
        assert await poll_until(partial(ended, caller), seconds=1.0)
    async with shared.database.system() as connection:
        left = await connection.fetchval(
            "SELECT count(*) FROM api_keys k JOIN users u ON u.id = k.user_id "
            "WHERE u.deleted_at IS NOT NULL AND k.revoked_at IS NULL"
        )
    assert left == 0


async def test_concurrent_creations_give_a_name_to_one_key(shared: IdentityServer, root: Caller) -> None:
    owner = await shared.user(root, "race-names", ("viewer", ""))
    request = keys_pb.CreateApiKeyRequest(name="same")
    outcomes = await asyncio.gather(*(_tried(owner.CreateApiKey(request)) for _ in range(6)))
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert len(refusals) == 5
    assert {refusal.reason for refusal in refusals} == {"API_KEY_ALREADY_EXISTS"}
    assert len(await listed(owner)) == 1


async def test_service_accounts_are_made_once_and_keep_to_their_bound(
    shared: IdentityServer, root: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse_server.identity.accounts.operations.service_accounts.MOST_ACCOUNTS", 3)
    await shared.namespace("race-accounts")
    outcomes = await asyncio.gather(
        *(_tried(account(root, "race-accounts", f"a{number}")) for number in range(8))
    )
    made = [each for each in outcomes if not isinstance(each, Refused)]
    assert {each.reason for each in outcomes if isinstance(each, Refused)} == {"TOO_MANY_SERVICE_ACCOUNTS"}
    assert len(made) == 3
    again = await asyncio.gather(*(_tried(account(root, "race-accounts", "a0")) for _ in range(4)))
    assert all(isinstance(each, Refused) for each in again)


async def test_no_account_is_created_in_a_namespace_during_its_deletion(
    shared: IdentityServer, root: Caller
) -> None:
    """Otherwise the account would remain for the next namespace with this name.

    That namespace would have the account's name and keys.
    """
    namespace_id = await shared.namespace("race-ending")
    async with shared.database.system() as sql:
        ending = sql.transaction()
        await ending.start()
        await sql.execute("UPDATE namespaces SET deleted_at = now() WHERE id = $1", namespace_id)
        making = asyncio.create_task(_tried(account(root, "race-ending", "late")))

        async def stands() -> bool:
            waiting = await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return bool(waiting) or making.done()

        assert await poll_until(stands)
        await ending.commit()
    outcome = await making
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.reason) == ("NOT_FOUND", "NAMESPACE_NOT_FOUND")
