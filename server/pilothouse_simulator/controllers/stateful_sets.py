"""The StatefulSet controller: pods with ordinals and their own claims, started and updated in order.

A port of the real controller (`pkg/controller/statefulset/stateful_set_control.go`), tested against recording 24. One
sync takes one step. It creates missing pods (with OrderedReady one pod, when all pods before it are ready), or else
deletes the pods above `replicas` from the highest, or else deletes the highest pod of an old revision; it waits while
an updated pod is not available. So a pod that never becomes ready stops all progress until someone deletes it, even
after the template is fixed (kubernetes#67250). The status is counted before the pods are changed.

Not recorded: `OnDelete`, adoption of orphaned pods and revisions, and `whenDeleted: Delete` follow the source above and
KEP-1847. A pod that has ended is deleted and created again, as in `processReplica`. A refused pod (quota, admission)
causes the event FailedCreate with the message of `recordPodEvent` (`stateful_pod_control.go`), and is retried.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from pilothouse_simulator.controllers import revisions
from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    Controller,
    Key,
    controller_of,
    key_of,
    matches_selector,
)
from pilothouse_simulator.controllers.deployments_scaling import replicas_of
from pilothouse_simulator.controllers.replica_sets import controller_reference, ready_since
from pilothouse_simulator.controllers.revisions import REVISION_LABEL, template_of
from pilothouse_simulator.controllers.stateful_sets_claims import StatefulSetClaims, claim_names
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import CONTROLLER_REVISIONS, PODS, STATEFUL_SETS

JsonObject = dict[str, Any]

_COMPONENT = "statefulset-controller"
_MEMBER = re.compile(r"^(.*)-([0-9]+)$")
_TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})


def ordinal_of(pod: JsonObject) -> int:
    """Returns the ordinal at the end of a pod's name; -1 if there is none."""
    match = _MEMBER.match(pod["metadata"]["name"])
    return int(match[2]) if match else -1


class _Step:
    """A StatefulSet in one sync: its two revisions, its pods by ordinal, and the pods outside its ordinals."""

    def __init__(
        self, stateful_set: JsonObject, pods: list[JsonObject], current: JsonObject, update: JsonObject
    ) -> None:
        spec = stateful_set["spec"]
        self.set = stateful_set
        self.current, self.update = current, update
        self.start = int((spec.get("ordinals") or {}).get("start", 0))
        self.ordinals = range(self.start, self.start + replicas_of(stateful_set))
        self.replicas = {ordinal_of(pod): pod for pod in pods if ordinal_of(pod) in self.ordinals}
        self.condemned = sorted(
            (pod for pod in pods if ordinal_of(pod) not in self.ordinals), key=ordinal_of, reverse=True
        )
        self.in_order = bool(spec["podManagementPolicy"] == "OrderedReady")

    def revision_for(self, ordinal: int) -> JsonObject:
        """Returns the revision for a new pod: the current revision below the partition, else the update revision."""
        strategy = self.set["spec"]["updateStrategy"]
        partition = int((strategy.get("rollingUpdate") or {}).get("partition", 0))
        below = strategy["type"] == "RollingUpdate" and ordinal < self.start + partition
        return self.current if below else self.update


class StatefulSetController(Controller[Key]):
    """Syncs StatefulSets; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is STATEFUL_SETS:
            self.enqueue(key_of(event.object))
        elif event.resource in (PODS, CONTROLLER_REVISIONS):
            for obj in (event.object, event.previous):
                owner = controller_of(obj) if obj is not None else None
                if owner is not None and owner["kind"] == "StatefulSet":
                    self.enqueue((event.object["metadata"]["namespace"], owner["name"]))
            if event.resource is PODS and controller_of(event.object) is None:
                self._enqueue_adopters(event.object)

    def _enqueue_adopters(self, pod: JsonObject) -> None:
        match = _MEMBER.match(pod["metadata"]["name"])
        if match is not None:
            self.enqueue((pod["metadata"]["namespace"], match[1]))

    def sync(self, key: Key) -> None:
        """Takes one step towards the spec, then writes the status."""
        stateful_set = self.store.get(STATEFUL_SETS, *key)
        if stateful_set is None:
            return
        pods = self._owned_pods(stateful_set)
        old = stateful_set.get("status") or {}
        if "deletionTimestamp" in stateful_set["metadata"]:
            # The garbage collector may have deleted the revisions already, so only their names are used.
            current, update = (
                {"metadata": {"name": old.get(name, "")}} for name in ("currentRevision", "updateRevision")
            )
            step = _Step(stateful_set, pods, current, update)
            self._write_status(step, self._count(step, pods, int(old.get("collisionCount", 0))))
            return
        history = revisions.owned_revisions(self.store, self.index, stateful_set)
        update, collisions = revisions.update_revision(
            self.store, stateful_set, history, int(old.get("collisionCount", 0))
        )
        named = (entry for entry in history if entry["metadata"]["name"] == old.get("currentRevision"))
        step = _Step(stateful_set, pods, next(named, update), update)
        failure: ApiError | None = None
        status = self._count(step, pods, collisions)
        try:
            self._take(step, status)
        except ApiError as error:
            failure = error
        self._write_status(step, status)
        live = {status["currentRevision"], status["updateRevision"], *(_revision_of(pod) for pod in pods)}
        limit = int(stateful_set["spec"].get("revisionHistoryLimit", 10))
        revisions.trim_history(self.store, history, live, limit)
        self._await_availability(step)
        if failure is not None:
            raise failure

    def _owned_pods(self, stateful_set: JsonObject) -> list[JsonObject]:
        uid, name = stateful_set["metadata"]["uid"], stateful_set["metadata"]["name"]
        pods = [
            pod
            for pod in self.index.dependents(uid, PODS)
            if (owner := controller_of(pod)) is not None and owner["uid"] == uid
        ]
        if "deletionTimestamp" not in stateful_set["metadata"]:
            for pod in self.index.uncontrolled(PODS, stateful_set["metadata"]["namespace"]):
                match = _MEMBER.match(pod["metadata"]["name"])
                labels = pod["metadata"].get("labels") or {}
                if (
                    match is not None
                    and match[1] == name
                    and "deletionTimestamp" not in pod["metadata"]
                    and matches_selector(stateful_set["spec"]["selector"], labels)
                ):
                    adopted = copy_json(pod)
                    adopted["metadata"].setdefault("ownerReferences", []).append(
                        controller_reference(stateful_set)
                    )
                    pods.append(self.store.update(PODS, adopted, manager=CONTROLLER_MANAGER))
        return sorted(pods, key=ordinal_of)

    # One step

    def _take(self, step: _Step, status: JsonObject) -> None:
        claims = StatefulSetClaims(self.store, step.set)
        for ordinal in step.ordinals:
            if self._process_replica(step, claims, ordinal):
                return
        for pod in step.condemned:
            claims.own(pod, condemned=True)
        unhealthy = self._first_unhealthy(step)
        for pod in step.condemned:
            if self._process_condemned(step, pod, unhealthy):
                return
        if step.set["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            self._roll(step, status)

    def _process_replica(self, step: _Step, claims: StatefulSetClaims, ordinal: int) -> bool:
        """Creates the pod of an ordinal, or checks whether the next one may follow.

        Returns True if the step must end here.
        """
        pod = step.replicas.get(ordinal)
        if pod is None:
            if claims.is_stale(ordinal):
                return True
            self._create(step, claims, ordinal)
            return step.in_order
        if pod["status"].get("phase") in _TERMINAL_PHASES:
            if "deletionTimestamp" not in pod["metadata"]:
                word = "failed" if pod["status"]["phase"] == "Failed" else "terminated"
                name = "/".join(key_of(step.set))
                message = f"StatefulSet {name} is recreating {word} Pod {pod['metadata']['name']}"
                self._event(step.set, f"Recreating{word.capitalize()}Pod", message, warning=True)
                self._delete(step, pod)
            return True
        if pod["status"].get("phase") == "Pending":
            claims.create_missing(ordinal)
        if step.in_order and ("deletionTimestamp" in pod["metadata"] or not self._is_available(step, pod)):
            return True
        claims.own(pod, condemned=False)
        return False

    def _process_condemned(self, step: _Step, pod: JsonObject, unhealthy: JsonObject | None) -> bool:
        if "deletionTimestamp" in pod["metadata"]:
            return step.in_order
        if step.in_order and not self._is_available(step, pod) and pod is not unhealthy:
            return True
        self._delete(step, pod)
        return step.in_order

    def _first_unhealthy(self, step: _Step) -> JsonObject | None:
        ordered = [step.replicas[ordinal] for ordinal in step.ordinals if ordinal in step.replicas]
        for pod in [*ordered, *reversed(step.condemned)]:
            if not self._is_available(step, pod) or "deletionTimestamp" in pod["metadata"]:
                return pod
        return None

    def _roll(self, step: _Step, status: JsonObject) -> None:
        """Deletes the highest pod of an old revision, unless a pod above it is not available."""
        partition = int((step.set["spec"]["updateStrategy"].get("rollingUpdate") or {}).get("partition", 0))
        for ordinal in reversed(step.ordinals[partition:]):
            pod = step.replicas.get(ordinal)
            if pod is None:
                return
            deleted = "deletionTimestamp" in pod["metadata"]
            if _revision_of(pod) != step.update["metadata"]["name"] and not deleted:
                self._delete(step, pod)
                if _revision_of(pod) == step.current["metadata"]["name"]:
                    status["currentReplicas"] -= 1
                return
            if deleted or not self._is_available(step, pod):
                return

    def _create(self, step: _Step, claims: StatefulSetClaims, ordinal: int) -> None:
        set_name, namespace = step.set["metadata"]["name"], step.set["metadata"]["namespace"]
        revision = step.revision_for(ordinal)
        template = template_of(revision)
        name = f"{set_name}-{ordinal}"
        metadata = {
            key: value
            for key, value in template["metadata"].items()
            if key in ("labels", "annotations", "finalizers") and value
        }
        metadata |= {
            "name": name,
            "generateName": f"{set_name}-",
            "namespace": namespace,
            "ownerReferences": [controller_reference(step.set)],
        }
        metadata["labels"] = {
            **(metadata.get("labels") or {}),
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(ordinal),
            REVISION_LABEL: revision["metadata"]["name"],
        }
        spec = template["spec"]
        names = claim_names(step.set, ordinal)
        volumes = [
            {"name": volume, "persistentVolumeClaim": {"claimName": claim}} for volume, claim in names.items()
        ]
        volumes += [volume for volume in spec.get("volumes") or [] if volume["name"] not in names]
        spec |= {"hostname": name}
        if step.set["spec"].get("serviceName"):
            spec["subdomain"] = step.set["spec"]["serviceName"]
        if volumes:
            spec["volumes"] = volumes
        try:
            for claim in claims.create_missing(ordinal):
                message = f"Create Claim {claim} Pod {name} in StatefulSet {set_name} success"
                self._event(step.set, "SuccessfulCreate", message)
            self.store.create(PODS, {"metadata": metadata, "spec": spec}, manager=CONTROLLER_MANAGER)
        except ApiError as error:
            message = f"create Pod {name} in StatefulSet {set_name} failed error: {error}"
            self._event(step.set, "FailedCreate", message, warning=True)
            raise
        self._event(step.set, "SuccessfulCreate", f"Create Pod {name} in StatefulSet {set_name} successful")

    def _delete(self, step: _Step, pod: JsonObject) -> None:
        namespace, name = key_of(pod)
        self.store.delete(PODS, namespace, name)
        message = f"Delete Pod {name} in StatefulSet {step.set['metadata']['name']} successful"
        self._event(step.set, "SuccessfulDelete", message)

    # Status

    def _count(self, step: _Step, pods: list[JsonObject], collisions: int) -> JsonObject:
        current, update = step.current["metadata"]["name"], step.update["metadata"]["name"]
        staying = [_revision_of(pod) for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return {
            "observedGeneration": step.set["metadata"]["generation"],
            "replicas": len(pods),
            "readyReplicas": sum(1 for pod in pods if _is_ready(pod)),
            "currentReplicas": staying.count(current),
            "updatedReplicas": staying.count(update),
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": collisions,
            "availableReplicas": sum(1 for pod in pods if self._is_available(step, pod)),
        }

    def _write_status(self, step: _Step, status: JsonObject) -> None:
        wanted = replicas_of(step.set)
        rolling = step.set["spec"]["updateStrategy"]["type"] == "RollingUpdate"
        counts = (status["updatedReplicas"], status["replicas"], status["readyReplicas"])
        if rolling and counts == (wanted, wanted, wanted):
            status["currentReplicas"] = status["updatedReplicas"]
            status["currentRevision"] = status["updateRevision"]
        for name in ("readyReplicas", "currentReplicas", "updatedReplicas"):
            if not status[name]:
                del status[name]
        if status != step.set.get("status"):
            self.store.update_status(STATEFUL_SETS, {**step.set, "status": status}, CONTROLLER_MANAGER)

    def _is_available(self, step: _Step, pod: JsonObject) -> bool:
        since = ready_since(pod)
        wait = timedelta(seconds=int(step.set["spec"].get("minReadySeconds", 0)))
        return _is_ready(pod) and since is not None and (not wait or since + wait <= self.clock.now())

    def _await_availability(self, step: _Step) -> None:
        """Requests another sync for when the next ready pod becomes available."""
        wait = timedelta(seconds=int(step.set["spec"].get("minReadySeconds", 0)))
        now = self.clock.now()
        due = [
            since + wait
            for pod in step.replicas.values()
            if wait and (since := ready_since(pod)) is not None and since + wait > now
        ]
        if due:
            self.enqueue(key_of(step.set), after=(min(due) - now).total_seconds() + 0.01)

    def _event(self, stateful_set: JsonObject, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.record(
            STATEFUL_SETS, stateful_set, reason, message, component=_COMPONENT, warning=warning
        )


def _revision_of(pod: JsonObject) -> str:
    return str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL, ""))


def _is_ready(pod: JsonObject) -> bool:
    return pod["status"].get("phase") == "Running" and ready_since(pod) is not None
