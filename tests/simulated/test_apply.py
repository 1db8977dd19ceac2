"""Server-side apply and the other writes of Deployments, as recorded."""

from __future__ import annotations

import copy
from typing import Any

from pilothouse_server.cluster.simulated import SimulatedCluster

from .replay import Replay, check, load, replay

JsonObject = dict[str, Any]

_APPLY = "03a-deployment-server-side-apply"
_PATCHES = "03c-deployment-patches-put-scale"


def _changed_env(run: Replay) -> JsonObject:
    """The recording shows the body of the next request here: what was sent had only the value changed."""
    body: JsonObject = copy.deepcopy(run.recording["exchanges"][2]["request"]["body"])
    body["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "11"
    return body


def _named_web(run: Replay) -> JsonObject:
    """The recording shows a name that was changed only for a later request."""
    body: JsonObject = copy.deepcopy(run.recording["exchanges"][23]["request"]["body"])
    body["metadata"]["name"] = "web"
    return body


async def test_server_side_apply_is_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(cluster, _APPLY, bodies={4: _changed_env, 23: _named_web})
    check(_APPLY, differences)
