"""Key providers without a server: the environment next to the file, their order, and the refusals."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pilothouse_server.encryption.envelopes import Binding, Envelopes
from pilothouse_server.encryption.hsm import token_keys
from pilothouse_server.encryption.keys import KeyRing, new_key, providers
from pilothouse_server.settings.model import Settings, SettingsError, load

HERE = Binding("secrets", "ciphertext", "7a0c", "12")
ONE, TWO = "ab" * 32, "cd" * 32


def settings(folder: Path, **changes: object) -> Settings:
    return msgspec.structs.replace(Settings(data_dir=folder), **changes)


def test_a_key_moved_between_file_and_environment_stays_the_same(tmp_path: Path) -> None:
    of_file = KeyRing.of(settings(tmp_path))
    key_id = of_file.newest_key_id
    text = (tmp_path / "master.key").read_text()
    both = KeyRing.of(settings(tmp_path, key_providers="environment, file", secret_keys=text))
    assert dict(both.providers) == {key_id: "environment"}
    alone = KeyRing.of(settings(tmp_path, key_providers="environment", secret_keys=text))
    for ring in (both, alone):
        assert ring.newest_key_id == key_id
        assert ring.derive("resume-token") == of_file.derive("resume-token")
        assert ring.derive_each("use") == of_file.derive_each("use")


def test_the_first_provider_encrypts_and_tokens_derive_from_the_last(tmp_path: Path) -> None:
    before = KeyRing.of(settings(tmp_path))
    after = settings(tmp_path, key_providers="environment,file", secret_keys=f"{ONE},\n{TWO} ")
    ring = KeyRing.of(after)
    assert len(ring.key_encryption_keys) == 3
    assert ring.newest_key_id == KeyRing([bytes.fromhex(ONE)]).newest_key_id
    assert ring.derive("resume-token") == before.derive("resume-token")
    assert list(ring.providers.values()) == ["environment", "environment", "file"]
    assert list(ring.providers) == list(ring.key_encryption_keys)
    box = Envelopes(before).seal(b"the value", HERE, before.newest_key_id)
    assert Envelopes(ring).open(box, HERE) == b"the value"
    assert Envelopes(ring).newest_key_id == ring.newest_key_id


def test_no_key_file_is_made_without_the_file_provider_or_create(tmp_path: Path) -> None:
    KeyRing.of(settings(tmp_path, key_providers="environment", secret_keys=ONE))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match=r"master\.key"):
        KeyRing.of(settings(tmp_path), create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_new_key_is_valid_in_the_environment(tmp_path: Path) -> None:
    text, key_id = new_key()
    ring = KeyRing.of(settings(tmp_path, key_providers="environment", secret_keys=f"{text} {ONE}"))
    assert ring.newest_key_id == key_id


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key_providers": ""}, "must name one provider"),
        ({"key_providers": "file,file"}, "each once"),
        ({"key_providers": "vault"}, "'vault' is not one of file, environment, pkcs11"),
        ({"key_providers": "pkcs11"}, "file or environment is needed, too"),
        ({"key_providers": "environment"}, "SECRET_KEYS must contain keys of 32 bytes"),
        ({"key_providers": "environment", "secret_keys": f"{ONE} {ONE}"}, "SECRET_KEYS contains a key twice"),
        ({"key_providers": "environment", "secret_keys": f"{ONE[:-2]}"}, "SECRET_KEYS must contain keys"),
        ({"secret_keys": ONE}, "does not name environment"),
    ],
)
def test_contradictory_settings_are_refused_and_no_key_is_shown(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        KeyRing.of(settings(tmp_path, **changes))
    assert ONE[:-2] not in str(refused.value)


def test_keys_of_the_environment_are_not_shown(tmp_path: Path) -> None:
    loaded = load({"PILOTHOUSE_KEY_PROVIDERS": "environment", "PILOTHOUSE_SECRET_KEYS": ONE})
    ring = KeyRing.of(loaded)
    for shown in (repr(ring), repr(ring._sources), repr(Envelopes(ring))):
        assert ONE not in shown
        assert str(bytes.fromhex(ONE)) not in shown
    assert token_keys(loaded) is None
    assert providers(loaded) == ("environment",)
