"""Compares the permissions of two principals, or of a principal and a role: the rule against escalation.

Permissions with wildcards and exclusions are sets of infinitely many permissions (`config.*` less `config.reveal`), and
several grants together may cover a set that no single grant covers. The comparison is still exact: forms name only some
nouns and verbs, and all permissions that no form names behave alike. So it is enough to test each permission that
either side names, one unnamed verb of each named noun, and one unnamed noun.

A grant in one namespace does not include the permissions that work only over all namespaces.

The end of a grant matters too: a user who holds a permission until tomorrow may not give it for longer. A grant of the
holder counts only if it lasts at least as long as the wanted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from pilothouse_server.authorization.access import Grant
from pilothouse_server.errors import PermissionDenied

# No role can name these: permissions are lower-case words.
_OTHER_VERB: Final = "OTHER"
_OTHER: Final = "OTHER.OTHER"


def uncovered(wanted: Grant, held: Iterable[Grant], *, whenever: bool = False) -> str | None:
    """Returns a permission of `wanted` that the grants in `held` do not give in the same scope and for as long.

    Returns None if `held` gives all of them. If many permissions are missing, the result is a form that stands for them
    (`config.*`, `*`). With `whenever`, the ends of the grants do not matter. `held` must be valid grants.
    """
    covering = [
        grant
        for grant in held
        if grant.namespace_id in (None, wanted.namespace_id)
        and (whenever or _lasts(grant.expires_at, wanted.expires_at))
    ]
    return _missing(wanted, covering)


def check_covered(
    wanted: Iterable[Grant], held: Iterable[Grant], whose: str, *, whenever: bool = False
) -> None:
    """Raises unless `held` covers every grant in `wanted`; `whose` names the role or user in the message (`role "x"`).

    Raises:
        PermissionDenied: ESCALATION, with the first permission that is missing and where.
    """
    holder = tuple(held)
    for grant in wanted:
        missing = uncovered(grant, holder, whenever=whenever)
        if missing is not None:
            where = f'in namespace "{grant.namespace}"' if grant.namespace else "over all namespaces"
            raise PermissionDenied(
                f"{whose} holds {missing} {where}, which you do not hold there"
                + ("" if whenever else ", or not for as long"),
                reason="ESCALATION",
                metadata={
                    "permission": missing,
                    **({"namespace": grant.namespace} if grant.namespace else {}),
                },
            )


def holds_form(held: Iterable[Grant], form: str, namespace_id: int | None) -> bool:
    """Returns whether valid grants together fully hold a form, in one namespace or, for None, over all namespaces."""
    # Compare with a grant over all namespaces, because that leaves out none of the form's permissions.
    asked = Grant("", None, None, frozenset({form}))
    return _missing(asked, [grant for grant in held if grant.namespace_id in (None, namespace_id)]) is None


def _missing(wanted: Grant, covering: Sequence[Grant]) -> str | None:
    """Returns the first permission that `wanted` holds and no grant in `covering` holds, as the form it stands for."""
    for word in _words(wanted, *covering):
        if _holds(wanted, word) and not any(_holds(grant, word) for grant in covering):
            return "*" if word == _OTHER else word.replace(_OTHER_VERB, "*")
    return None


def _lasts(expires_at: datetime | None, until: datetime | None) -> bool:
    return expires_at is None or (until is not None and expires_at >= until)


def _words(*grants: Grant) -> list[str]:
    """Returns permissions to test: one for each set of permissions that the grants treat alike, the broadest first."""
    words: set[str] = set()
    for grant in grants:
        for form in (*grant.permissions, *grant.left_out):
            if form != "*":
                noun, _, verb = form.partition(".")
                words.add(f"{noun}.{_OTHER_VERB}")
                if verb != "*":
                    words.add(form)
    return [_OTHER, *sorted(words, key=lambda word: (not word.endswith(_OTHER_VERB), word))]


def _holds(grant: Grant, word: str) -> bool:
    return _named_by(grant.permissions, word) and not _named_by(grant.left_out, word)


def _named_by(forms: frozenset[str], word: str) -> bool:
    noun = word.partition(".")[0]
    return "*" in forms or f"{noun}.*" in forms or word in forms
