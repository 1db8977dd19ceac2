"""Repeated checks of a principal's permissions have the same result.

A result ends with its grant.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pilothouse_server.authorization import access
from pilothouse_server.authorization.access import Grant, Principal

_VIEW = frozenset({"pod.get"})
_ALL = frozenset({"*"})


@pytest.mark.parametrize("most", [0, 1, 1000])
def test_repeated_checks_have_the_same_result(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(access, "_MOST_ANSWERS", most)
    principal = Principal(1, "a", (Grant("viewer", "one", 1, _VIEW), Grant("admin", "two", 2, _ALL)))
    for _ in range(2):
        assert principal.allows("pod.get", "one")
        assert not principal.allows("pod.put", "one")
        assert principal.allows("pod.put", "two")
        assert not principal.allows("pod.get", "three")
        assert not principal.allows("pod.get")
    assert len(principal._granting) <= most


def test_a_stored_result_expires_with_its_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    principal = Principal(1, "a", (Grant("viewer", "one", 1, _VIEW, expires_at=end),))
    assert principal.allows("pod.get", "one")

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return end

    monkeypatch.setattr(access, "datetime", Later)
    assert not principal.allows("pod.get", "one")
