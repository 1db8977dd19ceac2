"""The history of a workload's templates: the ControllerRevisions of StatefulSets and DaemonSets.

A port of `pkg/controller/history` of Kubernetes. A revision contains a template; its name is that of the owner and a
hash. A template that is used again reuses its old revision, with the next number.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    ObjectIndex,
    controller_of,
    key_of,
    matches_selector,
)
from pilothouse_simulator.controllers.deployments_scaling import template_hash
from pilothouse_simulator.controllers.replica_sets import controller_reference
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import CONTROLLER_REVISIONS

JsonObject = dict[str, Any]
Revisions = list[JsonObject]

REVISION_LABEL = "controller-revision-hash"
HASH_LABEL = "controller.kubernetes.io/hash"


def owned_revisions(store: ObjectStore, index: ObjectIndex, owner: JsonObject) -> Revisions:
    """Returns the revisions of a workload, oldest first. Adopts selected revisions that have no controller.

    The workload must not be in deletion.
    """
    uid = owner["metadata"]["uid"]
    owned = [
        revision
        for revision in index.dependents(uid, CONTROLLER_REVISIONS)
        if (reference := controller_of(revision)) is not None and reference["uid"] == uid
    ]
    for orphan in index.uncontrolled(CONTROLLER_REVISIONS, owner["metadata"]["namespace"]):
        labels = orphan["metadata"].get("labels") or {}
        if "deletionTimestamp" not in orphan["metadata"] and matches_selector(
            owner["spec"]["selector"], labels
        ):
            adopted = copy_json(orphan)
            adopted["metadata"].setdefault("ownerReferences", []).append(controller_reference(owner))
            owned.append(store.update(CONTROLLER_REVISIONS, adopted, manager=CONTROLLER_MANAGER))
    return sorted(owned, key=lambda entry: (entry["revision"], entry["metadata"]["creationTimestamp"]))


def update_revision(
    store: ObjectStore,
    owner: JsonObject,
    revisions: Revisions,
    collisions: int,
    *,
    hash_label: str = HASH_LABEL,
) -> tuple[JsonObject, int]:
    """Returns the revision of the owner's current template, and the new collision count.

    A new template gets a new revision. If an older revision has the same template, that revision gets the next number.
    `hash_label` is the label with the hash of the revision.
    """
    data = {"spec": {"template": {"$patch": "replace", **copy_json(owner["spec"]["template"])}}}
    number = revisions[-1]["revision"] + 1 if revisions else 1
    equal = [entry for entry in revisions if entry["data"] == data]
    if equal and equal[-1] is revisions[-1]:
        return equal[-1], collisions
    if equal:
        changed = copy_json(equal[-1])
        changed["revision"] = number
        return store.update(CONTROLLER_REVISIONS, changed, manager=CONTROLLER_MANAGER), collisions
    while True:
        revision_hash = template_hash(data, collisions)
        metadata = {
            "name": f"{owner['metadata']['name']}-{revision_hash}",
            "namespace": owner["metadata"]["namespace"],
            "labels": {
                **(owner["spec"]["template"]["metadata"].get("labels") or {}),
                hash_label: revision_hash,
            },
            "ownerReferences": [controller_reference(owner)],
        }
        if owner["metadata"].get("annotations"):
            metadata["annotations"] = dict(owner["metadata"]["annotations"])
        body = {"metadata": metadata, "data": data, "revision": number}
        try:
            return store.create(CONTROLLER_REVISIONS, body, manager=CONTROLLER_MANAGER), collisions
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            collisions += 1


def template_of(revision: JsonObject) -> JsonObject:
    """Returns the pod template in a revision."""
    template: JsonObject = copy_json(revision["data"]["spec"]["template"])
    template.pop("$patch", None)
    return template


def trim_history(store: ObjectStore, revisions: Revisions, live: set[str], limit: int) -> None:
    """Deletes the oldest revisions beyond the limit. Revisions in `live`, which pods or the status name, stay."""
    spare = [entry for entry in revisions if entry["metadata"]["name"] not in live]
    for entry in spare[: max(0, len(spare) - limit)]:
        store.delete(CONTROLLER_REVISIONS, *key_of(entry))
