"""The changes that a grant would make to a user's permissions.

This is a pure computation for each permission and namespace. Permissions are decided as in CheckPermission
(`denials.Question`), so a grant in one namespace gives no permission that works only over all namespaces. A permission
that no method requires gives nothing, whichever role names it.

If the user already has the grant, only its end would change, and could become earlier. A permission ends when the last
of the grants that hold it ends. It changes if that time changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pilothouse_server.authorization.access import Grant
from pilothouse_server.authorization.denials import Question
from pilothouse_server.identity.access.permission_words import PermissionWords

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
# The maximum number of namespaces that are reported individually.
_MOST_NAMESPACES: Final = 100


@dataclass(frozen=True, slots=True)
class PermissionChange:
    """The changes in one namespace.

    An empty `namespace` means all namespaces without an entry of their own.
    """

    namespace: str
    gained: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    shortened: tuple[str, ...] = ()

    @property
    def is_one(self) -> bool:
        """Whether anything changes."""
        return bool(self.gained or self.extended or self.shortened)


def same_grant(held: Iterable[Grant], wanted: Grant) -> Grant | None:
    """Returns the grant of the same role in the same namespace, which `wanted` would replace; None if there is none."""
    alike = (wanted.role, wanted.namespace_id)
    return next((grant for grant in held if (grant.role, grant.namespace_id) == alike), None)


def changes(held: Sequence[Grant], wanted: Grant, words: PermissionWords) -> tuple[PermissionChange, ...]:
    """Returns the changes of `words` if a user with the grants `held` is granted `wanted`.

    For a grant over all namespaces the first change describes every namespace; the others describe namespaces
    that differ because of grants there.
    """
    replaced = same_grant(held, wanted)
    after = [*(grant for grant in held if grant is not replaced), wanted]
    if wanted.namespace is not None:
        found = _change(wanted.namespace, held, after, words)
        return (found,) if found.is_one else ()
    everywhere = _change("", held, after, words)
    apart = []
    for namespace in sorted({grant.namespace for grant in held if grant.namespace is not None}):
        there = _change(namespace, held, after, words)
        if (there.gained, there.extended, there.shortened) != (
            everywhere.gained,
            everywhere.extended,
            everywhere.shortened,
        ):
            apart.append(there)
    if not everywhere.is_one and not any(each.is_one for each in apart):
        return ()
    return (everywhere, *apart[:_MOST_NAMESPACES])


def _change(
    namespace: str, before: Sequence[Grant], after: Sequence[Grant], words: PermissionWords
) -> PermissionChange:
    gained: list[str] = []
    extended: list[str] = []
    shortened: list[str] = []
    for word in sorted(words.known):
        question = words.question(word, namespace)
        was, becomes = _ends(before, question), _ends(after, question)
        if was is None and becomes is not None:
            gained.append(word)
        elif was is not None and becomes is not None and becomes != was:
            (extended if becomes > was else shortened).append(word)
    return PermissionChange(namespace, tuple(gained), tuple(extended), tuple(shortened))


def _ends(grants: Iterable[Grant], question: Question) -> datetime | None:
    """Returns when the permission in question ends; None if it is not held."""
    return max((grant.expires_at or _NEVER for grant in question.allowed_by(grants)), default=None)
