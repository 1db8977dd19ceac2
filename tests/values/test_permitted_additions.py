"""Field managers and paths that a setting allows others to add."""

from __future__ import annotations

import pytest

from pilothouse_server.settings.model import SettingsError, load
from pilothouse_server.values.permitted_additions import PermittedAdditions

_POD = ".spec.template.spec"
_TEXT = f'mesh*:{_POD}.containers[name="proxy"], vpa-*:*.resources.*,*:{_POD}.volumes[name="mesh-*"]'


@pytest.mark.parametrize(
    ("manager", "path", "permitted"),
    [
        ("mesh", f'{_POD}.containers[name="proxy"]', True),
        ("mesh-operator", f'{_POD}.containers[name="proxy"]', True),
        ("mesh", f'{_POD}.containers[name="miner"]', False),
        ("another", f'{_POD}.containers[name="proxy"]', False),
        ("vpa-updater", f'{_POD}.containers[name="main"].resources.limits.cpu', True),
        ("anybody", f'{_POD}.volumes[name="mesh-token"]', True),
        # A field without a manager.
        ("", f'{_POD}.volumes[name="mesh-token"]', False),
    ],
)
def test_an_addition_is_permitted_by_its_manager_and_its_path(
    manager: str, path: str, permitted: bool
) -> None:
    assert PermittedAdditions(_TEXT).permit(manager, path) == permitted
    assert not PermittedAdditions("").permit(manager, path)


def test_a_program_is_permitted_by_its_name() -> None:
    permitted = PermittedAdditions(_TEXT)
    assert permitted.permit_program("proxy")
    assert not permitted.permit_program("miner")


@pytest.mark.parametrize("text", ["mesh", ":.spec.x", "mesh:spec", "mesh:"])
def test_an_entry_without_manager_or_path_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"PILOTHOUSE_DRIFT_ADDITIONS.* must be FIELD-MANAGER:PATH"):
        load({"PILOTHOUSE_DRIFT_ADDITIONS": f"vpa-*:*.resources.*,{text}"})
