"""Converts messages to Kubernetes objects that `pilothouse apply` accepts: `-o manifest`.

The table of `pilothouse_manifests` has the names, as for the server and for `apply`. Fields that only a cluster or the
platform sets are left out: status, the platform's labels, and the selector by uid. The manifest selects pods by the
container's name instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.apply.messages import values
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.errors import PilothouseError
from pilothouse_manifests import extra_fields
from pilothouse_manifests.cron_jobs import CRON_JOB_SETTINGS, JOB_TEMPLATE_KEY
from pilothouse_manifests.fields import FieldPart, OneOf
from pilothouse_manifests.jobs import JOB_SETTINGS, NEVER, RESTART_POLICY
from pilothouse_manifests.pod_volumes import POD_VOLUME
from pilothouse_manifests.services import HEADLESS, SPEC, TYPES, is_pod_port_name
from pilothouse_manifests.table import (
    CLAIM,
    CONFIG_MAP,
    CONTAINERS,
    DEPLOYMENT_SETTINGS,
    MAIN_CONTAINER,
    POD,
    SIDECAR,
    VOLUME_SOURCES,
    VOLUMES,
)
from pilothouse_manifests.translator.attach import NO_SERVICE
from pilothouse_manifests.workloads import DAEMON_SET, STATEFUL_SET_SETTINGS
from pilothouse_manifests.writing import Manifest, Write, writer

NAME_LABEL = "app.kubernetes.io/name"
_NO_ADDRESS = "None"
_WORKLOADS: dict[str, tuple[str, str, FieldPart]] = {
    "deployment": ("apps/v1", "Deployment", DEPLOYMENT_SETTINGS),
    "stateful_set": ("apps/v1", "StatefulSet", STATEFUL_SET_SETTINGS),
    "daemon_set": ("apps/v1", "DaemonSet", DAEMON_SET),
    "job": ("batch/v1", "Job", JOB_SETTINGS),
    "cron_job": ("batch/v1", "CronJob", CRON_JOB_SETTINGS),
}
_SCALED = ("deployment", "stateful_set")


class _Said:
    """The values of a message as attributes, which the table's writers read.

    An absent part is None."""

    def __init__(self, descriptor: Descriptor | Any, said: dict[str, Any]) -> None:
        self.descriptor, self.said = descriptor, said

    def at(self, path: str) -> Any:
        """Returns the value at a path with dots; for an unset field, the value that an empty message has."""
        name, _, rest = path.partition(".")
        field = self.descriptor.fields_by_name.get(name)
        if field is None:
            # The message has no field of this name: some fields of the table have another name in the message.
            return self.said.get(name)
        if rest:
            return _Said(field.message_type, self.said.get(name, {})).at(rest)
        value = self.said.get(name)
        of_type = field.message_type
        if of_type is None or of_type.GetOptions().map_entry:
            return _unset(field) if value is None else value
        if field.is_repeated:
            return [_Said(of_type, each) for each in value or ()]
        return None if value is None else _Said(of_type, value)

    def __getattr__(self, name: str) -> Any:
        return self.at(name)


def _unset(field: Any) -> Any:
    if field.is_repeated:
        return {} if field.message_type is not None else []
    if field.has_presence:
        return None
    return "" if field.enum_type is not None else field.default_value


def _choose(choice: OneOf, value: _Said) -> tuple[str, Any]:
    name = next(name for name, _, _ in choice.choices if name in value.said)
    return name, value.at(name)


def _at(name: str) -> str:
    return f"at({name!r})"


def _writer(part: FieldPart) -> Write:
    return writer(part, place=_at, inner_place=_at, choose=_choose)


def _said(message: Message) -> _Said:
    return _Said(message.DESCRIPTOR, values(message))


class OwnedServiceError(CommandError):
    """The Service follows from the ports of a container, and is a part of the container's manifest."""

    def __init__(self, service: network_pb2.Service) -> None:
        words = f"Service {service.name} is created from the ports of container {service.owner}"
        super().__init__(f"{words}, whose manifest contains it: pilothouse containers get {service.owner}", 2)


def manifests_of(message: Message) -> list[Manifest]:
    """Returns the objects for a message; for a container, its workload and the Services that its ports create.

    Raises:
        CommandError: the message has no form in Kubernetes, or one that could not be applied.
    """
    if isinstance(message, pb.Container):
        return [_workload(message), *_services_of(message)]
    if isinstance(message, network_pb2.Service):
        if message.owner:
            raise OwnedServiceError(message)
        return [_service(message)]
    if isinstance(message, config_pb2.ConfigMap):
        return [
            {"apiVersion": "v1", "kind": "ConfigMap", **_metadata(message), **_write_config(_said(message))}
        ]
    if isinstance(message, storage_pb2.Volume) and message.type in (
        storage_pb2.VOLUME_TYPE_UNSPECIFIED,
        storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
    ):
        spec = _write_claim(_said(message))
        return [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", **_metadata(message), "spec": spec}]
    if isinstance(message, object_pb2.Object) and message.document:
        document: Manifest = json.loads(message.document)
        return [{"apiVersion": message.api_version, "kind": message.kind, **document, **_metadata(message)}]
    if isinstance(message, config_pb2.Secret):
        raise CommandError("a secret has no manifest, because its values are not shown", 2)
    if isinstance(message, object_pb2.Object):
        raise CommandError("a list does not contain the documents of objects; use: pilothouse objects get", 2)
    raise CommandError(f"a {message.DESCRIPTOR.name} has no manifest; use -o yaml or -o json", 2)


def _metadata(message: Any, name: str = "") -> Manifest:
    stated: Manifest = {"name": name or message.name}
    if message.labels:
        stated["labels"] = dict(message.labels)
    if message.annotations:
        stated["annotations"] = dict(message.annotations)
    return {"metadata": stated}


_write_config, _write_claim, _write_service = map(_writer, (CONFIG_MAP, CLAIM, SPEC))
_write_pod, _write_main, _write_sidecar = map(_writer, (POD, MAIN_CONTAINER, SIDECAR))
_write_pod_volume = _writer(POD_VOLUME)
_write_source = {type_: (key, _writer(part)) for type_, (key, part) in VOLUME_SOURCES.items()}


def _workload(container: pb.Container) -> Manifest:
    kind = container.WhichOneof("workload") or "deployment"
    api_version, of_kubernetes, part = _WORKLOADS[kind]
    said = _said(container)
    spec = _writer(part)(said)
    if kind in _SCALED and container.HasField("replicas"):
        spec["replicas"] = container.replicas
    labels = {NAME_LABEL: container.name, **container.pod_labels}
    stated: Manifest = {"labels": labels}
    if container.pod_annotations:
        stated["annotations"] = dict(container.pod_annotations)
    template = {"metadata": stated, "spec": _pod_spec(container, said)}
    manifest = {"apiVersion": api_version, "kind": of_kubernetes, **_metadata(container), "spec": spec}
    if kind == "cron_job":
        template["spec"][RESTART_POLICY] = container.cron_job.job.restart_policy or NEVER
        spec.setdefault(JOB_TEMPLATE_KEY, {}).setdefault("spec", {})["template"] = template
    else:
        spec["template"] = template
    if kind == "job":
        template["spec"][RESTART_POLICY] = container.job.restart_policy or NEVER
    elif kind != "cron_job":
        spec["selector"] = {"matchLabels": dict(container.selector) or {NAME_LABEL: labels[NAME_LABEL]}}
    for path, text in container.extra_fields.items():
        extra_fields.write(manifest, extra_fields.parse(path), json.loads(text))
    return manifest


def _pod_spec(container: pb.Container, said: _Said) -> Manifest:
    main = _write_main(said)
    main.setdefault("name", container.name)
    main.pop("ports", None)
    if ports := _declared(container):
        main["ports"] = ports
    spec = _write_pod(said)
    spec[CONTAINERS] = [main, *map(_write_sidecar, said.sidecars)]
    if volumes := list(_volumes(container, said)):
        spec[VOLUMES] = volumes
    return spec


def _declared(container: pb.Container) -> list[Manifest]:
    """Returns the ports that the pods declare, each once; several Services may lead to one."""
    found: dict[tuple[int, int], Manifest] = {}
    for port in container.ports:
        protocol = port.protocol or pb.PROTOCOL_TCP
        declared = found.setdefault((port.container_port, protocol), {"containerPort": port.container_port})
        taken = {each.get("name") for each in found.values()}
        if "name" not in declared and is_pod_port_name(port.name) and port.name not in taken:
            declared["name"] = port.name
        if port.host_port:
            declared["hostPort"] = port.host_port
        if protocol != pb.PROTOCOL_TCP:
            declared["protocol"] = _word(pb.Protocol, protocol)
    return list(found.values())


def _word(of_enum: Any, number: int) -> str:
    return str(of_enum.Name(number).removeprefix(of_enum.Name(0).removesuffix("UNSPECIFIED")))


def _volumes(container: pb.Container, said: _Said) -> Iterator[Manifest]:
    """Yields the volumes of the pods: the container's own, and the namespace's volumes that it mounts."""
    own = {each.name for each in container.pod_volumes} | {each.name for each in container.empty_dirs}
    own |= set(extra_fields.volumes_of(dict(container.extra_fields)))
    own |= {each.name for each in container.stateful_set.claim_templates}
    key, write_empty = _write_source["empty_dir"]
    for each in said.empty_dirs:
        yield {"name": each.name, key: write_empty(each)}
    yield from map(_write_pod_volume, said.pod_volumes)
    programs: list[Any] = [container, *container.init_containers, *container.sidecars]
    mounted = {mount.volume: None for program in programs for mount in program.volume_mounts}
    for name in mounted:
        if name not in own:
            volume = _volume(container.namespace, name)
            type_ = str(_said(volume).type or "persistent_volume_claim")
            key, write = _write_source[type_]
            yield {"name": name, key: write(_said(volume))}


def _volume(namespace: str, name: str) -> storage_pb2.Volume:
    """Returns the volume of the namespace; a volume that cannot be read counts as a claim of its name."""
    from pilothouse_client.commands.invocation import connected

    found = storage_pb2.Volume(name=name)
    client = connected.get()
    if client is not None:
        with suppress(PilothouseError):
            found = client.storage.get_volume(namespace=namespace, name=name)
    found.kubernetes_name = found.kubernetes_name or name
    return found


def _service(service: network_pb2.Service) -> Manifest:
    said = _said(service)
    spec = _write_service(said)
    if service.containers:
        spec["selector"] = {NAME_LABEL: service.containers[0]}
    for port, message in zip(spec.get("ports", ()), service.ports, strict=True):
        if target := message.target:
            port["targetPort"] = int(target) if target.isdecimal() else target
    if service.headless:
        spec["clusterIP"] = _NO_ADDRESS
    return {"apiVersion": "v1", "kind": "Service", **_metadata(service), "spec": spec}


def _services_of(container: pb.Container) -> Iterator[Manifest]:
    """Yields the Services that a container's ports create, each with its ports."""
    services: dict[str, network_pb2.Service] = {}
    for port in container.ports:
        type_ = _said(port).service_type or TYPES[0]
        if type_ == NO_SERVICE:
            continue
        name = port.service_name or container.name
        service = services.setdefault(
            name,
            network_pb2.Service(
                name=name,
                annotations=port.service_annotations,
                headless=type_ == HEADLESS,
                selector=dict(container.selector) or {NAME_LABEL: container.name},
            ),
        )
        if type_ not in (HEADLESS, TYPES[0]):
            service.type = network_pb2.ServiceType.Value(
                f"SERVICE_TYPE_{'NODE_PORT' if type_ == 'NodePort' else 'LOAD_BALANCER'}"
            )
        service.ports.add(
            name=port.name,
            port=port.service_port or port.container_port,
            target=str(port.container_port),
            protocol=network_pb2.Protocol.ValueType(port.protocol),
            node_port=port.node_port,
            app_protocol=port.app_protocol,
        )
    yield from map(_service, services.values())
