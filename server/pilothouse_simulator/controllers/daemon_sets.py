"""The DaemonSet controller: keeps one pod on each suitable node, and updates the pods node by node.

A port of the real controller (`pkg/controller/daemon/daemon_controller.go`, `update.go`), tested against recording 25.
Each pod has an affinity to the name of its node, and tolerations of the usual node taints; the scheduler binds it. A
node is suitable if the template selects its labels and tolerates its taints, even if the node is full. A rolling update
deletes old pods within `maxUnavailable`, or creates new pods next to them within `maxSurge`. The status is counted
before the pods are changed, and is not written while the DaemonSet is being deleted.

Not recorded: percentages, several nodes, taints and failed pods follow the source above. A refused pod (quota,
admission) causes the event FailedCreate with the message of `pkg/controller/controller_utils.go`, which is recorded for
ReplicaSets (07a), and is retried.
"""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from typing import Any

from pilothouse_simulator.admission.defaults_workloads import TEMPLATE_GENERATION
from pilothouse_simulator.controllers import revisions
from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    Controller,
    Key,
    controller_of,
    key_of,
    matches_selector,
)
from pilothouse_simulator.controllers.replica_sets import controller_reference, ready_since
from pilothouse_simulator.controllers.revisions import REVISION_LABEL
from pilothouse_simulator.controllers.scheduler import affine, tolerates
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS

JsonObject = dict[str, Any]
PodsByNode = dict[str, list[JsonObject]]

_COMPONENT = "daemonset-controller"
_TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})
_TOLERATED = (
    ("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"), ("pid-pressure", "NoSchedule"), ("unschedulable", "NoSchedule"),
)  # fmt: skip


class DaemonSetController(Controller[Key]):
    """Syncs DaemonSets; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is DAEMON_SETS:
            self.enqueue(key_of(event.object))
        elif event.resource is NODES:
            if event.previous is None or _facts(event.object) != _facts(event.previous):
                for daemon_set in self.store.list(DAEMON_SETS):
                    self.enqueue(key_of(daemon_set))
        elif event.resource in (PODS, CONTROLLER_REVISIONS):
            for obj in (event.object, event.previous):
                owner = controller_of(obj) if obj is not None else None
                if owner is not None and owner["kind"] == "DaemonSet":
                    self.enqueue((event.object["metadata"]["namespace"], owner["name"]))
            if event.resource is PODS and controller_of(event.object) is None:
                self._enqueue_adopters(event.object)

    def _enqueue_adopters(self, pod: JsonObject) -> None:
        labels = pod["metadata"].get("labels") or {}
        for daemon_set in self.store.list(DAEMON_SETS, pod["metadata"]["namespace"]):
            if matches_selector(daemon_set["spec"]["selector"], labels):
                self.enqueue(key_of(daemon_set))

    def sync(self, key: Key) -> None:
        """Creates and deletes pods, then writes the status."""
        daemon_set = self.store.get(DAEMON_SETS, *key)
        if daemon_set is None or "deletionTimestamp" in daemon_set["metadata"]:
            return
        pods = self._owned_pods(daemon_set)
        history = revisions.owned_revisions(self.store, self.index, daemon_set)
        collisions = int((daemon_set.get("status") or {}).get("collisionCount", 0))
        current, collisions = revisions.update_revision(
            self.store, daemon_set, history, collisions, hash_label=REVISION_LABEL
        )
        step = _DaemonSetStep(self, daemon_set, current["metadata"]["labels"][REVISION_LABEL], pods)
        status = step.status(collisions)
        failure: ApiError | None = None
        try:
            step.manage()
            # A rolling update waits for the next sync, which sees the pods that this one created or deleted.
            if not step.changes and daemon_set["spec"]["updateStrategy"]["type"] == "RollingUpdate":
                step.roll()
        except ApiError as error:
            failure = error
        if status != daemon_set.get("status"):
            self.store.update_status(DAEMON_SETS, {**daemon_set, "status": status}, CONTROLLER_MANAGER)
        live = {current["metadata"]["name"]} | {f"{key[1]}-{_hash_of(pod)}" for pod in pods}
        limit = int(daemon_set["spec"].get("revisionHistoryLimit", 10))
        revisions.trim_history(self.store, history, live, limit)
        if failure is not None:
            raise failure

    def _owned_pods(self, daemon_set: JsonObject) -> list[JsonObject]:
        uid = daemon_set["metadata"]["uid"]
        pods = [
            pod
            for pod in self.index.dependents(uid, PODS)
            if (owner := controller_of(pod)) is not None and owner["uid"] == uid
        ]
        for pod in self.index.uncontrolled(PODS, daemon_set["metadata"]["namespace"]):
            labels = pod["metadata"].get("labels") or {}
            if "deletionTimestamp" not in pod["metadata"] and matches_selector(
                daemon_set["spec"]["selector"], labels
            ):
                adopted = copy_json(pod)
                adopted["metadata"].setdefault("ownerReferences", []).append(controller_reference(daemon_set))
                pods.append(self.store.update(PODS, adopted, manager=CONTROLLER_MANAGER))
        return pods

    def record_event(
        self, daemon_set: JsonObject, reason: str, message: str, *, warning: bool = False
    ) -> None:
        """Records an event about a DaemonSet."""
        self.recorder.record(DAEMON_SETS, daemon_set, reason, message, component=_COMPONENT, warning=warning)


class _DaemonSetStep:
    """A DaemonSet in one sync: its pods by node, its suitable nodes, and the hash of its template."""

    def __init__(
        self,
        controller: DaemonSetController,
        daemon_set: JsonObject,
        template_hash: str,
        pods: list[JsonObject],
    ) -> None:
        self._controller = controller
        self._set = daemon_set
        self._hash = template_hash
        self.changes = 0
        self._nodes = {node["metadata"]["name"]: node for node in controller.store.list(NODES)}
        self._pods: PodsByNode = {}
        for pod in pods:
            ended = pod["status"].get("phase") in _TERMINAL_PHASES
            if not (ended and "deletionTimestamp" in pod["metadata"]):
                self._pods.setdefault(_node_of(pod), []).append(pod)
        for entries in self._pods.values():
            entries.sort(
                key=lambda pod: (
                    pod["metadata"]["creationTimestamp"],
                    int(pod["metadata"]["resourceVersion"]),
                )
            )
        spec = daemon_set["spec"]["template"]["spec"]
        self._tolerations = [*(spec.get("tolerations") or []), *_usual_tolerations(spec)]
        self._wanted = {name: self._should_run(node) for name, node in self._nodes.items()}

    def _should_run(self, node: JsonObject) -> tuple[bool, bool]:
        """Returns whether a node should have a pod, and whether an existing pod may stay."""
        spec = self._set["spec"]["template"]["spec"]
        labels = node["metadata"].get("labels") or {}
        suits = (
            spec.get("nodeName") in (None, "", node["metadata"]["name"])
            and (spec.get("nodeSelector") or {}).items() <= labels.items()
            and affine(spec, node)
        )
        taints = [
            taint
            for taint in node["spec"].get("taints") or []
            if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerates(self._tolerations, taint)
        ]
        leaves = any(taint["effect"] == "NoExecute" for taint in taints)
        return suits and not taints, suits and not leaves

    # Status

    def status(self, collisions: int) -> JsonObject:
        """Returns the status that follows from the nodes and pods. Counters in `others` are absent at zero."""
        counts = dict.fromkeys(("current", "missed", "desired", "ready", "available", "updated"), 0)
        for name, (runs, _) in self._wanted.items():
            pods = self._pods.get(name, [])
            if not runs:
                counts["missed"] += bool(pods)
                continue
            counts["desired"] += 1
            if pods:
                counts["current"] += 1
                counts["ready"] += ready_since(pods[0]) is not None
                counts["available"] += self._is_available(pods[0])
                counts["updated"] += _hash_of(pods[0]) == self._hash
        status: JsonObject = {
            "currentNumberScheduled": counts["current"],
            "numberMisscheduled": counts["missed"],
            "desiredNumberScheduled": counts["desired"],
            "numberReady": counts["ready"],
            "observedGeneration": self._set["metadata"]["generation"],
        }
        others = {
            "updatedNumberScheduled": counts["updated"],
            "numberAvailable": counts["available"],
            "numberUnavailable": counts["desired"] - counts["available"],
            "collisionCount": collisions,
        }
        return status | {name: count for name, count in others.items() if count}

    def _is_available(self, pod: JsonObject) -> bool:
        since, now = ready_since(pod), self._controller.clock.now()
        wait = timedelta(seconds=int(self._set["spec"].get("minReadySeconds", 0)))
        if since is not None and wait and since + wait > now:
            due = (since + wait - now).total_seconds() + 0.01
            self._controller.enqueue(key_of(self._set), after=due)
            return False
        return since is not None

    # Pods

    def manage(self) -> None:
        """Creates the pod of each suitable node, and deletes the pods of the other nodes."""
        for name, (runs, stays) in self._wanted.items():
            pods = self._pods.get(name, [])
            if runs and not pods:
                self._create(name)
            elif not stays:
                for pod in pods:
                    self._delete(pod)
            else:
                self._thin_out(name, pods)
        for name in self._pods.keys() - self._nodes.keys():
            for pod in self._pods[name]:
                if not pod["spec"].get("nodeName"):
                    self._delete(pod)

    def _thin_out(self, node: str, pods: list[JsonObject]) -> None:
        """Deletes the ended pods of a node, and all running pods except the oldest."""
        running = []
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                continue
            phase = pod["status"].get("phase")
            if phase in _TERMINAL_PHASES:
                where = f"{'/'.join(key_of(pod))} on node {node}"
                word = phase.lower()
                ending = "will try to kill it" if phase == "Failed" else "will try to delete it"
                message = f"Found {word} daemon pod {where}, {ending}"
                self._controller.record_event(
                    self._set, f"{phase}DaemonPod", message, warning=phase == "Failed"
                )
                self._delete(pod)
            else:
                running.append(pod)
        for pod in running[1:]:
            if not self._is_surging(running):
                self._delete(pod)

    def _is_surging(self, running: list[JsonObject]) -> bool:
        """Returns whether these are an old pod and its successor, which is not ready yet."""
        current = sorted(_hash_of(pod) == self._hash for pod in running)
        return self._limits()[0] > 0 and current == [False, True]

    def _limits(self) -> tuple[int, int]:
        """Returns maxSurge and maxUnavailable as numbers of nodes; percentages are rounded up."""
        rolling = self._set["spec"]["updateStrategy"].get("rollingUpdate") or {}
        desired = sum(runs for runs, _ in self._wanted.values())

        def absolute(value: int | str) -> int:
            if isinstance(value, str):
                return ceil(int(value.removesuffix("%")) * desired / 100)
            return value

        surge, unavailable = absolute(rolling.get("maxSurge", 0)), absolute(rolling.get("maxUnavailable", 0))
        return surge, unavailable if surge or unavailable else 1

    def roll(self) -> None:
        """Takes one step of a rolling update."""
        surge, unavailable = self._limits()
        busy = 0
        urgent: list[tuple[str, JsonObject]] = []
        candidates: list[tuple[str, JsonObject]] = []
        for name, pods in self._pods.items():
            if not self._wanted.get(name, (False, False))[0]:
                continue
            staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            new = next((pod for pod in staying if _hash_of(pod) == self._hash), None)
            old = next((pod for pod in staying if _hash_of(pod) != self._hash), None)
            if new is not None and old is not None and surge and self._is_available(new):
                self._delete(old)
            elif old is None or new is not None:
                busy += surge == 0 or new is not None
                busy -= new is not None and self._is_available(new)
            elif self._is_available(old):
                candidates.append((name, old))
            else:
                urgent.append((name, old))
        room = max(0, (surge or unavailable) - busy)
        for name, old in [*urgent, *candidates[:room]]:
            if surge:
                self._create(name)
            else:
                self._delete(old)

    def _create(self, node: str) -> None:
        daemon_set, controller = self._set, self._controller
        template = copy_json(daemon_set["spec"]["template"])
        metadata = {
            key: value
            for key, value in template["metadata"].items()
            if key in ("labels", "annotations", "finalizers") and value
        }
        metadata |= {
            "generateName": daemon_set["metadata"]["name"] + "-",
            "namespace": daemon_set["metadata"]["namespace"],
            "ownerReferences": [controller_reference(daemon_set)],
        }
        metadata["labels"] = {
            **(metadata.get("labels") or {}),
            REVISION_LABEL: self._hash,
            "pod-template-generation": daemon_set["metadata"]["annotations"][TEMPLATE_GENERATION],
        }
        spec = template["spec"]
        _bind_to_node(spec, node)
        spec["tolerations"] = self._tolerations
        try:
            pod = controller.store.create(
                PODS, {"metadata": metadata, "spec": spec}, manager=CONTROLLER_MANAGER
            )
        except ApiError as error:
            controller.record_event(daemon_set, "FailedCreate", f"Error creating: {error}", warning=True)
            raise
        self.changes += 1
        controller.record_event(daemon_set, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _delete(self, pod: JsonObject) -> None:
        namespace, name = key_of(pod)
        stored = self._controller.store.get(PODS, namespace, name)
        if stored is not None and "deletionTimestamp" not in stored["metadata"]:
            self.changes += 1
            self._controller.store.delete(PODS, namespace, name)
            self._controller.record_event(self._set, "SuccessfulDelete", f"Deleted pod: {name}")


def _facts(node: JsonObject) -> tuple[object, ...]:
    spec = node.get("spec") or {}
    return node["metadata"].get("labels"), spec.get("taints"), spec.get("unschedulable")


def _hash_of(pod: JsonObject) -> str:
    return str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))


def _node_of(pod: JsonObject) -> str:
    """Returns the node on which a pod runs, or for which it was created."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or []:
        for field in term.get("matchFields") or []:
            if field["key"] == "metadata.name" and field["operator"] == "In":
                return str(field["values"][0])
    return ""


def _bind_to_node(spec: JsonObject, node: str) -> None:
    """Sets the affinity of a new pod to one node by its name, next to the terms of its template."""
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    for term in required.setdefault("nodeSelectorTerms", []) or [{}]:
        term["matchFields"] = [field]
    if not required["nodeSelectorTerms"]:
        required["nodeSelectorTerms"] = [{"matchFields": [field]}]


def _usual_tolerations(spec: JsonObject) -> list[JsonObject]:
    """Returns the tolerations that the pods of every DaemonSet have."""
    wanted = [*_TOLERATED, *([("network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else [])]
    own = spec.get("tolerations") or []
    usual = [
        {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect}
        for name, effect in wanted
    ]
    return [entry for entry in usual if entry not in own]
