"""The name and the keys of the log: configured, derived from the master keys, rotated with an overlap, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_server.audit import notes
from pilothouse_server.audit.log_identity import LogIdentity, name_of, origin_of
from pilothouse_server.audit.notes import Checkpoint, Signer, Verifier
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.settings.model import Settings, SettingsError
from pilothouse_server.store.audit_tree import TreeState
from tests.conftest import Database
from tests.harness import running_server

OLD, NEW, MASTER = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))


def secret(name: str, seed: bytes) -> str:
    key_id = Signer(name, seed).verifier.key_id.hex()
    return f"PRIVATE+KEY+{name}+{key_id}+{notes.base64_text(bytes([1]) + seed)}"


def identity(*masters: bytes, **settings: object) -> LogIdentity:
    return LogIdentity.load(Settings(**settings), KeyRing(masters or (MASTER,)))  # type: ignore[arg-type]


def test_both_keys_sign_while_one_replaces_the_other(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{secret('example.com/log', NEW)}\n{secret('example.com/log', OLD)}\n")
    file.chmod(0o600)
    named = identity(audit_key_file=file)
    assert named.wanted == "example.com/log"
    note = notes.signed(Checkpoint("example.com/log", 1, OLD), named.signers("example.com/log"))
    for seed in (OLD, NEW):
        verifier = Signer("example.com/log", seed).verifier
        assert notes.opened(note, [verifier])[1] == [verifier]


def test_a_former_key_verifies_and_signs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    former = Signer("example.com/log", OLD).verifier
    state = TreeState("id", "example.com/log", "one", "one", 1, [], 0)
    # First with a key that signs, then in addition to the keys that follow from the master keys.
    for lines in ([secret("example.com/log", NEW), str(former)], [str(former)]):
        file.write_text("\n".join(lines))
        file.chmod(0o600)
        named = identity(audit_key_file=file)
        assert former in named.verifiers(state)
        assert former not in [signer.verifier for signer in named.signers("example.com/log")]
        assert len(named.signers("example.com/log")) == 1


def test_keys_derived_from_rotated_master_keys_overlap() -> None:
    before = identity(OLD).signers("a/log")
    meanwhile = identity(NEW, OLD).signers("a/log")
    after = identity(NEW).signers("a/log")
    assert meanwhile == [*after, *before]
    assert before != after
    assert before[0].seed != OLD


def test_invalid_keys_and_names_are_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.write_text(secret("a/log", OLD))
    open_to_all.chmod(0o644)
    for settings in (
        {"audit_key_file": open_to_all},
        {"audit_key_file": tmp_path / "missing"},
        {"audit_key": f"{secret('a/log', OLD)} {secret('b/log', NEW)}"},
        {"audit_key": secret("a/log", OLD), "audit_origin": "b/log"},
        {"audit_key": secret("a/log", OLD).replace("a/log", "b/log")},
        {"audit_origin": "a log"},
        {"audit_key": "a/log+00000000+" + notes.base64_text(bytes([1]) + OLD)},
        {"audit_key": str(Verifier("a/witness", OLD, witness=True))},
    ):
        with pytest.raises(SettingsError, match="PILOTHOUSE_AUDIT_") as caught:
            identity(**settings)
        assert notes.base64_text(bytes([1]) + OLD)[:20] not in str(caught.value)


def test_heads_have_another_origin_after_a_rewind() -> None:
    state = TreeState("id", None, "one", "one", 1, [], 0)
    assert origin_of(state) == name_of(state) == "pilothouse/id"
    gone_back = TreeState("id", "a/log", "one", "0123456789", 1, [], 0)
    assert (name_of(gone_back), origin_of(gone_back)) == ("a/log", "a/log/01234567")


async def test_the_name_of_a_log_cannot_change(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False, audit_origin="a/log") as server:
        assert (await server.admin.audit.get_audit_head()).origin == "a/log"
    with pytest.raises(SettingsError, match="is named a/log, which cannot change"):
        async with running_server(database, tmp_path, with_cluster=False, audit_origin="b/log"):
            pass


async def test_a_log_that_is_named_later_accepts_its_first_heads(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        before = await server.admin.audit.get_audit_head()
    async with running_server(database, tmp_path, with_cluster=False, audit_origin="a/log") as server:
        async with server.admin.audit.verify_audit_log(checkpoint=before.checkpoint) as answers:
            *_, verdict = [answer async for answer in answers]
        assert verdict.head.origin == "a/log"
        assert verdict.head.size > before.size
        assert verdict.intact, verdict.findings
        assert verdict.former_heads == 0
