"""Rotation of the key-encryption key: without downtime, through kills, and the refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_client.streams import ChangeKind
from pilothouse_server.app import SEALED
from pilothouse_server.config.operations import rotation, secrets
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.encryption.keys import KeyRing, add_key, remove_key
from pilothouse_server.errors import Unavailable
from pilothouse_server.revisions.operations import kept_values
from pilothouse_server.store import encryption_keys
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import patient, poll_until

SPACE = "vault"


@pytest_asyncio.fixture(loop_scope="session")
async def vault(database: Database, tmp_path: Path) -> AsyncIterator[Server]:
    """Yields a server without a cluster, with a namespace; its key file is `master.key` in the test's directory."""
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE))
        yield server


async def put(server: Server, name: str, value: str = "") -> pb.Secret:
    secret = pb.Secret(name=name, string_data={"value": value or name})
    return await server.admin.config.create_secret(namespace=SPACE, secret=secret)


async def value_of(server: Server, name: str) -> str:
    answer = await server.admin.config.reveal_secret(namespace=SPACE, name=name)
    return answer.data["value"].decode()


async def keys_of(server: Server) -> dict[str, str]:
    return {item.name: item.key_id async for item in server.admin.config.list_secrets(namespace=SPACE)}


async def statuses(server: Server) -> dict[str, str]:
    async with server.database.system() as connection:
        return {
            row["key_id"]: row["status"]
            for row in await connection.fetch("SELECT key_id, status FROM encryption_keys")
        }


async def test_every_secret_moves_to_the_new_key_and_the_old_one_can_be_removed(
    vault: Server, tmp_path: Path
) -> None:
    names = [f"s{number}" for number in range(5)]
    made = [await put(vault, name) for name in names]
    old = made[0].key_id
    new = add_key(tmp_path / "master.key")
    # An added key is not used before a rotation: other servers may not have it yet.
    assert (await put(vault, "before")).key_id == old
    first = await vault.admin.config.rotate_keys(batch_size=2)
    assert (first.rotated, first.remaining, first.key_id) == (2, 4, new)
    assert await statuses(vault) == {old: "retiring", new: "active"}
    assert (await put(vault, "between")).key_id == new
    second = await vault.admin.config.rotate_keys()
    assert (second.rotated, second.remaining) == (4, 0)
    assert set((await keys_of(vault)).values()) == {new}
    assert await statuses(vault) == {old: "retired", new: "active"}
    remove_key(tmp_path / "master.key", old)
    assert (await vault.admin.config.rotate_keys()).rotated == 0
    for name in (*names, "before", "between"):
        assert await value_of(vault, name) == name
    # The rotation changes nothing else.
    found = await vault.admin.config.get_secret(namespace=SPACE, name="s0")
    assert (found.etag, found.generation) == (made[0].etag, 1)


async def test_former_values_move_to_the_new_key_and_are_purged(vault: Server, tmp_path: Path) -> None:
    config = vault.admin.config
    old = (await put(vault, "changing", "first")).key_id

    async def change(value: str) -> None:
        secret = pb.Secret(name="changing", string_data={"value": value})
        await config.update_secret(
            namespace=SPACE, name="changing", secret=secret, update_mask=FieldMask(paths=["string_data"])
        )

    async def former(number: int) -> tuple[int, bytes | None] | None:
        store, envelopes = vault.application.store, vault.application.envelopes
        async with store.system_read() as transaction:
            found = await secrets.locate(transaction, SPACE, "changing")
            return await kept_values(transaction, secrets.revised(found), number, "changing", envelopes)

    await change("second")
    add_key(tmp_path / "master.key")
    done = await config.rotate_keys()
    assert (done.rotated, done.remaining) == (2, 0)
    remove_key(tmp_path / "master.key", old)
    await config.rotate_keys()
    values = await former(1)
    assert values is not None
    assert b"first" in (values[1] or b"")
    await change("third")
    assert await config.purge_secret(namespace=SPACE, name="changing", validate_only=True) == 2
    assert await config.purge_secret(namespace=SPACE, name="changing") == 2
    assert await config.purge_secret(namespace=SPACE, name="changing") == 0
    assert [await former(1), await former(2), await former(3)] == [(1, None), (2, None), None]
    assert await value_of(vault, "changing") == "third"
    # A later change keeps the values of the revision that had them.
    await change("fourth")
    assert await former(2) == (2, None)
    assert (await former(3) or (0, None))[0] == 3
    async with vault.database.system() as sql:
        assert await sql.fetchval("SELECT count(*) FROM revision_values WHERE ciphertext IS NULL") == 2
    with pytest.raises(PilothouseError, match='secret "missing"'):
        await config.purge_secret(namespace=SPACE, name="missing")


async def test_watchers_are_notified_of_the_new_key(vault: Server, tmp_path: Path) -> None:
    await put(vault, "watched")
    new = add_key(tmp_path / "master.key")
    synced = asyncio.Event()

    async def follow() -> str:
        async for change in vault.admin.config.watch_configs(namespace=SPACE):
            if change.kind is ChangeKind.SYNCED:
                synced.set()
            elif change.kind is ChangeKind.MODIFIED and change.resource.secret.key_id == new:
                return change.resource.secret.name
        return ""

    watcher = asyncio.create_task(follow())
    await asyncio.wait_for(synced.wait(), patient(10))
    await vault.admin.config.rotate_keys()
    assert await asyncio.wait_for(watcher, patient(10)) == "watched"


class Killed(BaseException):
    """Ends the rotation like a kill: nothing after it runs."""


async def test_a_rotation_killed_at_any_row_continues(
    vault: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{number}" for number in range(6)]
    for name in names:
        await put(vault, name)
    new = add_key(tmp_path / "master.key")
    store, envelopes = vault.application.store, vault.application.envelopes
    monkeypatch.setattr(rotation, "_TRANSACTION_ROWS", 2)
    written = encryption_keys.put_rewrapped
    # Six rows, two per transaction: each number is the row at which an attempt is killed; 0 is none.
    deaths = iter([1, 2, 4, 2, 2, 0])
    lefts = []
    for death in deaths:
        rows = 0

        async def dying(*arguments: object, death: int = death) -> None:
            nonlocal rows
            rows += 1
            if rows == death:
                raise Killed
            await written(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(encryption_keys, "put_rewrapped", dying)
        try:
            await rotation.rotate(store, envelopes, SEALED, 100)
        except Killed:
            assert death
        for name in names:
            assert await value_of(vault, name) == name
        lefts.append(sum(key_id != new for key_id in (await keys_of(vault)).values()))
    # Committed rows stay, interrupted rows are unchanged, and the last attempt finishes.
    assert lefts == [6, 6, 4, 4, 4, 0]
    assert (await vault.admin.config.rotate_keys()).remaining == 0


async def test_writers_lose_nothing_during_a_rotation(vault: Server, tmp_path: Path) -> None:
    for number in range(10):
        await put(vault, f"old{number}")
    new = add_key(tmp_path / "master.key")

    async def write(number: int) -> None:
        await put(vault, f"new{number}")

    async def rotate() -> None:
        while (await vault.admin.config.rotate_keys(batch_size=3)).remaining:
            pass

    await asyncio.gather(rotate(), rotate(), *(write(number) for number in range(10)))
    found = await keys_of(vault)
    # Values from before the new key became active were rotated; later ones were encrypted under it.
    assert set(found.values()) == {new}
    for name in found:
        assert await value_of(vault, name) == name


async def test_the_switch_waits_for_writers_under_the_old_key(vault: Server, tmp_path: Path) -> None:
    await put(vault, "first")
    new = add_key(tmp_path / "master.key")
    store, envelopes = vault.application.store, vault.application.envelopes
    async with store.system_write("test") as writing:
        old = await encryption_keys.active_key_id(writing)
        switching = asyncio.create_task(rotation.rotate(store, envelopes, SEALED, 100))
        async with vault.database.system() as connection:

            async def waits() -> bool:
                assert not switching.done()
                locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                return bool(await connection.fetchval(locks))

            await poll_until(waits)
        assert await encryption_keys.active_key_id(writing) == old
    done = await asyncio.wait_for(switching, patient(10))
    assert (done.key_id, done.remaining) == (new, 0)


async def test_a_damaged_data_key_does_not_block_the_others(vault: Server, tmp_path: Path) -> None:
    for name in ("bad", "good"):
        await put(vault, name)
    async with vault.database.owner() as owner:
        await owner.execute("UPDATE secrets SET data_key = decode('01', 'hex') WHERE name = 'bad'")
    add_key(tmp_path / "master.key")
    answer = await vault.admin.config.rotate_keys()
    assert (answer.rotated, answer.remaining) == (1, 1)
    assert await value_of(vault, "good") == "good"
    with pytest.raises(PilothouseError) as refused:
        await value_of(vault, "bad")
    assert refused.value.reason == "CIPHERTEXT_REFUSED"


async def test_values_moved_to_another_row_or_tenant_are_refused(vault: Server) -> None:
    await vault.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="other"))
    await put(vault, "beside", "theirs")
    for number, columns in enumerate(("ciphertext", "data_key", "ciphertext, data_key")):
        await put(vault, name := f"here-{number}", "mine")
        secret = pb.Secret(name=name, string_data={"value": "of the other tenant"})
        await vault.admin.config.create_secret(namespace="other", secret=secret)
        for source, namespace in (("beside", SPACE), (name, "other")):
            async with vault.database.owner() as owner:
                moved = await owner.execute(
                    f"UPDATE secrets AS t SET ({columns}, updated_at) = (SELECT {columns}, now() FROM secrets AS s"
                    " JOIN namespaces AS n ON n.id = s.namespace_id WHERE s.name = $1 AND n.name = $2)"
                    " WHERE t.name = $3 AND t.namespace_id = (SELECT id FROM namespaces WHERE name = $4)",
                    source,
                    namespace,
                    name,
                    SPACE,
                )
                assert moved == "UPDATE 1"
            with pytest.raises(PilothouseError) as refused:
                await value_of(vault, name)
            assert refused.value.reason == "CIPHERTEXT_REFUSED"
    assert await value_of(vault, "beside") == "theirs"


async def test_a_server_without_the_keys_of_stored_values_does_not_start(
    vault: Server, tmp_path: Path
) -> None:
    await put(vault, "kept")
    store = vault.application.store
    stranger = Envelopes(KeyRing.load(tmp_path / "another.key", create=True))
    with pytest.raises(Unavailable) as refused:
        await rotation.begin(store, stranger, SEALED)
    assert refused.value.reason == "ENCRYPTION_KEY_MISSING"
    await rotation.begin(store, vault.application.envelopes, SEALED)
    assert await value_of(vault, "kept") == "kept"


async def test_an_unreadable_key_file_is_reported(vault: Server, tmp_path: Path) -> None:
    await put(vault, "kept")
    (tmp_path / "master.key").write_text("nonsense")
    with pytest.raises(PilothouseError) as refused:
        await vault.admin.config.rotate_keys()
    assert refused.value.reason == "KEY_FILE_UNREADABLE"
    assert "nonsense" not in str(refused.value)
    assert await value_of(vault, "kept") == "kept"
