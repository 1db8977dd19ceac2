"""The lint step `limits`: docs/limits.md shows the tables of flowcontrol/classes.py."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from pilothouse_server.flowcontrol import classes
from tests.conventions.sources import ROOT, script_of


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return script_of("limits")


def test_the_check_passes_the_current_page_and_reports_a_changed_table(
    script: ModuleType, tmp_path: Path
) -> None:
    tables = script.tables()
    assert script.PAGE.main(tables, "check") == 0
    changed = tmp_path / "limits.md"
    changed.write_text(
        (ROOT / "docs" / "limits.md").read_text().replace("| `cluster_calls` |", "| `others` |")
    )
    page = script.PAGE._replace(path=changed)
    assert page.main(tables, "check") == 1
    assert page.main(tables, "write") == 0
    assert page.main(tables, "check") == 0


def test_the_tables_show_every_class_and_name_the_settings() -> None:
    tables = classes.tables({"max_calls_per_user"}.__contains__)
    assert all(f"| `{each.label}` |" in tables for each in classes.CLASSES)
    assert "`PILOTHOUSE_MAX_CALLS_PER_USER` (32)" in tables
    # The setting is not one of this server, so the class shows only its number.
    assert "`PILOTHOUSE_MAX_STREAMS`" not in tables


def test_a_page_without_markers_is_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="begin"):
        script.PAGE.with_part("# Limits\n", "")
