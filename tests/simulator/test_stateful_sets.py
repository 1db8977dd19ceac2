"""StatefulSets: as recorded, and by the rules they promise."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_simulator.values.resources import PERSISTENT_VOLUMES
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_LIFE = "24-statefulset"


async def _make_volumes(run: Replay) -> None:
    """The volumes that the recording made by hand."""
    for number in range(5):
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "by-hand",
            "hostPath": {"path": f"/volumes/a{number}"},
        }
        run.cluster.store.create(PERSISTENT_VOLUMES, {"metadata": {"name": f"pv-a{number}"}, "spec": spec})


@virtual_time
async def test_a_stateful_sets_life_is_as_recorded() -> None:
    options = Options(
        varying=NODE_VALUES,
        after={9: _make_volumes},
        skip=frozenset({4}),
        racing=frozenset({23, 33, 36}),
        read_deadline_seconds=0.5,
        stream_deadline_seconds=0.5,
    )
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _LIFE, options)
    check(_LIFE, differences)
