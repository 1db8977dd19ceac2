"""The simulated cluster in a separate process, empty or with a number of running pods of Pilothouse.

The simulation starts one pod; the others are copies of it with names and container uids of their own, on a node that
is not simulated, so that they do not change.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any
from uuid import uuid4

from benchmarks.child import answering
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, MANAGED_BY, MANAGER
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import DEPLOYMENTS, NAMESPACES, PODS

NAMESPACE = "measured"
_READY_SECONDS = 60.0

JsonObject = dict[str, Any]


class Cluster:
    """The cluster of this process."""

    async def start(self, pods: int = 0, nodes: int = 3) -> JsonObject:
        """Starts the cluster, and returns its kubeconfig."""
        self._cluster = SimulatedCluster(nodes=nodes)
        await self._cluster.start()
        store = self._cluster.store
        store.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        if pods:
            store.create(DEPLOYMENTS, _deployment())
            pattern = await self._running_pod()
            for number in range(1, pods):
                self._add(pattern, f"web-{number}")
        kubeconfig: JsonObject = self._cluster.kubeconfig()
        return kubeconfig

    async def _running_pod(self) -> JsonObject:
        changes = self._cluster.store.subscribe(PODS)
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                pods = self._cluster.store.list(PODS, NAMESPACE)
                if pods and pods[0]["status"].get("phase") == "Running":
                    return copy.deepcopy(pods[0])
                await anext(changes)

    def _add(self, pattern: JsonObject, name: str) -> None:
        pod = copy.deepcopy(pattern)
        metadata = pod["metadata"]
        for field in ("uid", "resourceVersion", "generateName", "ownerReferences"):
            metadata.pop(field, None)
        metadata["name"] = name
        metadata["labels"][CONTAINER_UID] = str(uuid4())
        pod["spec"]["nodeName"] = "elsewhere"
        stored = copy.deepcopy(self._cluster.store.create(PODS, pod))
        stored["status"] = pattern["status"]
        self._cluster.store.replace(PODS, stored)


def _deployment() -> JsonObject:
    labels = {MANAGED_BY: MANAGER, CONTAINER_UID: str(uuid4())}
    container = {
        "name": "web",
        "image": "nginx:1.27",
        "ports": [{"containerPort": 80}],
        "env": [{"name": "FIRST", "value": "a value of some length"}],
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
    }
    return {
        "metadata": {"name": "web", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def main() -> None:
    """Runs the process."""
    answering({"start": Cluster().start})


if __name__ == "__main__":
    main()
