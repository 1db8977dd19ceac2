"""A cluster's client that stops writing when the lease on the work has expired.

A process that was frozen (or starved) past its lease must not continue: another server has taken the work and
may have applied something newer. The monotonic clock runs on while a process is stopped, so the check before
the next write notices. A write that was already sent may still take effect; the next reconciliation, which
`LeaseLost` requests, finds its result.

Every apply passes the guard first, as the complete object that is sent.

Before a deletion, the Kubernetes namespace must carry the uid of our namespace: nothing is deleted in a Kubernetes
namespace of another owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from pilothouse_server.guard.inspection import violations
from pilothouse_server.guard.model import Admitted, CarriedFacts
from pilothouse_server.kubernetes.client import ClusterClient, Propagation
from pilothouse_server.kubernetes.errors import GUARDED, Refused
from pilothouse_server.kubernetes.namespace_ownership import refuse_foreign
from pilothouse_server.kubernetes.objects import NAMESPACES, Manifest, Resource, T
from pilothouse_server.values.resources import NamespaceRef


class LeaseLost(Exception):
    """Another server has the work by now: write nothing, and enqueue it again."""


class LeasedClient:
    """The calls that reconciliation makes; every write first checks the lease. Raises LeaseLost and ClusterError."""

    def __init__(self, client: ClusterClient, ends: float) -> None:
        """Takes as `ends` the end of the lease by the monotonic clock, less a margin."""
        self._client = client
        self._ends = ends
        self._owned_namespaces: list[NamespaceRef] = []

    def renewed(self, ends: float) -> None:
        """Records the new end of the lease."""
        self._ends = ends

    def check(self) -> None:
        """Raises LeaseLost once the lease has expired."""
        if monotonic() >= self._ends:
            raise LeaseLost

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._client.server

    async def document(self, path: str, query: Mapping[str, str]) -> bytes:
        """Reads a document of the API server that is not an object."""
        return await self._client.document(path, query)

    async def find(self, resource: Resource[T], namespace: str | None, name: str) -> T | None:
        """Reads one object, or None."""
        return await self._client.find(resource, namespace, name)

    async def list(self, resource: Resource[T], namespace: str, label_selector: str) -> tuple[T, ...]:
        """Returns all objects with these labels."""
        return (await self._client.list(resource, namespace, label_selector=label_selector)).items

    async def select(self, resource: Resource[T], namespace: str, field_selector: str) -> Sequence[T]:
        """Returns all objects with these fields."""
        return await self._client.select(resource, namespace, field_selector)

    async def read(self, resource: Resource[Any], namespace: str | None, name: str) -> Manifest:
        """Reads a whole object. Raises NotFound."""
        return await self._client.read(resource, namespace, name)

    async def dry_run(self, resource: Resource[Any], manifest: Manifest, *, force: bool = False) -> Manifest:
        """Returns the whole object as it would be after `apply`."""
        return await self._client.dry_run(resource, manifest, force=force)

    async def dry_run_replaced(
        self, resource: Resource[Any], namespace: str | None, name: str, steps: Sequence[str], value: Any
    ) -> Manifest:
        """Returns the whole object as it would be with one field set to `value`."""
        return await self._client.dry_run_replaced(resource, namespace, name, steps, value)

    async def apply(
        self,
        resource: Resource[T],
        manifest: Manifest,
        admitted: Admitted,
        *,
        force: bool = False,
        whole: Manifest | None = None,
    ) -> T:
        """Applies by server-side apply.

        Raises Refused `Guarded` if the object contains more than is `admitted`.

        `whole`: the complete object, if `manifest` leaves out fields that others changed and keep. The guard checks
        `whole`: a Service whose selector is left out of `manifest` is not a Service without a selector.
        """
        self.check()
        _refuse_more(manifest if whole is None else whole, admitted)
        return await self._client.apply(resource, manifest, force=force)

    async def merge_patch(
        self, resource: Resource[T], namespace_ref: NamespaceRef, name: str, patch: Manifest
    ) -> T:
        """Sends a JSON merge patch of an object that must exist, in our namespace. Raises NotFound."""
        await self.check_namespace_ownership(namespace_ref)
        self.check()
        return await self._client.merge_patch(resource, namespace_ref.kubernetes_name, name, patch)

    async def set_scale(self, resource: Resource[Any], namespace: str, name: str, replicas: int) -> None:
        """Sets the replicas through the scale subresource."""
        self.check()
        await self._client.set_scale(resource, namespace, name, replicas)

    async def delete(
        self,
        resource: Resource[Any],
        namespace_ref: NamespaceRef,
        name: str,
        *,
        uid: str,
        propagation: Propagation = "Foreground",
    ) -> bool:
        """Deletes exactly this object.

        Raises Conflict `NameTaken` if the Kubernetes namespace has another owner.
        """
        await self.check_namespace_ownership(namespace_ref)
        self.check()
        return await self._client.delete(
            resource, namespace_ref.kubernetes_name, name, uid=uid, propagation=propagation
        )

    async def delete_namespace(self, name: str, *, uid: str) -> bool:
        """Deletes exactly this namespace, which the caller has checked to be ours."""
        self.check()
        return await self._client.delete(NAMESPACES, None, name, uid=uid, propagation="Background")

    async def check_namespace_ownership(self, namespace_ref: NamespaceRef) -> None:
        """Raises Conflict `NameTaken` if the Kubernetes namespace belongs to another owner.

        Each client, which is made for one work row, reads a namespace only once.
        """
        if namespace_ref not in self._owned_namespaces:
            await refuse_foreign(self, namespace_ref)
            self._owned_namespaces.append(namespace_ref)


def _refuse_more(manifest: Manifest, admitted: Admitted) -> None:
    """Raises Refused for the first part of a manifest that must not be sent.

    Some parts are never sent; others need a right that `admitted` must include.
    """
    facts = CarriedFacts(opened=admitted.opened)
    for found in violations(manifest, namespace=admitted.namespace, ours=admitted.ours, facts=facts):
        if found.permission and (admitted.rights is None or found.right in admitted.rights):
            continue
        needs = f"; the caller did not have permission {found.permission}" if found.permission else ""
        raise Refused(f"{found.path} {found.words}{needs}", code=403, status_reason=GUARDED)
