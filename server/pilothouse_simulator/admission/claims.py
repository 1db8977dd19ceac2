"""The rules of PersistentVolumeClaims, PersistentVolumes and StorageClasses: defaults, checks, growth.

`controllers.claims` binds claims to volumes and creates volumes for them; this module checks writes. Like the real
server, the refusal of a changed spec shows a diff of the spec with the field names of the server's Go structs.
"""

from __future__ import annotations

import difflib
import json
from decimal import Decimal
from typing import Any

from pilothouse_simulator.admission.validation_metadata import (
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.quantities import parse_quantity
from pilothouse_simulator.values.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    ResourceType,
)

JsonObject = dict[str, Any]

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"

_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_BINDING_MODES = ("Immediate", "WaitForFirstConsumer")
_IMMUTABLE_SPEC = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName "
    "for bound claims"
)
_NOT_RESIZABLE = (
    "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc "
    "must support resize"
)


def capacity_of(obj: JsonObject) -> Decimal:
    """Returns the bytes that a volume has, or that a bound claim got."""
    holder = obj["spec"] if obj["kind"] == PERSISTENT_VOLUMES.kind else obj.get("status") or {}
    return parse_quantity((holder.get("capacity") or {}).get("storage", "0"))


def request_of(claim: JsonObject) -> Decimal:
    """Returns the bytes that a claim requests."""
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return parse_quantity(requests.get("storage", "0"))


def apply_defaults(resource: ResourceType, obj: JsonObject) -> None:
    """Fills the defaults of one of the three kinds in place."""
    if resource is STORAGE_CLASSES:
        obj.setdefault("reclaimPolicy", "Delete")
        obj.setdefault("volumeBindingMode", "Immediate")
        return
    spec = obj.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    if resource is PERSISTENT_VOLUME_CLAIMS:
        spec.setdefault("resources", {})
    else:
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        if spec.get("hostPath") is not None:
            spec["hostPath"].setdefault("type", "")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def initialize(resource: ResourceType, obj: JsonObject) -> None:
    """Sets the initial fields of a new object in place: a finalizer that protects it while it is in use, and its
    first phase.
    """
    if resource is STORAGE_CLASSES:
        return
    finalizer = CLAIM_FINALIZER if resource is PERSISTENT_VOLUME_CLAIMS else VOLUME_FINALIZER
    finalizers = obj["metadata"].setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)
    obj["status"] = {"phase": "Pending"}
    if resource is PERSISTENT_VOLUMES:
        obj["status"]["lastPhaseTransitionTime"] = obj["metadata"]["creationTimestamp"]


def admit(store: ObjectStore, resource: ResourceType, obj: JsonObject, old: JsonObject | None) -> None:
    """Gives a new claim the default class. Raises 403 if an update enlarges a claim that cannot grow."""
    if resource is not PERSISTENT_VOLUME_CLAIMS:
        return
    if old is None:
        if "storageClassName" not in obj["spec"] and (default := _default_class(store)) is not None:
            obj["spec"]["storageClassName"] = default
        return
    if request_of(obj) <= request_of(old):
        return
    found = store.get(STORAGE_CLASSES, None, old["spec"].get("storageClassName") or "")
    if found is None or not found.get("allowVolumeExpansion"):
        raise api_errors.forbidden(resource, obj["metadata"]["name"], _NOT_RESIZABLE)


def _default_class(store: ObjectStore) -> str | None:
    """Returns the newest class that is marked as default."""
    marked = [
        entry
        for entry in store.list(STORAGE_CLASSES)
        if (entry["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    marked.sort(key=lambda entry: (entry["metadata"]["creationTimestamp"], entry["metadata"]["name"]))
    return str(marked[-1]["metadata"]["name"]) if marked else None


def validate_claim(obj: JsonObject) -> list[ErrorCause]:
    """Checks a claim."""
    spec = obj["spec"]
    causes = _validate_access_modes(spec.get("accessModes") or [])
    requests = (spec.get("resources") or {}).get("requests") or {}
    if "storage" not in requests:
        causes.append(required("spec.resources[storage]"))
    elif parse_quantity(requests["storage"]) <= 0:
        causes.append(
            invalid_value("spec.resources[storage]", requests["storage"], "must be greater than zero")
        )
    return causes


def validate_volume(obj: JsonObject) -> list[ErrorCause]:
    """Checks a volume."""
    spec = obj["spec"]
    causes = _validate_access_modes(spec.get("accessModes") or [])
    capacity = spec.get("capacity") or {}
    if "storage" not in capacity:
        causes.append(required("spec.capacity"))
    elif parse_quantity(capacity["storage"]) <= 0:
        causes.append(
            invalid_value("spec.capacity[storage]", capacity["storage"], "must be greater than zero")
        )
    path = (spec.get("hostPath") or {}).get("path", "")
    if ".." in path.split("/"):
        causes.append(invalid_value("spec.hostPath.path", path, "must not contain '..'"))
    return causes


def validate_class(obj: JsonObject) -> list[ErrorCause]:
    """Checks a storage class."""
    causes = [] if obj.get("provisioner") else [required("provisioner")]
    if obj["reclaimPolicy"] not in ("Delete", "Retain"):
        causes.append(not_supported("reclaimPolicy", obj["reclaimPolicy"], ("Delete", "Retain")))
    if obj["volumeBindingMode"] not in _BINDING_MODES:
        causes.append(not_supported("volumeBindingMode", obj["volumeBindingMode"], _BINDING_MODES))
    return causes


def claim_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks an update of a claim: only the requested size of a bound claim may change, and a smaller size must be
    above its capacity.
    """
    new_spec, old_spec = obj["spec"], old["spec"]
    bound = (old.get("status") or {}).get("phase") == "Bound"
    compared = dict(new_spec)
    # The binder writes the volume's name into a claim that has none.
    if not old_spec.get("volumeName"):
        compared.pop("volumeName", None)
    if bound:
        compared["resources"] = old_spec["resources"]
    if _go_text(compared) != _go_text(old_spec):
        difference = "".join(
            f"{line}\n"
            for line in list(difflib.unified_diff(_go_text(old_spec), _go_text(compared), lineterm=""))[2:]
        )
        return [forbidden_field("spec", f"{_IMMUTABLE_SPEC}\n{difference}")]
    if bound and request_of(obj) < request_of(old) and request_of(obj) <= capacity_of(old):
        message = "field can not be less than status.capacity"
        return [forbidden_field("spec.resources.requests.storage", message)]
    return []


def class_unchanged(obj: JsonObject, old: JsonObject) -> list[ErrorCause]:
    """Checks that an update does not change the fields of a class that determine how it provisions volumes."""
    return [
        forbidden_field(field, "updates to this field are forbidden.")
        for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode")
        if obj.get(field) != old.get(field)
    ]


def _validate_access_modes(modes: list[str]) -> list[ErrorCause]:
    if not modes:
        return [required("spec.accessModes", "at least 1 access mode is required")]
    return [
        not_supported("spec.accessModes", mode, _ACCESS_MODES) for mode in modes if mode not in _ACCESS_MODES
    ]


def _go_text(spec: JsonObject) -> list[str]:
    """Returns the spec of a claim as the server's Go struct prints it, line by line."""
    resources = spec.get("resources") or {}
    shown = {
        "AccessModes": spec.get("accessModes"),
        "Selector": spec.get("selector"),
        "Resources": {"Limits": resources.get("limits"), "Requests": resources.get("requests")},
        "VolumeName": spec.get("volumeName", ""),
        "StorageClassName": spec.get("storageClassName"),
        "VolumeMode": spec.get("volumeMode"),
        "DataSource": spec.get("dataSource"),
        "DataSourceRef": spec.get("dataSourceRef"),
        "VolumeAttributesClassName": spec.get("volumeAttributesClassName"),
    }
    return json.dumps(shown, indent=1).splitlines()
