"""The scheduler: finds a node for each new pod, or reports why there is none.

A node fits if it is not cordoned, its labels and taints suit the pod, and its free allocatable cpu, memory and pods are
enough. The scheduler chooses the emptiest node that fits. A pod that fits on no node gets the condition
PodScheduled=False and a FailedScheduling event, and is retried when a pod is deleted or a node or a claim changes. The
sums per node are updated with each change, so that a decision reads each node once.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pilothouse_simulator.admission.pod_resources import pod_total
from pilothouse_simulator.controllers import scheduler_claims
from pilothouse_simulator.controllers.controller import Key, key_of
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.events import StoreEvent, Subscription
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import Clock, format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.pod_behavior import Behavior, behavior_of
from pilothouse_simulator.values.quantities import parse_quantity
from pilothouse_simulator.values.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PODS, STORAGE_CLASSES

JsonObject = dict[str, Any]

SCHEDULER = "kube-scheduler"
_COUNTED = ("cpu", "memory", "ephemeral-storage")
_TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})


@dataclass
class _Room:
    """The total requests of the pods on one node."""

    used: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(_COUNTED, Decimal(0)))
    pods: int = 0


class Scheduler:
    """Binds pods to nodes."""

    def __init__(self, store: ObjectStore, clock: Clock, recorder: EventRecorder | None = None) -> None:
        self.store = store
        self.clock = clock
        self.recorder = recorder or EventRecorder(store, clock)
        self._rooms: dict[str, _Room] = {}
        self._charges: dict[str, tuple[str, dict[str, Decimal]]] = {}
        self._queue: OrderedDict[Key, None] = OrderedDict()
        self._parked: dict[Key, None] = {}
        self._subscription: Subscription = store.subscribe()

    async def run(self) -> None:
        """Schedules pods until cancelled."""
        for pod in self.store.list(PODS):
            self._note(pod)
        try:
            while True:
                self._drain()
                await asyncio.sleep(0)
                if not self._queue:
                    for event in await self._subscription.next_batch():
                        self._observe(event)
        finally:
            self._subscription.close()

    def _drain(self) -> None:
        # A few pods at a time, then the scheduler yields to the event loop and reads new changes.
        for _ in range(min(20, len(self._queue))):
            key, _nothing = self._queue.popitem(last=False)
            pod = self.store.get(PODS, *key)
            if pod is not None and _is_unassigned(pod):
                self._schedule(key, pod)

    def _observe(self, event: StoreEvent) -> None:
        if event.resource is PODS:
            if event.type == "DELETED":
                self._forget(event.object)
            else:
                self._note(event.object)
        elif event.resource in (PERSISTENT_VOLUME_CLAIMS, STORAGE_CLASSES) or (
            event.resource is NODES and _scheduling_facts(event.object) != _scheduling_facts(event.previous)
        ):
            self._retry_parked()

    def _note(self, pod: JsonObject) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        if _is_unassigned(pod):
            key = key_of(pod)
            if key not in self._parked:
                self._queue[key] = None
        elif pod["status"].get("phase") in _TERMINAL_PHASES:
            self._forget(pod)
        elif node and uid not in self._charges:
            self._charge(pod, node)

    def _charge(self, pod: JsonObject, node: str) -> None:
        amounts = {resource: pod_total(pod, "requests", resource) for resource in _COUNTED}
        room = self._rooms.setdefault(node, _Room())
        for resource, amount in amounts.items():
            room.used[resource] += amount
        room.pods += 1
        self._charges[pod["metadata"]["uid"]] = (node, amounts)

    def _forget(self, pod: JsonObject) -> None:
        self._parked.pop(key_of(pod), None)
        charge = self._charges.pop(pod["metadata"]["uid"], None)
        if charge is None:
            return
        node, amounts = charge
        room = self._rooms[node]
        for resource, amount in amounts.items():
            room.used[resource] -= amount
        room.pods -= 1
        self._retry_parked()

    def _retry_parked(self) -> None:
        self._queue.update(self._parked)
        self._parked.clear()

    def _schedule(self, key: Key, pod: JsonObject) -> None:
        nodes = self.store.list(NODES)
        if (problem := scheduler_claims.problem(self.store, pod)) is not None:
            self._park(key, pod, f"0/{len(nodes)} nodes are available: {problem}. not found")
            return
        amounts = {resource: pod_total(pod, "requests", resource) for resource in _COUNTED}
        unwilling = behavior_of(pod).kind is Behavior.UNSCHEDULABLE
        reasons: Counter[str] = Counter()
        best: tuple[Decimal, str] | None = None
        for node in nodes:
            name = node["metadata"]["name"]
            room = self._rooms.setdefault(name, _Room())
            problems = ["node(s) didn't match Pod's node affinity/selector"] if unwilling else (
                _problems(pod, node, room, amounts)
            )  # fmt: skip
            if problems:
                reasons.update(problems)
                continue
            load = _load(node, room, amounts)
            if best is None or (load, name) < best:
                best = (load, name)
        if best is None:
            self._fail(key, pod, len(nodes), reasons)
            return
        if claims := scheduler_claims.waiting(self.store, pod):
            # The pod is bound once its claims have their storage, which is provisioned for the chosen node.
            self._parked[key] = None
            scheduler_claims.select_node(self.store, claims, best[1])
            return
        try:
            bound = self.store.bind(*key, best[1])
        except ApiError:
            # Another task has bound or deleted the pod.
            return
        self._charge(bound, best[1])
        message = f"Successfully assigned {'/'.join(key)} to {best[1]}"
        self.recorder.record_scheduling(pod, "Scheduled", message, failed=False)

    def _fail(self, key: Key, pod: JsonObject, count: int, reasons: Counter[str]) -> None:
        self._parked[key] = None
        summary = ", ".join(sorted(f"{number} {reason}" for reason, number in reasons.items()))
        nodes = f"0/{count} nodes are available"
        message = (
            f"{nodes}: {summary}. no new claims to deallocate, preemption: {nodes}: "
            f"{count} Preemption is not helpful for scheduling."
            if count
            else "no nodes available to schedule pods"
        )
        self._park(key, pod, message)

    def _park(self, key: Key, pod: JsonObject, message: str) -> None:
        """Records why a pod waits; it is retried when the missing resource may be available."""
        self._parked[key] = None
        old = next(
            (entry for entry in pod["status"].get("conditions") or [] if entry["type"] == "PodScheduled"),
            None,
        )
        if old is not None and old.get("message") == message:
            return
        changed = copy_json(pod)
        now = format_time(self.clock.now())
        condition = {
            "type": "PodScheduled",
            "observedGeneration": pod["metadata"].get("generation", 1),
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": old["lastTransitionTime"] if old is not None else now,
            "reason": "Unschedulable",
            "message": message,
        }
        others = [
            entry for entry in changed["status"].get("conditions") or [] if entry["type"] != "PodScheduled"
        ]
        changed["status"]["conditions"] = [*others, condition]
        self.store.update_status(PODS, changed, SCHEDULER)
        self.recorder.record_scheduling(pod, "FailedScheduling", message, failed=True)


def _is_unassigned(pod: JsonObject) -> bool:
    return (
        not pod["spec"].get("nodeName")
        and "deletionTimestamp" not in pod["metadata"]
        and pod["spec"].get("schedulerName", "default-scheduler") == "default-scheduler"
    )


def _scheduling_facts(node: JsonObject | None) -> tuple[object, ...] | None:
    """Returns the fields of a node that affect scheduling; the heartbeat does not."""
    if node is None:
        return None
    spec = node.get("spec") or {}
    return (
        node["metadata"].get("labels"),
        spec.get("unschedulable"),
        spec.get("taints"),
        node["status"].get("allocatable"),
    )


def _load(node: JsonObject, room: _Room, amounts: dict[str, Decimal]) -> Decimal:
    """Returns how full the node would be with the pod: the mean share of cpu, memory and pods."""
    allocatable = node["status"]["allocatable"]
    shares = [
        (room.used[resource] + amounts[resource]) / max(Decimal(1), parse_quantity(allocatable[resource]))
        for resource in ("cpu", "memory")
    ]
    shares.append(Decimal(room.pods + 1) / max(Decimal(1), parse_quantity(allocatable["pods"])))
    return sum(shares, Decimal(0)) / 3


def _problems(pod: JsonObject, node: JsonObject, room: _Room, amounts: dict[str, Decimal]) -> list[str]:
    """Returns why the pod does not fit this node, with the messages of the real scheduler; empty if it fits."""
    spec, node_spec = pod["spec"], node.get("spec") or {}
    tolerations = spec.get("tolerations") or []
    if node_spec.get("unschedulable") and not tolerates(
        tolerations, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ):
        return ["node(s) were unschedulable"]
    taints = [taint for taint in node_spec.get("taints") or [] if taint["effect"] != "PreferNoSchedule"]
    if any(not tolerates(tolerations, taint) for taint in taints):
        return ["node(s) had untolerated taint(s)"]
    labels = node["metadata"].get("labels") or {}
    if not (spec.get("nodeSelector") or {}).items() <= labels.items() or not affine(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    allocatable = node["status"].get("allocatable") or {}
    problems = []
    if room.pods + 1 > parse_quantity(allocatable.get("pods", "110")):
        problems.append("Too many pods")
    for resource in _COUNTED:
        wanted = amounts[resource]
        if wanted and room.used[resource] + wanted > parse_quantity(allocatable.get(resource, "0")):
            problems.append(f"Insufficient {resource}")
    return problems


def tolerates(tolerations: list[JsonObject], taint: JsonObject) -> bool:
    """Returns whether one of the tolerations matches the taint, for any duration."""
    for toleration in tolerations:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        if toleration.get("key") not in (None, "", taint["key"]):
            continue
        if toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def affine(spec: JsonObject, node: JsonObject) -> bool:
    """Returns whether a pod's required node affinity (any of its terms) accepts the labels and the name of a node."""
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(
        all(_matches(expression, labels) for expression in term.get("matchExpressions") or [])
        and all(_matches(expression, fields) for expression in term.get("matchFields") or [])
        for term in required.get("nodeSelectorTerms") or []
    )


def _matches(expression: JsonObject, labels: dict[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
        case _:
            return False
