"""Renders the spec of a container's pods: the part of `manifests` for pods.

The table of `pilothouse_manifests` has the key of each field. This module has the parts of a pod that are not fields of
a container: its volumes, and the ports that several Services share.

The pods of an imported Deployment keep the names and the order of their volumes, even if the volumes have other names
on the platform.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pilothouse_manifests.extra_fields import volumes_of
from pilothouse_manifests.fields import OneOf
from pilothouse_manifests.pod_volumes import POD_VOLUME
from pilothouse_manifests.table import CONTAINERS, MAIN_CONTAINER, POD, SIDECAR, VOLUME_SOURCES, VOLUMES
from pilothouse_manifests.writing import writer
from pilothouse_server.containers.model import (
    Container,
    ContainerSpec,
    EmptyDir,
    EnvVar,
    LifecycleHandler,
    MountedVolume,
    Port,
    Probe,
    Resources,
)
from pilothouse_server.containers.own_volumes import OwnVolume, ProjectedSource
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.values.names import is_pod_port_name
from pilothouse_server.values.volumes import VolumeMount


class CarriedVolume(msgspec.Struct, frozen=True, gc=False):
    """A volume whose source is one of the extra fields, which are written later."""

    name: str


_Volume = EmptyDir | MountedVolume | OwnVolume | CarriedVolume


class InPod(msgspec.Struct, gc=False):
    """A container with the ports that its pods declare, and with the names that its volumes have in the pods."""

    image: str
    env: tuple[EnvVar, ...]
    ports: tuple[Port, ...]
    volume_mounts: tuple[VolumeMount, ...]
    resources: Resources
    spec: ContainerSpec


def pod_spec(container: Container) -> Manifest:
    """Returns the pod template's spec."""
    names = _pod_names(container)
    in_pod = _in_pod(container, names)
    spec = _write_pod(in_pod)
    spec[CONTAINERS] = [_write_main(in_pod), *map(_write_sidecar, in_pod.spec.sidecars)]
    if names:
        spec[VOLUMES] = _volumes(container, names)
    return spec


def _place(name: str) -> str:
    return name if name.partition(".")[0] in InPod.__struct_fields__ else f"spec.{name}"


def _handler(_: OneOf, value: Probe | LifecycleHandler) -> tuple[str, Any]:
    return str(value.handler.__struct_config__.tag), value.handler


def _source(_: OneOf, holder: OwnVolume | ProjectedSource) -> tuple[str, Any]:
    return str(holder.source.__struct_config__.tag), holder.source


_write_pod = writer(POD, place=_place, choose=_handler)
_write_main = writer(MAIN_CONTAINER, place=_place, choose=_handler)
_write_sidecar = writer(SIDECAR, choose=_handler)
_write_own = writer(POD_VOLUME, choose=_source)
_write_source = {type_: (key, writer(part)) for type_, (key, part) in VOLUME_SOURCES.items()}


def _in_pod(container: Container, names: Mapping[str, str]) -> InPod:
    if container.spec.taken_over is not None and any(here != there for here, there in names.items()):
        container = container.changing_mounts(lambda mounts: _renamed(mounts, names))
    return InPod(
        container.image,
        container.env,
        _ports(container),
        container.volume_mounts,
        container.resources,
        container.spec,
    )


def _renamed(mounts: tuple[VolumeMount, ...], names: Mapping[str, str]) -> tuple[VolumeMount, ...]:
    # The cluster refuses a mount without a volume, with a message that names it.
    return tuple(
        msgspec.structs.replace(mount, volume=names.get(mount.volume, mount.volume)) for mount in mounts
    )


def _declared_ports(container: Container) -> Iterable[Port]:
    """Returns the ports that the pods declare: all, or for an imported workload those that it declared itself."""
    if container.spec.taken_over is None:
        return container.ports
    return (port for port in container.ports if port.service_type == "None")


def _ports(container: Container) -> tuple[Port, ...]:
    """Returns each (port, protocol) once: it is the list's key in server-side apply, and two Services may share it."""
    merged: dict[tuple[int, str], Port] = {}
    names: set[str] = set()
    for port in _declared_ports(container):
        key = (port.container_port, port.protocol)
        before = merged.get(key)
        # A name must be unique in the pod and shorter than on a Service.
        name = before.name if before is not None else ""
        if not name and port.name not in names and is_pod_port_name(port.name):
            name = port.name
            names.add(name)
        host_port = port.host_port if before is None or before.host_port is None else before.host_port
        merged[key] = Port(port.container_port, name=name, host_port=host_port, protocol=port.protocol)
    return tuple(merged.values())


def _all_volumes(container: Container) -> Iterator[_Volume]:
    yield from container.spec.empty_dirs
    yield from container.spec.pod_volumes
    yield from container.volumes
    if container.spec.extra_fields:
        yield from map(CarriedVolume, sorted(volumes_of(container.spec.extra_fields)))


def _volumes(container: Container, names: Mapping[str, str]) -> list[Manifest]:
    shown: dict[str, _Volume] = {each.name: each for each in _all_volumes(container)}
    return [_volume(name, shown[volume]) for volume, name in names.items()]


def _volume(name: str, volume: _Volume) -> Manifest:
    if isinstance(volume, CarriedVolume):
        return {"name": name}
    if isinstance(volume, OwnVolume):
        return {**_write_own(volume), "name": name}
    type_ = volume.type if isinstance(volume, MountedVolume) else "empty_dir"
    if type_ == "empty_dir" and isinstance(volume, MountedVolume):
        volume = EmptyDir(volume.name, volume.medium, volume.size)
    key, write = _write_source[type_]
    return {"name": name, key: write(volume)}


def _pod_names(container: Container) -> dict[str, str]:
    """Returns the volumes' names in the pods, by their names on the platform, in the order of the pods."""
    here = [each.name for each in _all_volumes(container)]
    taken_over = container.spec.taken_over
    brought = () if taken_over is None else taken_over.volumes
    names = {item.volume: item.name for item in brought if item.volume in here}
    for volume in here:
        if volume not in names:
            names[volume] = _free_name(volume, set(names.values()))
    return names


def _free_name(name: str, taken: set[str]) -> str:
    """Returns the name itself, or a numbered one if another volume of an imported pod has this name."""
    numbered = (f"{name[:60].rstrip('-')}-{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in numbered if each not in taken)
