"""Each use of a library's private member is reported unless it is listed and its library is pinned."""

from __future__ import annotations

import pytest

from tests.conventions.private_members import Use, findings
from tests.conventions.sources import Source

pytestmark = pytest.mark.full

PATH = "server/pilothouse_server/a.py"
USES = {
    "an attribute": "def f(session):\n    return session._loop\n",
    "one that a subclass uses": (
        "import aiohttp\nclass A(aiohttp.ClientSession):\n    def f(self):\n        return self._loop\n"
    ),
    "one that a subclass overrides": (
        "from asyncpg import Connection\nclass A(Connection):\n    def _check_open(self):\n        pass\n"
    ),
    "a module": "from asyncpg._testbase import X\n",
}


@pytest.mark.parametrize("use", USES)
def test_a_private_member_is_reported(use: str) -> None:
    (found,) = findings([Source(PATH, USES[use])], {}, {})
    assert found.startswith(f"{PATH}:")


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def __init__(self):\n        self._x = 1\n    def f(self, other):\n        return other._x\n",
        "def f(row):\n    return row._replace(a=1)\n",
        "import aiohttp\nclass A(aiohttp.ClientSession):\n    def _mine(self):\n        return self._mine()\n",
    ],
)
def test_own_and_documented_members_are_not_reported(text: str) -> None:
    assert list(findings([Source(PATH, text)], {}, {})) == []


def test_a_listed_member_needs_a_pin_and_a_use() -> None:
    source = Source(PATH, USES["an attribute"])
    listed = {PATH: Use("aiohttp", frozenset({"_loop"}), "reason")}
    assert list(findings([source], listed, {"aiohttp": "aiohttp>=3.14.5,<3.15"})) == []
    (found,) = findings([source], listed, {"aiohttp": "aiohttp>=3.14.5"})
    assert "pin the minor version" in found
    unused = {PATH: Use("aiohttp", frozenset({"_loop", "_never"}), "reason")}
    (found,) = findings([source], unused, {"aiohttp": "aiohttp<3.15"})
    assert "_never is listed" in found
