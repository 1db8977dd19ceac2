"""The lint step `limits`: docs/limits.md shows the tables of flowcontrol/classes.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pilothouse_server.flowcontrol import classes
from tests.conventions.sources import ROOT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("limits", ROOT / ".ci" / "limits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_check_passes_the_present_page_and_finds_a_changed_table(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert script.main("check") == 0
    changed = tmp_path / "limits.md"
    changed.write_text(
        (ROOT / "docs" / "limits.md").read_text().replace("| `cluster_calls` |", "| `others` |")
    )
    monkeypatch.setattr(script, "PAGE", changed)
    assert script.main("check") == 1
    assert script.main("write") == 0
    assert script.main("check") == 0


def test_tables_show_every_class_and_name_settings() -> None:
    tables = classes.tables({"max_calls_per_user"}.__contains__)
    assert all(f"| `{each.label}` |" in tables for each in classes.CLASSES)
    assert "`PILOTHOUSE_MAX_CALLS_PER_USER` (32)" in tables
    # Not a setting of this server, so the class shows its number alone.
    assert "`PILOTHOUSE_MAX_STREAMS`" not in tables


def test_a_page_without_markers_is_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="begin"):
        script.with_tables("# Limits\n", "")
