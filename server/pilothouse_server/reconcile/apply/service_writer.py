"""The one way in which a Service is written to a cluster, whether it stands by itself or a container owns it."""

from __future__ import annotations

from pilothouse_server.kubernetes.objects import SERVICES, Manifest, Service
from pilothouse_server.network.manifests import needs_another_address
from pilothouse_server.reconcile.apply.drift import Drift
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import NamespaceRef


async def write(
    client: LeasedClient, home: NamespaceRef, manifest: Manifest, found: Service | None, drift: Drift
) -> Service:
    """Applies a Service over the object that was found, which is ours. Raises ClusterError, LeaseLost.

    An address can be neither added, changed nor removed: the Service is then created again.
    """
    if found is not None and needs_another_address(manifest, found):
        name = found.metadata.name
        await client.delete(SERVICES, home, name, uid=found.metadata.uid, propagation="Background")
        drift.note_deleted(SERVICES.kind, name)
        found = None
    return await drift.apply(client, SERVICES, manifest, present=found is not None)
