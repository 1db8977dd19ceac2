"""The ResourceQuota of a namespace on its cluster, applied with the Kubernetes namespace.

The database enforces quotas: it counts the platform's objects. It never counts the pods that autoscalers, operators and
holders of tokens create, so the cluster gets a ResourceQuota `pilothouse` (`quota_manifest` of `namespaces.manifests`).
A ResourceQuota of this name that another owner made is left alone, and so are all others.

The condition `QuotaEnforced` shows the result. A refusal, such as a missing right, is written there and retried only at
the next check of the namespace, because the namespace itself is applied. The condition also records that there is an
object to delete once the quota is removed.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.guard.model import Admitted
from pilothouse_server.kubernetes import fingerprints
from pilothouse_server.kubernetes.errors import NAME_TAKEN, Forbidden, Refused
from pilothouse_server.kubernetes.objects import RESOURCE_QUOTAS
from pilothouse_server.kubernetes.ownership import MANAGED_BY, NAMESPACE, NAMESPACE_UID
from pilothouse_server.namespaces.manifests import QUOTA_NAME, quota_manifest
from pilothouse_server.namespaces.model import Namespace, PodDemand, Quota
from pilothouse_server.reconcile.apply import managed_fields_diff
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import Condition

QUOTA_ENFORCED = "QuotaEnforced"
_OURS = frozenset({MANAGED_BY, NAMESPACE, NAMESPACE_UID})


class QuotaOnCluster(msgspec.Struct, frozen=True):
    """`condition`: None if the namespace has no quota, and no object of one.

    `objects`: the object's fingerprint.
    """

    condition: Condition | None = None
    objects: dict[str, str] = {}


async def apply_quota(client: LeasedClient, namespace: Namespace, demand: PodDemand) -> QuotaOnCluster:
    """Writes the ResourceQuota, repairs it, or deletes it if the quota is removed.

    Raises ClusterError if the cluster does not respond; a refusal is returned as the condition.
    """
    had_one = any(each.type == QUOTA_ENFORCED for each in namespace.conditions)
    if namespace.quota == Quota() and not had_one:
        return QuotaOnCluster()
    try:
        if namespace.quota == Quota():
            await remove_quota(client, namespace)
            return QuotaOnCluster()
        return await _written(client, namespace, demand)
    except Refused as error:
        if error.outlook == "gone":
            raise
        denied = isinstance(error, Forbidden) and error.permission
        reason = "Denied" if denied else error.reason
        return QuotaOnCluster(Condition(QUOTA_ENFORCED, "False", reason, error.message))


async def _written(client: LeasedClient, namespace: Namespace, demand: PodDemand) -> QuotaOnCluster:
    wanted = quota_manifest(namespace, demand)
    found = await client.find(RESOURCE_QUOTAS, namespace.kubernetes_name, QUOTA_NAME)
    if found is not None and found.metadata.label(NAMESPACE_UID) != namespace.uid:
        message = f"the cluster has a ResourceQuota {QUOTA_NAME} of another owner: it is left as it is"
        return QuotaOnCluster(Condition(QUOTA_ENFORCED, "False", NAME_TAKEN, message))
    applied = found
    if applied is None or not await managed_fields_diff.live_matches_manifest(
        client, RESOURCE_QUOTAS, wanted
    ):
        admitted = Admitted(namespace.kubernetes_name, _OURS, frozenset())
        applied = await client.apply(RESOURCE_QUOTAS, wanted, admitted, force=True)
    condition = Condition(QUOTA_ENFORCED, "True", "Enforced")
    return QuotaOnCluster(condition, fingerprints.by_object((RESOURCE_QUOTAS, applied)))


async def remove_quota(client: LeasedClient, namespace: Namespace) -> None:
    """Deletes the ResourceQuota if it is ours. Raises ClusterError."""
    found = await client.find(RESOURCE_QUOTAS, namespace.kubernetes_name, QUOTA_NAME)
    if found is not None and found.metadata.label(NAMESPACE_UID) == namespace.uid:
        uid = found.metadata.uid
        await client.delete(RESOURCE_QUOTAS, namespace.ref, QUOTA_NAME, uid=uid, propagation="Background")
