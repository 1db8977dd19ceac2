"""The only writer of Services to clusters, whether standalone or owned by a container."""

from __future__ import annotations

from pilothouse_server.kubernetes.objects import SERVICES, Manifest, Service
from pilothouse_server.network.manifests import needs_another_address
from pilothouse_server.reconcile.apply.drift import Drift
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import NamespaceRef


async def write(
    client: LeasedClient, home: NamespaceRef, manifest: Manifest, found: Service | None, drift: Drift
) -> Service:
    """Applies a Service; `found` is the present object. Raises ClusterError, LeaseLost.

    `found` must be ours. The API cannot add, change or remove an address: the Service is then deleted and created
    again.
    """
    if found is not None and needs_another_address(manifest, found):
        name = found.metadata.name
        await client.delete(SERVICES, home, name, uid=found.metadata.uid, propagation="Background")
        drift.note_deleted(SERVICES.kind, name)
        found = None
    return await drift.apply(client, SERVICES, manifest, present=found is not None)
