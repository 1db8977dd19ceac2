"""Claims in scheduling: a pod waits for the claims that it mounts, and a claim may wait for its pod.

A claim whose class binds on first use records the node that was chosen for the pod. The pod is bound to the node once
the claim has its storage.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.controllers.claims import SELECTED_NODE, claims_of
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import PERSISTENT_VOLUME_CLAIMS, STORAGE_CLASSES

JsonObject = dict[str, Any]


def problem(store: ObjectStore, pod: JsonObject) -> str | None:
    """Returns why a pod's claims prevent its scheduling; None if they do not."""
    unbound = False
    for name in claims_of(pod):
        claim = store.get(PERSISTENT_VOLUME_CLAIMS, pod["metadata"]["namespace"], name)
        if claim is None:
            return f'persistentvolumeclaim "{name}" not found'
        if "deletionTimestamp" in claim["metadata"]:
            return f'persistentvolumeclaim "{name}" is being deleted'
        if claim["status"]["phase"] == "Lost":
            volume = claim["spec"].get("volumeName", "")
            return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
        unbound = unbound or (claim["status"]["phase"] != "Bound" and not _waits_for_pod(store, claim))
    return "pod has unbound immediate PersistentVolumeClaims" if unbound else None


def waiting(store: ObjectStore, pod: JsonObject) -> list[JsonObject]:
    """Returns the claims of a pod that have no storage yet."""
    found = (
        store.get(PERSISTENT_VOLUME_CLAIMS, pod["metadata"]["namespace"], name) for name in claims_of(pod)
    )
    return [claim for claim in found if claim is not None and claim["status"]["phase"] != "Bound"]


def select_node(store: ObjectStore, claims: list[JsonObject], node: str) -> None:
    """Writes the chosen node of a pod into its claims."""
    for claim in claims:
        if (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE) != node:
            changed = copy_json(claim)
            changed["metadata"].setdefault("annotations", {})[SELECTED_NODE] = node
            store.update(PERSISTENT_VOLUME_CLAIMS, changed, manager="kube-scheduler")


def _waits_for_pod(store: ObjectStore, claim: JsonObject) -> bool:
    storage_class = store.get(STORAGE_CLASSES, None, claim["spec"].get("storageClassName") or "")
    return storage_class is not None and storage_class["volumeBindingMode"] == "WaitForFirstConsumer"
