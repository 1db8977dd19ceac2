"""Additions by others to the platform's workloads and Services that do not count as drift, from a setting.

Sidecar injectors mostly change pods, which the comparison of templates does not read; and what a webhook adds to a
template is not drift anyway. The setting is for programs that write templates themselves. A program chooses the name of
its field manager, so anybody who may change the object can use the name of a permitted manager.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_PROGRAMS: Final = (
    '.spec.template.spec.containers[name="{}"]',
    '.spec.template.spec.initContainers[name="{}"]',
)


class _Permission(msgspec.Struct, frozen=True):
    manager: re.Pattern[str]
    path: re.Pattern[str]


class PermittedAdditions:
    """Field managers, and the paths that each may add.

    The text has comma-separated entries `MANAGER:PATH`; `*` matches any text in either part.
    """

    def __init__(self, text: str = "") -> None:
        self._permissions = tuple(_permission(word.strip()) for word in text.split(",") if word.strip())

    def permit(self, manager: str, path: str) -> bool:
        """Returns whether the manager of a field may add it; a field without a manager is never permitted."""
        return bool(manager) and any(
            each.manager.fullmatch(manager) and each.path.fullmatch(path) for each in self._permissions
        )

    def permit_program(self, name: str) -> bool:
        """Returns whether any manager may add a program of this name to a template."""
        paths = [path.format(name) for path in _PROGRAMS]
        return any(each.path.fullmatch(path) for each in self._permissions for path in paths)


def checked(word: str) -> str:
    """Returns the MANAGER:PATH entry. Raises ValueError for any other text."""
    manager, _, path = word.partition(":")
    if not manager or not path.startswith((".spec.", "*")):
        raise ValueError(word)
    return word


def _permission(word: str) -> _Permission:
    manager, _, path = word.partition(":")
    return _Permission(_pattern(manager), _pattern(path))


def _pattern(text: str) -> re.Pattern[str]:
    # The brackets in paths are literal, not character sets.
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
