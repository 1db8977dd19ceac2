"""Keys and envelopes without a server: their refusals, and the format of a key file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pilothouse_server.encryption.envelopes import Binding, Envelopes, Sealed
from pilothouse_server.encryption.keys import KeyRing, add_key, remove_key
from pilothouse_server.errors import FailedPrecondition, PilothouseError, Unavailable
from pilothouse_server.settings.model import SettingsError

HERE = Binding("secrets", "ciphertext", "7a0c", "12")
PLAINTEXT = b"the value"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "master.key"
    KeyRing.load(path, create=True)
    return path


def envelopes(path: Path) -> Envelopes:
    return Envelopes(KeyRing.load(path, create=False))


def sealed(with_: Envelopes, binding: Binding = HERE) -> Sealed:
    return with_.seal(PLAINTEXT, binding, with_.newest_key_id)


def test_a_sealed_value_opens_in_its_own_place(path: Path) -> None:
    made = envelopes(path)
    box = sealed(made)
    assert made.open(box, HERE) == PLAINTEXT
    assert envelopes(path).open(box, HERE) == PLAINTEXT
    assert PLAINTEXT not in box.ciphertext
    # The same value sealed twice looks like two values.
    assert sealed(made).ciphertext != box.ciphertext
    assert sealed(made).data_key != box.data_key


@pytest.mark.parametrize("part", [field.name for field in dataclasses.fields(Binding)])
def test_a_sealed_value_is_refused_in_any_other_place(path: Path, part: str) -> None:
    made = envelopes(path)
    elsewhere = dataclasses.replace(HERE, **{part: getattr(HERE, part) + "0"})
    with pytest.raises(FailedPrecondition) as refused:
        made.open(sealed(made), elsewhere)
    assert refused.value.reason == "CIPHERTEXT_REFUSED"
    with pytest.raises(FailedPrecondition):
        made.rewrap(sealed(made).data_key, made.newest_key_id, elsewhere, made.newest_key_id)


def test_bindings_with_the_same_letters_in_other_fields_differ(path: Path) -> None:
    made = envelopes(path)
    box = sealed(made, Binding("secrets", "a", "bc", ""))
    with pytest.raises(FailedPrecondition):
        made.open(box, Binding("secrets", "ab", "c", ""))


def test_another_rows_ciphertext_is_refused_with_this_rows_data_key(path: Path) -> None:
    made = envelopes(path)
    one, other = sealed(made), sealed(made, dataclasses.replace(HERE, row="9"))
    with pytest.raises(FailedPrecondition):
        made.open(Sealed(other.ciphertext, one.data_key, one.key_id), HERE)


@pytest.mark.parametrize("part", ["ciphertext", "data_key"])
def test_any_changed_bit_or_truncation_is_refused(path: Path, part: str) -> None:
    made = envelopes(path)
    box = sealed(made)
    whole = getattr(box, part)
    broken = [whole[:length] for length in range(len(whole))]
    broken += [whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :] for index in range(len(whole))]
    for each in broken:
        with pytest.raises(FailedPrecondition):
            made.open(dataclasses.replace(box, **{part: each}), HERE)


def test_a_rewrapped_key_opens_the_value_under_the_new_key_alone(path: Path) -> None:
    before = envelopes(path)
    box = sealed(before)
    new = add_key(path)
    after = envelopes(path)
    assert after.newest_key_id == new != box.key_id
    assert after.open(box, HERE) == PLAINTEXT
    rewrapped = Sealed(box.ciphertext, after.rewrap(box.data_key, box.key_id, HERE, new), new)
    assert after.open(rewrapped, HERE) == PLAINTEXT
    remove_key(path, box.key_id)
    assert envelopes(path).open(rewrapped, HERE) == PLAINTEXT
    with pytest.raises(Unavailable) as missing:
        envelopes(path).open(box, HERE)
    assert missing.value.reason == "ENCRYPTION_KEY_MISSING"


def test_a_key_added_while_a_server_runs_is_found(path: Path) -> None:
    running = envelopes(path)
    new = add_key(path)
    assert new not in running.key_ids
    box = envelopes(path).seal(PLAINTEXT, HERE, new)
    assert running.open(box, HERE) == PLAINTEXT


async def test_a_running_server_keeps_its_keys_if_the_key_file_breaks(path: Path) -> None:
    running = envelopes(path)
    box = sealed(running)
    path.write_text("nothing")
    with pytest.raises(SettingsError):
        await running.refresh()
    assert running.open(box, HERE) == PLAINTEXT
    with pytest.raises(PilothouseError) as missing:
        running.seal(PLAINTEXT, HERE, "unknown")
    assert missing.value.reason == "ENCRYPTION_KEY_MISSING"


def test_keys_derived_for_tokens_survive_a_new_key(path: Path) -> None:
    before = KeyRing.load(path, create=False)
    add_key(path)
    after = KeyRing.load(path, create=False)
    assert after.derive("resume-token") == before.derive("resume-token")
    assert after.derive("resume-token") != after.derive("page-token")
    assert before.newest_key_id == list(after.key_encryption_keys)[1]


@pytest.mark.parametrize("use", ["page-token", "resume-token", ""])
def test_keys_are_derived_by_hkdf(use: str) -> None:
    master = bytes(range(32))
    standard = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"pilothouse/{use}".encode())
    assert KeyRing([master]).derive(use) == standard.derive(master)
    identifier = HKDF(algorithm=SHA256(), length=8, salt=None, info=b"pilothouse/key-encryption-key-id")
    assert KeyRing([master]).newest_key_id == identifier.derive(master).hex()


def test_a_key_file_made_by_another_process_in_between_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared.key"
    first = KeyRing.load(shared, create=True)
    with monkeypatch.context() as looked_before_it_was_there:
        looked_before_it_was_there.setattr(Path, "exists", lambda _path: False)
        second = KeyRing.load(shared, create=True)
    assert first.newest_key_id == second.newest_key_id
    assert sorted(path.name for path in tmp_path.iterdir() if "shared" in path.name) == ["shared.key"]


def test_the_newest_key_and_an_unknown_one_are_not_removed(path: Path) -> None:
    newest = KeyRing.load(path, create=False).newest_key_id
    for key_id in (newest, "unknown"):
        with pytest.raises(SettingsError):
            remove_key(path, key_id)
    assert KeyRing.load(path, create=False).newest_key_id == newest


@pytest.mark.parametrize(
    "text", ["", "zz", "ab" * 31, "ab" * 33, "ab" * 32 + "\n" + "ab" * 32, "ab" * 32 + "\nrubbish"]
)
def test_a_malformed_key_file_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        KeyRing.load(path, create=False)
    assert "ab" * 31 not in str(refused.value)
    with pytest.raises(SettingsError):
        add_key(path)
    assert path.read_text() == text


def test_only_the_owner_may_read_the_key_file(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    add_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        KeyRing.load(path, create=False)


def test_adding_a_key_leaves_no_other_file_behind(path: Path) -> None:
    add_key(path)
    assert os.listdir(path.parent) == [path.name]


def test_keys_and_values_are_not_shown(path: Path) -> None:
    made = envelopes(path)
    box = sealed(made)
    assert box.data_key.hex() not in repr(box)
    assert str(box.data_key) not in repr(box)
