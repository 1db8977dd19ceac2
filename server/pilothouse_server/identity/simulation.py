"""What a grant would change of what a user holds: pure computation, word by word, in each namespace.

A grant that is there already would only end at another time, perhaps sooner. What counts of a permission is when it
ends: by the last to end of the grants that hold it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pilothouse_server.access import Grant

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
# So many namespaces are told of beside all the others.
_MOST_NAMESPACES: Final = 100


@dataclass(frozen=True, slots=True)
class Change:
    """What changes in one namespace; in every one that is not told of by itself, where `namespace` is empty."""

    namespace: str
    gained: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    shortened: tuple[str, ...] = ()

    @property
    def is_one(self) -> bool:
        """Whether anything changes."""
        return bool(self.gained or self.extended or self.shortened)


def same_grant(held: Iterable[Grant], wanted: Grant) -> Grant | None:
    """The grant of the same role in the same place, which granting again would change."""
    alike = (wanted.role, wanted.namespace_id)
    return next((grant for grant in held if (grant.role, grant.namespace_id) == alike), None)


def changes(held: Sequence[Grant], wanted: Grant, words: Collection[str]) -> tuple[Change, ...]:
    """Returns what changes of `words` (`<noun>.<verb>`) where who holds `held` is granted `wanted`.

    Of a grant over all namespaces the first tells of every namespace, and others of those in which it is not so because
    something is held there alone.
    """
    replaced = same_grant(held, wanted)
    after = [*(grant for grant in held if grant is not replaced), wanted]
    named = {form for form in wanted.permissions if form != "*" and not form.endswith(".*")}
    every = sorted({*words, *named})
    if wanted.namespace is not None:
        found = _change(wanted.namespace, held, after, every)
        return (found,) if found.is_one else ()
    everywhere = _change(None, held, after, every)
    apart = []
    for namespace in sorted({grant.namespace for grant in held if grant.namespace is not None}):
        there = _change(namespace, held, after, every)
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
    namespace: str | None, before: Sequence[Grant], after: Sequence[Grant], words: Iterable[str]
) -> Change:
    gained: list[str] = []
    extended: list[str] = []
    shortened: list[str] = []
    for word in words:
        was, becomes = _ends(before, namespace, word), _ends(after, namespace, word)
        if was is None and becomes is not None:
            gained.append(word)
        elif was is not None and becomes is not None and becomes != was:
            (extended if becomes > was else shortened).append(word)
    return Change(namespace or "", tuple(gained), tuple(extended), tuple(shortened))


def _ends(grants: Iterable[Grant], namespace: str | None, word: str) -> datetime | None:
    """When the permission ends in a namespace, or over all (None); None where it is not held."""
    ends = (
        grant.expires_at or _NEVER
        for grant in grants
        if grant.namespace in (None, namespace) and grant.holds(word)
    )
    return max(ends, default=None)
