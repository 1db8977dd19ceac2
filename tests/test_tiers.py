"""Skipped tests of the tier `full` fail in CI, and are counted everywhere; a soak test must name its part."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nested import pytest_run

_OF_EVERY_CHANGE = "not full and not system and not soak"
# Each test starts a whole run of pytest.
pytestmark = pytest.mark.full(minutes=5)

SKIPPED = """
import pytest

@pytest.mark.full
@pytest.mark.skip(reason="no such program")
def test_needs_a_program(): pass

@pytest.mark.skip(reason="not of the tier")
def test_of_every_change(): pass

def test_runs(): pass
"""


@pytest.mark.parametrize("options", [(), ("--numprocesses", "1")], ids=["alone", "by another process"])
def test_a_skipped_test_of_the_full_tier_fails_in_ci(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, printed = pytest_run(tmp_path, SKIPPED, *options, variables={"CI": "true"})
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "1 skipped of the tier `full`: in CI that is a failure" in printed


def test_outside_ci_a_skipped_test_of_the_full_tier_is_counted(tmp_path: Path) -> None:
    code, printed = pytest_run(tmp_path, SKIPPED)
    assert code == 0, printed
    assert "1 skipped of the tier `full`: CI fails on that" in printed


def test_skipped_tests_of_other_tiers_do_not_fail_in_ci(tmp_path: Path) -> None:
    code, printed = pytest_run(tmp_path, SKIPPED, "-m", "not full", variables={"CI": "true"})
    assert code == 0, printed


def test_a_soak_test_without_a_part_is_refused(tmp_path: Path) -> None:
    code, printed = pytest_run(tmp_path, "import pytest\n\n@pytest.mark.soak\ndef test_a(): pass\n")
    assert code == pytest.ExitCode.USAGE_ERROR, printed
    assert 'write pytest.mark.soak(part="…")' in printed


@pytest.mark.parametrize(
    ("asked", "named", "imported"),
    [
        ("full", "pytest.mark.full", True),
        ("full", "another", False),
        ("soak(part='a')", "pytest.mark.full", False),
        (_OF_EVERY_CHANGE, "pytestmark = pytest.mark.full", True),
        (_OF_EVERY_CHANGE, "\npytestmark = pytest.mark.full(minutes=2)", False),
        (_OF_EVERY_CHANGE, "\npytestmark = [pytest.mark.full]", True),
    ],
)
def test_a_tier_imports_only_the_files_that_name_its_marker(
    tmp_path: Path, asked: str, named: str, imported: bool
) -> None:
    _, printed = pytest_run(tmp_path, f"raise ValueError('imported')  # {named}", "-m", asked)
    assert ("ValueError: imported" in printed) is imported, printed


def test_a_marker_from_another_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("import pytest\n\nheavy = pytest.mark.full\n")
    text = "from elsewhere import heavy\n\n@heavy\ndef test_a(): pass\n"
    code, printed = pytest_run(tmp_path, text)
    assert code == pytest.ExitCode.USAGE_ERROR, printed
    assert "write pytest.mark.full in the file itself" in printed
