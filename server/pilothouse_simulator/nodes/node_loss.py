"""A node whose kubelet is down, and the reaction of the cluster's controllers.

As recorded, nothing happens during the grace period of a silent node. Then its conditions become Unknown, its pods
become not ready, and taints keep new pods away. A pod that does not tolerate the taint, or whose toleration expires, is
deleted but stays in the API as Terminating, because no kubelet stops it. When the kubelet is back, the taints are
removed one after the other.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.controllers.controller import CONTROLLER_MANAGER
from pilothouse_simulator.controllers.scheduler import tolerates
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock, format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import NODES, PODS

JsonObject = dict[str, Any]

# The grace period of 50 s, and the remaining time until the node controller checks again.
NOTICED_SECONDS = 51.7
_NO_EXECUTE_STAYS_SECONDS = 2.5
_NODE_CONTROLLER, _TAINT_CONTROLLER = "node-controller", "taint-eviction-controller"
_UNREACHABLE = "node.kubernetes.io/unreachable"


class NodeLoss:
    """The controllers' reaction to the loss of one node."""

    def __init__(self, store: ObjectStore, clock: Clock, recorder: EventRecorder, node: str) -> None:
        self._store, self._clock, self._recorder, self._node = store, clock, recorder, node

    async def run(self) -> None:
        """Runs from the kubelet's last report on; cancelled when the kubelet is back."""
        await self._clock.sleep(NOTICED_SECONDS)
        self._make_unknown()
        self._taint("NoSchedule")
        for pod in self._pods():
            self._make_unready(pod)
        self._taint("NoExecute")
        evicted: set[str] = set()
        since = self._clock.elapsed()
        while True:
            waiting = [pod for pod in self._pods() if pod["metadata"]["uid"] not in evicted]
            due = {pod["metadata"]["uid"]: _seconds_tolerated(pod) for pod in waiting}
            elapsed = self._clock.elapsed() - since
            for pod in waiting:
                seconds = due[pod["metadata"]["uid"]]
                if seconds is not None and seconds <= elapsed:
                    evicted.add(pod["metadata"]["uid"])
                    self._evict(pod)
            pauses = [
                seconds - elapsed for seconds in due.values() if seconds is not None and seconds > elapsed
            ]
            await self._clock.sleep(min([*pauses, 5.0]))

    async def end(self) -> None:
        """Removes the taints when the kubelet is back."""
        self._untaint("NoSchedule")
        await self._clock.sleep(_NO_EXECUTE_STAYS_SECONDS)
        self._untaint("NoExecute")

    def _pods(self) -> list[JsonObject]:
        return [
            pod
            for pod in self._store.list(PODS)
            if pod["spec"].get("nodeName") == self._node and "deletionTimestamp" not in pod["metadata"]
        ]

    def _make_unknown(self) -> None:
        node = copy_json(self._store.get(NODES, None, self._node))
        if node is None:
            return
        now = format_time(self._clock.now())
        for condition in node["status"].get("conditions") or []:
            condition |= {
                "status": "Unknown",
                "lastTransitionTime": now,
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
        node = self._store.update_status(NODES, node, CONTROLLER_MANAGER)
        message = f"Node {self._node} status is now: NodeNotReady"
        self._recorder.record(NODES, node, "NodeNotReady", message, component=_NODE_CONTROLLER)

    def _make_unready(self, pod: JsonObject) -> None:
        ready = [entry for entry in pod["status"].get("conditions") or [] if entry["type"] == "Ready"]
        if not ready or ready[0]["status"] != "True":
            return
        self._recorder.record(
            PODS, pod, "NodeNotReady", "Node is not ready", component=_NODE_CONTROLLER, warning=True
        )
        changed = copy_json(pod)
        for condition in changed["status"]["conditions"]:
            if condition["type"] == "Ready":
                condition |= {"status": "False", "lastTransitionTime": format_time(self._clock.now())}
        self._store.update_status(PODS, changed, CONTROLLER_MANAGER)

    def _evict(self, pod: JsonObject) -> None:
        metadata = pod["metadata"]
        place = f"{metadata['namespace']}/{metadata['name']}"
        message = f"Marking for deletion Pod {place}"
        self._recorder.record(PODS, pod, "TaintManagerEviction", message, component=_TAINT_CONTROLLER)
        marked = copy_json(pod)
        marked["status"].setdefault("conditions", []).append(
            {
                "type": "DisruptionTarget",
                "observedGeneration": metadata["generation"],
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": format_time(self._clock.now()),
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
            }
        )
        self._store.update_status(PODS, marked, CONTROLLER_MANAGER)
        self._store.delete(PODS, metadata["namespace"], metadata["name"])

    def _taint(self, effect: str) -> None:
        taint = {"key": _UNREACHABLE, "effect": effect, "timeAdded": format_time(self._clock.now())}
        self._set_taints([*self._others(effect), taint])

    def _untaint(self, effect: str) -> None:
        self._set_taints(self._others(effect))

    def _others(self, effect: str) -> list[JsonObject]:
        node = self._store.get(NODES, None, self._node) or {}
        taints = (node.get("spec") or {}).get("taints") or []
        return [taint for taint in taints if (taint["key"], taint["effect"]) != (_UNREACHABLE, effect)]

    def _set_taints(self, taints: list[JsonObject]) -> None:
        node = copy_json(self._store.get(NODES, None, self._node))
        if node is None:
            return
        node["spec"]["taints"] = taints
        if not taints:
            del node["spec"]["taints"]
        self._store.update(NODES, node, manager=CONTROLLER_MANAGER)


def _seconds_tolerated(pod: JsonObject) -> float | None:
    """Returns how many seconds a pod stays on an unreachable node; None means forever."""
    taint = {"key": _UNREACHABLE, "effect": "NoExecute"}
    fitting = [each for each in pod["spec"].get("tolerations") or [] if tolerates([each], taint)]
    if not fitting:
        return 0.0
    limits = [each["tolerationSeconds"] for each in fitting if each.get("tolerationSeconds") is not None]
    return float(max(0, min(limits))) if limits else None
