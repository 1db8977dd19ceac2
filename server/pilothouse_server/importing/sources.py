"""From a live claim, ConfigMap or Secret to what stands for it here: the ways back of `claims` and `manifest_config`.

Pure functions. What cannot be represented is told by its path. No problem repeats a value of a Secret. Annotations that
tools keep for themselves stay theirs alone; kubectl's copy of the last apply among them, which holds a Secret's values.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from pilothouse_server.config.model import OPAQUE, ConfigMap, Kind, Secret, Values
from pilothouse_server.containers.model import MountedVolume
from pilothouse_server.importing.fields import Fields
from pilothouse_server.kubernetes.claims import VOLUME_UID
from pilothouse_server.kubernetes.manifest_config import CONFIG_UID, DOMAIN
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.storage.model import CLAIM, Volume
from pilothouse_server.values.volumes import AccessMode

Problems = tuple[str, ...]

_ACCESS_MODES: dict[str, AccessMode] = {
    "ReadWriteOnce": "ReadWriteOnce",
    "ReadOnlyMany": "ReadOnlyMany",
    "ReadWriteMany": "ReadWriteMany",
}
_LONGEST_CLASS = 100
_NOTES = (
    f"{DOMAIN}/",
    "kubectl.kubernetes.io/",
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# What a cluster or a package manager makes for itself; the names serve where nothing is to be read.
_MADE_TYPES = {
    "kubernetes.io/service-account-token": "it is a service account's token",
    "bootstrap.kubernetes.io/token": "it is a token for nodes",
    "helm.sh/release.v1": "it is Helm's record of a release",
}
_MADE_NAMES: dict[Kind, tuple[tuple[str, str], ...]] = {
    "config_map": (
        ("kube-root-ca.crt", "Kubernetes makes it"),
        ("openshift-service-ca.crt", "the cluster makes it"),
    ),
    "secret": (("sh.helm.release.v1.", "it is Helm's record of a release"),),
}
# It renews what it made, and does not say so by an owner.
_RENEWED_BY = ("cert-manager.io/",)


def source_problem(kind: Kind, name: str) -> str:
    """Why a ConfigMap or Secret of this name is never imported; empty where it may be."""
    for made, why in _MADE_NAMES[kind]:
        if name.startswith(made):
            return f"{why}, and it is not imported"
    return (
        ""
        if _LABEL.fullmatch(name)
        else "its name cannot be represented (letters, digits and '-', at most 63)"
    )


def read_claim(found: Manifest, mounted: MountedVolume, *, read_only: bool) -> tuple[Volume, Problems]:
    """The volume that takes a claim over. `read_only`: the pods say that it is mounted so as a whole."""
    problems = _standing(found, VOLUME_UID, "a volume")
    spec = Fields(found.get("spec"), "spec", problems)
    # Where its storage came from does not matter any more.
    spec.ignore("volumeName", "selector", "dataSource", "dataSourceRef", "volumeAttributesClassName")
    spec.ignore(volumeMode="Filesystem")
    size, storage_class = "", spec.text("storageClassName")
    if (resources := spec.part("resources")) is not None:
        if (requests := resources.part("requests")) is not None:
            size = requests.text("storage")
            requests.close()
        resources.close()
    modes = spec.texts("accessModes")
    access_mode = _ACCESS_MODES.get(modes[0]) if len(modes) == 1 else None
    if access_mode is None:
        spec.refuse("accessModes", f"{', '.join(modes) or 'none'} cannot be represented")
    elif read_only and access_mode != "ReadOnlyMany":
        problems.append(
            "the pods mount all of it read-only, which cannot be represented: say so at the mounts"
        )
    if len(storage_class) > _LONGEST_CLASS:
        spec.refuse("storageClassName", f"over {_LONGEST_CLASS} characters")
    spec.close()
    metadata = found["metadata"]
    volume = Volume(
        name=mounted.name,
        type=CLAIM,
        kubernetes_name=metadata["name"],
        taken_over=metadata["uid"],
        storage_class=storage_class,
        size=size,
        access_mode=access_mode or "",
        labels=_theirs(metadata.get("labels")),
        annotations=_theirs(metadata.get("annotations")),
    )
    return volume, _told("PersistentVolumeClaim", metadata, problems)


def read_config_map(found: Manifest) -> tuple[ConfigMap, Problems]:
    """The config map that takes a ConfigMap over."""
    problems = _standing(found, CONFIG_UID, "a config map")
    metadata = found["metadata"]
    config_map = ConfigMap(
        name=metadata["name"],
        taken_over=metadata["uid"],
        data=dict(found.get("data") or {}),
        binary_data=_decoded(found.get("binaryData")),
        immutable=bool(found.get("immutable")),
        labels=_theirs(metadata.get("labels")),
        annotations=_theirs(metadata.get("annotations")),
    )
    return config_map, _told("ConfigMap", metadata, problems)


def read_secret(found: Manifest) -> tuple[Secret, Values, Problems]:
    """The secret that takes a Secret over, and apart from it the values, which are none where there are problems."""
    problems = _standing(found, CONFIG_UID, "a secret")
    metadata, type_ = found["metadata"], str(found.get("type") or OPAQUE)
    if why := _MADE_TYPES.get(type_):
        problems.append(f"{why}, and it is not imported")
    secret = Secret(
        name=metadata["name"],
        taken_over=metadata["uid"],
        type=type_,
        immutable=bool(found.get("immutable")),
        labels=_theirs(metadata.get("labels")),
        annotations=_theirs(metadata.get("annotations")),
    )
    values = {} if problems else _decoded(found.get("data"))
    return secret, values, _told("Secret", metadata, problems)


def _standing(found: Manifest, label: str, owner: str) -> list[str]:
    """Why an object may not be taken over, whatever is in it."""
    metadata, problems = found["metadata"], []
    if metadata.get("deletionTimestamp"):
        problems.append("it is being deleted")
    if (metadata.get("labels") or {}).get(label):
        problems.append(f"it belongs to {owner} that is not here (label {label})")
    problems += [
        f"{each.get('kind')} {each.get('name')} controls it, and would fight for it"
        for each in metadata.get("ownerReferences") or ()
        if each.get("controller")
    ]
    if any(key.startswith(_RENEWED_BY) for key in metadata.get("annotations") or {}):
        problems.append("cert-manager controls it, and would fight for it")
    return problems


def _told(kind: str, metadata: Manifest, problems: list[str]) -> Problems:
    return tuple(f"{kind} {metadata['name']}: {problem}" for problem in problems)


def _theirs(values: Any) -> dict[str, str]:
    return {key: value for key, value in (values or {}).items() if not key.startswith(_NOTES)}


def _decoded(data: Any) -> dict[str, bytes]:
    return {key: base64.b64decode(text) for key, text in (data or {}).items()}
