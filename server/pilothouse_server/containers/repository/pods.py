"""SQL about the pods of containers, which the observer keeps up."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from pilothouse_server.containers.model import Pod
from pilothouse_server.containers.tables import CONTAINER_PODS
from pilothouse_server.store.unit_of_work import ReadTransaction


async def list_pods(transaction: ReadTransaction, container_id: int) -> Sequence[Pod]:
    """The pods of a container, by name."""
    query = (
        select(CONTAINER_PODS)
        .where(CONTAINER_PODS.c.container_id == container_id)
        .order_by(CONTAINER_PODS.c.pod_name)
    )
    return [
        Pod(row.pod_name, row.uid, row.phase or "", row.ready, row.deleting, row.started_at)
        for row in await transaction.connection.execute(query)
    ]
