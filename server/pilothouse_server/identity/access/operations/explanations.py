"""Explains why a user holds a permission or does not, which users hold it, and which users can grant it.

Everything is read as the caller. A namespace that no grant of the caller covers is not looked up, so the result is the
same as for a namespace that does not exist. The possible givers are users with a grant in the namespace in question. A
caller with a grant over all namespaces also sees givers with such a grant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.authorization.denials import (
    MOST_NAMED,
    DatabaseFacts,
    Denial,
    Giver,
    PermissionFinding,
    Question,
    explain,
    explain_credential,
)
from pilothouse_server.errors import PermissionDenied, not_found
from pilothouse_server.identity.access.escalation import uncovered
from pilothouse_server.identity.access.operations.grants import READING_GRANTS, LocateUser
from pilothouse_server.identity.access.repository import explanations, grants
from pilothouse_server.identity.model import PrincipalGrant, Role, User
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.names import normalise_username

ASKING_ABOUT_OTHERS = "user.get"
# Needed in the namespace of a service account to see it and its API keys.
SEEING_SERVICE_ACCOUNTS: Final = "service_account.list"
_READING_ROLES = "role.list"
_MOST_ROLES_NAMED = 3
_MOST_KEYS_NAMED = 10


async def other_user(
    transaction: ReadTransaction, caller: Principal, username: str, locate_user: LocateUser
) -> User | None:
    """Returns the user whom a question is about; None if that is the caller.

    Raises:
        PermissionDenied: the question is about another user, and the caller lacks `user.get` over all namespaces.
        NotFound: the named user.
    """
    if not username or normalise_username(username) == normalise_username(caller.username):
        return None
    if not caller.allows(ASKING_ABOUT_OTHERS):
        raise PermissionDenied(
            f"permission {ASKING_ABOUT_OTHERS} is needed to ask about another user",
            reason="PERMISSION_DENIED",
            metadata={"permission": ASKING_ABOUT_OTHERS},
        )
    return await locate_user(transaction, username)


async def explain_permission(
    transaction: ReadTransaction, caller: Principal, question: Question, other: User | None
) -> PermissionFinding:
    """Returns the result of a question about the caller, or about another user.

    The denial is NAMESPACE_NOT_FOUND if the namespace does not exist or the caller may not see it.
    """
    if other is not None:
        return await _explain_other(transaction, caller, question, other)
    held = caller.living_grants()
    finding = explain(question, held)
    if finding.denial is not Denial.NAMESPACE_NOT_FOUND and await _is_gone(transaction, question):
        return PermissionFinding(question, Denial.NAMESPACE_NOT_FOUND)
    if not finding.allowed:
        finding = explain(question, held, await database_facts(transaction, caller, question))
    return explain_credential(question, finding, caller.credential)


async def _explain_other(
    transaction: ReadTransaction, caller: Principal, question: Question, other: User
) -> PermissionFinding:
    if await _is_gone(transaction, question):
        return PermissionFinding(question, Denial.NAMESPACE_NOT_FOUND)
    if other.status != "active":
        return PermissionFinding(question, Denial.USER_INACTIVE)
    held = await grants.held_by(transaction, other.id)
    finding = explain(question, held, known=True)
    if finding.allowed:
        return finding
    gone = await explanations.ended(transaction, other.id, question)
    more = DatabaseFacts(gone, await _givers(transaction, caller, question))
    return explain(question, held, more, known=True)


async def _is_gone(transaction: ReadTransaction, question: Question) -> bool:
    """Returns whether the question names a namespace that does not exist or that the caller may not see."""
    name = question.namespace
    return bool(name) and await grants.find_namespace(transaction, name) is None


async def database_facts(
    transaction: ReadTransaction, caller: Principal, question: Question
) -> DatabaseFacts:
    """Returns the database facts for a question about the caller: own ended grants, and users who could give more.

    The holder of a key learns nothing about former grants of its owner.
    """
    ended: tuple[Grant, ...] = ()
    if caller.credential.limits is None:
        ended = await explanations.ended(transaction, caller.user_id, question)
    return DatabaseFacts(ended, await _givers(transaction, caller, question))


async def _givers(transaction: ReadTransaction, caller: Principal, question: Question) -> tuple[Giver, ...]:
    """Returns the users who may give a role that suffices; none if a grant in any namespace would suffice."""
    namespace = question.namespace if question.permission_scope == "there" else ""
    everywhere = any(grant.namespace is None for grant in caller.living_grants())
    if question.permission_scope == "somewhere" or not (
        everywhere or (namespace and caller.reaches(namespace))
    ):
        return ()
    namespace_id = await grants.find_namespace(transaction, namespace) if namespace else None
    if namespace and namespace_id is None:
        return ()
    possible = await explanations.possible_givers(transaction, namespace_id, over_all=everywhere)
    if not possible:
        return ()
    giving = Question(explanations.GIVING, question.namespace, question.permission_scope)
    roles = sorted(
        await explanations.roles_giving(transaction, question), key=lambda role: (_breadth(role), role.name)
    )
    wanted = [grants.as_held(role, namespace, namespace_id, None) for role in roles]
    may_list = caller.granting_somewhere(_READING_ROLES) is not None
    found: list[Giver] = []
    for username, held in possible.items():
        given = [
            role
            for role, grant in zip(roles, wanted, strict=True)
            if _may_give(held, giving, grant, question)
        ]
        if given:
            named = [role.name for role in given if role.is_system or may_list]
            found.append(Giver(username, tuple(named[:_MOST_ROLES_NAMED])))
    return tuple(found[:MOST_NAMED])


def _may_give(held: Sequence[Grant], giving: Question, grant: Grant, question: Question) -> bool:
    """Returns whether a user with the grants `held` could give `grant` without an end, and `grant` would suffice."""
    return (
        explain(giving, held).allowed and grant.holds(question.permission) and uncovered(grant, held) is None
    )


def _breadth(role: Role) -> int:
    """Returns a rough measure of the permissions of a role, which sorts narrow roles first."""
    return sum({"*": 10_000}.get(form, 100 if form.endswith(".*") else 1) for form in role.permissions)


async def list_holders(
    transaction: ReadTransaction, caller: Principal, question: Question, page: PageRequest
) -> tuple[Sequence[PrincipalGrant], NextPage, bool]:
    """Returns one page of the users who hold the permission, where the next page begins, and whether it is partial.

    The page is partial if grants over all namespaces are left out because the caller may not read them.

    Raises:
        NotFound: the namespace.
    """
    readable = caller.namespaces_with(READING_GRANTS)
    shown, namespace_id = readable, None
    if question.namespace:
        namespace_id = await grants.find_namespace(transaction, question.namespace)
        if namespace_id is None:
            raise not_found("namespace", question.namespace)
        shown = frozenset({namespace_id})
    found, next_page = await explanations.list_holders(
        transaction, question, page, shown, over_all=readable is None
    )
    return (
        await _with_keys(transaction, caller, question, namespace_id, found),
        next_page,
        readable is not None,
    )


async def _with_keys(
    transaction: ReadTransaction,
    caller: Principal,
    question: Question,
    namespace_id: int | None,
    found: Sequence[PrincipalGrant],
) -> Sequence[PrincipalGrant]:
    """Adds the keys that give the permission, for the users whose keys the caller may list."""
    shown = {each.user_id for each in found if _may_list_keys(caller, each)}
    if not shown:
        return found
    keys = await explanations.keys_naming(transaction, shown, question)
    return [
        msgspec.structs.replace(
            each,
            api_keys=tuple(
                key.name
                for key in keys
                if key.user_id == each.user_id and _works(key, question, each.namespace_id or namespace_id)
            )[:_MOST_KEYS_NAMED],
        )
        for each in found
    ]


def _may_list_keys(caller: Principal, holder: PrincipalGrant) -> bool:
    """Returns whether the caller may list the keys of this user."""
    if not caller.credential.is_login:
        return False
    if holder.user_id == caller.user_id:
        return True
    if holder.service_account:
        return caller.allows(SEEING_SERVICE_ACCOUNTS, holder.account_namespace or None)
    return caller.allows(ASKING_ABOUT_OTHERS)


def _works(key: explanations.KeyOf, question: Question, namespace_id: int | None) -> bool:
    """Returns whether a key gives the permission in a namespace; None means in any namespace."""
    if key.namespace_ids is None:
        return True
    return not question.only_over_all and (namespace_id is None or namespace_id in key.namespace_ids)
