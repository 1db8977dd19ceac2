"""Version, health, discovery, unknown paths and media types, as recorded."""

from __future__ import annotations

from pilothouse_simulator import SimulatedCluster
from tests.simulator.replay import Options, check, replay
from tests.virtual_time import virtual_time

_DISCOVERY = "01-version-and-discovery"


@virtual_time
async def test_discovery_is_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(
            cluster, _DISCOVERY, Options(names={"real-0": "node-0"}, pace=False, read_deadline_seconds=0)
        )
    check(_DISCOVERY, differences)
