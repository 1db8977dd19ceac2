"""Converts a live pod template's spec to values of a container, by the tables of `pilothouse_manifests`.

The API server has written its defaults into a live object. A value that equals its default is left out here, so it
keeps its owner, and the platform's apply changes nothing.
"""

from __future__ import annotations

import msgspec

from pilothouse_manifests.fields import Check, FieldPart, OneOf, Values
from pilothouse_manifests.jobs import POD_OF_RUN
from pilothouse_manifests.pod_volumes import PROJECTED_SOURCE
from pilothouse_manifests.reading import Hooks, read, read_each
from pilothouse_manifests.sources import MappingSource, ObjectSource
from pilothouse_manifests.table import (
    CONTAINERS,
    INIT_CONTAINER,
    LIFECYCLE_HANDLER,
    MAIN_CONTAINER,
    POD,
    POD_PORT,
    PROBE,
    SIDECAR,
)
from pilothouse_manifests.volumes import CARRIED, PROGRAMS, devices_of, read_volumes
from pilothouse_server.containers.model import EmptyDir, MountedVolume, TakenOverVolume
from pilothouse_server.containers.own_volumes import ExistingClaim, OwnVolume
from pilothouse_server.storage.model import CLAIM
from pilothouse_server.values.image_reference import image_problem


class ImportedVolume(msgspec.Struct, frozen=True):
    """A pod's volume that becomes a volume of the namespace: its name in the pod, and its form here.

    `read_only`: the pod mounts the whole claim read-only.
    """

    name: str
    volume: MountedVolume
    read_only: bool = False


class ReadPod(msgspec.Struct, frozen=True):
    """The values of a pod. `values`: by field names of a container and its spec. `order`: all its volumes."""

    values: Values
    empty_dirs: tuple[EmptyDir, ...] = ()
    pod_volumes: tuple[OwnVolume, ...] = ()
    volumes: tuple[ImportedVolume, ...] = ()
    order: tuple[TakenOverVolume, ...] = ()


def read_pod(pod: ObjectSource, main: str = "", *, runs: bool = False) -> ReadPod:
    """Reads a pod template's spec; parts that cannot be represented are added to `pod.problems`.

    `main`: the name of its main program; by default the first one, which is also kubectl's default. `runs`: the pod is
    that of a Job, whose restart policy has been read already.
    """
    volumes = _volumes(pod)
    values = read(POD_OF_RUN if runs else POD, pod, _HOOKS) or {}
    programs = list(pod.each(CONTAINERS))
    if not all(each.present for each in programs):
        raise TypeError("a container is a mapping")
    named = [each for each in programs if each.peek("name") == main] or programs[:1]
    for of_main in read_each(MAIN_CONTAINER, named, _HOOKS):
        values |= of_main
    others = [each for each in programs if each not in named]
    values["sidecars"] = list(read_each(SIDECAR, others, _HOOKS))
    return msgspec.structs.replace(volumes, values=values)


def _with_image(container: Values, source: MappingSource) -> Values:
    if problem := image_problem(container.get("image", "")):
        source.unsupported("image", problem)
        return {**container, "image": ""}
    return container


def _with_choice(part: FieldPart, tag: str) -> Check:
    """Returns a check that turns the table's choice of fields into the model's single field; `tag` has the type."""
    found = next(entry for entry in part.entries if isinstance(entry, OneOf))

    def with_choice(values: Values, _: MappingSource) -> Values | None:
        for name, _key, _part in found.choices:
            if name in values:
                return {**values, found.name: {tag: name, **(values.pop(name) or {})}}
        return None

    return with_choice


_HOOKS: Hooks = {
    MAIN_CONTAINER: _with_image,
    SIDECAR: _with_image,
    INIT_CONTAINER: _with_image,
    PROBE: _with_choice(PROBE, "type"),
    LIFECYCLE_HANDLER: _with_choice(LIFECYCLE_HANDLER, "type"),
    PROJECTED_SOURCE: _with_choice(PROJECTED_SOURCE, "value_from"),
    POD_PORT: lambda port, _: {**port, "service_type": "None"},
}


def _volumes(pod: ObjectSource) -> ReadPod:
    """Returns the volumes that the model has, and the order of all. A folder of the node is not taken over."""
    empty_dirs: list[EmptyDir] = []
    pod_volumes: list[OwnVolume] = []
    volumes: list[ImportedVolume] = []
    order: list[TakenOverVolume] = []
    devices = devices_of(program for key in PROGRAMS for program in pod.peek(key, ()))
    for found in read_volumes(pod, _HOOKS):
        if found.type == CARRIED:
            order.append(TakenOverVolume(found.name, found.name))
        elif found.type == "host_path":
            found.item.unsupported(found.key)
        elif found.type == "empty_dir":
            empty_dirs.append(msgspec.convert({"name": found.name, **found.values}, EmptyDir))
            order.append(TakenOverVolume(found.name, found.name))
        elif found.type == CLAIM and found.name in devices:
            # The platform mounts claims as folders only, so a claim used as a device stays a volume of the pod.
            claim = ExistingClaim(found.values["kubernetes_name"], found.values.get("read_only", False))
            pod_volumes.append(OwnVolume(found.name, claim))
            order.append(TakenOverVolume(found.name, found.name))
        elif found.is_own:
            source = {"value_from": found.type, **found.values}
            pod_volumes.append(msgspec.convert({"name": found.name, "source": source}, OwnVolume))
            order.append(TakenOverVolume(found.name, found.name))
        elif found.type:
            values = dict(found.values)
            read_only = bool(values.pop("read_only", False))
            mounted = msgspec.convert({"name": found.volume, "type": found.type, **values}, MountedVolume)
            volumes.append(ImportedVolume(found.name, mounted, read_only))
            order.append(TakenOverVolume(found.name, found.volume))
    return ReadPod({}, tuple(empty_dirs), tuple(pod_volumes), tuple(volumes), tuple(order))
