"""The part of a namespace's quota that its containers use.

A container that an autoscaler targets counts as many pods as the autoscaler may create, even while there are fewer.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.containers import operations, repository
from pilothouse_server.containers.admission import refuse_exceeded_quota
from pilothouse_server.containers.changes import changed
from pilothouse_server.containers.rules import quota_share
from pilothouse_server.namespaces.model import Namespace, Quota
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.quantity import Quantity
from pilothouse_server.values.resources import NamespaceId

count_alone = repository.count_alone


async def quota_usage(transaction: ReadTransaction, namespace_id: NamespaceId) -> Quota:
    """Returns the total usage of a namespace's containers, without Services and storage."""
    count, cpu, memory = await repository.usage_of_quota(transaction, namespace_id)
    return Quota(count, Quantity.from_millicores(cpu).text, Quantity.from_bytes(memory).text)


async def count_pods(
    transaction: Transaction, container_id: int, most: int, *, bounds: Namespace | None
) -> bool:
    """Makes a container count as at least `most` pods; returns whether that is new.

    If `bounds` is given, the caller must hold the counting lock of that namespace (`count_alone`). If not, the quota
    may be exceeded, because the pods may already exist.

    Raises:
        ResourceExhausted: the quota of the namespace is exceeded.
    """
    stored = await repository.get(transaction, container_id, lock=True)
    if stored is None or stored.deletion_requested_at is not None or stored.spec.most_replicas == most:
        return False
    spec = msgspec.structs.replace(stored.spec, most_replicas=most)
    wanted = msgspec.structs.replace(stored, spec=spec)
    before, share = quota_share(stored), quota_share(wanted)
    if bounds is not None and share > before:
        containers, cpu, memory = await repository.usage_of_quota(transaction, stored.namespace_id)
        refuse_exceeded_quota(bounds, (containers - 1, cpu - before[0], memory - before[1]), share)
    change = changed(stored, wanted, await transaction.moment())
    await operations.write_locked(transaction, msgspec.structs.replace(change, quota=share))
    return True
