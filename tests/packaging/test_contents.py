"""The wheel's contents, as the build would choose them; `test_installed` builds and installs a wheel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import pilothouse
from tests.conventions.sources import ROOT

# Folders that contain packages, but are not packages themselves.
SOURCE_ROOTS = ("server", "client", "client/gen", "migrations")


def _packages() -> dict[str, Path]:
    """Returns the name of each package -> its folder, relative to the project."""
    return {
        marker.parent.name: marker.parent.relative_to(ROOT)
        for root in SOURCE_ROOTS
        for marker in (ROOT / root).glob("*/__init__.py")
    }


@pytest.fixture(scope="module")
def contents() -> set[str]:
    """Returns the paths of the files in the wheel, without its own metadata."""
    return {each.distribution_path for each in WheelBuilder(str(ROOT)).recurse_included_files()}


def test_every_file_of_every_package_is_in_the_wheel_under_its_import_path(contents: set[str]) -> None:
    packages = _packages()
    assert {"pilothouse", "pilothouse_client", "pilothouse_server", "pilothouse_migrations"} <= set(packages)
    # The protos, for users who generate their own stubs.
    packages["pilothouse_client/protos/pilothouse"] = Path("protos/pilothouse")
    folders = [str(folder) for folder in packages.values()]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    expected = {
        str(Path(name, Path(path).relative_to(folder)))
        for name, folder in packages.items()
        for path in listed
        if Path(path).is_relative_to(folder) and (ROOT / path).exists()
    }
    assert contents == expected


def test_every_package_is_typed_for_its_users(contents: set[str]) -> None:
    assert {f"{name}/py.typed" for name in _packages()} <= contents


def test_an_editable_installation_uses_the_projects_folders() -> None:
    config = WheelBuilder(str(ROOT)).config
    assert sorted(config.dev_mode_dirs) == sorted(SOURCE_ROOTS)
    # hatch copies forced files into an editable installation, where they would hide newer files of the folders.
    assert not config.force_include
    assert Path(pilothouse.__file__).is_relative_to(ROOT / "client" / "gen")
