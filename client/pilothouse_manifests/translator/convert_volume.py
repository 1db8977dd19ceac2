"""Converts a PersistentVolumeClaim, and the volumes of a pod.

On the platform, volumes belong to the namespace, not to a pod, and containers mount them by name. A claim keeps its
name. A pod's volume from a config map, a secret or the node becomes a volume whose name is derived from that source
alone, so that pods with the same source share one volume, and a second apply finds it. An emptyDir stays a part of its
container, and so does a volume with chosen keys, permission bits, projected sources, or fields of the pod.

Only the server knows whether a claim is a volume of the platform. A claim that only the cluster has is an existing
claim: a part of its container (`use_existing_claims`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse_manifests import volumes
from pilothouse_manifests.fields import Values
from pilothouse_manifests.reading import Hooks, read
from pilothouse_manifests.sources import MappingSource
from pilothouse_manifests.table import CLAIM, VOLUMES
from pilothouse_manifests.translator.fields import Fields, texts_of
from pilothouse_manifests.translator.manifest import ManifestWorkload, VolumeObject, metadata
from pilothouse_manifests.translator.nodes import Node, SequenceNode, plain
from pilothouse_manifests.volumes import CARRIED, DNS_LABEL, DNS_SUBDOMAIN, PROGRAMS, devices_of, read_volumes

# Fields of a claim that bind it to existing storage, or decide its content.
_OF_OTHERS = ("volumeName", "selector", "dataSource", "dataSourceRef", "volumeAttributesClassName")
_ACCESS_MODES = frozenset({"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"})
_ELSEWHERE = (
    "cannot be represented; `kubectl apply` the claim: pods mount it by its name, as an existing claim"
)


@dataclass(frozen=True, slots=True)
class ConvertedVolume:
    """The platform's volume for a volume of a pod: its name, and whether all its mounts are read-only."""

    name: str
    read_only: bool = False


@dataclass(slots=True)
class PodVolumes:
    """The volumes of one pod by their names in it, the volumes they imply, and the paths of reported volumes.

    `claims`: the pod's claims as existing claims, by their names on the platform.
    """

    by_name: dict[str, ConvertedVolume]
    reported: dict[str, str]
    empty_dirs: list[Values]
    own: list[Values]
    implied: list[VolumeObject]
    claims: dict[str, Values]


def convert_claim(root: Fields, namespace: str) -> VolumeObject:
    """Returns the claim of the document; its reporter shows whether it is usable."""
    with root.part("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not re.fullmatch(DNS_LABEL, own.name):
            stated.invalid(
                "name", f"expected at most 63 lower-case letters, digits and '-', found {own.name!r}"
            )
        if own.exported:
            # The cluster adds finalizers that protect the claim.
            stated.texts("finalizers")
    with root.part("spec", required=True) as spec:
        if own.exported:
            # The cluster had bound the claim to this volume; a claim that is created again gets new storage.
            spec.text("volumeName")
        for key in _OF_OTHERS:
            if spec.has(key) and not (own.exported and key == "volumeName"):
                spec.item(key)
                spec.unsupported(key, _ELSEWHERE)
        values = read(CLAIM, spec, _CLAIM_RULES) or {}
    claim = {
        **values,
        "name": own.name,
        "type": "persistent_volume_claim",
        "labels": texts_of(own.labels),
        "annotations": texts_of(own.annotations),
    }
    return VolumeObject(root.place, root.reporter, claim)


def _checked_claim(claim: Values, source: MappingSource) -> Values:
    for mode in claim.get("access_modes", ()):
        if mode not in _ACCESS_MODES:
            source.invalid("accessModes", f"expected a known access mode, found {mode!r}")
    if source.has("accessModes") and not claim.get("access_modes"):
        source.invalid("accessModes", "expected an access mode, found none")
    if claim.get("volume_mode") == "Filesystem":
        # The default is treated as if it were not stated.
        del claim["volume_mode"]
    if not source.has("resources"):
        if source.present:
            source.invalid("resources", "expected a value, found none")
    elif not claim.get("size"):
        source.invalid("resources.requests.storage", "expected a size, found none")
    if source.has("storageClassName") and not claim.get("storage_class"):
        # An absent class means the default class; an empty one means no class at all.
        source.unusable("storageClassName", f"a claim without any storage class {_ELSEWHERE}")
    return claim


_CLAIM_RULES: Hooks = {CLAIM: _checked_claim}


def pod_volumes(pod: Fields, templates: Iterable[str] = ()) -> PodVolumes:
    """Reads the volumes of a pod; `templates` are the names of the claims that it gets from claim templates."""
    found = PodVolumes({}, {}, [], [], [], {})
    carried: set[str] = set()
    # Most pods have no volumes, and converting their programs to plain values takes a tenth of a translation.
    devices = _devices(pod) if pod.has(VOLUMES) else frozenset()
    for stated in read_volumes(pod):
        if stated.type == CARRIED:
            carried.add(stated.name)
        volume = _volume(stated, found, devices) if stated.type else None
        if volume is None:
            found.reported[stated.name] = stated.item.path
        else:
            found.by_name[stated.name] = volume
    for name, claim in found.claims.items():
        of_claim = [key for key, volume in found.by_name.items() if volume.name == name]
        claim["read_only"] = all(found.by_name[key].read_only for key in of_claim)
        if claim["read_only"]:
            # The claim is read-only as a whole: see `use_existing_claims`.
            found.by_name |= dict.fromkeys(of_claim, ConvertedVolume(name))
    # A claim template overrides a volume of its name, as on the cluster.
    found.by_name |= {name: ConvertedVolume(name) for name in templates}
    own = carried | {each["name"] for each in (*found.empty_dirs, *found.own)}
    for name, volume_of in list(found.by_name.items()):
        if volume_of.name in own and volume_of.name != name:
            pod.unsupported(
                VOLUMES,
                f"cannot be represented: volume {name!r} would get the name {volume_of.name!r}, which another has",
            )
            found.reported[name] = pod.path_of(VOLUMES)
            del found.by_name[name]
    return found


def _devices(pod: Fields) -> frozenset[str]:
    return devices_of(
        program
        for key in PROGRAMS
        if key in pod.node.entries
        for program in _listed(pod.node.entries[key].value)
    )


def _listed(node: Node) -> list[Any]:
    return [plain(each) for each in node.items] if isinstance(node, SequenceNode) else []


def _volume(
    stated: volumes.PodVolume[Fields], found: PodVolumes, devices: Collection[str]
) -> ConvertedVolume | None:
    """Returns the converted volume of a pod; adds the objects that it implies to `found`."""
    if stated.type == CARRIED:
        return ConvertedVolume(stated.name)
    if stated.type == "empty_dir":
        found.empty_dirs.append({"name": stated.name, **stated.values})
        return ConvertedVolume(stated.name)
    if stated.type == "persistent_volume_claim":
        read_only = stated.values.get("read_only", False)
        name = stated.values.get("kubernetes_name", "")
        if stated.name in devices:
            # The platform mounts volumes as directories, not as devices.
            claim = {"claim_name": name, "read_only": read_only}
            found.own.append({"name": stated.name, "existing_claim": claim})
            return ConvertedVolume(stated.name)
        found.claims.setdefault(stated.volume, {"claim_name": name, "read_only": read_only})
        return ConvertedVolume(stated.volume, read_only)
    if stated.is_own:
        found.own.append({"name": stated.name, stated.type: stated.values})
        return ConvertedVolume(stated.name)
    shown = stated.values.get("source_name", "")
    if shown and not re.fullmatch(DNS_SUBDOMAIN, shown):
        word = stated.key.lower()
        key = "name" if stated.type == "config_map" else "secretName"
        stated.source.unsupported(
            key, f"cannot be represented: no {word} of the platform can have the name {shown!r}"
        )
        return None
    volume = {**stated.values, "name": stated.volume, "type": stated.type}
    found.implied.append(VolumeObject(stated.source.place, stated.source.reporter, volume, implied=True))
    return ConvertedVolume(stated.volume)


def use_existing_claims(workload: ManifestWorkload, known: Mapping[str, str]) -> list[str]:
    """Makes a workload mount its claims as volumes of the platform, or as existing claims if the platform lacks them.

    `known`: the names of volumes by the names of their claims on the cluster; an import gives a claim another name if a
    volume already has the claim's name. Returns the names of the existing claims.
    """
    container, existing = workload.values, []
    programs = (container, *container.get("sidecars", ()), *container.get("init_containers", ()))
    mounts = [mount for program in programs for mount in program.get("volume_mounts", ())]
    named = {name: [mount for mount in mounts if mount["volume"] == name] for name in workload.claims}
    own = {each["name"] for each in (*container["empty_dirs"], *container["pod_volumes"])}
    for name, claim in workload.claims.items():
        volume = known.get(claim["claim_name"])
        if volume is None:
            existing.append(claim["claim_name"])
            container["pod_volumes"] = [*container["pod_volumes"], {"name": name, "existing_claim": claim}]
            continue
        if volume in own:
            words = f"cannot be represented: claim {claim['claim_name']!r} is volume {volume!r} on the platform, but"
            workload.reporter.unusable(
                workload.place,
                "spec.template.spec.volumes",
                f"{words} another volume of the pod has this name",
            )
        for mount in named[name]:
            mount["volume"] = volume
            mount["read_only"] = mount["read_only"] or claim["read_only"]
    return existing


def use_present_names(claims: Iterable[VolumeObject], known: Mapping[str, str]) -> None:
    """Gives claims the names of the volumes that they already are; `known` as in `use_existing_claims`."""
    for claim in claims:
        claim.values["name"] = known.get(claim.name, claim.name)
