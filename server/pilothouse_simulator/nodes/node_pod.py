"""A pod on its node: the kubelet's state of the pod, and its reports as status and events."""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.nodes.node import SimulatedNode
from pilothouse_simulator.nodes.pod_containers import ContainerRole, RunningContainer, containers_of, restore
from pilothouse_simulator.nodes.pod_status import Sandbox, build_status
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.pod_behavior import behavior_of
from pilothouse_simulator.values.resources import PODS

JsonObject = dict[str, Any]

KUBELET = "kubelet"


class NodePod:
    """One pod on one node; `restored` if its status shows that it ran before the simulator started."""

    def __init__(self, node: SimulatedNode, pod: JsonObject) -> None:
        self.node = node
        self.object = pod
        self.behavior = behavior_of(pod)
        status = pod["status"]
        self.restored = bool(status.get("containerStatuses"))
        self.containers = restore(pod, self.behavior) if self.restored else containers_of(pod)
        self.sandbox = Sandbox(node.ip, status.get("startTime") or format_time(node.clock.now()))
        if self.restored and status.get("podIP"):
            self.sandbox.pod_ip, self.sandbox.is_up = status["podIP"], True
            node.addresses.keep(status["podIP"])

    @property
    def uid(self) -> str:
        return str(self.object["metadata"]["uid"])

    def publish(self, *, over: bool = False) -> None:
        """Writes the status, unless the pod no longer exists or the kubelet is down."""
        if self.node.away:
            return
        metadata = self.object["metadata"]
        store = self.node.store
        stored = store.get(PODS, metadata["namespace"], metadata["name"])
        if stored is None or stored["metadata"]["uid"] != self.uid:
            return
        now = self.node.clock.now()
        status = build_status(stored, self.containers, self.sandbox, now, over=over)
        try:
            self.object = store.update_status(PODS, {**stored, "status": status}, KUBELET)
        except ApiError:
            # The pod was removed between two steps; this worker will be notified of the deletion.
            return

    def pod_event(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Records an event about the whole pod."""
        if self.node.away:
            return
        self.node.recorder.record(
            PODS, self.object, reason, message, component=KUBELET, host=self.node.name, warning=warning
        )

    def event(self, container: RunningContainer, reason: str, message: str, *, warning: bool = False) -> None:
        """Records an event about one container."""
        if self.node.away:
            return
        place = "containers" if container.role is ContainerRole.MAIN else "initContainers"
        self.node.recorder.record(
            PODS,
            self.object,
            reason,
            message,
            component=KUBELET,
            host=self.node.name,
            warning=warning,
            field_path=f"spec.{place}{{{container.name}}}",
        )
