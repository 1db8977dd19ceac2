"""Config maps and secrets as recorded: ownership of single keys, stringData, immutable objects, refusals."""

from __future__ import annotations

import pytest

from pilothouse_simulator.exec.environment import environment_of, files_of
from pilothouse_simulator.values.resources import PODS
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, check, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

_CONFIGS = "06b-configmaps-and-secrets"


@virtual_time
async def test_config_maps_and_secrets_are_as_recorded() -> None:
    async with recorded_cluster(8) as cluster:
        differences = await replay(cluster, _CONFIGS, Options(varying=NODE_VALUES))
        pod = cluster.store.get(PODS, "rec-conf", "user")
        assert pod is not None
        # The environment and files that the recorded program printed.
        (container,) = pod["spec"]["containers"]
        environment = environment_of(cluster.store, pod, container)
        assert [environment[name] for name in ("NODE", "IP", "PASSWORD", "LIM")] == [
            pod["spec"]["nodeName"],
            pod["status"]["podIP"],
            "example-value",
            "33554432",
        ]
        assert "OPT" not in environment
        files = files_of(cluster.store, pod, container)
        assert "x=9" in files["/c/app.ini"].decode()
        assert files["/s/password"] == b"example-value"
    check(_CONFIGS, differences)
