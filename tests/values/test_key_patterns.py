"""Key patterns in settings."""

from __future__ import annotations

import re

import pytest

from pilothouse_server.settings.model import Settings, SettingsError, load
from pilothouse_server.values.key_patterns import KeyPatterns


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("", "", " a a/b"),
        (" , ,", "", " a"),
        ("a/b", "a/b", "a/bc xa/b a/"),
        ("prometheus.io/*", "prometheus.io/port prometheus.io/", "prometheus.io prometheus.iox/port"),
        ("*.k8s.io/*,!app.k8s.io/*", "a.k8s.io/b a.b.k8s.io/c", "app.k8s.io/name k8s.io/a xk8s.io/a"),
        # A dot matches only a dot, and an exclusion applies wherever it is in the list.
        ("!a.b/c, a.b/*", "a.b/d", "a.b/c aXb/d"),
        ("a(b/*", "a(b/c", "ab/c"),
    ],
)
def test_patterns_match_keys(text: str, inside: str, outside: str) -> None:
    patterns = KeyPatterns(text)
    assert [key for key in inside.split(" ") if key and key not in patterns] == []
    assert [key for key in outside.split(" ") if key in patterns] == []


def test_a_domain_is_guarded_with_all_of_its_keys() -> None:
    guarded = KeyPatterns(
        "pod-security.kubernetes.io, *.istio.io, team, !pod-security.kubernetes.io/audit", guarding=True
    )
    inside = "pod-security.kubernetes.io/enforce a.istio.io/b team team/x pod-security.kubernetes.io"
    assert [key for key in inside.split() if key not in guarded] == []
    outside = "pod-security.kubernetes.io/audit istio.io/b teams a.pod-security.kubernetes.io/enforce"
    assert [key for key in outside.split() if key in guarded] == []
    # Patterns that allow keys must match the whole name.
    assert "pod-security.kubernetes.io/enforce" not in KeyPatterns("pod-security.kubernetes.io")


@pytest.mark.parametrize(
    "name", ["GUARDED_NAMESPACE_KEYS", "GUARDED_OBJECT_KEYS", "GUARDED_POD_KEYS", "SERVICE_ANNOTATIONS"]
)
@pytest.mark.parametrize("wrong", ["!", "!!a", "a b", "a/b/c", "a;b", "/a", "ü", "a=b"])
def test_an_invalid_key_pattern_is_refused_at_start(name: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=f"PILOTHOUSE_{name}: '{re.escape(wrong)}' must be a key"):
        load({f"PILOTHOUSE_{name}": f"a.b/c, {wrong}"})


def test_the_default_and_none_are_valid_key_patterns() -> None:
    assert load({}).guarded_pod_keys == Settings().guarded_pod_keys
    assert load({"PILOTHOUSE_GUARDED_POD_KEYS": "none"}).guarded_pod_keys == ""
