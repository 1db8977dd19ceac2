"""Converts a live claim, ConfigMap or Secret to its form here: the inverses of `claims` and `manifest_config`.

Pure functions. A part that cannot be represented is reported by its path. No problem repeats a value of a Secret.
Annotations that tools write for their own use are not taken over. One of them is kubectl's copy of the last apply,
which contains a Secret's values.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pilothouse_manifests import table
from pilothouse_manifests.reading import read
from pilothouse_manifests.sources import ObjectSource
from pilothouse_manifests.volumes import DNS_SUBDOMAIN
from pilothouse_server.config.model import OPAQUE, ConfigMap, Kind, Secret, Values
from pilothouse_server.containers.model import MountedVolume
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.kubernetes.ownership import CONFIG_UID, DOMAIN
from pilothouse_server.storage.claims import VOLUME_UID
from pilothouse_server.storage.model import CLAIM, Volume
from pilothouse_server.values.volumes import widest_mode

Problems = tuple[str, ...]

_LONGEST_CLASS = 100
_NOTES = (
    f"{DOMAIN}/",
    "kubectl.kubernetes.io/",
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
)
_NAME = re.compile(DNS_SUBDOMAIN)
# Objects that a cluster or a package manager creates. They are recognized by name if the caller may not read the
# content.
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
# cert-manager renews its secrets, but sets no owner on them.
_RENEWED_BY = ("cert-manager.io/",)


def source_problem(kind: Kind, name: str) -> str:
    """Returns why a ConfigMap or Secret of this name is never imported; empty if it may be."""
    for made, why in _MADE_NAMES[kind]:
        if name.startswith(made):
            return f"{why}, and it is not imported"
    return (
        ""
        if _NAME.fullmatch(name)
        else "its name cannot be represented (lower-case letters, digits, '-' and '.', at most 253)"
    )


def read_claim(
    found: Manifest, mounted: MountedVolume, *, read_only: bool, orphans: Collection[str] = ()
) -> tuple[Volume, Problems]:
    """Returns the volume that takes over a claim. `read_only`: the pods mount the whole claim read-only.

    `orphans`, here and below: uids of objects that carry the platform's label but that the database does not know. A
    row made from an orphan keeps the uid in its label.
    """
    problems = _standing(found, VOLUME_UID, "a volume", orphans)
    with ObjectSource(found.get("spec"), "spec", problems) as spec:
        # The origin of the claim's storage no longer matters.
        spec.ignore("volumeName", "selector", "dataSource", "dataSourceRef", "volumeAttributesClassName")
        values = read(table.CLAIM, spec) or {}
        if len(values.get("storage_class", "")) > _LONGEST_CLASS:
            spec.unsupported("storageClassName", f"must have at most {_LONGEST_CLASS} characters")
    values["access_mode"] = widest_mode(values.get("access_modes", ()))
    if read_only and values["access_mode"] not in ("", "ReadOnlyMany"):
        problems.append(
            "the pods mount all of it read-only, which cannot be represented: set readOnly at the mounts"
        )
    metadata = found["metadata"]
    volume = Volume(
        uid=_uid(found, VOLUME_UID, orphans),
        name=mounted.name,
        type=CLAIM,
        kubernetes_name=metadata["name"],
        taken_over=metadata["uid"],
        **values,
        labels=_theirs(metadata.get("labels")),
        annotations=_theirs(metadata.get("annotations")),
    )
    return volume, _reported("PersistentVolumeClaim", metadata, problems)


def read_config_map(found: Manifest, orphans: Collection[str] = ()) -> tuple[ConfigMap, Problems]:
    """Returns the config map that takes over a ConfigMap."""
    problems = _standing(found, CONFIG_UID, "a config map", orphans)
    metadata = found["metadata"]
    config_map = ConfigMap(
        uid=_uid(found, CONFIG_UID, orphans),
        name=metadata["name"],
        taken_over=metadata["uid"],
        **(read(table.CONFIG_MAP, ObjectSource(found, "", [])) or {}),
        labels=_theirs(metadata.get("labels")),
        annotations=_theirs(metadata.get("annotations")),
    )
    return config_map, _reported("ConfigMap", metadata, problems)


def read_secret(found: Manifest, orphans: Collection[str] = ()) -> tuple[Secret, Values, Problems]:
    """Returns the secret that takes over a Secret, and separately its values, which are empty if there are problems."""
    problems = _standing(found, CONFIG_UID, "a secret", orphans)
    metadata, stated = found["metadata"], read(table.SECRET, ObjectSource(found, "", [])) or {}
    values, type_ = stated.pop("data", {}), stated.get("type", OPAQUE)
    if why := _MADE_TYPES.get(type_):
        problems.append(f"{why}, and it is not imported")
    secret = Secret(
        uid=_uid(found, CONFIG_UID, orphans),
        name=metadata["name"],
        taken_over=metadata["uid"],
        **{"type": type_, **stated},
        labels=_theirs(metadata.get("labels")),
        annotations=_theirs(metadata.get("annotations")),
    )
    return secret, {} if problems else values, _reported("Secret", metadata, problems)


def _uid(found: Manifest, label: str, orphans: Collection[str]) -> str:
    """Returns the uid in an orphan's label; empty for any other object, which gets a new uid."""
    metadata = found["metadata"]
    return str((metadata.get("labels") or {}).get(label, "")) if metadata["uid"] in orphans else ""


def _standing(found: Manifest, label: str, owner: str, orphans: Collection[str]) -> list[str]:
    """Returns why an object may not be taken over, regardless of its content."""
    metadata, problems = found["metadata"], []
    if metadata.get("deletionTimestamp"):
        problems.append("it is being deleted")
    if (metadata.get("labels") or {}).get(label) and metadata["uid"] not in orphans:
        problems.append(f"it belongs to {owner} that is not in this namespace (label {label})")
    problems += [
        f"{each.get('kind')} {each.get('name')} controls it, and would undo changes"
        for each in metadata.get("ownerReferences") or ()
        if each.get("controller")
    ]
    if any(key.startswith(_RENEWED_BY) for key in metadata.get("annotations") or {}):
        problems.append("cert-manager controls it, and would undo changes")
    return problems


def _reported(kind: str, metadata: Manifest, problems: list[str]) -> Problems:
    return tuple(f"{kind} {metadata['name']}: {problem}" for problem in problems)


def _theirs(values: Any) -> dict[str, str]:
    return {key: value for key, value in (values or {}).items() if not key.startswith(_NOTES)}
