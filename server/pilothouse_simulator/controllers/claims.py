"""The storage controller: binds claims to volumes, creates volumes, and protects both while they are in use.

A claim gets the smallest free volume of its class that is large enough. If there is none, its class provisions one,
immediately (`Immediate`) or when the scheduler has chosen a node for a pod that uses the claim
(`WaitForFirstConsumer`). A claim that grows, in a class that allows it, is enlarged after a moment. A deleted claim
keeps its finalizer until no scheduled pod uses it; its volume is then released or deleted, depending on its reclaim
policy.

Provisioned volumes have no files: the simulated pods do not read their volumes.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.admission.claims import (
    CLAIM_FINALIZER,
    DEFAULT_CLASS,
    VOLUME_FINALIZER,
    capacity_of,
    request_of,
)
from pilothouse_simulator.controllers.controller import CONTROLLER_MANAGER, Controller, Key, key_of
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)

JsonObject = dict[str, Any]

PROVISIONER = "simulate.pilothouse.dev/provisioner"
STANDARD_CLASS = "standard"
SELECTED_NODE = "volume.kubernetes.io/selected-node"

_NO_PROVISIONER = "kubernetes.io/no-provisioner"
_BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
_BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_BINDER = "persistentvolume-controller"
_PROVISION_SECONDS = 0.5
_RESIZE_SECONDS = 0.5
_RECLAIM_SECONDS = 0.2
_CLAIM, _VOLUME = "claim", "volume"
WorkKey = tuple[str, str, str]


def create_storage_classes(store: ObjectStore) -> None:
    """Creates the class of a new cluster: it provisions on demand, and its claims can grow."""
    store.create(
        STORAGE_CLASSES,
        {
            "metadata": {"name": STANDARD_CLASS, "annotations": {DEFAULT_CLASS: "true"}},
            "provisioner": PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        },
    )


def claims_of(pod: JsonObject) -> list[str]:
    """Returns the names of the claims that a pod mounts."""
    return [
        str(volume["persistentVolumeClaim"]["claimName"])
        for volume in pod["spec"].get("volumes") or []
        if volume.get("persistentVolumeClaim")
    ]


class StorageController(Controller[WorkKey]):
    """Syncs claims and volumes; the key is which of the two, namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is PERSISTENT_VOLUME_CLAIMS:
            self._note(_CLAIM, key_of(event.object))
            if event.type == "DELETED" and (name := event.object["spec"].get("volumeName")):
                self.enqueue((_VOLUME, "", name), after=_RECLAIM_SECONDS)
        elif event.resource is PERSISTENT_VOLUMES:
            self._note(_VOLUME, key_of(event.object))
            reference = event.object["spec"].get("claimRef")
            if reference:
                self._note(_CLAIM, (reference["namespace"], reference["name"]))
            else:
                self._look_at_pending(event.object["spec"].get("storageClassName"))
        elif event.resource is STORAGE_CLASSES:
            self._look_at_pending(event.object["metadata"]["name"])
        elif event.resource is PODS and event.type == "DELETED":
            for name in claims_of(event.object):
                self._note(_CLAIM, (event.object["metadata"]["namespace"], name))

    def sync(self, key: WorkKey) -> None:
        """Reconciles one claim or volume with its spec."""
        kind, namespace, name = key
        if kind == _VOLUME:
            volume = self.store.get(PERSISTENT_VOLUMES, None, name)
            if volume is not None:
                self._sync_volume(volume)
            return
        claim = self.store.get(PERSISTENT_VOLUME_CLAIMS, namespace, name)
        if claim is None:
            return
        if "deletionTimestamp" in claim["metadata"]:
            self._let_go(claim)
        elif claim["status"]["phase"] == "Bound":
            self._sync_bound(claim)
        elif claim["status"]["phase"] == "Pending":
            self._sync_pending(claim)

    def _note(self, kind: str, key: Key) -> None:
        self.enqueue((kind, *key))

    def _look_at_pending(self, storage_class: str | None) -> None:
        for claim in self.store.list(PERSISTENT_VOLUME_CLAIMS):
            if (
                claim["status"]["phase"] == "Pending"
                and claim["spec"].get("storageClassName") == storage_class
            ):
                self._note(_CLAIM, key_of(claim))

    # Claims

    def _sync_pending(self, claim: JsonObject) -> None:
        volume = self._volume_for(claim)
        if volume is not None:
            self._bind(claim, volume)
            return
        name = claim["spec"].get("storageClassName")
        if claim["spec"].get("volumeName"):
            return
        if not name:
            message = "no persistent volumes available for this claim and no storage class is set"
            self._record_event(claim, "FailedBinding", message)
            return
        storage_class = self.store.get(STORAGE_CLASSES, None, name)
        if storage_class is None:
            message = f'storageclass.storage.k8s.io "{name}" not found'
            self._record_event(claim, "ProvisioningFailed", message, warning=True)
            return
        annotations = claim["metadata"].get("annotations") or {}
        if storage_class["volumeBindingMode"] == "WaitForFirstConsumer" and SELECTED_NODE not in annotations:
            message = "waiting for first consumer to be created before binding"
            self._record_event(claim, "WaitForFirstConsumer", message)
            return
        provisioner = storage_class["provisioner"]
        if provisioner == PROVISIONER:
            self._provision(claim, storage_class)
        elif provisioner == _NO_PROVISIONER:
            self._record_event(claim, "FailedBinding", "no persistent volumes available for this claim")
        else:
            message = (
                f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually "
                "by the system administrator. If volume creation is delayed, please verify that the provisioner is "
                "running and correctly registered."
            )
            self._record_event(claim, "ExternalProvisioning", message)

    def _volume_for(self, claim: JsonObject) -> JsonObject | None:
        """Returns the volume reserved for the claim, or the smallest free volume that suits it."""
        spec = claim["spec"]
        free = []
        for volume in self.store.list(PERSISTENT_VOLUMES):
            if "deletionTimestamp" in volume["metadata"]:
                continue
            reference = volume["spec"].get("claimRef")
            if reference is not None:
                if reference.get("uid") == claim["metadata"]["uid"]:
                    return volume
                continue
            if spec.get("volumeName", volume["metadata"]["name"]) == volume["metadata"]["name"] and _suits(
                claim, volume
            ):
                free.append(volume)
        return min(free, key=lambda volume: (capacity_of(volume), volume["metadata"]["name"]), default=None)

    def _bind(self, claim: JsonObject, volume: JsonObject) -> None:
        """Binds with four writes, like the real controller: volume, its status, claim, its status."""
        if "claimRef" not in volume["spec"]:
            changed = copy_json(volume)
            changed["spec"]["claimRef"] = _reference(claim)
            changed["metadata"].setdefault("annotations", {})[_BOUND_BY_CONTROLLER] = "yes"
            volume = self.store.update(PERSISTENT_VOLUMES, changed, manager=CONTROLLER_MANAGER)
        self._set_volume_phase(volume, "Bound")
        changed = copy_json(claim)
        annotations = changed["metadata"].setdefault("annotations", {})
        annotations[_BIND_COMPLETED] = "yes"
        if "volumeName" not in changed["spec"]:
            changed["spec"]["volumeName"] = volume["metadata"]["name"]
            annotations[_BOUND_BY_CONTROLLER] = "yes"
        changed = copy_json(self.store.update(PERSISTENT_VOLUME_CLAIMS, changed, manager=CONTROLLER_MANAGER))
        changed["status"] = {
            "phase": "Bound",
            "accessModes": volume["spec"]["accessModes"],
            "capacity": {"storage": volume["spec"]["capacity"]["storage"]},
        }
        self.store.update_status(PERSISTENT_VOLUME_CLAIMS, changed, CONTROLLER_MANAGER)

    def _provision(self, claim: JsonObject, storage_class: JsonObject) -> None:
        uid = claim["metadata"]["uid"]
        created = claim["metadata"].get("annotations") or {}
        if "volume.kubernetes.io/storage-provisioner" not in created:
            changed = copy_json(claim)
            changed["metadata"].setdefault("annotations", {})["volume.kubernetes.io/storage-provisioner"] = (
                storage_class["provisioner"]
            )
            self.store.update(PERSISTENT_VOLUME_CLAIMS, changed, manager=CONTROLLER_MANAGER)
            self.enqueue((_CLAIM, *key_of(claim)), after=_PROVISION_SECONDS)
            return
        name = f"pvc-{uid}"
        volume = {
            "metadata": {"name": name, "annotations": {_PROVISIONED_BY: storage_class["provisioner"]}},
            "spec": {
                "capacity": dict(claim["spec"]["resources"]["requests"]),
                "accessModes": claim["spec"]["accessModes"],
                "volumeMode": claim["spec"]["volumeMode"],
                "claimRef": _reference(claim),
                "storageClassName": storage_class["metadata"]["name"],
                "persistentVolumeReclaimPolicy": storage_class["reclaimPolicy"],
                "csi": {"driver": storage_class["provisioner"], "volumeHandle": name},
            },
        }
        if self.store.get(PERSISTENT_VOLUMES, None, name) is None:
            self.store.create(PERSISTENT_VOLUMES, volume, manager=CONTROLLER_MANAGER)
        self._record_event(claim, "ProvisioningSucceeded", f"Successfully provisioned volume {name}")

    def _sync_bound(self, claim: JsonObject) -> None:
        volume = self.store.get(PERSISTENT_VOLUMES, None, claim["spec"].get("volumeName", ""))
        if volume is None:
            changed = copy_json(claim)
            changed["status"] = {"phase": "Lost"}
            self.store.update_status(PERSISTENT_VOLUME_CLAIMS, changed, CONTROLLER_MANAGER)
            message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            self._record_event(claim, "ClaimLost", message, warning=True)
            return
        if request_of(claim) <= capacity_of(claim) or "csi" not in volume["spec"]:
            return
        if not claim["status"].get("conditions"):
            changed = copy_json(claim)
            now = format_time(self.clock.now())
            condition = {
                "type": "Resizing",
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": now,
            }
            changed["status"]["conditions"] = [condition]
            self.store.update_status(PERSISTENT_VOLUME_CLAIMS, changed, CONTROLLER_MANAGER)
            self._record_event(
                claim, "Resizing", f"External resizer is resizing volume {volume['metadata']['name']}"
            )
            self.enqueue((_CLAIM, *key_of(claim)), after=_RESIZE_SECONDS)
            return
        capacity = dict(claim["spec"]["resources"]["requests"])
        enlarged = copy_json(volume)
        enlarged["spec"]["capacity"] = capacity
        self.store.update(PERSISTENT_VOLUMES, enlarged, manager=CONTROLLER_MANAGER)
        changed = copy_json(claim)
        changed["status"]["capacity"] = capacity
        del changed["status"]["conditions"]
        self.store.update_status(PERSISTENT_VOLUME_CLAIMS, changed, CONTROLLER_MANAGER)
        self._record_event(claim, "VolumeResizeSuccessful", "Resize volume succeeded")

    def _let_go(self, claim: JsonObject) -> None:
        """Removes the protection finalizer from a claim that no scheduled pod uses."""
        namespace, name = key_of(claim)
        finalizers = claim["metadata"].get("finalizers") or []
        if CLAIM_FINALIZER not in finalizers:
            return
        for pod in self.store.list(PODS, namespace):
            if pod["spec"].get("nodeName") and name in claims_of(pod):
                return
        changed = copy_json(claim)
        changed["metadata"]["finalizers"] = [entry for entry in finalizers if entry != CLAIM_FINALIZER]
        self.store.update(PERSISTENT_VOLUME_CLAIMS, changed, manager=CONTROLLER_MANAGER)

    # Volumes

    def _sync_volume(self, volume: JsonObject) -> None:
        phase, reference = volume["status"]["phase"], volume["spec"].get("claimRef")
        if "deletionTimestamp" in volume["metadata"]:
            if phase != "Bound":
                changed = copy_json(volume)
                finalizers = [
                    each for each in volume["metadata"].get("finalizers") or [] if each != VOLUME_FINALIZER
                ]
                changed["metadata"]["finalizers"] = finalizers
                self.store.update(PERSISTENT_VOLUMES, changed, manager=CONTROLLER_MANAGER)
            return
        if reference is None:
            self._set_volume_phase(volume, "Available")
            self._look_at_pending(volume["spec"].get("storageClassName"))
            return
        claim = self.store.get(PERSISTENT_VOLUME_CLAIMS, reference["namespace"], reference["name"])
        if claim is not None and claim["metadata"]["uid"] == reference.get("uid"):
            return
        if reference.get("uid"):
            self._set_volume_phase(volume, "Released")
            if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                self.store.delete(PERSISTENT_VOLUMES, None, volume["metadata"]["name"])

    def _set_volume_phase(self, volume: JsonObject, phase: str) -> None:
        if volume["status"]["phase"] == phase:
            return
        changed = copy_json(volume)
        changed["status"] = {"phase": phase, "lastPhaseTransitionTime": format_time(self.clock.now())}
        self.store.update_status(PERSISTENT_VOLUMES, changed, CONTROLLER_MANAGER)

    def _record_event(self, claim: JsonObject, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.record(
            PERSISTENT_VOLUME_CLAIMS, claim, reason, message, component=_BINDER, warning=warning
        )


def _suits(claim: JsonObject, volume: JsonObject) -> bool:
    wanted, offered = claim["spec"], volume["spec"]
    return (
        (wanted.get("storageClassName") or "") == (offered.get("storageClassName") or "")
        and set(wanted["accessModes"]) <= set(offered["accessModes"])
        and wanted["volumeMode"] == offered["volumeMode"]
        and request_of(claim) <= capacity_of(volume)
        and volume["status"]["phase"] in ("Pending", "Available")
    )


def _reference(claim: JsonObject) -> JsonObject:
    metadata = claim["metadata"]
    return {
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "apiVersion": "v1",
        "resourceVersion": metadata["resourceVersion"],
    }
