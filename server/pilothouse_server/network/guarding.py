"""Guards the object of a Service: the permission for each part, and the content allowed on a cluster.

A Service keeps a part that it already has when other fields change. The rights that it was admitted with are stored
with it, and the reconciler writes only content that these rights allow. `guard` has the rules.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from pilothouse_manifests.paths import field_of
from pilothouse_manifests.services import SPEC
from pilothouse_server.authorization.access import May
from pilothouse_server.errors import invalid, over_all_namespaces_needed
from pilothouse_server.guard import hosts
from pilothouse_server.guard.inspection import violations
from pilothouse_server.guard.model import HOST, UNCOMPARED, Admitted, CarriedFacts, GuardViolation, Keys
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, NAMESPACE, NAMESPACE_UID
from pilothouse_server.network import manifests
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.network.model import Service

_OURS: Final = frozenset({NAMESPACE, NAMESPACE_UID, CONTAINER_UID, SERVICE_UID})


def refuse_guarded(
    stored: Service | None, wanted: Service, keys: Keys, may: May, allowed_hosts: Collection[str]
) -> None:
    """Refuses the first new part that the caller may not send. `wanted` must have its namespace set.

    Raises:
        PermissionDenied: the caller lacks the permission; names the field.
        FailedPrecondition: HOST_NOT_ALLOWED, the namespace may not use a host.
        InvalidArgument: a part that is never sent to the cluster.
    """
    facts = CarriedFacts(allowed_hosts=allowed_hosts)
    found = _violations(wanted, keys, facts)
    if not found:
        return
    before = set() if stored is None else {each.right for each in _violations(stored, keys, facts)}
    for each in found:
        if each.right in before:
            continue
        field = _field(each)
        if each.rule == HOST:
            raise hosts.refusal(each, field)
        if not each.permission:
            raise invalid(field, f"{each.path} {each.words}")
        if not may(each.permission):
            why = f"{field} {each.words}"
            raise over_all_namespaces_needed(each.permission, wanted.namespace, why, field=field)


def with_rights(admitted: Service, keys: Keys) -> Service:
    """Returns an admitted Service with the rights that its content needs. `admitted` must have its namespace set."""
    rights = {each.right for each in _violations(admitted, keys)}
    spec = msgspec.structs.replace(admitted.spec, rights=tuple(sorted(rights)))
    return msgspec.structs.replace(admitted, spec=spec)


def may_be_sent(service: Service) -> Admitted:
    """Returns the content that the object of a Service may have."""
    rights = service.spec.rights
    return Admitted(service.kubernetes_namespace, _OURS, None if rights is None else frozenset(rights))


def _violations(service: Service, keys: Keys, facts: CarriedFacts = UNCOMPARED) -> list[GuardViolation]:
    document = manifests.manifest(service)
    return violations(document, namespace=service.kubernetes_namespace, keys=keys, ours=_OURS, facts=facts)


def _field(found: GuardViolation) -> str:
    """Returns the field of the Service that caused a violation; if there is none, the path in the object."""
    place, *rest = found.steps
    if place == "metadata":
        return f"service.{rest[0]}"
    named = field_of(SPEC.entries, rest) if place == "spec" and rest else None
    return found.path if named is None else f"service.{named}"
