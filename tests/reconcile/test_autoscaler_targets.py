"""Autoscalers of other workloads that have the same name as a container's workload."""

from __future__ import annotations

from typing import Any

from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.objects import HORIZONTAL_POD_AUTOSCALERS
from tests.reconcile.environment import Environment

_PATH = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/"


def _autoscaled(row: Container) -> str:
    return {each.type: each.status for each in row.observed.conditions}.get("Autoscaled", "")


def _autoscaler(name: str, kind: str) -> dict[str, Any]:
    """Returns an autoscaler for the workload `web` of this kind."""
    target = {"apiVersion": "apps/v1", "kind": kind, "name": "web"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 5},
    }


async def test_an_autoscaler_of_another_kind_does_not_hide_a_deletion(here: Environment) -> None:
    client = await here.connect("local")
    async with here.reconciling():
        await here.namespace()
        await here.create()
        await here.running()
        await here.apply_as("somebody", _PATH + "ours", _autoscaler("ours", "Deployment"))
        await here.apply_as("somebody", _PATH + "theirs", _autoscaler("theirs", "StatefulSet"))
        await here.meddle({"spec": {"replicas": 3}})
        await here.until(lambda row: not row.reconciling and _autoscaled(row) == "True")
        ours = await client.get(HORIZONTAL_POD_AUTOSCALERS, "shop", "ours")
        await client.delete(HORIZONTAL_POD_AUTOSCALERS, "shop", "ours", uid=ours.metadata.uid)
        row = await here.until(lambda row: _autoscaled(row) == "False")
        assert row.replicas == 3
