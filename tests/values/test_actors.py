"""Names of the server itself: every name that it uses in records is reserved."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pilothouse_server
from pilothouse_server.values.actors import PARTS, RESERVED_USERNAMES, is_reserved_username


def test_every_part_that_writes_without_a_user_is_reserved() -> None:
    folder = Path(pilothouse_server.__file__).parent
    found = {
        name
        for path in folder.rglob("*.py")
        for name in re.findall(r'system_write\("([^"]+)"', path.read_text())
    }
    assert found == set(PARTS)


def test_names_of_status_triggers_are_reserved() -> None:
    assert {"system", "kubernetes", "user", "pilothouse", "root", "anonymous"} <= RESERVED_USERNAMES


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("root", True),
        ("ROOT", True),
        ("\uff32oot", True),
        ("roots", False),
        ("r.oot", False),
        ("admin", False),
    ],
)
def test_a_name_is_reserved_in_every_spelling(name: str, is_one: bool) -> None:
    assert is_reserved_username(name) is is_one
