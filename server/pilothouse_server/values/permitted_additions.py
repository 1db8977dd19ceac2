"""Additions by others to our workloads and Services that are no drift, as a setting names them.

Sidecar injectors mostly change pods, which no comparison of templates sees, and additions of a webhook to a template
are no drift either. The setting is for programs that write templates themselves. A program chooses the name of its
manager, so anybody who may change the object can use the name of a permitted manager.
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
    """Managers and the paths that each may add.

    The text has `MANAGER:PATH` for each, separated by commas; `*` stands for any text in either.
    """

    def __init__(self, text: str = "") -> None:
        self._permissions = tuple(_permission(word.strip()) for word in text.split(",") if word.strip())

    def permit(self, manager: str, path: str) -> bool:
        """Returns whether the manager of a field may add it; a field that nobody owns is permitted to nobody."""
        return bool(manager) and any(
            each.manager.fullmatch(manager) and each.path.fullmatch(path) for each in self._permissions
        )

    def permit_program(self, name: str) -> bool:
        """Returns whether anybody may add a program of this name to a template."""
        paths = [path.format(name) for path in _PROGRAMS]
        return any(each.path.fullmatch(path) for each in self._permissions for path in paths)


def checked(word: str) -> str:
    """Returns one MANAGER:PATH. Raises ValueError for another text."""
    manager, _, path = word.partition(":")
    if not manager or not path.startswith((".spec.", "*")):
        raise ValueError(word)
    return word


def _permission(word: str) -> _Permission:
    manager, _, path = word.partition(":")
    return _Permission(_pattern(manager), _pattern(path))


def _pattern(text: str) -> re.Pattern[str]:
    # Paths have brackets, which are no sets of characters here.
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
