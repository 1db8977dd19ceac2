"""`buf breaking` reports changes that affect old clients, and accepts the exceptions of `.ci/protos.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from tests.conventions.sources import ROOT, script_of

pytestmark = pytest.mark.full

AUDIT = "protos/pilothouse/audit/v1/audit.proto"
RESERVED = 'message ExportAuditLogResponse {\n  reserved 5;\n  reserved "chain_proof";\n'
# The message before 0.2.0.
DELETED = "message ExportAuditLogResponse {\n  // Hashes.\n  bytes chain_proof = 5;\n"
KEPT = "  // Time when the head was sealed.\n  google.protobuf.Timestamp seal_time = 5;\n"


@pytest.fixture(scope="module")
def protos() -> ModuleType:
    return script_of("protos")


def copied(module: ModuleType, folder: Path, was: str = "", becomes: str = "") -> Path:
    """Copies the protos of this tree to another folder, with one change, and returns the folder."""
    shutil.copytree(ROOT / "protos", folder / "protos")
    shutil.copyfile(ROOT / "buf.yaml", folder / "buf.yaml")
    module.copy_dependencies(folder)
    file = folder / AUDIT
    text = file.read_text()
    assert was in text
    file.write_text(text.replace(was, becomes))
    return folder


@pytest.mark.parametrize(
    ("was", "becomes", "found"),
    [
        ("", "", []),
        (RESERVED, "message ExportAuditLogResponse {\n", ["number", "name"]),
        (KEPT, "", ["field", "number", "name"]),
    ],
    ids=["nothing else", "a reservation that is gone", "another field that is gone"],
)
def test_only_the_excepted_deletions_pass(
    protos: ModuleType, tmp_path: Path, was: str, becomes: str, found: list[str]
) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "now").mkdir()
    before = copied(protos, tmp_path / "before", RESERVED, DELETED)
    findings = protos.breaking_changes(copied(protos, tmp_path / "now", was, becomes), before)
    assert len(findings) == len(found), findings
    assert all(f"{AUDIT}:" in each and "deleted" in each for each in findings), findings


def test_a_failed_comparison_is_a_finding(protos: ModuleType, tmp_path: Path) -> None:
    assert protos.breaking_changes(copied(protos, tmp_path), tmp_path / "nowhere") != []
