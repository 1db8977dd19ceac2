"""The values of a container, independent of how it is stored, sent or run.

`Container` is one immutable value: the repository builds it from rows, operations change it with
`msgspec.structs.replace`, messages turn it into protobuf, and `containers.manifests` turns it into Kubernetes objects.
The part of a container that no column needs (`ContainerSpec`) is stored as one JSON document with the shape of this
module: fields may be added with a default, never renamed. Quantities are Kubernetes quantities in normalised form;
an empty string means that the field is not set, as in the API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Literal

import msgspec

from pilothouse_manifests.extra_fields import volumes_of
from pilothouse_server.containers.own_volumes import OwnVolume, ValueFrom
from pilothouse_server.containers.workload_settings import (
    DeploymentSettings,
    StatefulSetSettings,
    WorkloadKind,
    WorkloadSettings,
)
from pilothouse_server.values.actors import TriggeredBy
from pilothouse_server.values.cached_message import CachedMessage
from pilothouse_server.values.programs import ProgramStatus
from pilothouse_server.values.resources import Condition, ContainerId, Reconciled
from pilothouse_server.values.volumes import AccessMode, VolumeMount, VolumeType

Status = Literal["pending", "running", "paused", "stopped", "failed", "crash_loop_back_off", "succeeded"]
DesiredState = Literal["running", "stopped", "paused"]
DriftPolicy = Literal["repair", "report", "adopt"]
ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer", "Headless", "None"]


_MANY_VARIABLES = 200


class Value(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=False, gc=False):
    """Base of every part of a container: immutable, and small as JSON because defaults are left out."""


class EnvVar(Value, frozen=True):
    name: str
    value: str = ""
    value_from: ValueFrom = "literal"
    source_name: str = ""
    source_key: str = ""
    optional: bool = False
    divisor: str = ""
    external: bool = False


class EnvFrom(Value, frozen=True):
    """All keys of a config map or secret as variables."""

    value_from: ValueFrom
    source_name: str
    prefix: str = ""
    optional: bool = False
    external: bool = False


class Port(Value, frozen=True):
    """One row of `port_mappings`, and its Service's annotations from the document.

    If `service_type` is "None", there is no Service, and `service_name`, `service_port` and `service_annotations` are
    unset.
    """

    container_port: int
    name: str = ""
    host_port: int | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"
    service_name: str = ""
    service_port: int | None = None
    node_port: int | None = None
    service_type: ServiceType = "ClusterIP"
    app_protocol: str = ""
    service_annotations: dict[str, str] = {}


class MountedVolume(Value, frozen=True):
    """The fields of a namespace's volume that are needed to mount it into pods.

    `kubernetes_name` is the claim's name on the cluster, `source_name` that of the config map or secret.
    """

    name: str
    type: VolumeType
    kubernetes_name: str = ""
    source_name: str = ""
    host_path: str = ""
    medium: str = ""
    size: str = ""
    access_mode: AccessMode | Literal[""] = ""
    optional: bool = False
    external: bool = False

    @property
    def read_only(self) -> bool:
        """Returns whether nobody may write to it, even if the mount permits it."""
        return self.access_mode == "ReadOnlyMany"


class EmptyDir(Value, frozen=True):
    name: str
    medium: str = ""
    size_limit: str = ""
    mode: int | None = None


class Resources(Value, frozen=True):
    """Requests and limits. Each resource is either in its own field, or in the maps under its Kubernetes name."""

    cpu_request: str = ""
    cpu_limit: str = ""
    memory_request: str = ""
    memory_limit: str = ""
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}

    def request(self, resource: Literal["cpu", "memory"]) -> str:
        """Returns the request of a resource, from its field or the map."""
        return getattr(self, f"{resource}_request") or self.requests.get(resource, "")

    def limit(self, resource: Literal["cpu", "memory"]) -> str:
        """Returns the limit of a resource, from its field or the map."""
        return getattr(self, f"{resource}_limit") or self.limits.get(resource, "")

    def each_once(self) -> Resources:
        """Returns the same resources without those map items whose own fields are set."""
        found = {
            kind: {key: each for key, each in amounts.items() if not getattr(self, f"{key}_{field}", "")}
            for kind, field, amounts in (
                ("requests", "request", self.requests),
                ("limits", "limit", self.limits),
            )
        }
        return msgspec.structs.replace(self, **found)


class HttpHeader(Value, frozen=True):
    name: str
    value: str = ""


class HttpGet(Value, frozen=True, tag="http_get"):
    path: str = "/"
    port: int = 0
    port_name: str = ""
    scheme: str = "HTTP"
    host: str = ""
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocket(Value, frozen=True, tag="tcp_socket"):
    port: int = 0
    port_name: str = ""
    host: str = ""


class Exec(Value, frozen=True, tag="exec"):
    command: tuple[str, ...] = ()


class Grpc(Value, frozen=True, tag="grpc"):
    port: int = 0
    service: str = ""


class Sleep(Value, frozen=True, tag="sleep"):
    seconds: int = 0


class Probe(Value, frozen=True):
    """A probe of a program. Numbers that are zero are not sent, so that Kubernetes uses its defaults."""

    handler: HttpGet | TcpSocket | Exec | Grpc
    initial_delay_seconds: int = 0
    period_seconds: int = 0
    timeout_seconds: int = 0
    success_threshold: int = 0
    failure_threshold: int = 0
    termination_grace_seconds: int = 0


class Probes(Value, frozen=True):
    liveness: Probe | None = None
    readiness: Probe | None = None
    startup: Probe | None = None


class LifecycleHandler(Value, frozen=True):
    handler: Exec | HttpGet | Sleep


class Lifecycle(Value, frozen=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class SeccompProfile(Value, frozen=True):
    type: str
    localhost_profile: str = ""


class SecurityContext(Value, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    allow_privilege_escalation: bool | None = None
    privileged: bool | None = None
    read_only_root_filesystem: bool | None = None
    capabilities_add: tuple[str, ...] = ()
    capabilities_drop: tuple[str, ...] = ()
    seccomp_profile: SeccompProfile | None = None


class PodSecurityContext(Value, frozen=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    supplemental_groups: tuple[int, ...] = ()
    seccomp_profile: SeccompProfile | None = None


class ProgramPort(Value, frozen=True):
    """A port that a pod declares, without a Service."""

    container_port: int
    name: str = ""
    host_port: int | None = None
    protocol: Literal["TCP", "UDP"] = "TCP"


class Program(Value, frozen=True):
    """One program of a pod. `Container` and `ContainerSpec` have the main program's fields under the same names."""

    name: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    resources: Resources = Resources()
    security_context: SecurityContext | None = None
    image_pull_policy: str = ""
    env_from: tuple[EnvFrom, ...] = ()
    ports: tuple[ProgramPort, ...] = ()
    probes: Probes = Probes()
    lifecycle: Lifecycle = Lifecycle()


class InitContainer(Program, frozen=True):
    """An init container or, if `restart_policy` is `Always`, a native sidecar.

    An init container has an empty `restart_policy` and runs to its end before the next programs start.
    """

    restart_policy: str = ""

    @property
    def is_sidecar(self) -> bool:
        return self.restart_policy == "Always"


Mounts = tuple[VolumeMount, ...]


class Toleration(Value, frozen=True):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class TakenOverService(Value, frozen=True):
    """A Service from before the import. `target_ports`: name of the pod's port by `<protocol>/<service port>`."""

    name: str
    selector: dict[str, str] = {}
    target_ports: dict[str, str] = {}


class TakenOverVolume(Value, frozen=True):
    """A volume of the pods, with its `name` there. `volume`: the name of the namespace's volume or of the emptyDir."""

    name: str
    volume: str


class TakenOver(Value, frozen=True):
    """The parts of an imported Deployment that stay as they were.

    They stay because the pods must not restart. `deployment_uid`: the uid of the imported Deployment; another
    Deployment of that name does not count. `selector`: as Kubernetes writes it. `pod_labels` and `pod_annotations`: as
    they were at the import; except for the platform's own keys, those of the spec count later. `volumes`: in the order
    of the pod template, because another order is a change of the template.
    """

    deployment_uid: str
    selector: dict[str, Any] = {}
    pod_labels: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    services: tuple[TakenOverService, ...] = ()
    volumes: tuple[TakenOverVolume, ...] = ()


class ContainerSpec(Value, frozen=True):
    """The document of `containers.spec`: the desired fields without a column of their own."""

    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    pod_labels: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    selector: dict[str, str] = {}
    env_from: tuple[EnvFrom, ...] = ()
    empty_dirs: tuple[EmptyDir, ...] = ()
    pod_volumes: tuple[OwnVolume, ...] = ()
    probes: Probes = Probes()
    security_context: SecurityContext | None = None
    pod_security_context: PodSecurityContext | None = None
    lifecycle: Lifecycle = Lifecycle()
    sidecars: tuple[Program, ...] = ()
    pod_resources: Resources = Resources()
    init_containers: tuple[InitContainer, ...] = ()
    service_account: str = ""
    automount_service_account_token: bool | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    termination_grace_seconds: int | None = None
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    priority_class: str = ""
    pod_container_name: str = "main"
    workload: WorkloadSettings = DeploymentSettings()
    runs_kept: int | None = None
    revisions_kept: int | None = None
    # The number of the newest run, if each run is an object of its own.
    run: int = 1
    extra_fields: dict[str, str] = {}
    restarted_at: datetime | None = None
    # The highest number of pods that an autoscaler may create; 0 if no autoscaler targets the container.
    most_replicas: int = 0
    # The last generation that changed immutable settings, for which the object must be replaced; 0 if there was none.
    replaced_generation: int = 0
    taken_over: TakenOver | None = None
    # The rights that the container was admitted with (`guarding`); None if a release admitted it that stored no rights.
    rights: tuple[str, ...] | None = None

    @property
    def own_volumes(self) -> frozenset[str]:
        """The names of the pods' volumes that are not volumes of the namespace."""
        folders = frozenset(each.name for each in self.empty_dirs)
        carried = volumes_of(self.extra_fields)
        return folders.union(self.claims, carried, (each.name for each in self.pod_volumes))

    @property
    def claims(self) -> tuple[str, ...]:
        """The names of the claims that each pod gets from a template."""
        workload = self.workload
        if not isinstance(workload, StatefulSetSettings):
            return ()
        return tuple(each.name for each in workload.claim_templates)


class Observed(Value, frozen=True):
    """The state that was last observed on the cluster. Absent fields are empty."""

    status: Status = "pending"
    phase: str = ""
    reason: str = ""
    message: str = ""
    ready_replicas: int = 0
    deployment_name: str = ""
    replica_set_name: str = ""
    pod_name: str = ""
    pod_ip: str = ""
    host_ip: str = ""
    restart_count: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    stale_since: datetime | None = None
    programs: tuple[ProgramStatus, ...] = ()


class Container(Reconciled, Value, frozen=True):
    """A container as stored: desired state, observed state, and bookkeeping.

    `volumes`: the volumes of the namespace that its mounts name, sorted by name; they follow from the mounts.
    `revision_number`: the number of its newest revision; 0 if it has none (`revisions`).
    """

    id: ContainerId
    uid: str
    name: str
    kubernetes_name: str
    image: str
    display_name: str = ""
    env: tuple[EnvVar, ...] = ()
    ports: tuple[Port, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    volumes: tuple[MountedVolume, ...] = ()
    resources: Resources = Resources()
    replicas: int = 1
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    spec: ContainerSpec = ContainerSpec()
    drift_policy: DriftPolicy = "repair"
    desired_state: DesiredState = "running"
    hold_rollout: bool = False
    imported: bool = False
    observed: Observed = Observed()
    revision_number: int = 0
    updated_by: str = ""

    @property
    def main(self) -> Program:
        """The main program."""
        spec = self.spec
        return Program(
            name=spec.pod_container_name,
            image=self.image,
            command=spec.command,
            args=spec.args,
            env=self.env,
            volume_mounts=self.volume_mounts,
            resources=self.resources,
            security_context=spec.security_context,
            image_pull_policy=spec.image_pull_policy,
            env_from=spec.env_from,
            ports=tuple(
                ProgramPort(port.container_port, port.name, port.host_port, port.protocol)
                for port in self.ports
            ),
            probes=spec.probes,
            lifecycle=spec.lifecycle,
        )

    @property
    def others(self) -> tuple[Program, ...]:
        """The programs of its pods other than the main one: sidecars and init containers."""
        return (*self.spec.sidecars, *self.spec.init_containers)

    def programs(self) -> Iterator[tuple[str, Program]]:
        """Yields each program of the pods with its field path, the main one first."""
        yield "container", self.main
        for number, sidecar in enumerate(self.spec.sidecars):
            yield f"container.sidecars[{number}]", sidecar
        for number, init in enumerate(self.spec.init_containers):
            yield f"container.init_containers[{number}]", init

    @property
    def side_by_side(self) -> tuple[Resources, ...]:
        """The resources of the programs that run as long as the pod does."""
        natives = (each.resources for each in self.spec.init_containers if each.is_sidecar)
        return (self.resources, *(each.resources for each in self.spec.sidecars), *natives)

    def changing_others(self, change: Callable[[Any], Any]) -> ContainerSpec:
        """Returns the spec after `change` was applied to each program except the main one."""
        spec = self.spec
        if not spec.sidecars and not spec.init_containers:
            return spec
        return msgspec.structs.replace(
            spec,
            sidecars=tuple(map(change, spec.sidecars)),
            init_containers=tuple(map(change, spec.init_containers)),
        )

    def changing_mounts(self, change: Callable[[Mounts], Mounts]) -> Container:
        """Returns the container after `change` was applied to the mounts of each program."""
        return msgspec.structs.replace(
            self,
            volume_mounts=change(self.volume_mounts),
            spec=self.changing_others(
                lambda each: msgspec.structs.replace(each, volume_mounts=change(each.volume_mounts))
            ),
        )

    @property
    def all_mounts(self) -> Mounts:
        """The mounts of all of its programs."""
        return (*self.volume_mounts, *(mount for each in self.others for mount in each.volume_mounts))

    @property
    def all_variables(self) -> tuple[EnvVar, ...]:
        """The variables of all of its programs."""
        return (*self.env, *(item for each in self.others for item in each.env))

    @property
    def workload_kind(self) -> WorkloadKind:
        """The kind of the Kubernetes object that makes its pods."""
        kind: WorkloadKind = type(self.spec.workload).__struct_config__.tag  # type: ignore[assignment]
        return kind

    @property
    def is_long(self) -> bool:
        """Whether it has so many variables that each step of its processing takes a millisecond or more."""
        return len(self.env) + sum(len(each.env) for each in self.others) > _MANY_VARIABLES

    @property
    def wanted_replicas(self) -> int:
        """The number of pods that should exist now: none while stopped or paused."""
        return self.replicas if self.desired_state == "running" else 0


class CachedContainer(CachedMessage, frozen=True):
    """A container whose message is cached; the fields here give its uptime, which changes without the container."""

    status: Status
    started_at: datetime | None


class StatusChange(Value, frozen=True):
    """One row of the history of a container's status."""

    previous: Status | None
    current: Status
    changed_at: datetime
    triggered_by: TriggeredBy
    reason: str = ""
    message: str = ""
    username: str = ""
    operation_id: str = ""


class Image(Value, frozen=True):
    """An image that containers use. `digest`, size and platform are those that a node reported last."""

    id: int
    image: str
    repository: str
    name: str
    tag: str
    digest: str
    status: Literal["available", "deleted", "error"]
    size_bytes: int = 0
    architecture: str = ""
    os: str = ""
    created_at: datetime | None = None
    pulled_at: datetime | None = None
    container_count: int = 0


class Pod(Value, frozen=True):
    """A pod of a container, as last observed."""

    name: str
    uid: str
    phase: str = ""
    ready: bool = False
    deleting: bool = False
    started_at: datetime | None = None
    # The template or the run that the pod was created from (`PodObservation.revision`).
    revision: str = ""
