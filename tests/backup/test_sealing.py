"""Sealed files: unchanged ones can be read, and changed ones are refused before use."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pilothouse_server.backup.sealing import (
    CHUNK_BYTES,
    HEADER_BYTES,
    BackupKeys,
    BackupSealer,
    make_key_file,
    opened,
)
from pilothouse_server.errors import FailedPrecondition

_BOX = CHUNK_BYTES + 16


@pytest.fixture
def keys(tmp_path: Path) -> BackupKeys:
    make_key_file(tmp_path / "backup.key")
    return BackupKeys.load(tmp_path / "backup.key")


def sealed(keys: BackupKeys, plain: bytes, name: str = "file") -> bytes:
    written = io.BytesIO()
    sealer = BackupSealer(keys, name, written)
    for at in range(0, len(plain), 50_000):
        sealer.write(plain[at : at + 50_000])
    sealer.finish()
    return written.getvalue()


def read(keys: BackupKeys, data: bytes, name: str = "file") -> bytes:
    return b"".join(opened(io.BytesIO(data), keys, name))


def refusal(keys: BackupKeys, data: bytes, name: str = "file") -> str:
    with pytest.raises(FailedPrecondition) as refused:
        read(keys, data, name)
    return refused.value.reason


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_sealed_data_is_read_back(keys: BackupKeys, size: int) -> None:
    plain = bytes(at % 251 for at in range(size))
    written = sealed(keys, plain)
    assert read(keys, written) == plain
    assert plain[:64] not in written or size < 64


def test_equal_data_is_sealed_differently(keys: BackupKeys) -> None:
    assert sealed(keys, b"alike") != sealed(keys, b"alike")


def test_every_flipped_bit_is_refused(keys: BackupKeys) -> None:
    whole = sealed(keys, b"a secret")
    for at in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            assert refusal(keys, bytes(changed)) in ("BACKUP_DAMAGED", "BACKUP_WRONG_KEY")


def test_cuts_and_chunks_that_moved_are_refused(keys: BackupKeys) -> None:
    whole = sealed(keys, bytes(3 * CHUNK_BYTES))
    head, chunks = whole[:HEADER_BYTES], [whole[HEADER_BYTES + n * _BOX :][:_BOX] for n in range(3)]
    assert head + b"".join(chunks) == whole
    for spoiled in (
        whole[: HEADER_BYTES - 1],
        head,
        head + chunks[0],
        head + chunks[0] + chunks[1],
        whole[:-1],
        whole + b"\0",
        head + chunks[1] + chunks[0] + chunks[2],
        head + chunks[0] + chunks[2],
        head + chunks[0] + chunks[0] + chunks[1] + chunks[2],
    ):
        assert refusal(keys, spoiled) == "BACKUP_DAMAGED"
    assert refusal(keys, whole, "another") == "BACKUP_DAMAGED"


def test_another_key_is_named(keys: BackupKeys, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    made = make_key_file(other)
    with pytest.raises(FailedPrecondition) as refused:
        read(BackupKeys.load(other), sealed(keys, b"a secret"))
    assert refused.value.reason == "BACKUP_WRONG_KEY"
    assert keys.newest_id in refused.value.message
    assert made in refused.value.message


def test_a_replaced_key_still_reads_its_files(keys: BackupKeys, tmp_path: Path) -> None:
    written = sealed(keys, b"a secret")
    newer = tmp_path / "newer.key"
    make_key_file(newer)
    newer.write_text(newer.read_text() + (tmp_path / "backup.key").read_text())
    both = BackupKeys.load(newer)
    assert both.newest_id != keys.newest_id
    assert read(both, written) == b"a secret"


def test_invalid_key_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "backup.key"
    with pytest.raises(FailedPrecondition, match="no such file"):
        BackupKeys.load(path)
    make_key_file(path)
    with pytest.raises(FailedPrecondition, match="file exists"):
        make_key_file(path)
    path.chmod(0o644)
    with pytest.raises(FailedPrecondition, match="can be read by others"):
        BackupKeys.load(path)
    path.chmod(0o600)
    for text in ("", "abc\n", "00" * 31, "zz" * 32):
        path.write_text(text)
        with pytest.raises(FailedPrecondition, match="must contain lines of 32 bytes"):
            BackupKeys.load(path)
