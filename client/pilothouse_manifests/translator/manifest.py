"""The documents as values, before the server is called: workloads, services and accounts are still separate.

A Kubernetes Deployment does not refer to the Services in front of it, but a platform container does. `attach` joins
them, for which it may need containers that are already on the server. This module has the state before that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pilothouse_manifests.fields import Values
from pilothouse_manifests.services import HEADLESS, TYPES
from pilothouse_manifests.sources import FOREIGN_ANNOTATIONS, LAST_APPLIED
from pilothouse_manifests.translator.fields import Fields, TextEntry
from pilothouse_manifests.translator.nodes import InputPosition
from pilothouse_manifests.translator.ordering import DocumentOrder
from pilothouse_manifests.translator.problems import Reporter


@dataclass(frozen=True, slots=True)
class DeclaredPort:
    """A port that a container's pod declares; `name` may be empty, `host_port` 0."""

    number: int
    protocol: str
    name: str = ""
    host_port: int = 0


@dataclass(frozen=True, slots=True)
class VolumeObject:
    """A volume: a PersistentVolumeClaim, or a volume that a pod implies."""

    place: InputPosition
    reporter: Reporter
    values: Values
    implied: bool = False

    @property
    def name(self) -> str:
        return str(self.values["name"])


@dataclass(slots=True)
class ManifestWorkload:
    """A workload as a container without ports; later problems go to its reporter, too."""

    place: InputPosition
    reporter: Reporter
    values: Values
    declared: list[DeclaredPort]
    pod_labels: dict[str, str]
    # The volumes that its pods imply: config maps, secrets and directories of the node to mount.
    volumes: list[VolumeObject] = field(default_factory=list)
    # The claims that its pods mount, as existing claims, by their names on the platform.
    claims: dict[str, Values] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.values["name"])


@dataclass(frozen=True, slots=True)
class ManifestServicePort:
    """One port of a Service; `target` is a number or the name of a declared port."""

    place: InputPosition
    path: str
    name: str
    number: int
    target: int | str
    protocol: str
    node_port: int
    app_protocol: str


@dataclass(slots=True)
class ManifestService:
    """A Service, as values of `network.v1.Service`; `spec` and `target_ports` have the positions of its fields.

    The properties are the Service's short form, as ports of a container.
    """

    place: InputPosition
    reporter: Reporter
    values: Values
    labels: dict[str, TextEntry]
    spec: Fields
    target_ports: list[tuple[InputPosition, str]]

    @property
    def name(self) -> str:
        return str(self.values["name"])

    @property
    def service_type(self) -> str:
        return HEADLESS if self.values.get("headless") else str(self.values.get("type", TYPES[0]))

    @property
    def selector(self) -> dict[str, str]:
        return dict(self.values.get("selector", {}))

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.values["annotations"])

    @property
    def ports(self) -> list[ManifestServicePort]:
        return [
            ManifestServicePort(
                *at,
                name=port.get("name", ""),
                number=port["port"],
                target=_number_or_name(port.get("target", "")) or port["port"],
                protocol=port["protocol"],
                node_port=port.get("node_port", 0),
                app_protocol=port.get("app_protocol", ""),
            )
            for at, port in zip(self.target_ports, self.values.get("ports", ()), strict=True)
        ]


def _number_or_name(target: str) -> int | str:
    return int(target) if target.isdigit() else target


@dataclass(frozen=True, slots=True)
class ManifestConfig:
    """A ConfigMap (`kind` is `config_map`) or a Secret (`secret`)."""

    place: InputPosition
    reporter: Reporter
    kind: Literal["config_map", "secret"]
    values: Values

    @property
    def name(self) -> str:
        return str(self.values["name"])


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """An object that the platform carries unchanged; `document` is its JSON."""

    place: InputPosition
    reporter: Reporter
    api_version: str
    kind: str
    name: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RefusedWorkload:
    """A document with a pod template that cannot be applied: problems of its Services follow from that."""

    subject: str
    pod_labels: dict[str, str]


@dataclass(slots=True)
class Manifest:
    """The input of one `apply`, in the given order; `refused` are workloads that cannot be applied.

    `orders`: the order of documents in an application, by group, kind and name, unless it is simply wave 0.
    `waves_ignored`: documents name waves, but the input is not a whole application.
    """

    workloads: list[ManifestWorkload] = field(default_factory=list)
    services: list[ManifestService] = field(default_factory=list)
    objects: list[ManifestObject] = field(default_factory=list)
    configs: list[ManifestConfig] = field(default_factory=list)
    claims: list[VolumeObject] = field(default_factory=list)
    refused: list[RefusedWorkload] = field(default_factory=list)
    orders: dict[tuple[str, str, str], DocumentOrder] = field(default_factory=dict)
    waves_ignored: bool = False

    @property
    def volumes(self) -> list[VolumeObject]:
        """The claims, and the volumes that the workloads' pods imply."""
        return [*self.claims, *(volume for workload in self.workloads for volume in workload.volumes)]


_SET_BY_SERVER = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Name, labels and annotations of one object; `exported`: a cluster wrote the document and filled in values."""

    name: str
    labels: dict[str, TextEntry]
    annotations: dict[str, TextEntry]
    exported: bool = False


def metadata(fields: Fields, namespace: str) -> Metadata:
    """Reads the metadata of an object or pod template.

    `namespace` is the one that is applied to."""
    exported = fields.has("uid")
    for name in _SET_BY_SERVER:
        fields.drop(name)
    stated = fields.text("namespace")
    if stated and stated != namespace:
        message = f"expected {namespace!r}, the namespace of this command, or nothing; found {stated!r}"
        place, path = fields.place_of("namespace"), fields.path_of("namespace")
        fields.reporter.invalid(place, path, message, group=f"namespace {stated}")
    annotations = fields.text_map("annotations")
    for key in FOREIGN_ANNOTATIONS:
        if annotations.pop(key, None) is not None and key == LAST_APPLIED:
            # It repeats the whole document, the values of a secret among them.
            fields.reporter.dropped.append(f"{fields.path_of('annotations')}[{key}]")
    return Metadata(fields.text("name"), fields.text_map("labels"), annotations, exported)
