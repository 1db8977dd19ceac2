"""Checks whether a permission is held, for people and programs that ask before they act."""

from __future__ import annotations

from collections.abc import Collection

from pilothouse_server.authorization.access import Principal, permission_matches
from pilothouse_server.errors import not_found
from pilothouse_server.identity.access.escalation import holds_form
from pilothouse_server.identity.access.operations.explanations import other_user
from pilothouse_server.identity.access.operations.grants import LocateUser
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.store.unit_of_work import ReadTransaction


async def check(
    transaction: ReadTransaction,
    caller: Principal,
    words: PermissionWords,
    form: str,
    where: str,
    username: str,
    locate_user: LocateUser,
) -> bool:
    """Returns whether the caller, or the named user, holds a permission in the namespace `where`.

    An empty `where` means over all namespaces. A form such as `container.*` is held if each permission that it covers
    is held. The result is False for a namespace that does not exist or that the caller may not see. A permission that
    works only over all namespaces must be held over all of them. A read-only key holds only reading permissions.

    Raises:
        InvalidArgument: UNKNOWN_PERMISSION.
        PermissionDenied: the question is about another user, and the caller lacks `user.get` over all namespaces.
        NotFound: the named user.
    """
    words.check_form(form, "permission")
    other = await other_user(transaction, caller, username, locate_user)
    held = caller.living_grants() if other is None else await grants.held_by(transaction, other.id)
    questions = [words.question(each, where) for each in words.covered(form)]
    if other is None and caller.credential.read_only and not all(each.reads for each in questions):
        return False
    if where and await grants.find_namespace(transaction, where) is None:
        return False
    return all(question.allowed_by(held) for question in questions)


async def held_in(
    transaction: ReadTransaction, caller: Principal, words: PermissionWords, namespace: str
) -> list[str]:
    """Returns the single permissions, not forms, that a caller holds in a namespace; none if no namespace is named.

    Raises:
        NotFound: the namespace does not exist, or the caller may not see it.
    """
    if not namespace:
        return []
    if not caller.reaches(namespace) or await grants.find_namespace(transaction, namespace) is None:
        raise not_found("namespace", namespace)
    held = caller.living_grants()
    possible = words.reading if caller.credential.read_only else words.known
    return sorted(each for each in possible if words.question(each, namespace).allowed_by(held))


def held_everywhere(caller: Principal, known: Collection[str], reading: Collection[str] = ()) -> list[str]:
    """Returns the permissions that a caller holds over all namespaces, in the shortest correct forms.

    A form that is held only in part (`config.*` without `config.reveal`) is replaced by single permissions. `known` are
    all permissions, `reading` the permissions that a read-only key may give.
    """
    everywhere = [grant for grant in caller.living_grants() if grant.namespace_id is None]
    if caller.credential.read_only:
        return sorted(each for each in reading if holds_form(everywhere, each, None))
    forms: set[str] = set()
    for form in {form for grant in everywhere for form in grant.permissions}:
        if holds_form(everywhere, form, None):
            forms.add(form)
        else:
            parts = (each for each in known if permission_matches(form, each))
            forms.update(each for each in parts if holds_form(everywhere, each, None))
    return sorted(
        form for form in forms if not any(permission_matches(other, form) for other in forms if other != form)
    )
