"""Keys that stay in a PKCS#11 token: values stored under them, and rotation to and from them through kills.

Also the errors if the token is wrong, locked, hanging or missing.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse.identity.v1 import identity_pb2_grpc
from pilothouse.identity.v1 import second_factor_pb2 as factor_pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_server.app import Application
from pilothouse_server.backup.sealing import make_key_file
from pilothouse_server.encryption import token_keys
from pilothouse_server.encryption.envelopes import Binding, Envelopes, Sealed
from pilothouse_server.encryption.hsm.token import PkcsToken, TokenLocation
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.encryption.token_keys import KeyNotAtHand, TokenKeys
from pilothouse_server.errors import FailedPrecondition, Unavailable
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_simulator import SimulatedCluster
from tests import server_program
from tests.backup.copies import back_up, empty_database, restore
from tests.client.command import Ended, run_to_end
from tests.clusters.given import register
from tests.config.canaries import MARK, found_in
from tests.config.hsm import LIBRARY, PIN, Token, make_token, needs_softhsm
from tests.conftest import Database, connection, number_changes
from tests.harness import NOWHERE, PASSWORD, Server, running_server, settings_for
from tests.identity.factors import authenticator_code, challenged, complete
from tests.identity.server import Caller
from tests.processes import finished
from tests.server_program import program
from tests.waiting import patient, poll_until

pytestmark = [pytest.mark.full(minutes=10), needs_softhsm]

SPACE = "vault"
HERE = Binding("secrets", "ciphertext", "7a0c", "12")
Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest_asyncio.fixture(loop_scope="session")
async def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """Makes a token with one key."""
    made = await make_token(tmp_path / "hsm")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    await new_key(made)
    return made


async def new_key(token: Token) -> str:
    opened = pkcs_token(token, writes=True)
    try:
        return await opened.add()
    finally:
        await opened.close()


def pkcs_token(token: Token, *, writes: bool = False, pin: str = PIN, seconds: float = 5.0) -> PkcsToken:
    assert LIBRARY is not None
    return PkcsToken(TokenLocation(LIBRARY, token.label, pin, "pilothouse", patient(seconds), writes))


@asynccontextmanager
async def serving(database: Database, folder: Path, token: Token, providers: str) -> AsyncIterator[Server]:
    async with running_server(database, folder, with_cluster=False, **token.settings(providers)) as server:
        yield server


def forget(server: Server) -> None:
    """Clears the cache of wrapping keys."""
    assert server.application.envelopes.token is not None
    server.application.envelopes.token.forget()


async def put(client: AsyncClient, name: str, value: str = "") -> pb.Secret:
    secret = pb.Secret(name=name, string_data={"value": value or name})
    return await client.config.create_secret(namespace=SPACE, secret=secret)


async def value_of(client: AsyncClient, name: str) -> str:
    answer = await client.config.reveal_secret(namespace=SPACE, name=name)
    return answer.data["value"].decode()


async def keys_of(client: AsyncClient) -> dict[str, str]:
    return {item.name: item.key_id async for item in client.config.list_secrets(namespace=SPACE)}


async def make_space(client: AsyncClient) -> None:
    await client.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE))


async def test_stored_values_need_the_token_and_open_only_in_their_place(
    database: Database, tmp_path: Path, token: Token
) -> None:
    async with serving(database, tmp_path, token, "pkcs11,file") as server:
        await make_space(server.admin)
        made = await put(server.admin, "one", f"{MARK}-value")
        await put(server.admin, "two")
        in_token = pkcs_token(token)
        assert list(await in_token.keys()) == [made.key_id]
        assert await value_of(server.admin, "one") == f"{MARK}-value"
        # Cached wrapping keys may be dropped at any time, both for opening and for sealing.
        forget(server)
        assert await value_of(server.admin, "one") == f"{MARK}-value"
        forget(server)
        changed = await server.admin.config.update_secret(
            namespace=SPACE, name="one", set_data={"other": b"x"}, remove_keys=["value"]
        )
        assert changed.secret.key_id == made.key_id
        async with connection(database.admin_dsn) as sql:
            await number_changes(sql)
        async with database.owner() as owner:
            # Neither the value nor the PIN is stored in clear, and both layers are bound to their row.
            rows = str(await owner.fetch("SELECT s.*::text FROM secrets AS s")) + str(
                await owner.fetch("SELECT l::text FROM operation_logs AS l")
            )
            assert found_in(rows.encode(), [MARK, PIN]) == []
            for columns in ("ciphertext", "data_key", "ciphertext, data_key"):
                await owner.execute(
                    f"UPDATE secrets SET ({columns}, updated_at) = "
                    f"(SELECT {columns}, now() FROM secrets WHERE name = 'one') WHERE name = 'two'"
                )
                with pytest.raises(PilothouseError) as refused:
                    await value_of(server.admin, "two")
                assert refused.value.reason == "CIPHERTEXT_REFUSED"
        await in_token.close()
    async with serving(database, tmp_path, token, "file,pkcs11") as server:
        answer = await server.admin.config.reveal_secret(namespace=SPACE, name="one")
        assert dict(answer.data) == {"other": b"x"}


async def test_seeds_of_second_factors_are_wrapped_by_the_token(
    database: Database, tmp_path: Path, token: Token
) -> None:
    async with serving(database, tmp_path, token, "pkcs11,file") as server:
        await server.user("anna", {})
        stub: Any = identity_pb2_grpc.IdentityServiceStub(server.channel())
        caller = Caller(stub, await server.token("anna"))
        seed = base64.b32decode((await caller.EnrolTotp(factor_pb.EnrolTotpRequest())).secret)

        async def code() -> str:
            async with database.system() as connection:
                await connection.execute("UPDATE users SET totp_last_step = 0")
                return authenticator_code(
                    seed, await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
                )

        forget(server)
        await caller.ConfirmTotp(factor_pb.ConfirmTotpRequest(code=await code()))
        forget(server)
        answer = await challenged(Caller(stub), "anna", PASSWORD)
        done = await complete(Caller(stub), answer.challenge, code=await code())
        assert done.user.username == "anna"
        async with database.owner() as owner:
            (key_id,) = await owner.fetchrow("SELECT key_id FROM user_secrets")
            assert key_id == server.application.envelopes.newest_key_id
            assert (
                found_in(
                    str(await owner.fetch("SELECT s::text FROM user_secrets AS s")).encode(), [seed.hex()]
                )
                == []
            )


async def test_cluster_credentials_and_secrets_are_wrapped_by_the_token(
    database: Database, tmp_path: Path, token: Token
) -> None:
    async with (
        SimulatedCluster(speed=10) as cluster,
        serving(database, tmp_path, token, "pkcs11,file") as server,
    ):
        await register(server, "second", cluster)
        # The reconciler's client needs credentials that the token must unwrap first.
        forget(server)
        await server.admin.namespaces.create(
            namespace=namespace_pb2.Namespace(name=SPACE, cluster_name="second")
        )
        await put(server.admin, "one")

        async def applied() -> bool:
            return not (await server.admin.config.get_secret(namespace=SPACE, name="one")).reconciling

        await poll_until(applied)
        async with database.owner() as owner:
            keys = {
                *(row[0] for row in await owner.fetch("SELECT key_id FROM clusters WHERE name = 'second'")),
                *(row[0] for row in await owner.fetch("SELECT key_id FROM secrets")),
            }
        assert keys == {server.application.envelopes.newest_key_id}


async def test_replicas_find_a_key_added_to_the_token(
    database: Database, tmp_path: Path, token: Token
) -> None:
    async with (
        serving(database, tmp_path, token, "pkcs11,file") as one,
        serving(database, tmp_path, token, "pkcs11,file") as other,
    ):
        await make_space(one.admin)
        old = (await put(other.admin, "before")).key_id
        new = await new_key(token)
        answer = await one.admin.config.rotate_keys()
        assert (answer.rotated, answer.remaining, answer.key_id) == (1, 0, new)
        assert new != old
        assert (await put(other.admin, "after")).key_id == new
        for name in ("before", "after"):
            assert await value_of(one.admin, name) == await value_of(other.admin, name) == name


async def test_a_damaged_data_key_does_not_block_the_others(
    database: Database, tmp_path: Path, token: Token
) -> None:
    async with serving(database, tmp_path, token, "pkcs11,file") as server:
        await make_space(server.admin)
        for name in ("bad", "worse", "good"):
            await put(server.admin, name)
            forget(server)
        async with database.owner() as owner:
            await owner.execute("UPDATE secrets SET data_key = decode('0201', 'hex') WHERE name = 'worse'")
            # Inside the part that the token has wrapped.
            await owner.execute(
                "UPDATE secrets SET data_key = set_byte(data_key, 20, 255 - get_byte(data_key, 20)) "
                "WHERE name = 'bad'"
            )
        new = await new_key(token)
        answer = await server.admin.config.rotate_keys()
        assert (answer.rotated, answer.remaining) == (1, 2)
        assert (await keys_of(server.admin))["good"] == new
        assert await value_of(server.admin, "good") == "good"
        for name in ("bad", "worse"):
            with pytest.raises(PilothouseError) as refused:
                await value_of(server.admin, name)
            assert refused.value.reason == "CIPHERTEXT_REFUSED"


def variables(database: Database, folder: Path, token: Token, providers: str) -> dict[str, str]:
    return server_program.variables(database, folder, token.variables(providers))


async def test_rotations_to_the_token_and_back_continue_after_kills(
    database: Database, tmp_path: Path, token: Token
) -> None:
    names = [f"s{number}" for number in range(12)]
    async with program(variables(database, tmp_path, token, "file")) as server:
        await make_space(server.client)
        for name in names:
            await put(server.client, name)
        (file_key,) = set((await keys_of(server.client)).values())
    for providers, kill_at in (("pkcs11,file", 2), ("file,pkcs11", 6)):
        environment = variables(database, tmp_path, token, providers)
        # Killed while rows are rewrapped one after another, and started again.
        for batch in (kill_at, 0):
            # The second server of the rotation to the token has two processes, each with the library in a process of
            # its own.
            two = not batch and providers == "pkcs11,file"
            processes = {"PILOTHOUSE_PROCESSES": "2"} if two else {}
            async with program(environment | processes) as server:
                for name in names:
                    assert await value_of(server.client, name) == name
                if batch:
                    rotating = asyncio.create_task(rotate_on(server.client))
                    await poll_until(partial(at_least, database, batch))
                    await server.kill()
                    with pytest.raises(PilothouseError):
                        await asyncio.wait_for(rotating, patient(60))
                    continue
                while (await server.client.config.rotate_keys(batch_size=3)).remaining:
                    pass
                (now,) = set((await keys_of(server.client)).values())
                assert (now == file_key) == (providers == "file,pkcs11")
                for name in names:
                    assert await value_of(server.client, name) == name


async def rotate_on(client: AsyncClient) -> None:
    """Rotates one row per call until the server is gone."""
    while True:
        await client.config.rotate_keys(batch_size=1)


async def at_least(database: Database, count: int) -> bool:
    """Returns whether at least `count` rows are under the active key."""
    async with database.system() as connection:
        return bool(
            count
            <= await connection.fetchval(
                "SELECT count(*) FROM secrets JOIN encryption_keys AS k USING (key_id) WHERE k.status = 'active'"
            )
        )


async def test_a_failed_start_names_the_fault_and_the_missing_keys(
    database: Database, tmp_path: Path, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database, tmp_path, token, "pkcs11,file") as server:
        await make_space(server.admin)
        key_id = (await put(server.admin, "one")).key_id
    needed = f"1 stored values need the key {key_id}, which the key provider pkcs11 had"
    wrong_pin = tmp_path / "wrong-pin"
    wrong_pin.write_text("not the PIN")
    wrong_pin.chmod(0o600)
    good = token.settings("pkcs11,file")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"pkcs11_token": "nobody"}, 'has no token with the label "nobody"'),
        ({"pkcs11_module": Path("/usr/lib/none.so")}, "cannot be loaded as a PKCS#11 library"),
        ({"pkcs11_key_label": "others"}, "no key provider of this server has the missing key"),
        ({"pkcs11_pin_file": wrong_pin}, 'the token "vault" refused the PIN'),
    ]
    for change, words in changes:
        said = await refused_start(database, tmp_path, good | change)
        assert words in said
        assert needed in said
    assert needed in await refused_start(database, tmp_path, token.settings("file"))
    # The command prints the same message, without internals.
    environment = variables(database, tmp_path, token, "pkcs11,file")
    environment |= {"PILOTHOUSE_DATA_DIR": str(tmp_path), "PILOTHOUSE_PKCS11_PIN_FILE": str(wrong_pin)}
    ended = await run_to_end(["serve"], environment)
    assert ended.code == 1
    assert needed in ended.err
    for foreign in ("Traceback", "CKR_", "pkcs11.exceptions", PIN, "not the PIN"):
        assert foreign not in ended.err
    # Another token with the same name has another key.
    other = await make_token(tmp_path / "other")
    for name, value in other.environment.items():
        monkeypatch.setenv(name, value)
    await new_key(other)
    assert needed in await refused_start(database, tmp_path, good)
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    async with serving(database, tmp_path, token, "pkcs11,file") as server:
        assert await value_of(server.admin, "one") == "one"


async def refused_start(database: Database, folder: Path, changes: Mapping[str, Any]) -> str:
    """Returns the error message of a server that does not start."""
    application = Application(settings_for(database, folder, **changes), {"local": NOWHERE})
    try:
        with pytest.raises(Unavailable) as refused:
            await application.start()
    finally:
        await application.stop()
    return refused.value.message


async def test_a_hanging_token_fails_only_the_calls_that_need_it(
    database: Database, tmp_path: Path, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pilothouse_server.encryption.hsm.token.ANSWER_SECONDS", 0.5)
    settings = token.settings("pkcs11,file")
    async with running_server(database, tmp_path, with_cluster=False, **settings) as server:
        await make_space(server.admin)
        await put(server.admin, "one")
        forget(server)
        os.kill(library_process(), signal.SIGSTOP)
        with pytest.raises(PilothouseError) as away:
            await server.admin.config.reveal_secret(namespace=SPACE, name="one")
        assert away.value.reason == "ENCRYPTION_TOKEN_AWAY"
        # A call that needs no key succeeds.
        assert [each.name async for each in server.admin.config.list_secrets(namespace=SPACE)] == ["one"]
        # The next run of the library process works.
        await poll_until(lambda: reads(server.admin, "one"))


async def test_a_crashing_library_does_not_take_the_server_down(
    database: Database, tmp_path: Path, token: Token
) -> None:
    async with serving(database, tmp_path, token, "pkcs11,file") as server:
        await make_space(server.admin)
        await put(server.admin, "one")
        forget(server)
        os.kill(library_process(), signal.SIGSEGV)
        await poll_until(lambda: reads(server.admin, "one"))


async def reads(client: AsyncClient, name: str) -> bool:
    try:
        return await value_of(client, name) == name
    except PilothouseError as error:
        if error.reason != "ENCRYPTION_TOKEN_AWAY":
            raise
        return False


def library_process() -> int:
    """Returns the id of the process that has loaded the token's library, a child of this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (found,) = [
        int(child)
        for child in children
        if b"pilothouse_server.encryption.hsm.program" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return found


async def test_a_refused_pin_is_not_tried_again(token: Token) -> None:
    opened = pkcs_token(token, pin="not the PIN")
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            await opened.keys()
        assert refused.value.metadata == {"why": "PIN_WRONG"}
    assert opened.launches == 1
    await opened.close()


async def test_an_extractable_key_is_refused(token: Token, tmp_path: Path) -> None:
    program_text = f"""
import pkcs11
token = pkcs11.lib({str(LIBRARY)!r}).get_token(token_label="vault")
with token.open(rw=True, user_pin={PIN!r}) as session:
    session.generate_key(pkcs11.KeyType.AES, 256, label="pilothouse", id=b"z", store=True,
                         template={{pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False}})
"""
    code, _, errors = await finished(sys.executable, "-c", program_text)
    assert code == 0, errors
    opened = pkcs_token(token)
    with pytest.raises(Unavailable) as refused:
        await opened.keys()
    assert refused.value.metadata == {"why": "KEY_EXTRACTABLE"}
    await opened.close()


async def test_any_changed_bit_or_truncation_is_refused(token: Token) -> None:
    made = Envelopes(KeyRing([bytes(32)]), TokenKeys(pkcs_token(token)), ("pkcs11", "file"))
    await made.refresh()
    key_id = made.newest_key_id
    with pytest.raises(KeyNotAtHand) as missing:
        made.seal(b"the value", HERE, key_id)
    await missing.value.bring()
    box = made.seal(b"the value", HERE, key_id)
    assert made.open(box, HERE) == b"the value"
    whole = box.data_key
    broken = [whole[:length] for length in range(0, len(whole), 7)]
    broken += [
        whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :] for index in range(0, len(whole), 5)
    ]
    for each in broken:
        changed = Sealed(box.ciphertext, each, key_id)
        await made.at_hand(changed)
        with pytest.raises(FailedPrecondition) as refused:
            made.open(changed, HERE)
        assert refused.value.reason == "CIPHERTEXT_REFUSED"
    # After `MOST_USES` values, another wrapping key is needed.
    first = made.seal(b"1", HERE, key_id).data_key[:64]
    more = (made.seal(b"1", HERE, key_id) for _ in range(token_keys.MOST_USES))
    with pytest.raises(KeyNotAtHand):
        list(takewhile(lambda box: box.data_key[:64] == first, more))
    await made.close()


async def test_the_command_adds_lists_and_removes_keys_of_the_token(
    database: Database, tmp_path: Path, token: Token
) -> None:
    async with serving(database, tmp_path, token, "pkcs11,file") as server:
        await make_space(server.admin)
        old = (await put(server.admin, "one")).key_id
        environment = variables(database, tmp_path, token, "pkcs11,file") | {
            "PILOTHOUSE_DATA_DIR": str(tmp_path),
            "PILOTHOUSE_SERVER": server.address,
            "PILOTHOUSE_TOKEN": await server.token(),
            "PILOTHOUSE_CONFIG": str(tmp_path / "config.json"),
        }

        async def command(*words: str) -> Ended:
            return await run_to_end(("keys", *words), environment)

        added = await command("add")
        assert added.code == 0, added.err
        new = added.out.split()[1]
        listed = [line.split() for line in (await command("list")).lines]
        assert [line[1] for line in listed] == ["pkcs11", "pkcs11", "file"]
        assert [line[0] for line in listed[:2]] == [new, old]
        refused = await command("remove", old)
        assert refused.code == 1
        assert "stored values, which would be lost for ever" in refused.err
        assert (await command("rotate")).out == f"everything is encrypted under key {new}\n"
        removed = await command("remove", old)
        assert removed.code == 0, removed.err
        assert (await command("list")).out.split()[0] == new
        assert old not in (await command("list")).out
        assert await value_of(server.admin, "one") == "one"


async def test_a_backup_of_values_wrapped_by_the_token_is_restored(
    database: Database, postgres: EmbeddedPostgres, tmp_path: Path, token: Token
) -> None:
    key_file = tmp_path / "backup.key"
    make_key_file(key_file)
    async with serving(database, tmp_path, token, "pkcs11,file") as server:
        await make_space(server.admin)
        key_id = (await put(server.admin, "one")).key_id
    made = await back_up(
        database, tmp_path / "backups", key_file=key_file, master_key_file=tmp_path / "master.key"
    )
    assert key_id in made.manifest.master_key_ids
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with empty_database(postgres) as empty:
        await restore(made.path, empty, key_file=key_file, master_keys_to=elsewhere / "master.key")
        async with serving(empty, elsewhere, token, "pkcs11,file") as server:
            assert await value_of(server.admin, "one") == "one"


def test_contradictory_token_settings_are_refused(database: Database, tmp_path: Path) -> None:
    from pilothouse_server.encryption.hsm import token_keys as of_settings
    from pilothouse_server.settings.model import SettingsError

    for changes, words in (
        ({"key_providers": "file,pkcs11"}, "PILOTHOUSE_PKCS11_MODULE"),
        ({"pkcs11_module": LIBRARY}, "KEY_PROVIDERS does not name pkcs11"),
        (
            {
                "key_providers": "file,pkcs11",
                "pkcs11_module": LIBRARY,
                "pkcs11_token": "x",
                "pkcs11_pin_file": tmp_path / "absent",
            },
            "PILOTHOUSE_PKCS11_PIN_FILE",
        ),
    ):
        with pytest.raises(SettingsError, match=words):
            of_settings(settings_for(database, tmp_path, **changes))
