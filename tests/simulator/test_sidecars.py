"""Native sidecars and init containers, as recorded."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.nodes.pod_containers import is_restarted
from pilothouse_simulator.values.clock import parse_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import PODS
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.simulator.workloads import container, is_ready, pod, poll_cluster, stored
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_RULES = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}]
_SIDECARS = "26-sidecars-and-init-containers"


def _slow_start(run: Replay) -> JsonObject:
    """Returns the recorded pod with a sidecar that counts as started after four seconds."""
    body: JsonObject = copy_json(run.recording["exchanges"][9]["request"]["body"])
    body["spec"]["initContainers"][0]["startupProbe"]["initialDelaySeconds"] = 4
    return body


@virtual_time
async def test_sidecars_and_init_containers_are_as_recorded() -> None:
    options = Options(
        varying=NODE_VALUES,
        skip=frozenset({1}),
        racing=frozenset({10}),
        bodies={9: _slow_start},
        read_deadline_seconds=0.3,
        stream_deadline_seconds=0.1,
    )
    async with recorded_cluster(speed=8, end_back_off=5.0) as cluster:
        differences = await replay(cluster, _SIDECARS, options)
    check(_SIDECARS, differences)


@virtual_time
async def test_containers_wait_for_the_startup_probe_of_a_sidecar() -> None:
    startup = {"exec": {"command": ["true"]}, "initialDelaySeconds": 5, "periodSeconds": 1}
    sidecar = container("proxy", restartPolicy="Always", startupProbe=startup)
    async with SimulatedCluster(speed=20) as cluster:
        cluster.store.create(PODS, pod("web", initContainers=[sidecar]))
        await poll_cluster(cluster, lambda: is_ready(stored(cluster, PODS, "web")))
        status = stored(cluster, PODS, "web")["status"]
        first, main = (
            parse_time(status[field][0]["state"]["running"]["startedAt"])
            for field in ("initContainerStatuses", "containerStatuses")
        )
        assert (main - first).total_seconds() >= 5
        # The table that kubectl shows.
        headers = {
            "authorization": f"Bearer {cluster.token}",
            "accept": "application/json;as=Table;v=v1;g=meta.k8s.io",
        }
        async with (
            aiohttp.ClientSession(cluster.url, headers=headers) as session,
            session.get("/api/v1/namespaces/default/pods/web") as response,
        ):
            assert (await response.json())["rows"][0]["cells"][1] == "2/2"


@pytest.mark.parametrize(
    ("fields", "policy", "code", "again"),
    [
        ({}, "Always", 0, True),
        ({}, "OnFailure", 0, False),
        ({}, "OnFailure", 3, True),
        ({}, "Never", 3, False),
        ({"restartPolicy": "Never"}, "Always", 3, False),
        ({"restartPolicy": "Never", "restartPolicyRules": _RULES}, "Always", 3, True),
        ({"restartPolicy": "Never", "restartPolicyRules": _RULES}, "Always", 4, False),
    ],
)
def test_a_container_restarts_by_its_own_rules_first(
    fields: JsonObject, policy: str, code: int, *, again: bool
) -> None:
    assert is_restarted(fields, policy, code) is again
