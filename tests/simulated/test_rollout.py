"""Rollouts of Deployments: as recorded, and by the rules they promise."""

from __future__ import annotations

import copy
from typing import Any

from .recorded_cluster import NODE_VALUES, recorded_cluster
from .replay import Body, Replay, check, replay

JsonObject = dict[str, Any]

_ROLLOUT = "03d-deployment-rollout-watches"
_STALLED = "03e-deployment-stalled-rollout"
_APPLIES = (4, 6, 9, 10, 12, 13, 14)


def _as_answered(index: int) -> Body:
    """The recording shows all bodies as the last one was; what was sent follows from each answer."""

    def body(run: Replay) -> JsonObject:
        exchange = run.recording["exchanges"][index]
        sent: JsonObject = copy.deepcopy(exchange["request"]["body"])
        answered = exchange["response"]["body"]["spec"]
        spec, template = sent["spec"], answered["template"]
        spec["template"]["metadata"] = {
            name: value for name, value in template["metadata"].items() if name in ("labels", "annotations")
        }
        spec["template"]["spec"]["containers"][0]["env"] = template["spec"]["containers"][0]["env"]
        spec["replicas"] = answered["replicas"]
        spec.pop("paused", None)
        if "paused" in answered:
            spec["paused"] = answered["paused"]
        return sent

    return body


async def test_a_whole_rollout_is_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        bodies = {index: _as_answered(index) for index in _APPLIES}
        differences = await replay(cluster, _ROLLOUT, bodies=bodies, varying=NODE_VALUES)
    check(_ROLLOUT, differences)


async def test_a_stalled_rollout_is_as_recorded() -> None:
    async with recorded_cluster(speed=8) as cluster:
        differences = await replay(cluster, _STALLED, varying=NODE_VALUES)
    check(_STALLED, differences)
