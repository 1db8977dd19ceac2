"""Services, their addresses and ports, and the endpoints behind them, as recorded."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.admission.services import ServiceAllocators
from tests.simulator.replay import Options, Replay, check, create, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_SERVICES = "06a-services"


def _two_ports(run: Replay) -> JsonObject:
    """Returns the sent body, which had both ports; the recording shows the ports of the next request here."""
    body: JsonObject = copy.deepcopy(run.recording["exchanges"][0]["request"]["body"])
    body["spec"]["ports"].append({"name": "admin", "port": 9000})
    return body


async def _deploy(run: Replay) -> None:
    """Creates the pods behind the service, which are ready a second after they run."""
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 1, "periodSeconds": 1}
    container = {"name": "app", "image": "busybox:1", "readinessProbe": probe}
    body = {
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    }
    await create(run.cluster, "/apis/apps/v1/namespaces/rec-svc/deployments", body)


@virtual_time
async def test_services_are_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(
            cluster,
            _SERVICES,
            Options(bodies={2: _two_ports}, after={21: _deploy}, varying=frozenset({"generation"})),
        )
    check(_SERVICES, differences)


def test_ports_are_allocated_from_the_upper_band_until_it_is_full() -> None:
    """The lower band is left for Services that request a port, so that no such port is taken by chance."""
    allocators = ServiceAllocators()
    allocated = []
    for _ in range(2768):
        allocated.append(allocators.free_node_port())
        allocators.node_ports.add(allocated[-1])
    assert min(allocated[:-86]) == 30_086
    assert sorted(allocated) == list(range(30_000, 32_768))
