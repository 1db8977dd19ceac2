"""Partial views of Kubernetes objects: only the fields that are read.

msgspec skips fields that a struct does not name without building them, which is why a list of thousands of pods
decodes in milliseconds. The structs are for reading only: a write sends a manifest of our own fields, never one of
these, so fields unknown here are never lost.

Absent means zero, as the API omits zero counters; `null` is sent for some absent times.

Numbers and names have the bounds that Kubernetes gives them, so an object that is read fits into its columns. An object
that exceeds them does not come from Kubernetes, and is left out (`ClusterClient.pages`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[datetime, Meta(tz=True)]
Name = Annotated[str, Meta(max_length=253)]
# Words of the API itself, such as `Running`.
Word = Annotated[str, Meta(max_length=20)]
Address = Annotated[str, Meta(max_length=45)]
# Uids and versions, which are opaque.
Opaque = Annotated[str, Meta(max_length=64)]
# Times outside these years may overflow when they are converted to UTC.
_FIRST_YEAR, _LAST_YEAR = 2, 9998

# Bound of the lists that controllers report in one object, so that processing them stays cheap. A pod with as many
# containers as fit into one object has a third of it.
MOST: Final = Meta(max_length=4096)


class Partial(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base: camelCase names. Values form no cycles, so the garbage collector need not track them."""


def storable(time: datetime | None) -> datetime | None:
    """Returns a time if it can be stored and shown; None for one outside of the supported years."""
    return time if time is not None and _FIRST_YEAR <= time.year <= _LAST_YEAR else None


class OwnerReference(Partial, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Partial, frozen=True, rename="camel"):
    name: Name = ""
    namespace: Name = ""
    uid: Opaque = ""
    resource_version: Opaque = ""
    generation: Int64 = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    finalizers: tuple[str, ...] = ()

    def label(self, key: str) -> str:
        """Returns the label's value, empty if it is not set."""
        return (self.labels or {}).get(key, "")

    def annotation(self, key: str) -> str:
        """Returns the annotation's value, empty if it is not set."""
        return (self.annotations or {}).get(key, "")


class KubernetesObject(Partial, frozen=True, rename="camel"):
    metadata: ObjectMeta = ObjectMeta()
    # The object's fingerprint (see `fingerprints`); not a field of the API.
    mark: str = ""


class ListMeta(Partial, frozen=True, rename="camel"):
    resource_version: Opaque = ""
    continue_: str = msgspec.field(name="continue", default="")


class ObjectCondition(Partial, frozen=True, rename="camel"):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: Time | None = None


class NamespaceState(Partial, frozen=True, rename="camel"):
    phase: str = ""
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()


class Namespace(KubernetesObject, frozen=True, rename="camel"):
    status: NamespaceState = NamespaceState()


class NamedProgram(Partial, frozen=True):
    name: str = ""


class PodTemplateSpec(Partial, frozen=True, rename="camel"):
    containers: tuple[NamedProgram, ...] = ()
    init_containers: tuple[NamedProgram, ...] = ()


class PodTemplate(KubernetesObject, frozen=True, rename="camel"):
    """A pod template's metadata, and the names of its programs."""

    spec: PodTemplateSpec = PodTemplateSpec()


class LabelSelector(Partial, frozen=True, rename="camel"):
    match_labels: dict[str, str] | None = None


class WorkloadSpec(Partial, frozen=True, rename="camel"):
    # The API defaults it to 1; a written 0 is sent as 0.
    replicas: Count = 1
    selector: LabelSelector = LabelSelector()
    template: PodTemplate = PodTemplate()


class WorkloadState(Partial, frozen=True, rename="camel"):
    """Numbers of pods. The names are those of a Deployment; other kinds map their own fields to them."""

    observed_generation: Int64 = 0
    replicas: Count = 0
    updated_replicas: Count = 0
    ready_replicas: Count = 0
    available_replicas: Count = 0
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()


class WorkloadObject(KubernetesObject, frozen=True, rename="camel"):
    """An object of any kind that creates the pods of a container."""

    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadState = WorkloadState()

    @property
    def pod_template(self) -> PodTemplate:
        """The template of its pods."""
        return self.spec.template

    @property
    def selected(self) -> dict[str, str]:
        """The labels by which it selects its pods."""
        return self.spec.selector.match_labels or {}

    def keeps_former(self, pod: str) -> bool:
        """Returns whether a pod of this name may keep a former template permanently."""
        return False

    @property
    def replicas(self) -> int:
        """The desired number of pods."""
        return self.spec.replicas

    @property
    def followed(self) -> bool:
        """Whether its controller has seen its newest generation."""
        return self.status.observed_generation >= self.metadata.generation

    @property
    def holds_rollout(self) -> bool:
        """Whether its spec lets pods keep an older template."""
        return False

    @property
    def to_update(self) -> int:
        """The number of pods that its rollout updates to the newest template."""
        return self.replicas

    @property
    def finished(self) -> ObjectCondition | None:
        """The condition that shows that it has ended permanently; None before that."""
        return None


class DeploymentSpec(WorkloadSpec, frozen=True, rename="camel"):
    paused: bool = False


class Deployment(WorkloadObject, frozen=True, rename="camel"):
    spec: DeploymentSpec = DeploymentSpec()

    @property
    def holds_rollout(self) -> bool:
        return self.spec.paused


class JobSpec(WorkloadSpec, frozen=True, rename="camel"):
    suspend: bool = False
    parallelism: Count | None = None
    completions: Count | None = None


class JobState(WorkloadState, frozen=True, rename="camel"):
    active: Count = 0
    ready: Count | None = None
    succeeded: Count = 0
    failed: Count = 0
    start_time: Time | None = None
    completion_time: Time | None = None


class Job(WorkloadObject, frozen=True, rename="camel"):
    spec: JobSpec = JobSpec()
    status: JobState = JobState()

    @property
    def replicas(self) -> int:
        """The number of pods that it may have now: 0 once it has ended."""
        if self.spec.suspend or self.finished is not None:
            return 0
        wanted = 1 if self.spec.parallelism is None else self.spec.parallelism
        left = wanted if self.spec.completions is None else self.spec.completions - self.status.succeeded
        return max(0, min(wanted, left))

    @property
    def followed(self) -> bool:
        return True

    @property
    def finished(self) -> ObjectCondition | None:
        """The condition that shows that it has ended.

        SuccessCriteriaMet and FailureTarget appear earlier, while its last pods end.
        """
        ends = (each for each in self.status.conditions if each.type in ("Complete", "Failed"))
        return next((each for each in ends if each.status == "True"), None)


class ServicePort(Partial, frozen=True, rename="camel"):
    port: Count = 0
    protocol: Word = "TCP"
    node_port: Count = 0


class ServiceSpec(Partial, frozen=True, rename="camel"):
    type: str = ""
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    # Two at most: one of each IP family.
    cluster_ips: Annotated[tuple[Address, ...], Meta(max_length=2)] = msgspec.field(
        name="clusterIPs", default=()
    )
    external_name: Name = ""
    selector: dict[str, str] | None = None
    ports: Annotated[tuple[ServicePort, ...], MOST] = ()


class LoadBalancerIngress(Partial, frozen=True, rename="camel"):
    ip: Address = ""
    hostname: Name = ""


class LoadBalancerState(Partial, frozen=True, rename="camel"):
    ingress: Annotated[tuple[LoadBalancerIngress, ...], Meta(max_length=64)] = ()


class ServiceState(Partial, frozen=True, rename="camel"):
    load_balancer: LoadBalancerState = LoadBalancerState()


class Service(KubernetesObject, frozen=True, rename="camel"):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceState = ServiceState()

    @property
    def selected(self) -> dict[str, str]:
        """The pod labels that the Service selects by; empty if it has no selector."""
        return self.spec.selector or {}

    @property
    def headless(self) -> bool:
        return self.spec.cluster_ip == "None"


class AnyObject(KubernetesObject, frozen=True, rename="camel"):
    """An object of a kind without a struct of its own: its metadata, and the status that its controller reports."""

    status: Any = None


class TlsData(Partial, frozen=True, rename="camel"):
    """The only field of a Secret with a certificate that is read."""

    certificate: str = msgspec.field(name="tls.crt", default="")


class TlsSecret(KubernetesObject, frozen=True, rename="camel"):
    data: TlsData | None = None


class EndpointTarget(Partial, frozen=True, rename="camel"):
    uid: Opaque = ""


class EndpointConditions(Partial, frozen=True, rename="camel"):
    # Null means unknown, which counts as ready.
    ready: bool | None = None


class Endpoint(Partial, frozen=True, rename="camel"):
    addresses: Annotated[tuple[Name, ...], Meta(max_length=100)] = ()
    conditions: EndpointConditions = EndpointConditions()
    target_ref: EndpointTarget | None = None


class EndpointSlice(KubernetesObject, frozen=True, rename="camel"):
    endpoints: Annotated[tuple[Endpoint, ...], MOST] | None = None


class ScaleTarget(Partial, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""


class HorizontalPodAutoscalerSpec(Partial, frozen=True, rename="camel"):
    scale_target_ref: ScaleTarget = ScaleTarget()


class HorizontalPodAutoscalerState(Partial, frozen=True, rename="camel"):
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()


class HorizontalPodAutoscaler(KubernetesObject, frozen=True, rename="camel"):
    spec: HorizontalPodAutoscalerSpec = HorizontalPodAutoscalerSpec()
    status: HorizontalPodAutoscalerState = HorizontalPodAutoscalerState()

    @property
    def scaled_to_zero(self) -> bool:
        """Whether the autoscaler set the replicas to zero itself, and will raise them again (Kubernetes 1.37)."""
        return any(each.type == "ScaledToZero" and each.status == "True" for each in self.status.conditions)


class ReplicaSetSpec(Partial, frozen=True, rename="camel"):
    replicas: Count = 1


class ReplicaSetState(Partial, frozen=True, rename="camel"):
    replicas: Count = 0
    ready_replicas: Count = 0
    conditions: Annotated[tuple[ObjectCondition, ...], MOST] = ()


class ReplicaSet(KubernetesObject, frozen=True, rename="camel"):
    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetState = ReplicaSetState()


class Waiting(Partial, frozen=True, rename="camel"):
    reason: str = ""
    message: str = ""


class Running(Partial, frozen=True, rename="camel"):
    started_at: Time | None = None


class Terminated(Partial, frozen=True, rename="camel"):
    exit_code: Int32 = 0
    signal: Int32 = 0
    reason: str = ""
    message: str = ""
    started_at: Time | None = None
    finished_at: Time | None = None


class ContainerState(Partial, frozen=True, rename="camel"):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Partial, frozen=True, rename="camel"):
    name: str = ""
    ready: bool = False
    started: bool | None = None
    restart_count: Count = 0
    image: str = ""
    image_id: str = msgspec.field(name="imageID", default="")
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodContainer(Partial, frozen=True, rename="camel"):
    name: str = ""
    image: str = ""
    # Set for init containers only.
    restart_policy: str = ""


class PodSpec(Partial, frozen=True, rename="camel"):
    node_name: Name = ""
    containers: tuple[PodContainer, ...] = ()
    init_containers: tuple[PodContainer, ...] = ()


class PodState(Partial, frozen=True, rename="camel"):
    phase: Word = ""
    reason: str = ""
    message: str = ""
    pod_ip: Address = msgspec.field(name="podIP", default="")
    host_ip: Address = msgspec.field(name="hostIP", default="")
    start_time: Time | None = None
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
    # The part of the object: `spec.containers{main}`.
    field_path: str = ""


class EventSeries(Partial, frozen=True, rename="camel"):
    count: Count = 0
    last_observed_time: Time | None = None


class EventObject(KubernetesObject, frozen=True, rename="camel"):
    """An event in one of two shapes.

    Events of the scheduler have `eventTime` (and `series` if repeated), but no `count` and no other timestamps. Events
    of the kubelet and the controllers have `count` and the other timestamps, but no `eventTime`.
    """

    involved_object: ObjectReference = ObjectReference()
    type: str = ""
    reason: str = ""
    message: str = ""
    count: Count | None = None
    first_timestamp: Time | None = None
    last_timestamp: Time | None = None
    event_time: Time | None = None
    series: EventSeries | None = None

    @property
    def time(self) -> datetime | None:
        """The time when it happened last."""
        repeated = self.series.last_observed_time if self.series else None
        return storable(
            self.last_timestamp or repeated or self.event_time or self.metadata.creation_timestamp
        )

    @property
    def first_time(self) -> datetime | None:
        """The time when it happened first."""
        return storable(self.first_timestamp or self.event_time or self.metadata.creation_timestamp)

    @property
    def times(self) -> int:
        """The number of times that it happened."""
        return max(1, self.count or (self.series.count if self.series else 0))


class NodeImage(Partial, frozen=True, rename="camel"):
    names: tuple[str, ...] | None = None
    size_bytes: Size = 0


class NodeInfo(Partial, frozen=True, rename="camel"):
    architecture: Word = ""
    operating_system: Word = ""


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
    """The address of a kind in the API, and the struct that its objects are read into."""

    prefix: str
    plural: str
    kind: str
    type: type[T]
    namespaced: bool = True
    # Only the metadata is requested; the content of an object is not even transferred.
    metadata_only: bool = False
    # The basis of its objects' fingerprints, '' for none; see `fingerprints`.
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
EVENTS = Resource("/api/v1", "events", "Event", EventObject)
SERVICES = Resource("/api/v1", "services", "Service", Service, marked="content")
ENDPOINT_SLICES = Resource("/apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice", EndpointSlice)
SERVICE_ACCOUNTS = Resource("/api/v1", "serviceaccounts", "ServiceAccount", KubernetesObject)
CONFIG_MAPS = Resource("/api/v1", "configmaps", "ConfigMap", KubernetesObject)
SECRETS = Resource("/api/v1", "secrets", "Secret", KubernetesObject)
TLS_SECRETS = Resource("/api/v1", "secrets", "Secret", TlsSecret)
RESOURCE_QUOTAS = Resource("/api/v1", "resourcequotas", "ResourceQuota", KubernetesObject, marked="content")
DEPLOYMENT_METADATA = Resource(
    "/apis/apps/v1", "deployments", "Deployment", KubernetesObject, metadata_only=True
)
CONFIG_MAP_METADATA = Resource(
    "/api/v1", "configmaps", "ConfigMap", KubernetesObject, metadata_only=True, marked="version"
)
SECRET_METADATA = Resource(
    "/api/v1", "secrets", "Secret", KubernetesObject, metadata_only=True, marked="version"
)
DEPLOYMENTS = Resource("/apis/apps/v1", "deployments", "Deployment", Deployment, marked="content")
JOBS = Resource("/apis/batch/v1", "jobs", "Job", Job, marked="content")
JOB_METADATA = Resource("/apis/batch/v1", "jobs", "Job", KubernetesObject, metadata_only=True)
REPLICA_SETS = Resource("/apis/apps/v1", "replicasets", "ReplicaSet", ReplicaSet)
HORIZONTAL_POD_AUTOSCALERS = Resource(
    "/apis/autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", HorizontalPodAutoscaler
)

Manifest = dict[str, Any]
