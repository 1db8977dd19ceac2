"""Guards carried objects: the permission for each part, and the content allowed on a cluster.

`guard.carrying` has the rules. The rights that an object was admitted with are stored with it, and the reconciler
writes only content that these rights allow. Only holders of `object.privileged` may change or delete an object that one
of them created or changed last.
"""

from __future__ import annotations

import msgspec

from pilothouse_manifests.schemas.tables import schemas
from pilothouse_server.authorization.access import May
from pilothouse_server.errors import invalid, over_all_namespaces_needed
from pilothouse_server.guard.carrying import CarriedPlace, admitted_rights
from pilothouse_server.guard.model import PRIVILEGED_OBJECT, Admitted, OpenedKind
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.objects import documents, manifests
from pilothouse_server.objects.model import CarriedObject


def admitted(
    stored: CarriedObject | None, wanted: CarriedObject, place: CarriedPlace, may: May
) -> CarriedObject:
    """Returns the object with the rights that it is admitted with, and whether a privileged caller changed it.

    Raises:
        PermissionDenied: the caller lacks the permission for a part; names the field.
        FailedPrecondition: the namespace may not use a host.
        InvalidArgument: a part that is never sent to the cluster, or a misspelt field.
    """
    before = None if stored is None else documents.manifest(stored)
    document = documents.manifest(wanted)
    if document != before:
        _refuse_misspelt(wanted, document)
    rights = admitted_rights(document, before, place, may)
    return msgspec.structs.replace(wanted, rights=rights, privileged=may(PRIVILEGED_OBJECT))


def _refuse_misspelt(wanted: CarriedObject, document: Manifest) -> None:
    """Raises InvalidArgument for a field name that resembles one of Kubernetes' own, in any of its versions.

    For such a field, the guard would only report a missing permission. Fields of custom resources are not known.
    """
    for key, value in document.items():
        for path, meant in schemas().misspelt(wanted.api_version, wanted.kind, key, value):
            words = f'is no field of Kubernetes; did you mean "{meant}"?'
            raise invalid(f"{documents.FIELD}.{path}", words)


def refuse_protected(stored: CarriedObject, wanted: CarriedObject | None, may: May) -> None:
    """Refuses a change or deletion of an object that only holders of `object.privileged` may change.

    `wanted`: None for a deletion. Raises PermissionDenied.
    """
    if may(PRIVILEGED_OBJECT):
        return
    if stored.protected or stored.privileged:
        why = (
            "is protected"
            if stored.protected
            else f"was created or last changed by a holder of {PRIVILEGED_OBJECT}"
        )
        words = f"object {stored.kind} {stored.name} {why}"
        raise over_all_namespaces_needed(PRIVILEGED_OBJECT, stored.namespace, words, field="object.protected")
    if wanted is not None:
        refuse_protecting(stored.namespace, wanted, may)


def refuse_protected_policy(stored: CarriedObject, may: May) -> None:
    """Raises PermissionDenied for deleting a NetworkPolicy in a namespace whose policies are protected."""
    if stored.kind == "NetworkPolicy" and not may(PRIVILEGED_OBJECT):
        words = f"{stored.kind} {stored.name} restricts traffic, and network_policies of the namespace is PROTECTED"
        raise over_all_namespaces_needed(PRIVILEGED_OBJECT, stored.namespace, words, field="kind")


def refuse_protecting(namespace: str, wanted: CarriedObject, may: May) -> None:
    """Raises PermissionDenied if a caller without `object.privileged` sets `protected`."""
    if wanted.protected and not may(PRIVILEGED_OBJECT):
        words = "object.protected prevents changes by callers without that permission"
        raise over_all_namespaces_needed(PRIVILEGED_OBJECT, namespace, words, field="object.protected")


def may_be_sent(carried: CarriedObject, opened: OpenedKind | None) -> Admitted:
    """Returns the content that the object may have on the cluster."""
    given = None if carried.rights is None else frozenset(carried.rights)
    return Admitted(carried.kubernetes_namespace, manifests.OURS, given, opened)
