"""Checks periodically whether the autoscalers of one cluster still exist.

A new autoscaler is noticed by the number of replicas that it sets. A deleted one changes nothing: the number stays, and
without this check the container would be shown as autoscaled forever. Autoscalers are not watched, because few
containers have one; if no container has one, nothing is read from the cluster.
"""

from __future__ import annotations

import asyncio

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.errors import ClusterError, Forbidden, NotFound
from pilothouse_server.kubernetes.objects import HORIZONTAL_POD_AUTOSCALERS
from pilothouse_server.reconcile.observe.cluster_observer import LeasedCluster
from pilothouse_server.reconcile.queue.cluster_clients import log_failure
from pilothouse_server.reconcile.repository import container_status, work_queue

log = structlog.get_logger(__name__)


class Autoscalers:
    """The check of one cluster's autoscalers.

    `run` works until cancelled; raises LeaseLost.
    """

    def __init__(self, cluster: LeasedCluster, period_seconds: float) -> None:
        self._cluster = cluster
        self._period_seconds = period_seconds

    async def run(self) -> None:
        """Checks every `period_seconds` until cancelled."""
        while True:
            try:
                await self.look()
            except ClusterError as error:
                log_failure("autoscalers cannot be read", self._cluster.name, error)
            except PilothouseError as error:
                log.info("autoscalers cannot be read", cluster=self._cluster.name, reason=error.reason)
            await asyncio.sleep(self._period_seconds)

    async def look(self) -> None:
        """Enqueues the containers whose autoscaler is deleted.

        Raises ClusterError, PilothouseError, LeaseLost.
        """
        cluster = self._cluster
        async with cluster.store.system_read() as transaction:
            autoscaled = await container_status.autoscaled(transaction, cluster.name)
        if not autoscaled:
            return
        try:
            listed = (await cluster.client.list(HORIZONTAL_POD_AUTOSCALERS)).items
        except NotFound:
            # The cluster does not have this API any more.
            listed = ()
        except Forbidden:
            return
        targets = {
            (each.metadata.namespace, each.spec.scale_target_ref.kind, each.spec.scale_target_ref.name)
            for each in listed
        }
        if gone := [identity for identity, workload in autoscaled.items() if workload not in targets]:
            async with cluster.transaction() as transaction:
                await work_queue.requeue_containers(transaction, sorted(gone))
