"""Answers who may do what, for people and programs that ask before they act."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pilothouse_server.access import Grant, Principal, permission_matches
from pilothouse_server.errors import PermissionDenied
from pilothouse_server.identity.escalation import holds_form
from pilothouse_server.identity.operations import users
from pilothouse_server.identity.repository import grants
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.names import normalise_username

ASKING_ABOUT_OTHERS = "user.get"


async def check(
    transaction: ReadTransaction, caller: Principal, permission: str, namespace: str, username: str
) -> bool:
    """Whether the caller, or the user named, holds `permission` in a namespace, or over all where that is empty.

    A namespace that does not exist, or that the caller does not reach, answers False.

    Raises:
        PermissionDenied: another user is asked about without `user.get` over all namespaces.
        NotFound: that user.
    """
    held: Iterable[Grant] = caller.living_grants()
    if username and normalise_username(username) != normalise_username(caller.username):
        if not caller.allows(ASKING_ABOUT_OTHERS):
            raise PermissionDenied(
                f"permission {ASKING_ABOUT_OTHERS} is needed to ask about another user",
                reason="PERMISSION_DENIED",
                metadata={"permission": ASKING_ABOUT_OTHERS},
            )
        user = await users.locate(transaction, username)
        held = await grants.held_by(transaction, user.id)
    if not namespace:
        return holds_form(held, permission, None)
    namespace_id = await grants.find_namespace(transaction, namespace)
    return namespace_id is not None and holds_form(held, permission, namespace_id)


def held_everywhere(caller: Principal, known: Collection[str]) -> list[str]:
    """The permissions that a caller holds over all namespaces, in the shortest forms that are true.

    A form that is held only in part (`config.*` without `config.reveal`) is written out; `known` are all
    permissions there are.
    """
    everywhere = [grant for grant in caller.living_grants() if grant.namespace_id is None]
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
