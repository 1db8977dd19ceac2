"""Counts autoscalers against quotas: a container counts as many pods as an autoscaler of its namespace allows.

A new or changed autoscaler is refused if the quota does not allow its `maxReplicas`. A periodic job counts the rest,
even beyond the quota: containers that are created again under a name, and numbers adopted from the cluster (ADOPT).
"""

from __future__ import annotations

from typing import Any, Final

from pilothouse_server.containers import quota
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.objects import documents, repository
from pilothouse_server.objects.model import CarriedObject, ObjectKey
from pilothouse_server.store.unit_of_work import Store, Transaction

AUTOSCALER: Final = ("autoscaling", "HorizontalPodAutoscaler")
PERIOD_SECONDS: Final = 30.0


def is_autoscaler(key: ObjectKey | CarriedObject) -> bool:
    """Returns whether an object is an autoscaler."""
    return (key.api_group, key.kind) == AUTOSCALER


async def lock_quota(transaction: Transaction, namespace: Namespace, key: ObjectKey | CarriedObject) -> None:
    """Takes the namespace's lock for counting if the object is an autoscaler. Call it before locking rows."""
    if is_autoscaler(key):
        await quota.count_alone(transaction, namespace.id)


async def count(transaction: Transaction, namespace: Namespace, *versions: CarriedObject | None) -> None:
    """Counts the pods of the containers that versions of an object target. Write the autoscalers first.

    Raises:
        ResourceExhausted: the quota of the namespace.
    """
    present = [each for each in versions if each is not None and is_autoscaler(each)]
    names = {_target(each) for each in present} - {""}
    if not names:
        return
    found = await repository.miscounted(transaction, namespace.id, sorted(names))
    for container_id, most in found:
        await quota.count_pods(transaction, container_id, most, bounds=namespace)
    if found:
        # The reconciler then adapts the ResourceQuota on the cluster.
        await transaction.enqueue("namespace", namespace.id, namespace.cluster_name, namespace.id)


async def recount(store: Store) -> int:
    """Counts the pods that no call has counted; returns the number of containers."""
    async with store.system_read() as transaction:
        found = await repository.miscounted(transaction)
    counted = 0
    for container_id, most in found:
        async with store.system_write("periodic") as transaction:
            counted += await quota.count_pods(transaction, container_id, most, bounds=None)
    return counted


def _target(carried: CarriedObject) -> str:
    found: Any = documents.manifest(carried)
    for key in ("spec", "scaleTargetRef", "name"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""
