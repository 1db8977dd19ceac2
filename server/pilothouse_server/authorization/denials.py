"""Explains from grants alone why something is allowed or refused.

Refusals and `ExplainPermission` both use this module, so they give the same reason. Everything is computed from the
caller's own grants, so the explanation reveals nothing about other users' grants. A namespace that no grant of the
caller covers is described as one that does not exist.

Facts that must be read from the database (ended grants, users who could give the missing permission) are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from pilothouse_server.authorization.access import (
    OVER_ALL_NAMESPACES,
    Credential,
    Grant,
    KeyLimits,
    permission_matches,
    within,
)

# The required scope of a permission: the named namespace, all namespaces, or any namespace.
PermissionScope = Literal["there", "everywhere", "somewhere"]

# The maximum numbers of grants, and of names or users, in a result.
MOST_CONSIDERED: Final = 16
MOST_NAMED: Final = 5


class Denial(StrEnum):
    """The reason for a refusal; the values are those of the API."""

    NO_GRANT = "NO_GRANT"
    EXCLUDED = "EXCLUDED"
    OVER_ALL_NAMESPACES = "OVER_ALL_NAMESPACES"
    ELSEWHERE = "ELSEWHERE"
    EXPIRED = "EXPIRED"
    NAMESPACE_NOT_FOUND = "NAMESPACE_NOT_FOUND"
    CREDENTIAL = "CREDENTIAL"
    USER_INACTIVE = "USER_INACTIVE"


# Of several denials the first in this order is reported: the denial that is closest to being allowed.
_ORDER: Final = (Denial.OVER_ALL_NAMESPACES, Denial.EXPIRED, Denial.EXCLUDED, Denial.ELSEWHERE)


@dataclass(frozen=True, slots=True)
class Question:
    """A permission as `<noun>.<verb>`, a namespace ('' if none is named), and the required scope (`permission_scope`).

    `over_all`: the permission works only from a grant over all namespaces. `reads`: it suffices for some read.
    """

    permission: str
    namespace: str = ""
    permission_scope: PermissionScope = "everywhere"
    over_all: bool = False
    reads: bool = True

    @property
    def forms(self) -> tuple[str, str, str]:
        """The forms in which a role may name the permission."""
        return (self.permission, f"{self.permission.partition('.')[0]}.*", "*")

    @property
    def only_over_all(self) -> bool:
        """Whether the permission works only from a grant over all namespaces."""
        return self.over_all or self.permission in OVER_ALL_NAMESPACES

    def allowed_by(self, grants: Iterable[Grant]) -> list[Grant]:
        """Returns those of the valid `grants` that give the permission in the required scope.

        CheckPermission, ExplainPermission, ListPrincipals and SimulateGrant all decide by this method.
        """
        over_all = self.only_over_all
        return [
            grant
            for grant in grants
            if self.is_about(grant)
            and not (over_all and grant.namespace is not None)
            and grant.holds(self.permission)
        ]

    def is_about(self, grant: Grant) -> bool:
        """Returns whether the grant covers the required scope."""
        if self.permission_scope == "there":
            return grant.namespace in (None, self.namespace)
        return self.permission_scope == "somewhere" or grant.namespace is None


def asked(permission: str, namespace: str) -> Question:
    """Returns the question whether a permission is held in `namespace`, or over all namespaces if that is ''."""
    return Question(permission, namespace, "there" if namespace else "everywhere")


@dataclass(frozen=True, slots=True)
class Considered:
    """A grant that was considered; `denial` is None if the grant gives the permission in question."""

    grant: Grant
    denial: Denial | None = None


@dataclass(frozen=True, slots=True)
class Giver:
    """A user who could grant the missing permission, with the names of roles that would suffice."""

    username: str
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """Facts from the database: ended grants, and users who could give the missing permission.

    Both contain only rows that the caller may see.
    """

    ended: tuple[Grant, ...] = ()
    givers: tuple[Giver, ...] = ()


@dataclass(frozen=True, slots=True)
class PermissionFinding:
    """The result of a question. `denial` is None if the permission is held.

    `considered` contains the grants that give the permission; without such grants, those that nearly give it. For a
    caller with a key, `key_refuses` and `owner_refuses` show whether the key or its owner does not give the permission.
    `roles_there` are the roles of the grants that cover the required scope.
    """

    question: Question
    denial: Denial | None
    considered: tuple[Considered, ...] = ()
    givers: tuple[Giver, ...] = ()
    key_refuses: bool = False
    owner_refuses: bool = False
    roles_there: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the permission is held."""
        return self.denial is None

    @property
    def grants(self) -> tuple[Grant, ...]:
        """The grants behind the result: those that give the permission, or those that explain the denial."""
        return tuple(each.grant for each in self.considered if each.denial == self.denial)


_NOTHING: Final = DatabaseFacts()


def explain(
    question: Question,
    living: Sequence[Grant],
    database_facts: DatabaseFacts = _NOTHING,
    *,
    known: bool = False,
) -> PermissionFinding:
    """Returns the result of a question for one user; `living` are the user's grants that have not ended.

    `known`: the caller may know that the namespace exists, even if none of the grants covers it.
    """
    reached = (
        known
        or not question.namespace
        or any(grant.namespace in (None, question.namespace) for grant in living)
    )
    holding = question.allowed_by(living) if reached else []
    if holding:
        return PermissionFinding(question, None, tuple(map(Considered, holding[:MOST_CONSIDERED])))
    near = [Considered(grant, why) for grant in living if (why := _ends(question, grant)) is not None]
    near += [
        Considered(grant, Denial.EXPIRED)
        for grant in question.allowed_by(database_facts.ended)
        # The caller may learn nothing about a namespace that no valid grant covers, not even that a grant has ended.
        if reached or grant.namespace is None
    ]
    found = {each.denial for each in near}
    nearest = next((each for each in _ORDER if each in found), Denial.NO_GRANT)
    denial = nearest if reached else Denial.NAMESPACE_NOT_FOUND
    roles = dict.fromkeys(grant.role for grant in living if question.is_about(grant))
    return PermissionFinding(
        question,
        denial,
        tuple(sorted(near, key=lambda each: each.denial is not denial)[:MOST_CONSIDERED]),
        database_facts.givers if reached else (),
        roles_there=tuple(roles),
    )


def explain_credential(
    question: Question, finding: PermissionFinding, credential: Credential
) -> PermissionFinding:
    """Returns the result of a question by a caller with a key, and whether the key or its owner lacks the permission.

    The owner's grants are not included: the holder of a key learns about its owner only the rights that the key gives.
    """
    limits = credential.limits
    if limits is None or finding.denial is Denial.NAMESPACE_NOT_FOUND:
        return finding
    key_gives = _gives(limits, question) and (question.reads or not limits.read_only)
    if finding.allowed and key_gives:
        return finding
    owner_refuses = not explain(question, limits.owner_grants).allowed
    return replace(
        finding,
        denial=Denial.CREDENTIAL if finding.allowed or not owner_refuses else finding.denial,
        givers=finding.givers if owner_refuses else (),
        key_refuses=not owner_refuses or not key_gives,
        owner_refuses=owner_refuses,
    )


def _gives(limits: KeyLimits, question: Question) -> bool:
    """Returns whether a key with these limits would give the permission if its owner held every permission."""
    everything = Grant("", None, None, frozenset({"*"}))
    return explain(question, within([everything], limits)).allowed


def _ends(question: Question, grant: Grant) -> Denial | None:
    """Returns why a valid grant does not give the permission; None if the grant is irrelevant to the question."""
    wanted = question.permission
    if not any(permission_matches(form, wanted) for form in grant.permissions):
        return None
    if any(permission_matches(excluded, wanted) for excluded in grant.excluded):
        return Denial.EXCLUDED if question.is_about(grant) else None
    if grant.namespace is not None and question.only_over_all:
        # For a grant in another namespace, this is not the reason: it would not give an ordinary permission either.
        near = question.namespace in ("", grant.namespace)
        return Denial.OVER_ALL_NAMESPACES if near else None
    return None if question.is_about(grant) else Denial.ELSEWHERE


def metadata(finding: PermissionFinding) -> dict[str, str]:
    """Returns the finding as values of an error's details; names are separated by commas."""
    if finding.denial is None:
        return {}
    told = {"why": str(finding.denial)}
    if finding.denial in (Denial.EXCLUDED, Denial.OVER_ALL_NAMESPACES, Denial.EXPIRED):
        told["roles"] = _joined(grant.role for grant in finding.grants)
    elsewhere = [each.grant.namespace for each in finding.considered if each.denial is Denial.ELSEWHERE]
    if elsewhere:
        told["held_in"] = _joined(name for name in elsewhere if name)
    if finding.denial is Denial.EXPIRED:
        told["ended"] = moment(max(map(_end, finding.grants)))
    if finding.givers:
        told["ask"] = _joined(giver.username for giver in finding.givers)
    return told


def summary(finding: PermissionFinding, of: str = "", *, details: bool = True) -> str:
    """Returns the whole finding as one sentence without a full stop; see `reason`."""
    where = f"{finding.question.permission} {place(finding.question)}"
    if not finding.allowed:
        return f"{where} is not allowed: {reason(finding, of, details=details)}"
    if not details or not finding.considered:
        return f"{where} is allowed"
    lasting = [grant for grant in finding.grants if grant.expires_at is None]
    best = lasting[0] if lasting else max(finding.grants, key=_end)
    until = "" if best.expires_at is None else f", until {moment(best.expires_at)}"
    return f"{where} is allowed by {_granted(best)}{until}"


def reason(finding: PermissionFinding, of: str = "", *, details: bool = True) -> str:
    """Returns why something is not allowed, and which users can grant it.

    `of` is the name of the user; with '' the text addresses the user as "you". Without `details` the text names no
    role, namespace or time of a grant.
    """
    words = (_WORDS if details else _SHORT)[finding.denial or Denial.NO_GRANT](finding, of)
    if not finding.givers:
        return words
    return f"{words}; {_listed([giver.username for giver in finding.givers])} could grant it"


def place(question: Question) -> str:
    """Returns the question's scope in words."""
    if question.permission_scope == "there":
        return f'in namespace "{question.namespace}"'
    return "in any namespace" if question.permission_scope == "somewhere" else "over all namespaces"


def moment(time: datetime) -> str:
    """Returns a time, which must be in UTC, in the form `2025-01-31T12:00:00Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _not_found(finding: PermissionFinding, of: str) -> str:
    words = f'namespace "{finding.question.namespace}" not found'
    ended = [each for each in finding.considered if each.denial is Denial.EXPIRED]
    if not ended:
        return words
    return f"{words}: {_expired(replace(finding, denial=Denial.EXPIRED), of)}"


def _inactive(_finding: PermissionFinding, of: str) -> str:
    return f"{of or 'you'} may not log in, so no permission applies"


def _credential(_finding: PermissionFinding, _of: str) -> str:
    return "the key does not give it, though its owner holds it"


def _excluded(finding: PermissionFinding, of: str) -> str:
    return f"{_whose(of)} {_granted(finding.grants[0])} excludes it"


def _over_all(finding: PermissionFinding, of: str) -> str:
    return f"{_over_all_short(finding, of)}; {_whose(of)} {_granted(finding.grants[0])} is not enough"


def _over_all_short(_finding: PermissionFinding, _of: str) -> str:
    return "it requires a grant over all namespaces"


def _expired(finding: PermissionFinding, of: str) -> str:
    last = max(finding.grants, key=_end)
    return f"{_whose(of)} grant of {_granted(last)} ended at {moment(_end(last))}"


def _elsewhere(finding: PermissionFinding, of: str) -> str:
    names = dict.fromkeys(f'"{grant.namespace}"' for grant in finding.grants)
    plural = "s" if len(names) != 1 else ""
    return f"{of or 'you'} {'holds' if of else 'hold'} it only in namespace{plural} {_listed(list(names))}"


def _no_grant(finding: PermissionFinding, of: str) -> str:
    roles = [f'"{role}"' for role in finding.roles_there]
    if not roles:
        return f"{of or 'you'} {'has' if of else 'have'} no grant {_there(finding.question)}"
    plural, verb = ("", "does") if len(roles) == 1 else ("s", "do")
    return f"{_whose(of)} role{plural} {_listed(roles)} {_there(finding.question)} {verb} not hold it"


def _unsaid(finding: PermissionFinding, of: str) -> str:
    return f"{of or 'you'} {'does' if of else 'do'} not hold it {_there(finding.question)}"


_Says = Callable[[PermissionFinding, str], str]
_WORDS: Final[Mapping[Denial, _Says]] = {
    Denial.NAMESPACE_NOT_FOUND: _not_found,
    Denial.USER_INACTIVE: _inactive,
    Denial.CREDENTIAL: _credential,
    Denial.EXCLUDED: _excluded,
    Denial.OVER_ALL_NAMESPACES: _over_all,
    Denial.EXPIRED: _expired,
    Denial.ELSEWHERE: _elsewhere,
    Denial.NO_GRANT: _no_grant,
}
_SHORT: Final[Mapping[Denial, _Says]] = {
    **dict.fromkeys(Denial, _unsaid),
    Denial.NAMESPACE_NOT_FOUND: _not_found,
    Denial.USER_INACTIVE: _inactive,
    Denial.OVER_ALL_NAMESPACES: _over_all_short,
}


def _there(question: Question) -> str:
    return "there" if question.permission_scope == "there" else place(question)


def _whose(of: str) -> str:
    return f"{of}'s" if of else "your"


def _granted(grant: Grant) -> str:
    where = f'in namespace "{grant.namespace}"' if grant.namespace else "over all namespaces"
    return f'role "{grant.role}" {where}'


def _end(grant: Grant) -> datetime:
    assert grant.expires_at is not None, "what never ends has not ended"
    return grant.expires_at


def _joined(names: Iterable[str]) -> str:
    return ",".join(list(dict.fromkeys(names))[:MOST_NAMED])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
