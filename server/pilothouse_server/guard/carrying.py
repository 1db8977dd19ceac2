"""Admits carried objects: returns their rights, or raises for one that is missing.

An object keeps its rights as long as nothing but its labels and annotations changes. The right of a label or an
annotation is kept even if the rest of the object changes. So nobody can widen an object that an administrator admitted.
A Role stays admitted when its author loses a permission, until somebody changes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.authorization.access import OVER_ALL_NAMESPACES, May
from pilothouse_server.errors import (
    PermissionDenied,
    PilothouseError,
    invalid,
    over_all_namespaces_needed,
)
from pilothouse_server.guard import hosts
from pilothouse_server.guard.budgets import problem_of
from pilothouse_server.guard.inspection import violations
from pilothouse_server.guard.model import HOST, UNCOMPARED, CarriedFacts, GuardViolation, Keys

Document = Mapping[str, Any]
DOCUMENT: Final = "object.document"


class CarriedPlace(msgspec.Struct, frozen=True):
    """The namespaces that a carried object is sent to, and the facts for the guard.

    `namespace`: the platform's. `ours`: keys of `pilothouse.dev` that the platform sets in each object.
    """

    namespace: str
    kubernetes_namespace: str
    keys: Keys
    facts: CarriedFacts = UNCOMPARED
    ours: Collection[str] = ()


def admitted_rights(
    wanted: Document, stored: Document | None, place: CarriedPlace, may: May
) -> tuple[str, ...]:
    """Returns the rights of an admitted document; the reconciler writes no others.

    Raises:
        PermissionDenied: the caller lacks a permission; the error names the field.
        FailedPrecondition: HOST_NOT_ALLOWED, if the namespace may not use a host.
        InvalidArgument: nobody may send a part of the document.
    """
    found = found_in(wanted, place)
    kept = set() if stored is None else _kept(wanted, found_in(stored, place), stored)
    for each in found:
        if each.right in kept or _is_allowed(each, may):
            continue
        raise refusal(each, place.namespace)
    return tuple(sorted({each.right for each in found if each.permission}))


def found_in(document: Document, place: CarriedPlace) -> list[GuardViolation]:
    """Returns the parts of a document that not everybody may send to this place."""
    return violations(
        document, namespace=place.kubernetes_namespace, keys=place.keys, ours=place.ours, facts=place.facts
    )


def missing(document: Document, place: CarriedPlace, may: May) -> PilothouseError | None:
    """Returns the error that refuses the document as a new object; None if the caller may send it."""
    for each in found_in(document, place):
        if not _is_allowed(each, may):
            return refusal(each, place.namespace)
    return None


def warnings_of(document: Document, facts: CarriedFacts) -> list[tuple[str, str]]:
    """Returns the paths of parts that are admitted but rarely intended, each with its effect."""
    if document.get("kind") == "PodDisruptionBudget" and (problem := problem_of(document, facts.pods)):
        key, words = problem
        return [(f"spec.{key}", words)]
    return []


def _is_allowed(found: GuardViolation, may: May) -> bool:
    if found.permission and may(found.permission):
        return True
    return bool(found.instead) and may(found.instead)


def _kept(wanted: Document, before: list[GuardViolation], stored: Document) -> set[str]:
    """Returns the rights that an object keeps: those of its metadata, or all if only its metadata changes."""
    same = _content(wanted) == _content(stored)
    return {each.right for each in before if same or each.steps[0] == "metadata"}


def _content(document: Document) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "metadata"}


def field_of(found: GuardViolation) -> str:
    """Returns the field of an object that a finding comes from."""
    if found.steps[:1] == ("metadata",) and len(found.steps) > 1:
        return f"object.{found.steps[1]}"
    return f"{DOCUMENT}.{found.path}"


def refusal(found: GuardViolation, namespace: str) -> PilothouseError:
    """Returns the error for a part that a caller may not send."""
    field, permission = field_of(found), found.permission
    why = f"{found.path} {found.words}"
    if found.rule == HOST:
        return hosts.refusal(found, field)
    if not permission:
        return invalid(field, why)
    if permission in OVER_ALL_NAMESPACES:
        return over_all_namespaces_needed(permission, namespace, why, field=field)
    needed = f"{permission} (or {found.instead} over all namespaces)" if found.instead else permission
    return PermissionDenied(
        f'permission {needed} is needed in namespace "{namespace}": {why}',
        reason="PERMISSION_DENIED",
        metadata={"permission": permission, "namespace": namespace, "field": field},
    )
