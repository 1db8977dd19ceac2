"""Leases: optimistic locking and times, as recorded; and the validation of autoscalers."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from pilothouse_simulator import SimulatedCluster
from tests.simulator.recordings import load
from tests.simulator.replay import Body, Options, Replay, check, create, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_LEASE = "10-lease"
# The lease of a recorded node, whose heartbeat is not simulated.
_HEARTBEAT = 17


def _body(version: str | None, **spec: Any) -> Body:
    """Returns the body of a PUT; the recording shows a later state of the body."""

    def body(run: Replay) -> JsonObject:
        uid = run.answers[2]["metadata"]["uid"]
        metadata = {"name": "leader", "namespace": "rec-lease", "uid": uid}
        if version is not None:
            metadata["resourceVersion"] = run.substitutions.values[version]
        return {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": metadata, "spec": spec}

    return body


@virtual_time
async def test_leases_are_as_recorded() -> None:
    last = load(_LEASE)["exchanges"][11]["response"]["body"]["spec"]
    bodies = {
        11: _body("6061", **last),
        12: _body("6061", **{**last, "renewTime": "2026-11-24T14:00:00Z"}),
        13: _body(None, **last),
        14: _body(None, **{**last, "leaseDurationSeconds": 0}),
        15: _body("6061", **{**last, "renewTime": "yesterday"}),
    }
    async with SimulatedCluster(speed=20, nodes=1) as cluster:
        differences = await replay(
            cluster,
            _LEASE,
            Options(bodies=bodies, skip=frozenset({_HEARTBEAT}), exact_streams=True, pace=False),
        )
    check(_LEASE, differences)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"maxReplicas": 0}, "spec.maxReplicas"),
        ({"minReplicas": 5}, "spec.maxReplicas"),
        ({"scaleTargetRef": {"kind": "Deployment"}}, "spec.scaleTargetRef.name"),
    ],
)
@virtual_time
async def test_an_invalid_autoscaler_is_refused(changed: JsonObject, field: str) -> None:
    path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3}
    async with SimulatedCluster(nodes=1) as cluster:
        stored = await create(cluster, path, {"metadata": {"name": "good"}, "spec": spec})
        assert stored["apiVersion"] == "autoscaling/v2"
        assert stored["spec"]["minReplicas"] == 1
        headers = {"authorization": f"Bearer {cluster.token}"}
        body = {"metadata": {"name": "bad"}, "spec": {**spec, **changed}}
        async with (
            aiohttp.ClientSession(cluster.url, headers=headers) as session,
            session.post(path, json=body) as response,
        ):
            status = await response.json()
    assert response.status == 422
    assert [cause["field"] for cause in status["details"]["causes"]] == [field]
