"""The claims of a StatefulSet's pods: created from its templates, with owners that follow its retention policy.

A claim is named TEMPLATE-SET-ORDINAL and stays when its pod is deleted. With `whenScaled: Delete`, a pod above
`replicas` becomes the owner of its claims before it is deleted; with `whenDeleted: Delete`, the StatefulSet owns the
claims. The garbage collector then deletes the claims after their owner. `whenScaled` is recorded (24); `whenDeleted`
follows KEP-1847 and `stateful_set_utils.go`.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.controllers.controller import CONTROLLER_MANAGER
from pilothouse_simulator.controllers.replica_sets import controller_reference
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import PERSISTENT_VOLUME_CLAIMS, PODS

JsonObject = dict[str, Any]


def claim_names(stateful_set: JsonObject, ordinal: int) -> dict[str, str]:
    """Returns the claim names of one ordinal by template name."""
    name = stateful_set["metadata"]["name"]
    templates = stateful_set["spec"].get("volumeClaimTemplates") or []
    return {entry["metadata"]["name"]: f"{entry['metadata']['name']}-{name}-{ordinal}" for entry in templates}


class StatefulSetClaims:
    """The claims of one StatefulSet."""

    def __init__(self, store: ObjectStore, stateful_set: JsonObject) -> None:
        self._store = store
        self._set = stateful_set
        self._namespace = stateful_set["metadata"]["namespace"]

    def create_missing(self, ordinal: int) -> list[str]:
        """Creates the missing claims of an ordinal; returns their names."""
        made = []
        names = claim_names(self._set, ordinal)
        for template in self._set["spec"].get("volumeClaimTemplates") or []:
            name = names[template["metadata"]["name"]]
            if self._store.get(PERSISTENT_VOLUME_CLAIMS, self._namespace, name) is not None:
                continue
            selected = self._set["spec"]["selector"].get("matchLabels") or {}
            metadata: JsonObject = {"name": name, "namespace": self._namespace}
            if labels := {**(template["metadata"].get("labels") or {}), **selected}:
                metadata["labels"] = labels
            if annotations := template["metadata"].get("annotations"):
                metadata["annotations"] = dict(annotations)
            body = {"metadata": metadata, "spec": copy_json(template["spec"])}
            if owners := self._wanted_owners(None):
                metadata["ownerReferences"] = owners
            self._store.create(PERSISTENT_VOLUME_CLAIMS, body, manager=CONTROLLER_MANAGER)
            made.append(name)
        return made

    def is_stale(self, ordinal: int) -> bool:
        """Returns whether a claim of this ordinal is owned by a deleted pod and about to be deleted."""
        for name in claim_names(self._set, ordinal).values():
            claim = self._store.get(PERSISTENT_VOLUME_CLAIMS, self._namespace, name)
            for owner in (claim or {"metadata": {}})["metadata"].get("ownerReferences") or []:
                if owner["kind"] != PODS.kind:
                    continue
                pod = self._store.get(PODS, self._namespace, owner["name"])
                if pod is None or pod["metadata"]["uid"] != owner["uid"]:
                    return True
        return False

    def own(self, pod: JsonObject, *, condemned: bool) -> None:
        """Sets the owners of a pod's claims; `condemned`: the pod is about to be deleted without a successor."""
        ordinal = int(pod["metadata"]["name"].rpartition("-")[2])
        wanted = self._wanted_owners(pod if condemned else None)
        own_uids = {self._set["metadata"]["uid"], pod["metadata"]["uid"]}
        for name in claim_names(self._set, ordinal).values():
            claim = self._store.get(PERSISTENT_VOLUME_CLAIMS, self._namespace, name)
            if claim is None or "deletionTimestamp" in claim["metadata"]:
                continue
            owners = claim["metadata"].get("ownerReferences") or []
            others = [entry for entry in owners if entry["uid"] not in own_uids]
            if [*others, *wanted] == owners:
                continue
            changed = copy_json(claim)
            changed["metadata"]["ownerReferences"] = [*others, *wanted]
            self._store.update(PERSISTENT_VOLUME_CLAIMS, changed, manager=CONTROLLER_MANAGER)

    def _wanted_owners(self, condemned: JsonObject | None) -> list[JsonObject]:
        policy = self._set["spec"]["persistentVolumeClaimRetentionPolicy"]
        if condemned is not None and policy["whenScaled"] == "Delete":
            return [controller_reference(condemned)]
        return [controller_reference(self._set)] if policy["whenDeleted"] == "Delete" else []
