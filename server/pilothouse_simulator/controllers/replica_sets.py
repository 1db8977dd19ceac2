"""The ReplicaSet controller: keeps `spec.replicas` pods.

A port of the real controller's decisions. Each sync first counts the pods, then creates missing or deletes superfluous
pods, and writes the status from the count *before* these changes. So watchers see `observedGeneration` one step ahead
of the counters, as in a real cluster. Pods with matching labels but without a controller are adopted. A refused pod
(quota, admission) causes the condition ReplicaFailure and the event FailedCreate, and is retried with a growing delay.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    Controller,
    Key,
    controller_of,
    key_of,
    matches_selector,
)
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import format_time, parse_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import PODS, REPLICA_SETS

JsonObject = dict[str, Any]

_COMPONENT = "replicaset-controller"
_TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})
_PHASE_RANK = {"Pending": 0, "Unknown": 1, "Running": 2}
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_MOST_PER_SYNC = 500


class ReplicaSetController(Controller[Key]):
    """Syncs ReplicaSets; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is REPLICA_SETS:
            self.enqueue(key_of(event.object))
        elif event.resource is PODS:
            for pod in (event.object, event.previous):
                self._enqueue_owner(pod)

    def _enqueue_owner(self, pod: JsonObject | None) -> None:
        if pod is None:
            return
        owner = controller_of(pod)
        namespace = pod["metadata"]["namespace"]
        if owner is not None:
            if owner["kind"] == "ReplicaSet":
                self.enqueue((namespace, owner["name"]))
        elif pod["metadata"].get("labels"):
            for replica_set in self.store.list(REPLICA_SETS, namespace):
                if matches_selector(replica_set["spec"]["selector"], pod["metadata"]["labels"]):
                    self.enqueue(key_of(replica_set))

    def sync(self, key: Key) -> None:
        """Counts, creates or deletes pods, then writes the status."""
        replica_set = self.store.get(REPLICA_SETS, *key)
        if replica_set is None:
            return
        pods = self._owned_pods(replica_set)
        active = [pod for pod in pods if is_active(pod)]
        terminating = sum(
            1
            for pod in pods
            if "deletionTimestamp" in pod["metadata"] and pod["status"].get("phase") not in _TERMINAL_PHASES
        )
        failure: tuple[str, ApiError] | None = None
        if "deletionTimestamp" not in replica_set["metadata"]:
            failure = self._manage_replicas(replica_set, active)
        self._write_status(replica_set, active, terminating, failure)
        if failure is not None:
            raise failure[1]

    def _owned_pods(self, replica_set: JsonObject) -> list[JsonObject]:
        uid = replica_set["metadata"]["uid"]
        pods = [
            pod
            for pod in self.index.dependents(uid, PODS)
            if (owner := controller_of(pod)) is not None and owner["uid"] == uid
        ]
        if "deletionTimestamp" in replica_set["metadata"]:
            return pods
        for pod in self.index.uncontrolled(PODS, replica_set["metadata"]["namespace"]):
            labels = pod["metadata"].get("labels") or {}
            if is_active(pod) and matches_selector(replica_set["spec"]["selector"], labels):
                adopted = copy_json(pod)
                references = adopted["metadata"].setdefault("ownerReferences", [])
                references.append(controller_reference(replica_set))
                pods.append(self.store.update(PODS, adopted, manager=CONTROLLER_MANAGER))
        return pods

    def _manage_replicas(
        self, replica_set: JsonObject, active: list[JsonObject]
    ) -> tuple[str, ApiError] | None:
        difference = len(active) - int(replica_set["spec"].get("replicas", 1))
        if difference < 0:
            for _ in range(min(-difference, _MOST_PER_SYNC)):
                try:
                    self._create_pod(replica_set)
                except ApiError as error:
                    self._event(replica_set, "FailedCreate", f"Error creating: {error}", warning=True)
                    return "FailedCreate", error
        elif difference > 0:
            now = self.clock.now()
            for pod in sorted(active, key=lambda pod: _deletion_rank(pod, now))[:difference]:
                namespace, name = key_of(pod)
                self.store.delete(PODS, namespace, name)
                self._event(replica_set, "SuccessfulDelete", f"Deleted pod: {name}")
        return None

    def _create_pod(self, replica_set: JsonObject) -> None:
        template = copy_json(replica_set["spec"]["template"])
        metadata = {
            key: value
            for key, value in template.get("metadata", {}).items()
            if key in ("labels", "annotations", "finalizers") and value
        }
        metadata |= {
            "generateName": replica_set["metadata"]["name"] + "-",
            "namespace": replica_set["metadata"]["namespace"],
            "ownerReferences": [controller_reference(replica_set)],
        }
        pod = self.store.create(
            PODS, {"metadata": metadata, "spec": template["spec"]}, manager=CONTROLLER_MANAGER
        )
        self._event(replica_set, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _write_status(
        self,
        replica_set: JsonObject,
        active: list[JsonObject],
        terminating: int,
        failure: tuple[str, ApiError] | None,
    ) -> None:
        # Writes of pods do not change the replica set, so `replica_set` is still the stored object.
        spec, old = replica_set["spec"], replica_set.get("status", {})
        now = self.clock.now()
        wait = timedelta(seconds=int(spec.get("minReadySeconds", 0)))
        template_labels = (spec["template"].get("metadata", {}).get("labels") or {}).items()
        ready_times = [moment for pod in active if (moment := ready_since(pod)) is not None]
        counts = {
            "fullyLabeledReplicas": sum(
                1 for pod in active if template_labels <= (pod["metadata"].get("labels") or {}).items()
            ),
            "readyReplicas": len(ready_times),
            "availableReplicas": sum(1 for moment in ready_times if not wait or moment + wait <= now),
        }
        status: JsonObject = {
            "replicas": len(active),
            **{name: count for name, count in counts.items() if count},
            "terminatingReplicas": terminating,
            "observedGeneration": replica_set["metadata"]["generation"],
        }
        conditions = self._conditions(old.get("conditions") or [], failure)
        if conditions:
            status["conditions"] = conditions
        if status != old:
            self.store.update_status(REPLICA_SETS, {**replica_set, "status": status}, CONTROLLER_MANAGER)
        if wait and counts["availableReplicas"] < len(ready_times):
            next_time = min(moment + wait for moment in ready_times if moment + wait > now)
            self.enqueue(key_of(replica_set), after=(next_time - now).total_seconds() + 0.01)

    def _conditions(self, old: list[JsonObject], failure: tuple[str, ApiError] | None) -> list[JsonObject]:
        others = [condition for condition in old if condition["type"] != "ReplicaFailure"]
        if failure is None:
            return others
        known = next((condition for condition in old if condition["type"] == "ReplicaFailure"), None)
        reason, error = failure
        if known is not None and known["reason"] == reason:
            return old
        now = format_time(self.clock.now())
        return [
            *others,
            {
                "type": "ReplicaFailure",
                "status": "True",
                "lastTransitionTime": now,
                "reason": reason,
                "message": str(error),
            },
        ]

    def _event(self, replica_set: JsonObject, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.record(
            REPLICA_SETS, replica_set, reason, message, component=_COMPONENT, warning=warning
        )


def is_active(pod: JsonObject) -> bool:
    """Returns whether a pod counts as a replica: not ended and not being deleted."""
    return pod["status"].get("phase") not in _TERMINAL_PHASES and "deletionTimestamp" not in pod["metadata"]


def ready_since(pod: JsonObject) -> datetime | None:
    """Returns when the pod became ready, or None if it is not ready."""
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "Ready":
            return parse_time(condition["lastTransitionTime"]) if condition["status"] == "True" else None
    return None


def controller_reference(owner: JsonObject) -> JsonObject:
    """Returns the owner reference that makes `owner` the controller of an object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _deletion_rank(pod: JsonObject, now: datetime) -> tuple[object, ...]:
    """Returns the sort key for deletion: first unassigned pods, then not running, not ready, cheap, the youngest."""
    metadata, status = pod["metadata"], pod["status"]
    ready = ready_since(pod)
    restarts = sum(entry.get("restartCount", 0) for entry in status.get("containerStatuses") or [])
    created = parse_time(metadata["creationTimestamp"])
    return (
        "nodeName" in pod["spec"],
        _PHASE_RANK.get(status.get("phase", ""), 1),
        ready is not None,
        int((metadata.get("annotations") or {}).get(_DELETION_COST, "0")),
        (now - ready).total_seconds() if ready is not None else 0.0,
        -restarts,
        (now - created).total_seconds(),
        metadata["name"],
    )
