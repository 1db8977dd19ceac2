"""The kubelets: one `Kubelet` per node, and the task that assigns them the pods of their nodes.

`Kubelets.run` follows the pods in the store. A pod assigned to a node gets a `PodWorker` there. A deletion cancels the
worker's `run` and starts its `terminate`; when the pod is removed from the store, its worker is removed too. After a
restart of the simulator with a saved state, the pods continue from their status.

If a kubelet is stopped, the containers on its node continue, but nothing reports or stops them. See `node_loss`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from pilothouse_simulator.nodes.node import AddressPool, SimulatedNode, Timings
from pilothouse_simulator.nodes.node_loss import NodeLoss
from pilothouse_simulator.nodes.node_objects import (
    NodeShape,
    default_shapes,
    heartbeat,
    register,
    show_ready,
)
from pilothouse_simulator.nodes.pod_usage import pod_core_seconds
from pilothouse_simulator.nodes.pod_worker import PodWorker
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.events import StoreEvent, Subscription
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock
from pilothouse_simulator.values.resources import PODS

JsonObject = dict[str, Any]

_LOOK_SECONDS = 10.0
_HEARTBEAT_SECONDS = 300.0

log = logging.getLogger(__name__)


class Kubelet(SimulatedNode):
    """The kubelet of one node: the node, and a worker for each of its pods, by uid."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        recorder: EventRecorder,
        shape: NodeShape,
        addresses: AddressPool,
        timings: Timings,
    ) -> None:
        super().__init__(store, clock, recorder, shape, addresses, timings)
        self.workers: dict[str, PodWorker] = {}
        # The usage of removed pods, so that the node's counter never decreases.
        self.gone_core_seconds = 0.0


class Kubelets:
    """All kubelets. `nodes` is a number of nodes of the default size, or their shapes."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        recorder: EventRecorder | None = None,
        *,
        nodes: int | Sequence[NodeShape] = 3,
        timings: Timings | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.recorder = recorder or EventRecorder(store, clock)
        shapes = default_shapes(nodes) if isinstance(nodes, int) else nodes
        addresses = AddressPool()
        self.by_node = {
            shape.name: Kubelet(store, clock, self.recorder, shape, addresses, timings or Timings())
            for shape in shapes
        }
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._terminating: set[str] = set()
        self._losses: dict[str, asyncio.Task[None]] = {}
        self._subscription: Subscription = store.subscribe(PODS)

    def register_nodes(self) -> None:
        """Creates the Node objects that do not exist."""
        for kubelet in self.by_node.values():
            node = register(self.store, kubelet.shape, kubelet.images)
            for image in node["status"].get("images") or []:
                kubelet.images.update(name.removeprefix("docker.io/library/") for name in image["names"])

    def worker(self, pod: JsonObject) -> PodWorker | None:
        """Returns the worker of a pod, or None if no node runs it."""
        kubelet = self.by_node.get(pod["spec"].get("nodeName", ""))
        return kubelet.workers.get(pod["metadata"]["uid"]) if kubelet is not None else None

    def stop(self, node: str) -> None:
        """Stops the kubelet of a node, as if its node were lost."""
        kubelet = self.by_node[node]
        if not kubelet.away:
            kubelet.away = True
            self._lose(node, self._loss(node).run())

    def start(self, node: str) -> None:
        """Starts the kubelet again and reports the present state of its pods."""
        kubelet = self.by_node[node]
        if not kubelet.away:
            return
        kubelet.away = False
        show_ready(self.store, node)
        self._lose(node, self._loss(node).end())
        for worker in list(kubelet.workers.values()):
            worker.publish()
        for pod in self.store.list(PODS):
            if pod["spec"].get("nodeName") == node:
                self._sync_pod(pod)

    def _loss(self, node: str) -> NodeLoss:
        return NodeLoss(self.store, self.clock, self.recorder, node)

    def _lose(self, node: str, work: Coroutine[Any, Any, None]) -> None:
        if (task := self._losses.pop(node, None)) is not None:
            task.cancel()
        self._losses[node] = task = asyncio.create_task(work)
        task.add_done_callback(_report_failure)

    async def run(self) -> None:
        """Runs the kubelets until cancelled."""
        self.register_nodes()
        for pod in self.store.list(PODS):
            self._sync_pod(pod)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_pods())
                tasks.create_task(self._report())
        finally:
            self._subscription.close()
            remaining = [*self._tasks.values(), *self._losses.values()]
            for task in remaining:
                task.cancel()
            await asyncio.gather(*remaining, return_exceptions=True)

    async def _follow_pods(self) -> None:
        while batch := await self._subscription.next_batch():
            for event in batch:
                self._observe(event)

    def _observe(self, event: StoreEvent) -> None:
        if event.type == "DELETED":
            self._drop(event.object)
        else:
            self._sync_pod(event.object)

    def _sync_pod(self, pod: JsonObject) -> None:
        """Runs a pod that is new on its node; terminates a pod that is being deleted."""
        kubelet = self.by_node.get(pod["spec"].get("nodeName", ""))
        uid = pod["metadata"]["uid"]
        if (
            kubelet is None
            or kubelet.away
            or self.store.get(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"]) is None
        ):
            return
        worker = kubelet.workers.get(uid)
        deleted = "deletionTimestamp" in pod["metadata"]
        if worker is None:
            worker = kubelet.workers[uid] = PodWorker(kubelet, pod)
            if not deleted:
                self._spawn(uid, worker.run())
        elif int(pod["metadata"]["resourceVersion"]) > int(worker.object["metadata"]["resourceVersion"]):
            worker.object = pod
        if deleted and uid not in self._terminating:
            self._terminating.add(uid)
            self._spawn(uid, worker.terminate())

    def _drop(self, pod: JsonObject) -> None:
        kubelet = self.by_node.get(pod["spec"].get("nodeName", ""))
        uid = pod["metadata"]["uid"]
        worker = kubelet.workers.pop(uid, None) if kubelet is not None else None
        self._terminating.discard(uid)
        if (task := self._tasks.pop(uid, None)) is not None:
            task.cancel()
        if worker is not None and kubelet is not None:
            worker.release()
            kubelet.gone_core_seconds += pod_core_seconds(worker, self.clock.now())

    def _spawn(self, uid: str, life: Coroutine[Any, Any, None]) -> None:
        """Starts a pod's `run` or `terminate`; cancels the task that ran for the pod before."""
        if (task := self._tasks.pop(uid, None)) is not None:
            task.cancel()
        task = asyncio.create_task(life)
        self._tasks[uid] = task
        task.add_done_callback(_report_failure)

    async def _report(self) -> None:
        since_heartbeat = 0.0
        while True:
            await self.clock.sleep(_LOOK_SECONDS)
            since_heartbeat += _LOOK_SECONDS
            due = since_heartbeat >= _HEARTBEAT_SECONDS
            for kubelet in self.by_node.values():
                if kubelet.away:
                    continue
                if due or kubelet.images_changed:
                    kubelet.images_changed = False
                    heartbeat(self.store, kubelet.name, kubelet.images)
            if due:
                since_heartbeat = 0.0


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a simulated pod or node stopped working", exc_info=error)
