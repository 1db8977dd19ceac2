"""Partial views of Kubernetes objects: only the fields that are read.

msgspec skips what a struct does not name without building it, which is why a list of thousands of pods decodes in
milliseconds. The structs are for reading only: a write sends a manifest of our own fields, never one of these, so
fields unknown here are never lost.

Absent means zero, as the API omits zero counters; `null` is sent for some absent times.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec

# Of what controllers report of one object, so that to look at it takes little. A pod whose containers fill an object
# has a third of it.
MOST: Final = msgspec.Meta(max_length=4096)


class Partial(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base: camelCase names. Values form no cycles, so the garbage collector need not track them."""


class OwnerReference(Partial, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ManagedFields(Partial, frozen=True, rename="camel"):
    manager: str = ""
    operation: str = ""
    subresource: str = ""


class ObjectMeta(Partial, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()

    def label(self, key: str) -> str:
        """Returns the label's value, empty where it is not set."""
        return (self.labels or {}).get(key, "")

    def annotation(self, key: str) -> str:
        """Returns the annotation's value, empty where it is not set."""
        return (self.annotations or {}).get(key, "")


class KubernetesObject(Partial, frozen=True, rename="camel"):
    metadata: ObjectMeta = ObjectMeta()
    # See `marks`; no field of the API.
    mark: str = ""


class ListMeta(Partial, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class ObjectCondition(Partial, frozen=True, rename="camel"):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class NamespaceState(Partial, frozen=True, rename="camel"):
    phase: str = ""
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()


class Namespace(KubernetesObject, frozen=True, rename="camel"):
    status: NamespaceState = NamespaceState()


class PodTemplate(KubernetesObject, frozen=True, rename="camel"):
    """Only its metadata is read."""


class LabelSelector(Partial, frozen=True, rename="camel"):
    match_labels: dict[str, str] | None = None


class DeploymentSpec(Partial, frozen=True, rename="camel"):
    # The API defaults it to 1; a written 0 is sent as 0.
    replicas: int = 1
    paused: bool = False
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()


class DeploymentState(Partial, frozen=True, rename="camel"):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()


class Deployment(KubernetesObject, frozen=True, rename="camel"):
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentState = DeploymentState()

    @property
    def selected(self) -> dict[str, str]:
        """The labels of the pods that are its own."""
        return self.spec.selector.match_labels or {}


class ServiceSpec(Partial, frozen=True, rename="camel"):
    type: str = ""
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    selector: dict[str, str] | None = None


class Service(KubernetesObject, frozen=True, rename="camel"):
    spec: ServiceSpec = ServiceSpec()

    @property
    def selected(self) -> dict[str, str]:
        """The labels of the pods that it leads to."""
        return self.spec.selector or {}

    @property
    def headless(self) -> bool:
        return self.spec.cluster_ip == "None"


class ScaleTarget(Partial, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""


class HorizontalPodAutoscalerSpec(Partial, frozen=True, rename="camel"):
    scale_target_ref: ScaleTarget = ScaleTarget()


class HorizontalPodAutoscaler(KubernetesObject, frozen=True, rename="camel"):
    spec: HorizontalPodAutoscalerSpec = HorizontalPodAutoscalerSpec()


class ReplicaSetSpec(Partial, frozen=True, rename="camel"):
    replicas: int = 1


class ReplicaSetState(Partial, frozen=True, rename="camel"):
    replicas: int = 0
    ready_replicas: int = 0
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()


class ReplicaSet(KubernetesObject, frozen=True, rename="camel"):
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetState = ReplicaSetState()


class Waiting(Partial, frozen=True, rename="camel"):
    reason: str = ""
    message: str = ""


class Running(Partial, frozen=True, rename="camel"):
    started_at: datetime | None = None


class Terminated(Partial, frozen=True, rename="camel"):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContainerState(Partial, frozen=True, rename="camel"):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Partial, frozen=True, rename="camel"):
    name: str = ""
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(name="imageID", default="")
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodContainer(Partial, frozen=True, rename="camel"):
    name: str = ""
    image: str = ""


class PodSpec(Partial, frozen=True, rename="camel"):
    node_name: str = ""
    containers: tuple[PodContainer, ...] = ()


class PodState(Partial, frozen=True, rename="camel"):
    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    host_ip: str = msgspec.field(name="hostIP", default="")
    start_time: datetime | None = None
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()
    init_container_statuses: Annotated[tuple[ContainerStatus, ...], MOST] = ()
    container_statuses: Annotated[tuple[ContainerStatus, ...], MOST] = ()


class Pod(KubernetesObject, frozen=True, rename="camel"):
    spec: PodSpec = PodSpec()
    status: PodState = PodState()


class ObjectReference(Partial, frozen=True, rename="camel"):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    # Which part of it: `spec.containers{main}`.
    field_path: str = ""


class EventSeries(Partial, frozen=True, rename="camel"):
    count: int = 0
    last_observed_time: datetime | None = None


class Event(KubernetesObject, frozen=True, rename="camel"):
    """Of two shapes: the scheduler's have no `count` and no timestamps but `eventTime` (and `series` where repeated),
    those of the kubelet and the controllers the other way round."""

    involved_object: ObjectReference = ObjectReference()
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: EventSeries | None = None

    @property
    def time(self) -> datetime | None:
        """When it happened last."""
        repeated = self.series.last_observed_time if self.series else None
        return self.last_timestamp or repeated or self.event_time or self.metadata.creation_timestamp

    @property
    def first_time(self) -> datetime | None:
        """When it happened first."""
        return self.first_timestamp or self.event_time or self.metadata.creation_timestamp

    @property
    def times(self) -> int:
        """How often it happened."""
        return max(1, self.count or (self.series.count if self.series else 0))


class NodeImage(Partial, frozen=True, rename="camel"):
    names: tuple[str, ...] | None = None
    size_bytes: int = 0


class NodeInfo(Partial, frozen=True, rename="camel"):
    architecture: str = ""
    operating_system: str = ""


class NodeState(Partial, frozen=True, rename="camel"):
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()
    images: tuple[NodeImage, ...] = ()
    node_info: NodeInfo = NodeInfo()


class Node(KubernetesObject, frozen=True, rename="camel"):
    status: NodeState = NodeState()


class Version(Partial, frozen=True, rename="camel"):
    git_version: str = ""


class AccessReviewStatus(Partial, frozen=True, rename="camel"):
    allowed: bool = False


class AccessReview(Partial, frozen=True, rename="camel"):
    status: AccessReviewStatus = AccessReviewStatus()


T = TypeVar("T", bound=KubernetesObject)


class Resource(msgspec.Struct, Generic[T], frozen=True):
    """How a kind is addressed, and the struct it is read into."""

    prefix: str
    plural: str
    kind: str
    type: type[T]
    namespaced: bool = True
    # Lists and watches ask for the metadata alone: what an object holds does not even travel.
    metadata_only: bool = False
    # Whether its objects carry a mark, and of what; see `marks`.
    marked: Literal["", "content", "version"] = ""

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1` ..."""
        return self.prefix.removeprefix("/api/").removeprefix("/apis/")

    def path(self, namespace: str | None, name: str | None = None, subresource: str = "") -> str:
        """Returns the URL path of the collection, one object or its subresource. Names must be checked DNS names."""
        parts = [self.prefix]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


NAMESPACES = Resource("/api/v1", "namespaces", "Namespace", Namespace, namespaced=False, marked="content")
NODES = Resource("/api/v1", "nodes", "Node", Node, namespaced=False)
PODS = Resource("/api/v1", "pods", "Pod", Pod)
EVENTS = Resource("/api/v1", "events", "Event", Event)
SERVICES = Resource("/api/v1", "services", "Service", Service, marked="content")
SERVICE_ACCOUNTS = Resource("/api/v1", "serviceaccounts", "ServiceAccount", KubernetesObject)
CONFIG_MAPS = Resource("/api/v1", "configmaps", "ConfigMap", KubernetesObject)
SECRETS = Resource("/api/v1", "secrets", "Secret", KubernetesObject)
CONFIG_MAP_METADATA = Resource(
    "/api/v1", "configmaps", "ConfigMap", KubernetesObject, metadata_only=True, marked="version"
)
SECRET_METADATA = Resource(
    "/api/v1", "secrets", "Secret", KubernetesObject, metadata_only=True, marked="version"
)
DEPLOYMENTS = Resource("/apis/apps/v1", "deployments", "Deployment", Deployment, marked="content")
REPLICA_SETS = Resource("/apis/apps/v1", "replicasets", "ReplicaSet", ReplicaSet)
HORIZONTAL_POD_AUTOSCALERS = Resource(
    "/apis/autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", HorizontalPodAutoscaler
)

Manifest = dict[str, Any]
