"""Secrets of users that the server reads again.

They are encrypted, bound to row and user, replaced and rotated.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_server.app import SEALED
from pilothouse_server.config.operations import rotation
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.encryption.keys import KeyRing, add_key, remove_key
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.identity.accounts.operations.user_secrets import UserSecrets
from pilothouse_server.identity.model import UserId
from tests.conftest import Database
from tests.identity.server import Caller, IdentityServer

CANARY = b"canary-of-a-seed"


async def user_id(database: Database, username: str) -> UserId:
    async with database.system() as connection:
        return UserId(await connection.fetchval("SELECT id FROM users WHERE username = $1", username))


async def test_a_secret_is_stored_encrypted_replaced_and_deleted(
    server: IdentityServer, admin: Caller
) -> None:
    await server.user(admin, "anna", log_in=False)
    anna = await user_id(server.database, "anna")
    kept = UserSecrets(Envelopes(KeyRing([bytes(32)])))
    async with server.store.system_write() as transaction:
        assert await kept.read(transaction, anna, "token", "issuer") is None
        await kept.keep(transaction, anna, "token", b"former", "issuer")
        await kept.keep(transaction, anna, "token", CANARY, "issuer")
        await kept.keep(transaction, anna, "token", b"another", "other issuer")
        await kept.keep(transaction, anna, "totp", b"seed")
    async with server.database.system() as connection:
        rows = await connection.fetch("SELECT user_secrets::text AS everything FROM user_secrets")
    assert len(rows) == 3
    assert not [row for row in rows if CANARY.hex() in row["everything"] or "canary" in row["everything"]]
    async with server.store.system_write() as transaction:
        found = await kept.read(transaction, anna, "token", "issuer", lock=True)
        assert found is not None
        assert (found.value, "canary" in repr(found)) == (CANARY, False)
        assert await kept.forget(transaction, anna, "token", "issuer") == 1
        assert await kept.read(transaction, anna, "token", "issuer") is None
        assert await kept.forget(transaction, anna, "token") == 1
        seed = await kept.read(transaction, anna, "totp")
        assert seed is not None
        assert seed.value == b"seed"


@pytest.mark.parametrize(
    "moved",
    [
        "UPDATE user_secrets SET user_id = (SELECT id FROM users WHERE username = 'admin')",
        "UPDATE user_secrets SET id = id + 1000",
        "UPDATE user_secrets SET encrypted_value = set_byte(encrypted_value, 20, get_byte(encrypted_value, 20) # 1)",
    ],
    ids=["to another user", "to another row", "changed"],
)
async def test_a_moved_or_changed_secret_is_refused(
    server: IdentityServer, admin: Caller, moved: str
) -> None:
    await server.user(admin, "anna", log_in=False)
    kept = UserSecrets(Envelopes(KeyRing([bytes(32)])))
    async with server.store.system_write() as transaction:
        await kept.keep(transaction, await user_id(server.database, "anna"), "totp", CANARY)
    async with server.database.system() as connection:
        await connection.execute(moved)
        owner = UserId(await connection.fetchval("SELECT user_id FROM user_secrets"))
    async with server.store.system_read() as reading:
        with pytest.raises(FailedPrecondition) as caught:
            await kept.read(reading, owner, "totp")
    assert caught.value.reason == "CIPHERTEXT_REFUSED"


async def test_rotation_rewraps_secrets_and_the_old_key_may_be_removed(
    server: IdentityServer, admin: Caller, tmp_path: Path
) -> None:
    await server.user(admin, "anna", log_in=False)
    anna = await user_id(server.database, "anna")
    file = tmp_path / "master.key"
    envelopes = Envelopes(KeyRing.load(file, create=True))
    old = envelopes.newest_key_id
    await rotation.begin(server.store, envelopes, SEALED)
    kept = UserSecrets(envelopes)
    async with server.store.system_write() as transaction:
        await kept.keep(transaction, anna, "totp", CANARY)
    new = add_key(file)
    done = await rotation.rotate(server.store, envelopes, SEALED, 100)
    assert (done.rotated, done.remaining, done.key_id) == (1, 0, new)
    remove_key(file, old)
    async with server.store.system_read() as reading:
        found = await UserSecrets(Envelopes(KeyRing.load(file, create=False))).read(reading, anna, "totp")
    assert found is not None
    assert found.value == CANARY
