"""Namespace ownership: a Kubernetes namespace is ours if it has the uid of our namespace of the same name.

If it does not, it and its contents belong to another owner: nothing is tried, written, taken over or deleted there.
"""

from __future__ import annotations

from typing import Protocol

from pilothouse_server.kubernetes.errors import NAME_TAKEN, Conflict
from pilothouse_server.kubernetes.objects import NAMESPACES, Resource, T
from pilothouse_server.kubernetes.ownership import NAMESPACE_UID
from pilothouse_server.values.resources import NamespaceRef


class Finder(Protocol):
    """The methods of a client that this module uses."""

    async def find(self, resource: Resource[T], namespace: str | None, name: str) -> T | None:
        """Reads one object; returns None if it does not exist."""


async def is_foreign(client: Finder, namespace_ref: NamespaceRef) -> bool:
    """Returns whether the Kubernetes namespace exists and belongs to another owner. Raises ClusterError."""
    found = await client.find(NAMESPACES, None, namespace_ref.kubernetes_name)
    return found is not None and (
        not namespace_ref.uid or found.metadata.label(NAMESPACE_UID) != namespace_ref.uid
    )


async def refuse_foreign(client: Finder, namespace_ref: NamespaceRef) -> None:
    """Raises Conflict `NameTaken` if the Kubernetes namespace belongs to another owner; or another ClusterError."""
    if await is_foreign(client, namespace_ref):
        raise Conflict(taken_words(namespace_ref.kubernetes_name), status_reason=NAME_TAKEN)


def taken_words(kubernetes_name: str) -> str:
    """Returns the message for a Kubernetes namespace that belongs to another owner."""
    return (
        f"the Kubernetes namespace {kubernetes_name} exists and is not managed by Pilothouse; "
        "an administrator can take it over by CreateNamespace or UpdateNamespace with `adopt`"
    )
