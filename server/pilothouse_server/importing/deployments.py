"""Converts a live workload, and the Services that select its pods, to a container: the inverse of `manifests`.

Pure functions. A field that the model lacks becomes an extra field of the container, by the function that `pilothouse
apply` uses. A part that cannot become one either is reported by its path; nothing is silently dropped. The workload
keeps its selector and its pods' labels (`TakenOver`): the selector is immutable, and changed labels would restart the
pods.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from pilothouse_manifests.cron_jobs import (
    CRON_JOB_TEMPLATE,
    JOB_METADATA,
    JOB_OF_CRON_JOB,
    JOB_TEMPLATE_KEY,
    SCHEDULE,
)
from pilothouse_manifests.extra_fields import carry
from pilothouse_manifests.fields import FieldPart, Values
from pilothouse_manifests.jobs import JOB_TEMPLATE, WRITTEN_LABELS
from pilothouse_manifests.reading import read
from pilothouse_manifests.services import HEADLESS, SPEC, TYPES, service_type
from pilothouse_manifests.sources import FOREIGN_ANNOTATIONS, INT32_MAXIMUM, ObjectSource
from pilothouse_manifests.table import SERVICE_PORT, key_of
from pilothouse_manifests.volumes import DNS_LABEL
from pilothouse_server.containers.job_status import RUN
from pilothouse_server.containers.manifests import NO_NODE, is_platforms
from pilothouse_server.containers.model import (
    Container,
    Port,
    TakenOver,
    TakenOverService,
)
from pilothouse_server.containers.workloads import WORKLOAD_KINDS, WorkloadType
from pilothouse_server.importing import unfit
from pilothouse_server.importing.pods import ReadPod, read_pod
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, DOMAIN, MANAGED_BY, MANAGER, NAME
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.values.resources import ContainerId, NamespaceRef
from pilothouse_server.values.volumes import VolumeMount

# Annotations that controllers and kubectl write on a workload for their own use.
NOTES = (
    "batch.kubernetes.io/",
    "deployment.kubernetes.io/",
    "deprecated.daemonset.template.generation",
    "kubectl.kubernetes.io/last-applied-configuration",
    f"{DOMAIN}/",
)

# Metadata keys of a pod template that have no effect: pods are named after their replica set.
_NAMES = ("name", "generateName")
# Metadata keys that other programs set for their own use.
_UNKEPT = ("finalizers", "ownerReferences")
# Required fields of a container that its pods do not determine.
_NOBODYS: Values = {
    "id": ContainerId(0),
    "uid": "",
    "name": "",
    "kubernetes_name": "",
    "image": "",
}
_LABEL = re.compile(DNS_LABEL)
# Fields of a Service that ports of a container have, or that the cluster chooses.
_OF_PORTS = frozenset({"type", "selector", "ports", "cluster_ip", "headless", "ip_families"})


class Converted(msgspec.Struct, frozen=True):
    """A container as far as it could be read. `problems`: why it cannot be taken over, by field.

    `left_alone`: Services that select its pods but are not taken over, and why. `left_there`: fields that stay on the
    cluster, and that a recreated Deployment would not have. `read_only`: volumes that the pods may not write to, even
    if a mount permits it.
    """

    container: Container
    problems: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()
    left_there: tuple[str, ...] = ()
    read_only: frozenset[str] = frozenset()


def convert(
    live: Manifest,
    services: Iterable[Manifest] = (),
    orphans: Collection[str] = (),
    *,
    main_program: str = "",
) -> Converted:
    """Reads a live workload, given as its whole JSON, and those of `services` that select its pods.

    `orphans`: uids of objects that carry the platform's label but that the database does not know. A container made
    from an orphan keeps the uid in its label. `main_program`: name of the main program; by default the first container.
    """
    problems: list[str] = []
    type_ = WORKLOAD_KINDS[live["kind"]]
    metadata = live["metadata"]
    extra_fields: dict[str, str] = {}
    left_there = [f"metadata.{key}" for key in _UNKEPT if metadata.get(key)]
    carries = partial(carry, extra_fields)
    with ObjectSource(live.get("spec"), "spec", problems, carries) as spec:
        rollout, template = _read_workload(type_, spec, main_program)
    main, selector = template.main, template.selector
    pod_labels, pod_annotations = template.labels, template.annotations
    labels = metadata.get("labels") or {}
    if type_.runs:
        # The API writes these labels again for each run.
        labels, pod_labels = _without_written(labels), _without_written(pod_labels)
        selector = {}
    left_there += template.left_there
    kubernetes_name = str(metadata["name"])
    replicas, stopped = rollout.get("replicas", 1), bool(rollout.get("suspended"))
    if type_.per_node:
        # One pod runs on each node. A stopped one has a node selector that the platform set, not the caller.
        replicas = (live.get("status") or {}).get("desiredNumberScheduled") or 1
        stopped = bool(main.values.get("node_selector", {}).pop(NO_NODE, ""))
    if replicas > INT32_MAXIMUM:
        problems.append(f"spec.replicas: more than {INT32_MAXIMUM}")
    described = msgspec.convert({**_NOBODYS, **main.values, "spec": main.values}, Container)
    taken_over, ports, left_alone = _services(services, pod_labels, described.ports, orphans)
    is_orphan = metadata.get("uid") in orphans
    run = int((metadata.get("annotations") or {}).get(RUN, 1)) if is_orphan else 1
    name = kubernetes_name.removesuffix(f"-{run}") if type_.runs and run > 1 else kubernetes_name
    container = msgspec.structs.replace(
        described,
        uid=str((metadata.get("labels") or {}).get(CONTAINER_UID, "")) if is_orphan else "",
        name=_name(name, problems),
        namespace_ref=NamespaceRef(kubernetes_name=str(metadata.get("namespace", ""))),
        kubernetes_name=kubernetes_name,
        ports=(*described.ports, *ports),
        volumes=tuple(sorted((item.volume for item in main.volumes), key=lambda volume: volume.name)),
        # A workload with zero replicas counts as stopped; starting it means one pod.
        replicas=replicas or 1,
        desired_state="stopped" if stopped or not replicas else "running",
        hold_rollout=rollout.get("hold_rollout", False),
        labels=_without_ours(labels) if is_orphan else _theirs(labels),
        annotations=_theirs(metadata.get("annotations")),
        spec=msgspec.structs.replace(
            described.spec,
            pod_labels=_without_platforms(pod_labels),
            pod_annotations=_without_platforms(pod_annotations),
            selector=_without_platforms(selector.get("matchLabels") or {}),
            workload=msgspec.convert({"type": type_.name, **rollout.get(type_.name, {})}, type_.settings),
            run=run,
            empty_dirs=main.empty_dirs,
            pod_volumes=main.pod_volumes,
            extra_fields=extra_fields,
            taken_over=TakenOver(
                deployment_uid=str(metadata.get("uid", "")),
                selector=selector,
                pod_labels=pod_labels,
                pod_annotations=pod_annotations,
                services=taken_over,
                volumes=main.order,
            ),
        ),
        imported=True,
    )
    _check_mounts(container, main, problems)
    problems += _standing(metadata, orphans)
    names = {item.name: item.volume.name for item in main.volumes}
    read_only = frozenset(item.volume.name for item in main.volumes if item.read_only)
    return Converted(
        _with_mounts(container, names), tuple(problems), left_alone, tuple(left_there), read_only
    )


class _Template(msgspec.Struct):
    main: ReadPod
    selector: Manifest
    labels: dict[str, str]
    annotations: dict[str, str]
    left_there: list[str]


def _read_workload(type_: WorkloadType, spec: ObjectSource, main_program: str) -> tuple[Values, _Template]:
    """Returns the settings in a workload's spec, and its pod template."""
    if not type_.scheduled:
        settings = read(type_.part, spec) or {}
        selector = spec.take("selector", {})
        template = _read_template(spec, main_program, JOB_TEMPLATE if type_.runs else None, settings)
        template.selector = selector
        return settings, template
    settings = read(SCHEDULE, spec) or {}
    with spec.part(JOB_TEMPLATE_KEY) as jobs:
        with jobs.part("metadata") as metadata:
            _merge(settings, read(JOB_METADATA, metadata) or {})
        with jobs.part("spec") as of_job:
            _merge(settings, read(JOB_OF_CRON_JOB, of_job) or {})
            return settings, _read_template(of_job, main_program, CRON_JOB_TEMPLATE, settings)


def _read_template(
    spec: ObjectSource, main_program: str, more: FieldPart | None, settings: Values
) -> _Template:
    """Returns the pod template. `more`: settings of the workload that are in the template; they join `settings`."""
    with spec.part("template") as template:
        with template.part("metadata") as metadata:
            labels, annotations = metadata.words("labels"), metadata.words("annotations")
            left_there = [f"{metadata.path}.{key}" for key in _NAMES if metadata.has(key)]
            metadata.ignore("creationTimestamp", *_NAMES)
        with template.part("spec") as pod:
            if more is not None:
                _merge(settings, read(more, pod) or {})
            main = read_pod(pod, main_program, runs=more is not None)
    return _Template(main, {}, labels, annotations, left_there)


def _merge(into: Values, values: Values) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _without_written(labels: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in labels.items() if key not in WRITTEN_LABELS}


def selects(service: Manifest, pod_labels: dict[str, str]) -> bool:
    """Returns whether a Service selects pods with these labels."""
    selector = service.get("spec", {}).get("selector") or {}
    return bool(selector) and all(pod_labels.get(key) == value for key, value in selector.items())


def without_services(converted: Converted, reasons: dict[str, str]) -> Converted:
    """Returns the container without some Services; `reasons`: why each is left alone, by name."""
    container, taken_over = converted.container, converted.container.spec.taken_over
    assert taken_over is not None
    kept = tuple(service for service in taken_over.services if service.name not in reasons)
    spec = msgspec.structs.replace(
        container.spec, taken_over=msgspec.structs.replace(taken_over, services=kept)
    )
    ports = tuple(port for port in container.ports if port.service_name not in reasons)
    left = (*converted.left_alone, *(f"Service {name}: {why}" for name, why in reasons.items()))
    return msgspec.structs.replace(
        converted, container=msgspec.structs.replace(container, spec=spec, ports=ports), left_alone=left
    )


def with_volume_names(container: Container, names: Mapping[str, str]) -> Container:
    """Returns the container with volumes renamed by `names`, old name to new; its pods keep their volume names."""
    taken_over = container.spec.taken_over
    assert taken_over is not None
    order = tuple(
        msgspec.structs.replace(item, volume=names.get(item.volume, item.volume))
        for item in taken_over.volumes
    )
    volumes = (
        msgspec.structs.replace(volume, name=names.get(volume.name, volume.name))
        for volume in container.volumes
    )
    spec = msgspec.structs.replace(
        container.spec, taken_over=msgspec.structs.replace(taken_over, volumes=order)
    )
    changed = msgspec.structs.replace(
        container, spec=spec, volumes=tuple(sorted(volumes, key=lambda volume: volume.name))
    )
    return _with_mounts(changed, names)


def _with_mounts(container: Container, names: Mapping[str, str]) -> Container:
    def named(mounts: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
        return tuple(
            msgspec.structs.replace(mount, volume=names.get(mount.volume, mount.volume)) for mount in mounts
        )

    return container.changing_mounts(named)


def _standing(metadata: Manifest, orphans: Collection[str]) -> list[str]:
    """Returns why a workload may not be taken over, regardless of its content."""
    problems = []
    if metadata.get("deletionTimestamp"):
        problems.append("metadata.deletionTimestamp: it is being deleted")
    if (metadata.get("labels") or {}).get(CONTAINER_UID) and metadata.get("uid") not in orphans:
        problems.append(f"metadata.labels.{CONTAINER_UID}: it belongs to a container already")
    problems += [
        f"metadata.ownerReferences: {owner.get('kind')} {owner.get('name')} controls it, and would undo changes"
        for owner in metadata.get("ownerReferences") or ()
        if owner.get("controller")
    ]
    return problems


def _name(kubernetes_name: str, problems: list[str]) -> str:
    name = kubernetes_name.replace(".", "-")
    if not _LABEL.fullmatch(name):
        problems.append(f"metadata.name: {kubernetes_name} is not a container name (at most 63 characters)")
    return name


def _without_ours(labels: Any) -> dict[str, str]:
    """Returns the labels of an orphan without those that the platform set."""
    theirs = _theirs(labels)
    if theirs.get(MANAGED_BY) == MANAGER:
        theirs = {key: text for key, text in theirs.items() if key not in (MANAGED_BY, NAME)}
    return theirs


def _without_platforms(values: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in values.items() if not is_platforms(key)}


def _theirs(values: Any) -> dict[str, str]:
    return {key: value for key, value in (values or {}).items() if not key.startswith(NOTES)}


def _check_mounts(container: Container, main: ReadPod, problems: list[str]) -> None:
    """Checks that mounts and volumes match. A mount of an unrepresentable volume adds no second problem."""
    own = container.spec.own_volumes
    known = own | {item.name for item in main.volumes}
    mounted = {mount.volume for mount in container.all_mounts}
    told = " ".join(problems)
    here: dict[str, str] = {}
    for item in main.volumes:
        at, called = f"spec.template.spec.volumes[{item.name}]", item.volume.name
        if item.name not in mounted:
            problems.append(f"{at}: no container mounts it")
        if called in here:
            problems.append(f"{at}: its name on the platform would be that of volume {here[called]}, too")
        if called in own:
            problems.append(
                f"{at}: its name on the platform would be {called}, but another volume of the pods has that name"
            )
        here[called] = item.name
    problems += [
        f"volumeMounts[{mount.mount_path}]: there is no volume {mount.volume}"
        for mount in container.all_mounts
        if mount.volume not in known and f"volumes[{mount.volume}]" not in told
    ]


class _LeftAloneError(Exception):
    """The reason why a Service on the cluster is not taken over."""


def _services(
    services: Iterable[Manifest],
    pod_labels: dict[str, str],
    declared: tuple[Port, ...],
    orphans: Collection[str],
) -> tuple[tuple[TakenOverService, ...], tuple[Port, ...], tuple[str, ...]]:
    found: list[TakenOverService] = []
    ports: list[Port] = []
    left_alone: list[str] = []
    for service in services:
        if not selects(service, pod_labels):
            continue
        try:
            read, of_service = _service(service, declared, orphans)
        except _LeftAloneError as why:
            left_alone.append(f"Service {service['metadata']['name']}: {why}")
            continue
        except (AttributeError, LookupError, TypeError, ValueError):
            left_alone.append(f"Service {service['metadata']['name']}: a part of it cannot be represented")
            continue
        found.append(read)
        ports += of_service
    return tuple(found), tuple(ports), tuple(left_alone)


def _service(
    service: Manifest, declared: tuple[Port, ...], orphans: Collection[str]
) -> tuple[TakenOverService, list[Port]]:
    """Reads a Service. Raises _LeftAloneError with the reason if it is not taken over."""
    if told := unfit.problems(service):
        raise _LeftAloneError(told[0])
    metadata, spec = service["metadata"], service["spec"]
    kind = _kind(metadata, spec, orphans)
    stated = _theirs(metadata.get("annotations"))
    annotations = {key: text for key, text in stated.items() if key not in FOREIGN_ANNOTATIONS}
    ports, target_ports = [], {}
    for entry in spec.get("ports") or ():
        # Any other field of a port is left alone: the dry run shows whether the platform's apply would change it.
        port = read(SERVICE_PORT, ObjectSource(entry, "", []))
        if port is None:
            raise _LeftAloneError(f"port {entry['port']}: protocol {entry['protocol']} cannot be represented")
        if target := port.pop("target_name", ""):
            target_ports[f"{port['protocol']}/{port['service_port']}"] = target
        container_port = _target(port, target, declared)
        described = {
            **port,
            "container_port": container_port,
            "service_name": metadata["name"],
            "service_type": kind,
            "service_annotations": annotations,
        }
        ports.append(msgspec.convert(described, Port))
    if not ports:
        raise _LeftAloneError("it has no ports")
    return TakenOverService(metadata["name"], dict(spec["selector"]), target_ports), ports


def _kind(metadata: Manifest, spec: Manifest, orphans: Collection[str]) -> str:
    """Returns the platform's word for a Service's type.

    Raises _LeftAloneError if the Service is not taken over, regardless of its ports.
    """
    labels = metadata.get("labels") or {}
    if labels.get(CONTAINER_UID) and metadata.get("uid") not in orphans:
        raise _LeftAloneError("it belongs to a container already")
    if labels.get(SERVICE_UID) and not labels.get(CONTAINER_UID):
        raise _LeftAloneError("it is a Service of the platform already")
    if metadata.get("deletionTimestamp"):
        raise _LeftAloneError("it is being deleted")
    for name in read(SPEC, ObjectSource(spec, "spec", [])) or {}:
        if name not in _OF_PORTS:
            key = key_of(SPEC, name)
            raise _LeftAloneError(
                f"spec.{key}: ports of a container have no such field; import it as a Service"
            )
    kind = service_type(spec.get("type", ""), spec.get("clusterIP", ""))
    if not _LABEL.fullmatch(metadata["name"]) or kind not in (*TYPES, HEADLESS):
        raise _LeftAloneError(f"a Service of type {kind} cannot be represented")
    return kind


def _target(port: Values, target: str, declared: tuple[Port, ...]) -> int:
    number, protocol = port["service_port"], port["protocol"]
    if not target:
        return int(port.get("container_port") or number)
    for each in declared:
        if each.name == target and each.protocol == protocol:
            return each.container_port
    raise _LeftAloneError(f"port {number}: the pods have no port of this protocol named {target}")
