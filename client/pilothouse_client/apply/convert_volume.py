"""A PersistentVolumeClaim, and the volumes of a pod.

On the platform volumes belong to the namespace, not to a pod, and containers mount them by their name there. A
claim keeps its own; what a pod's volume shows of a config map, a secret or the node becomes a volume whose name
follows from that source alone, so that pods that show the same share one, and a second apply finds it. An emptyDir
stays a part of its container.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pilothouse.container.v1 import container_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.apply import convert_container as one
from pilothouse_client.apply.fields import Fields, texts_of
from pilothouse_client.apply.manifest import DNS_LABEL, VolumeObject, metadata

_ACCESS_MODES = {
    "ReadWriteOnce": pb.ACCESS_MODE_READ_WRITE_ONCE,
    "ReadOnlyMany": pb.ACCESS_MODE_READ_ONLY_MANY,
    "ReadWriteMany": pb.ACCESS_MODE_READ_WRITE_MANY,
}
_SOURCES = ("persistentVolumeClaim", "configMap", "secret", "hostPath", "emptyDir")
# 0644, as YAML, JSON and people write it.
_DEFAULT_MODE = ("420", "0644", "0o644")
_LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class PodVolume:
    """What stands for a volume of a pod on the platform: its name there, and whether all its mounts are read-only."""

    name: str
    read_only: bool = False


@dataclass(slots=True)
class PodVolumes:
    """The volumes of one pod by their names in it, None for those that were reported; and what they imply."""

    by_name: dict[str, PodVolume | None]
    empty_dirs: list[container_pb2.EmptyDir]
    implied: list[VolumeObject]


def convert_claim(root: Fields, namespace: str) -> VolumeObject:
    """The claim that the document describes; whether it is usable says its reporter."""
    with root.fields("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        if stated.present and not re.fullmatch(DNS_LABEL, own.name):
            message = f"expected at most 63 lower-case letters, digits and '-', found {own.name!r}"
            root.reporter.invalid(stated.place_of("name"), stated.path_of("name"), message)
        if own.exported:
            # The cluster's own protection.
            stated.texts("finalizers")
    with root.fields("spec", required=True) as spec:
        spec.only_default("volumeMode", "Filesystem")
        if own.exported:
            # What the cluster had bound it to: a claim that is made anew gets storage of its own.
            spec.text("volumeName")
        with spec.fields("resources", required=True) as resources, resources.fields("requests") as requests:
            size = one.quantity(requests, "storage")
            if resources.present and not size:
                requests.reporter.invalid(
                    requests.place_of("storage"), requests.path_of("storage"), "expected a size, found none"
                )
        claim = pb.Volume(
            name=own.name,
            type=pb.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
            size=size,
            access_mode=_access_mode(spec),
            storage_class=_storage_class(spec),
            labels=texts_of(own.labels),
            annotations=texts_of(own.annotations),
        )
    return VolumeObject(root.place, root.reporter, claim)


def pod_volumes(pod: Fields) -> PodVolumes:
    """What the pod says of its volumes."""
    found = PodVolumes({}, [], [])
    for item in pod.items("volumes"):
        volume = item.fields()
        name = volume.text("name", required=True)
        others = [each for each in volume.names() if each not in ("name", *_SOURCES)]
        for other in others:
            volume.reporter.unsupported(volume.place_of(other), volume.path_of(other))
        sources = [each for each in _SOURCES if volume.has(each)]
        if len(sources) > 1:
            item.invalid(f"expected one source, found {' and '.join(sources)}")
        # A volume without a source is an emptyDir in Kubernetes, too.
        source = sources[0] if sources else "emptyDir"
        found.by_name[name] = None if others or len(sources) > 1 else _volume(volume, source, name, found)
    own = {folder.name for folder in found.empty_dirs}
    for name, volume_of in found.by_name.items():
        if volume_of is not None and volume_of.name in own and volume_of.name != name:
            message = (
                f"cannot be represented: volume {name!r} and an emptyDir are both called {volume_of.name!r}"
            )
            pod.reporter.unsupported(pod.place_of("volumes"), pod.path_of("volumes"), message)
            found.by_name[name] = None
    return found


def _volume(volume: Fields, source: str, name: str, found: PodVolumes) -> PodVolume | None:
    with volume.fields(source) as fields:
        match source:
            case "persistentVolumeClaim":
                return PodVolume(fields.text("claimName", required=True), bool(fields.boolean("readOnly")))
            case "configMap":
                return _files(fields, found, "configmap", pb.VOLUME_TYPE_CONFIG_MAP, "name")
            case "secret":
                return _files(fields, found, "secret", pb.VOLUME_TYPE_SECRET, "secretName")
            case "hostPath":
                fields.only_default("type", "")
                path = fields.text("path", required=True)
                implied = pb.Volume(type=pb.VOLUME_TYPE_HOST_PATH, host_path=path)
                return _implied(fields, found, _name("hostpath", path), implied)
            case _:
                medium = fields.text("medium")
                if medium not in ("", "Memory"):
                    fields.reporter.unsupported(fields.place_of("medium"), fields.path_of("medium"))
                    medium = ""
                limit = one.quantity(fields, "sizeLimit")
                found.empty_dirs.append(container_pb2.EmptyDir(name=name, medium=medium, size_limit=limit))
                return PodVolume(name)


def _files(
    fields: Fields, found: PodVolumes, word: str, type_: pb.VolumeType.ValueType, key: str
) -> PodVolume | None:
    fields.only_default("defaultMode", *_DEFAULT_MODE)
    fields.only_default("optional", "false")
    source = fields.text(key, required=True)
    if source and not re.fullmatch(DNS_LABEL, source):
        message = f"cannot be represented: the platform knows no {word} of the name {source!r}"
        fields.reporter.unsupported(fields.place_of(key), fields.path_of(key), message)
        return None
    return _implied(fields, found, _name(word, source), pb.Volume(type=type_, source_name=source))


def _implied(fields: Fields, found: PodVolumes, name: str, volume: pb.Volume) -> PodVolume:
    volume.name = name
    found.implied.append(VolumeObject(fields.place, fields.reporter, volume, implied=True))
    return PodVolume(name)


def _name(word: str, source: str) -> str:
    """The name of the volume that shows a source; where the source's own does not fit, by its digest."""
    name = f"{word}-{source}"
    if len(name) <= _LONGEST_NAME and re.fullmatch(DNS_LABEL, name):
        return name
    shown = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")[:40].strip("-")
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    return "-".join(part for part in (word, shown, digest) if part)


def _access_mode(spec: Fields) -> pb.AccessMode.ValueType:
    modes = spec.texts("accessModes")
    place, path = spec.place_of("accessModes"), spec.path_of("accessModes")
    if spec.present and not modes:
        spec.reporter.invalid(place, path, "expected an access mode, found none")
    elif len(modes) > 1:
        spec.reporter.unusable(place, path, f"cannot be represented: {len(modes)} access modes; expected one")
    elif modes and modes[0] not in _ACCESS_MODES:
        spec.reporter.unusable(place, path, f"cannot be represented: {modes[0]}")
    return _ACCESS_MODES.get(modes[0], pb.ACCESS_MODE_UNSPECIFIED) if modes else pb.ACCESS_MODE_UNSPECIFIED


def _storage_class(spec: Fields) -> str:
    item = spec.item("storageClassName")
    text = "" if item is None else item.text() or ""
    if item is not None and not text:
        # Left out it means the default class, empty it means none at all.
        message = "cannot be represented: a claim without any storage class"
        spec.reporter.unusable(item.place, item.path, message)
    return text
