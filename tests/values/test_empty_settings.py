"""An empty setting counts as unset, because Helm and Compose pass unset settings as empty variables."""

from __future__ import annotations

import msgspec
import pytest

from pilothouse_server.settings.model import CLIENT_VARIABLES, Settings, SettingsError, load

_NAMES = [field.name for field in msgspec.structs.fields(Settings)]
_LISTS = ["guarded_namespace_keys", "guarded_object_keys", "guarded_pod_keys", "service_annotations"]
_NOBODY = {"HOME": "/nowhere"}


@pytest.mark.parametrize("text", ["", "  "])
@pytest.mark.parametrize("name", _NAMES)
def test_an_empty_setting_keeps_its_default(name: str, text: str) -> None:
    assert load({f"PILOTHOUSE_{name.upper()}": text, **_NOBODY}) == load(_NOBODY)


def test_all_settings_empty_are_the_defaults() -> None:
    empty = {f"PILOTHOUSE_{name.upper()}": "" for name in (*_NAMES, *CLIENT_VARIABLES)}
    assert load(empty | _NOBODY) == load(_NOBODY)


@pytest.mark.parametrize("name", [*_LISTS, "namespace_pod_security"])
def test_none_empties_a_setting_that_has_a_default(name: str) -> None:
    assert getattr(load(_NOBODY), name) != ""
    assert getattr(load({f"PILOTHOUSE_{name.upper()}": "none", **_NOBODY}), name) == ""


def test_an_empty_unknown_variable_is_refused() -> None:
    with pytest.raises(SettingsError, match="PILOTHOUSE_KUBECONFG is not a setting"):
        load({"PILOTHOUSE_KUBECONFG": ""})


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("PROCESSES", "two", "a whole number"),
        ("CLUSTER_TIMEOUT_SECONDS", "soon", "a number"),
        ("REFLECTION", "perhaps", "true or false"),
    ],
)
def test_an_invalid_value_is_refused_with_the_rule(name: str, text: str, rule: str) -> None:
    with pytest.raises(SettingsError, match=f"PILOTHOUSE_{name}='{text}': must be {rule}"):
        load({f"PILOTHOUSE_{name}": text})
