"""Keys that a setting names."""

from __future__ import annotations

import pytest

from pilothouse_server.values.key_patterns import KeyPatterns


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("", "", " a a/b"),
        (" , ,", "", " a"),
        ("a/b", "a/b", "a/bc xa/b a/"),
        ("prometheus.io/*", "prometheus.io/port prometheus.io/", "prometheus.io prometheus.iox/port"),
        ("*.k8s.io/*,!app.k8s.io/*", "a.k8s.io/b a.b.k8s.io/c", "app.k8s.io/name k8s.io/a xk8s.io/a"),
        # A dot is a dot, and what is taken out is out wherever it stands.
        ("!a.b/c, a.b/*", "a.b/d", "a.b/c aXb/d"),
        ("a(b/*", "a(b/c", "ab/c"),
    ],
)
def test_patterns(text: str, inside: str, outside: str) -> None:
    patterns = KeyPatterns(text)
    assert [key for key in inside.split(" ") if key and key not in patterns] == []
    assert [key for key in outside.split(" ") if key in patterns] == []
