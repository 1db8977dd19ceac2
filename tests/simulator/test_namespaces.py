"""The life of namespaces, as recorded."""

from __future__ import annotations

from pilothouse_simulator import SimulatedCluster
from tests.simulator.replay import check, replay
from tests.virtual_time import virtual_time

_NAMESPACES = "02-namespaces"


@virtual_time
async def test_namespaces_live_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(cluster, _NAMESPACES)
    check(_NAMESPACES, differences)
