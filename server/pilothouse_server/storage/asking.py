"""Asks a claim's cluster what it would say to it: the part of `validate_only` that only the cluster can answer.

The server-side dry run checks schema, admission, quota, and whether a bound claim may grow. A namespace that is not on
the cluster yet cannot be asked about: that is no refusal.
"""

from __future__ import annotations

from pilothouse_server.cluster.claims import PERSISTENT_VOLUME_CLAIMS, claim, is_ours
from pilothouse_server.cluster.client import ClusterClient
from pilothouse_server.cluster.errors import ClusterError, Conflict, NotFound
from pilothouse_server.clusters.refusals import refusal, within
from pilothouse_server.containers.live import Connect
from pilothouse_server.storage.model import Volume


async def check_on_cluster(connect: Connect, volume: Volume) -> None:
    """Have the volume's cluster try its claim out, and change nothing; other types have nothing to try.

    Raises:
        InvalidArgument: the cluster finds the claim wrong; with its words and the fields it names.
        FailedPrecondition: the cluster refuses it: a quota, a policy, a right, a class that does not let it grow, or a
            claim of somebody else that has the name.
        Unavailable: the cluster does not answer.
    """
    if not volume.is_claim:
        return
    try:
        client = await connect(volume.cluster_name)
        await within(_dry_run(client, volume), volume.cluster_name)
    except NotFound:
        return
    except ClusterError as error:
        raise refusal(error, volume.cluster_name) from error


async def _dry_run(client: ClusterClient, volume: Volume) -> None:
    found = await client.find(PERSISTENT_VOLUME_CLAIMS, volume.kubernetes_namespace, volume.kubernetes_name)
    if found is not None and not is_ours(volume, found):
        raise Conflict(
            f"PersistentVolumeClaim {volume.kubernetes_namespace}/{volume.kubernetes_name} exists and does not belong "
            "to this volume",
            status_reason="NameTaken",
        )
    await client.dry_run(PERSISTENT_VOLUME_CLAIMS, claim(volume), force=True)
