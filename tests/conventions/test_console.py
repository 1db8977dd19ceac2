"""The lint step `console`: the page is built from client/console and the messages that it imports."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from tests.conventions.sources import script_of


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return script_of("console")


@pytest.fixture
def copied(script: ModuleType, tmp_path: Path) -> Path:
    """Copies the sources."""
    skipped = shutil.ignore_patterns("node_modules", "gen")
    return Path(shutil.copytree(script.CONSOLE, tmp_path / "console", ignore=skipped))


def test_a_copy_has_the_same_digest_in_any_folder(script: ModuleType, copied: Path) -> None:
    assert script.digest(copied) == script.digest(script.CONSOLE)


@pytest.mark.parametrize("change", ["text", "name", "new file", "message"])
def test_each_change_of_a_source_changes_the_digest(script: ModuleType, copied: Path, change: str) -> None:
    before = script.digest(copied)
    page = copied / "src" / "pages" / "Overview.svelte"
    if change == "text":
        page.write_text(page.read_text() + " ")
    elif change == "name":
        page.rename(page.with_name("Start.svelte"))
    elif change == "new file":
        (copied / "src" / "more.ts").write_text("")
    else:
        (copied / "src" / "main.ts").write_text('import "./gen/pilothouse/metrics/v1/metrics_pb";')
    assert script.digest(copied) != before


def test_an_outdated_page_is_reported(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "STATIC", tmp_path / "static")
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / script.DIGEST).write_text("of others\n")
    assert script.main("check") == 1
    assert "make console" in capsys.readouterr().out
    (tmp_path / "static" / script.DIGEST).write_text(script.digest(script.CONSOLE) + "\n")
    assert script.main("check") == 0
