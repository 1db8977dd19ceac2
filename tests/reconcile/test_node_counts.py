"""The pods of a DaemonSet are counted even if they run before the result of their apply is written."""

from __future__ import annotations

import msgspec

from pilothouse_server.containers.model import ContainerSpec
from pilothouse_server.containers.workload_settings import DaemonSetSettings
from pilothouse_server.reconcile.apply.container_actions import ContainerProgress
from pilothouse_server.reconcile.apply.container_reconciler import ContainerReconciler, LoadedContainer
from pilothouse_server.reconcile.observe.container_observer import ContainerObserverSettings
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_simulator.values.resources import NODES
from tests.reconcile.environment import QUICK, Environment


class _Late(ContainerReconciler):
    """Returns from an apply after the observer has written that all pods run."""

    def __init__(self, here: Environment) -> None:
        super().__init__()
        self._here = here
        self.nodes = len(here.cluster.store.list(NODES))

    async def act(self, client: LeasedClient, loaded: LoadedContainer) -> ContainerProgress:
        done = await super().act(client, loaded)
        if done.workload is not None:
            await self._here.until(lambda row: row.observed.ready_replicas == self.nodes)
        return done


async def test_pods_that_run_before_their_apply_is_written_are_counted(here: Environment) -> None:
    # A long `node_seconds`: otherwise images that a node does not list yet would make the observer look again.
    observer = ContainerObserverSettings(gather_seconds=0.01, node_seconds=600.0)
    settings = msgspec.structs.replace(QUICK, containers=observer)
    late = _Late(here)
    async with here.reconciling(settings, containers=late):
        await here.namespace()
        await here.create(spec=ContainerSpec(workload=DaemonSetSettings()))
        row = await here.until(lambda row: row.replicas == late.nodes)
    assert [each.reason for each in row.observed.conditions if each.type == "Grew"] == ["NodesChanged"]
