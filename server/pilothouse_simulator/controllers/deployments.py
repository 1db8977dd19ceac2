"""The Deployment controller: rolling updates over replica sets.

It ports the decisions of the real controller step for step, because clients watch and depend on them. Each template has
its own replica set; a rollback reuses the old replica set, with the next revision. The new set is scaled up within
maxSurge while old sets are scaled down within maxUnavailable, one step per sync. It also implements pausing, scaling
(proportional in the middle of a rollout), Recreate, the revision history, and the conditions of `deployments_status`.
Replica sets without a controller whose labels match are adopted.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    Controller,
    Key,
    controller_of,
    key_of,
    matches_selector,
)
from pilothouse_simulator.controllers.deployments_scaling import (
    DESIRED_REPLICAS,
    REVISION,
    annotate_new_replica_set,
    annotated_number,
    is_rolling,
    is_saturated,
    new_replica_set_size,
    proportional_sizes,
    replicas_annotations,
    replicas_of,
    same_template,
    status_total,
    surge_and_unavailable,
    template_hash,
    total_replicas,
    with_hash_label,
)
from pilothouse_simulator.controllers.deployments_status import (
    PAUSED,
    TIMED_OUT,
    calculate_rollout_status,
    calculate_status,
    find_condition,
    has_progress_deadline,
    is_complete,
    seconds_to_deadline,
    set_condition,
)
from pilothouse_simulator.controllers.replica_sets import controller_reference
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import DEPLOYMENTS, PODS, REPLICA_SETS

JsonObject = dict[str, Any]
ReplicaSets = list[JsonObject]

_COMPONENT = "deployment-controller"
_TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})


class DeploymentController(Controller[Key]):
    """Syncs Deployments; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is DEPLOYMENTS:
            self.enqueue(key_of(event.object))
        elif event.resource is REPLICA_SETS:
            for replica_set in (event.object, event.previous):
                owner = controller_of(replica_set) if replica_set is not None else None
                if owner is not None and owner["kind"] == "Deployment":
                    self.enqueue((event.object["metadata"]["namespace"], owner["name"]))
        elif event.resource is PODS and event.type == "DELETED":
            # The Recreate strategy waits until the last old pod is deleted.
            owner = controller_of(event.object)
            if owner is not None and owner["kind"] == "ReplicaSet":
                namespace = event.object["metadata"]["namespace"]
                replica_set = self.store.get(REPLICA_SETS, namespace, owner["name"])
                parent = controller_of(replica_set) if replica_set is not None else None
                if parent is not None:
                    self.enqueue((namespace, parent["name"]))

    def sync(self, key: Key) -> None:
        """Takes one step of the rollout, then writes the status."""
        stored = self.store.get(DEPLOYMENTS, *key)
        if stored is None:
            return
        deployment = copy_json(stored)
        replica_sets = self._owned_replica_sets(deployment)
        if "deletionTimestamp" in deployment["metadata"]:
            new, old = self._find(deployment, replica_sets)
            self._sync_counters(deployment, new, old)
            return
        deployment = self._note_pause(deployment)
        if deployment["spec"].get("paused"):
            self._sync_scale(deployment, replica_sets)
            return
        # The existing new replica set gets its revision before anything is scaled.
        deployment, new, old = self._new_and_old(deployment, replica_sets, create=False)
        if self._was_scaled(deployment, new, old):
            self._sync_scale(deployment, replica_sets)
        elif is_rolling(deployment):
            self._roll(deployment, replica_sets)
        else:
            self._recreate(deployment, replica_sets)

    # Replica sets

    def _owned_replica_sets(self, deployment: JsonObject) -> ReplicaSets:
        uid = deployment["metadata"]["uid"]
        owned = [
            replica_set
            for replica_set in self.index.dependents(uid, REPLICA_SETS)
            if (owner := controller_of(replica_set)) is not None and owner["uid"] == uid
        ]
        if "deletionTimestamp" in deployment["metadata"]:
            return owned
        for orphan in self.index.uncontrolled(REPLICA_SETS, deployment["metadata"]["namespace"]):
            labels = orphan["metadata"].get("labels") or {}
            if "deletionTimestamp" not in orphan["metadata"] and matches_selector(
                deployment["spec"]["selector"], labels
            ):
                adopted = copy_json(orphan)
                adopted["metadata"].setdefault("ownerReferences", []).append(controller_reference(deployment))
                owned.append(self.store.update(REPLICA_SETS, adopted, manager=CONTROLLER_MANAGER))
        return owned

    def _find(
        self, deployment: JsonObject, replica_sets: ReplicaSets
    ) -> tuple[JsonObject | None, ReplicaSets]:
        """Returns the oldest replica set of the current template, and all others."""
        fresh = [
            replica_set
            for entry in replica_sets
            if (replica_set := self.store.get(REPLICA_SETS, *key_of(entry))) is not None
        ]
        fresh.sort(key=lambda entry: (entry["metadata"]["creationTimestamp"], entry["metadata"]["name"]))
        template = deployment["spec"]["template"]
        new = next((entry for entry in fresh if same_template(entry["spec"]["template"], template)), None)
        return new, [entry for entry in fresh if entry is not new]

    def _new_and_old(
        self, deployment: JsonObject, replica_sets: ReplicaSets, *, create: bool
    ) -> tuple[JsonObject, JsonObject | None, ReplicaSets]:
        """Returns the deployment as written, the new replica set with its revision, and the old replica sets.

        With `create`, creates the new replica set if it does not exist.
        """
        new, old = self._find(deployment, replica_sets)
        revision = max((annotated_number(entry, REVISION) or 0 for entry in old), default=0) + 1
        if new is not None:
            changed = copy_json(new)
            annotated = annotate_new_replica_set(deployment, changed, revision, exists=True)
            ready_seconds = deployment["spec"].get("minReadySeconds", 0)
            if annotated or changed["spec"].get("minReadySeconds", 0) != ready_seconds:
                changed["spec"]["minReadySeconds"] = ready_seconds
                if not ready_seconds:
                    del changed["spec"]["minReadySeconds"]
                return deployment, self.store.update(REPLICA_SETS, changed, manager=CONTROLLER_MANAGER), old
            own_revision = new["metadata"]["annotations"][REVISION]
            needed = self._set_revision(deployment, own_revision)
            if has_progress_deadline(deployment) and not find_condition(deployment["status"], "Progressing"):
                message = f'Found new replica set "{new["metadata"]["name"]}"'
                self._progressing(deployment, "True", "FoundNewReplicaSet", message)
                needed = True
            return (self._write(deployment) if needed else deployment), new, old
        if not create:
            return deployment, None, old
        created = self._create(deployment, old, revision)
        if created is None:
            return self._write(deployment), None, old
        self._set_revision(deployment, str(revision))
        if has_progress_deadline(deployment):
            message = f'Created new replica set "{created["metadata"]["name"]}"'
            self._progressing(deployment, "True", "NewReplicaSetCreated", message)
        return self._write(deployment), created, old

    def _create(self, deployment: JsonObject, old: ReplicaSets, revision: int) -> JsonObject | None:
        """Creates a replica set. Returns None, and counts a collision, if its name is taken."""
        spec = deployment["spec"]
        collisions = int(deployment["status"].get("collisionCount", 0))
        name_hash = template_hash(spec["template"], collisions)
        template = copy_json(spec["template"])
        labels = with_hash_label(template.setdefault("metadata", {}).get("labels"), name_hash)
        template["metadata"]["labels"] = labels
        selector = copy_json(spec["selector"])
        selector["matchLabels"] = with_hash_label(selector.get("matchLabels"), name_hash)
        metadata = {
            "name": f"{deployment['metadata']['name']}-{name_hash}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": dict(labels),
            "ownerReferences": [controller_reference(deployment)],
        }
        replica_set: JsonObject = {
            "metadata": metadata,
            "spec": {"replicas": 0, "selector": selector, "template": template},
        }
        if spec.get("minReadySeconds"):
            replica_set["spec"]["minReadySeconds"] = spec["minReadySeconds"]
        size = new_replica_set_size(deployment, [*old, replica_set], replica_set)
        replica_set["spec"]["replicas"] = size
        annotate_new_replica_set(deployment, replica_set, revision, exists=False)
        try:
            created = self.store.create(REPLICA_SETS, replica_set, manager=CONTROLLER_MANAGER)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                message = f'Failed to create new replica set "{metadata["name"]}": {error}'
                self._event(deployment, "ReplicaSetCreateError", message, warning=True)
                raise
            deployment["status"]["collisionCount"] = collisions + 1
            self.enqueue(key_of(deployment))
            return None
        if size > 0:
            self._event(
                deployment, "ScalingReplicaSet", f"Scaled up replica set {metadata['name']} from 0 to {size}"
            )
        return created

    # Strategies

    def _roll(self, deployment: JsonObject, replica_sets: ReplicaSets) -> None:
        deployment, new, old = self._new_and_old(deployment, replica_sets, create=True)
        if new is None:
            return
        wanted = replicas_of(deployment)
        if replicas_of(new) != wanted:
            size = min(wanted, new_replica_set_size(deployment, [*old, new], new))
            new, scaled = self._scale(deployment, new, size)
        else:
            scaled = False
        if (
            not scaled
            and not self._shrink_old(deployment, new, old)
            and is_complete(deployment, deployment["status"])
        ):
            self._trim_history(deployment, old)
        self._sync_rollout(deployment, new, old)

    def _shrink_old(self, deployment: JsonObject, new: JsonObject, old: ReplicaSets) -> bool:
        """Scales old sets down: first unavailable replicas, then others as far as availability allows."""
        active = [entry for entry in old if replicas_of(entry) > 0]
        if not active:
            return False
        _, unavailable = surge_and_unavailable(deployment)
        least = replicas_of(deployment) - unavailable
        new_unavailable = replicas_of(new) - int(new["status"].get("availableReplicas", 0))
        spare = total_replicas([*old, new]) - least - new_unavailable
        if spare <= 0:
            return False
        removed = 0
        for place, entry in enumerate(active):
            broken = replicas_of(entry) - int(entry["status"].get("availableReplicas", 0))
            count = min(spare - removed, broken)
            if count > 0:
                active[place], _ = self._scale(deployment, entry, replicas_of(entry) - count)
                removed += count
        available = status_total([*active, new], "availableReplicas")
        surplus = available - least
        for entry in active:
            count = min(surplus, replicas_of(entry))
            if count > 0:
                self._scale(deployment, entry, replicas_of(entry) - count)
                surplus -= count
                removed += count
        return removed > 0

    def _recreate(self, deployment: JsonObject, replica_sets: ReplicaSets) -> None:
        deployment, new, old = self._new_and_old(deployment, replica_sets, create=False)
        scaled = [self._scale(deployment, entry, 0)[1] for entry in old if replicas_of(entry) > 0]
        if any(scaled) or self._any_pod_left(old):
            self._sync_rollout(deployment, new, old)
            return
        if new is None:
            deployment, new, old = self._new_and_old(deployment, replica_sets, create=True)
            if new is None:
                return
        new, _ = self._scale(deployment, new, replicas_of(deployment))
        if is_complete(deployment, deployment["status"]):
            self._trim_history(deployment, old)
        self._sync_rollout(deployment, new, old)

    def _any_pod_left(self, old: ReplicaSets) -> bool:
        return any(
            pod["status"].get("phase") not in _TERMINAL_PHASES
            for entry in old
            for pod in self.index.dependents(entry["metadata"]["uid"], PODS)
        )

    # Scaling

    def _was_scaled(self, deployment: JsonObject, new: JsonObject | None, old: ReplicaSets) -> bool:
        wanted = replicas_of(deployment)
        for entry in [*old, *([new] if new else [])]:
            desired = annotated_number(entry, DESIRED_REPLICAS)
            if replicas_of(entry) > 0 and desired is not None and desired != wanted:
                return True
        return False

    def _sync_scale(self, deployment: JsonObject, replica_sets: ReplicaSets) -> None:
        deployment, new, old = self._new_and_old(deployment, replica_sets, create=False)
        self._spread(deployment, new, old)
        if deployment["spec"].get("paused"):
            self._trim_history(deployment, old)
        self._sync_counters(deployment, new, old)

    def _spread(self, deployment: JsonObject, new: JsonObject | None, old: ReplicaSets) -> None:
        """Scales the only active set to the wanted size; in the middle of a rollout, distributes the change over all
        sets.
        """
        everyone = [*old, *([new] if new else [])]
        active = [entry for entry in everyone if replicas_of(entry) > 0]
        wanted = replicas_of(deployment)
        if len(active) <= 1:
            only = active[0] if active else (new or (old[-1] if old else None))
            if only is not None and replicas_of(only) != wanted:
                self._scale(deployment, only, wanted)
            return
        if new is not None and is_saturated(deployment, new):
            for entry in old:
                if replicas_of(entry) > 0:
                    self._scale(deployment, entry, 0)
        elif is_rolling(deployment):
            sizes = proportional_sizes(deployment, active)
            for entry in active:
                self._scale(deployment, entry, sizes[entry["metadata"]["name"]])

    def _scale(self, deployment: JsonObject, replica_set: JsonObject, size: int) -> tuple[JsonObject, bool]:
        """Sets a replica set's size and annotations. Returns the stored one and whether the size changed."""
        before = replicas_of(replica_set)
        changed = copy_json(replica_set)
        changed["spec"]["replicas"] = size
        changed["metadata"].setdefault("annotations", {}).update(replicas_annotations(deployment))
        if changed == replica_set:
            return replica_set, False
        stored = self.store.update(REPLICA_SETS, changed, manager=CONTROLLER_MANAGER)
        if size != before:
            direction = "up" if size > before else "down"
            name = replica_set["metadata"]["name"]
            message = f"Scaled {direction} replica set {name} from {before} to {size}"
            self._event(deployment, "ScalingReplicaSet", message)
        return stored, size != before

    def _trim_history(self, deployment: JsonObject, old: ReplicaSets) -> None:
        limit = deployment["spec"].get("revisionHistoryLimit")
        if limit is None:
            return
        alive = [entry for entry in old if "deletionTimestamp" not in entry["metadata"]]
        alive.sort(key=lambda entry: annotated_number(entry, REVISION) or 0)
        for entry in alive[: max(0, len(alive) - int(limit))]:
            status = entry["status"]
            settled = status.get("observedGeneration", 0) >= entry["metadata"]["generation"]
            if replicas_of(entry) == 0 and not status.get("replicas") and settled:
                self.store.delete(REPLICA_SETS, *key_of(entry))

    # Status

    def _note_pause(self, deployment: JsonObject) -> JsonObject:
        condition = find_condition(deployment["status"], "Progressing")
        if not has_progress_deadline(deployment) or (condition and condition["reason"] == TIMED_OUT):
            return deployment
        noted = condition is not None and condition["reason"] == PAUSED
        paused = bool(deployment["spec"].get("paused"))
        if paused and not noted:
            self._progressing(deployment, "Unknown", PAUSED, "Deployment is paused")
        elif noted and not paused:
            self._progressing(deployment, "Unknown", "DeploymentResumed", "Deployment is resumed")
        else:
            return deployment
        return self._write(deployment)

    def _progressing(self, deployment: JsonObject, value: str, reason: str, message: str) -> None:
        now = self.clock.now()
        set_condition(deployment["status"], "Progressing", value, reason, message, now)

    @staticmethod
    def _set_revision(deployment: JsonObject, revision: str) -> bool:
        annotations = deployment["metadata"].setdefault("annotations", {})
        if annotations.get(REVISION) == revision:
            return False
        annotations[REVISION] = revision
        return True

    def _write(self, deployment: JsonObject) -> JsonObject:
        """Writes status and revision annotation; returns a copy of the stored deployment."""
        return copy_json(self.store.update_status(DEPLOYMENTS, deployment, CONTROLLER_MANAGER))

    def _sync_counters(self, deployment: JsonObject, new: JsonObject | None, old: ReplicaSets) -> None:
        new, old = self._find(deployment, [*old, *([new] if new else [])])
        everyone = [*old, *([new] if new else [])]
        status = calculate_status(deployment, everyone, new, self.clock.now())
        if status != deployment["status"]:
            self._write({**deployment, "status": status})

    def _sync_rollout(self, deployment: JsonObject, new: JsonObject | None, old: ReplicaSets) -> None:
        new, old = self._find(deployment, [*old, *([new] if new else [])])
        everyone = [*old, *([new] if new else [])]
        status = calculate_rollout_status(deployment, everyone, new, self.clock.now())
        if status != deployment["status"]:
            deployment = self._write({**deployment, "status": status})
        remaining = seconds_to_deadline(deployment, deployment["status"], self.clock.now())
        if remaining is not None:
            self.enqueue(key_of(deployment), after=remaining)

    def _event(self, deployment: JsonObject, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.record(DEPLOYMENTS, deployment, reason, message, component=_COMPONENT, warning=warning)
