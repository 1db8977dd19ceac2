"""The resource types of the simulated cluster: one registry entry per kind.

A `ResourceType` defines the address of a kind (group, version, plural), its discovery entry and its generic behaviour
(namespaced, generation, graceful deletion). Routes, discovery, the store and the tables use this registry; a new kind
needs one entry here and its rules in `strategy`.

Resource types are compared by identity. Each built-in type exists exactly once, as a constant of this module. The types
of custom resources belong to one cluster; its `ResourceTypes` contains them and the built-in types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, eq=False)
class Subresource:
    """A subresource as discovery shows it; `group` and `version` are set only if its kind is in another API group."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(eq=False)
class CustomDefinition:
    """The part of a kind that its CustomResourceDefinition defines; changed in place with the definition.

    `structure` is a `store.schema.Struct`, `schema` the `openAPIV3Schema` from which it was built, `columns` the
    `additionalPrinterColumns`. `versions` are all served versions.
    """

    structure: Any
    schema: dict[str, Any]
    columns: tuple[dict[str, Any], ...]
    versions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ResourceType:
    """One kind served by the API.

    `generation_on_annotations`: changed annotations also increment metadata.generation (Deployments).
    `graceful_deletion`: DELETE first sets a deletion time in the future (Pods). `unconditional_update`: PUT without a
    resourceVersion overwrites the object; for other kinds it is refused. `storage_version_hash`: opaque value shown by
    discovery. `custom`: set only for custom resources.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    subresource_types: tuple[Subresource, ...] = ()
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    has_generation: bool = False
    generation_on_annotations: bool = False
    graceful_deletion: bool = False
    unconditional_update: bool = True
    storage_version_hash: str = ""
    custom: CustomDefinition | None = None

    @property
    def list_kind(self) -> str:
        """Returns the kind of a list of these objects."""
        return self.kind + "List"

    @property
    def api_version(self) -> str:
        """Returns `apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def subresources(self) -> frozenset[str]:
        """Returns the names of the subresources."""
        return frozenset(subresource.name for subresource in self.subresource_types)

    @property
    def has_status(self) -> bool:
        """Returns whether status is a subresource, that is, not writable through the main resource."""
        return "status" in self.subresources

    def __repr__(self) -> str:
        return f"ResourceType({self.api_version}, {self.plural})"


def _status(kind: str) -> Subresource:
    return Subresource("status", kind, STATUS_VERBS)


_SCALE = Subresource("scale", "Scale", STATUS_VERBS, "autoscaling", "v1")

NAMESPACES = ResourceType(
    "", "v1", "namespaces", "Namespace", namespaced=False, singular="namespace", short_names=("ns",),
    subresource_types=(Subresource("finalize", "Namespace", ("update",)), _status("Namespace")),
    verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
    storage_version_hash="Q3oi5N2YM8M=",
)  # fmt: skip
NODES = ResourceType(
    "", "v1", "nodes", "Node", namespaced=False, singular="node", short_names=("no",),
    subresource_types=(
        Subresource("proxy", "NodeProxyOptions", ("create", "delete", "get", "patch", "update")),
        _status("Node"),
    ),
    storage_version_hash="XwShjMxG9Fs=",
)  # fmt: skip
PODS = ResourceType(
    "", "v1", "pods", "Pod", singular="pod", short_names=("po",), categories=("all",),
    subresource_types=(
        Subresource("binding", "Binding", ("create",)),
        Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
        Subresource("exec", "PodExecOptions", ("create", "get")),
        Subresource("log", "Pod", ("get",)),
        Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
        _status("Pod"),
    ),
    has_generation=True, graceful_deletion=True, storage_version_hash="xPOwRZ+Yhw8=",
)  # fmt: skip
SERVICES = ResourceType(
    "", "v1", "services", "Service", singular="service", short_names=("svc",), categories=("all",),
    subresource_types=(_status("Service"),), storage_version_hash="0/CO1lhkEBI=",
)  # fmt: skip
ENDPOINTS = ResourceType(
    "", "v1", "endpoints", "Endpoints", singular="endpoints", short_names=("ep",),
    storage_version_hash="fWeeMqaN/OA=",
)  # fmt: skip
EVENTS = ResourceType(
    "", "v1", "events", "Event", singular="event", short_names=("ev",), storage_version_hash="r2yiGXH7wu8="
)  # fmt: skip
SERVICE_ACCOUNTS = ResourceType(
    "", "v1", "serviceaccounts", "ServiceAccount", singular="serviceaccount", short_names=("sa",),
    storage_version_hash="pbx9ZvyFpBE=",
)  # fmt: skip
CONFIG_MAPS = ResourceType(
    "", "v1", "configmaps", "ConfigMap", singular="configmap", short_names=("cm",),
    storage_version_hash="qFsyl6wFWjQ=",
)  # fmt: skip
SECRETS = ResourceType(
    "", "v1", "secrets", "Secret", singular="secret", storage_version_hash="S6u1pOWzb84=",
)  # fmt: skip
RESOURCE_QUOTAS = ResourceType(
    "", "v1", "resourcequotas", "ResourceQuota", singular="resourcequota", short_names=("quota",),
    subresource_types=(_status("ResourceQuota"),), storage_version_hash="8uhSgffRX6w=",
)  # fmt: skip
LIMIT_RANGES = ResourceType(
    "", "v1", "limitranges", "LimitRange", singular="limitrange", short_names=("limits",),
    storage_version_hash="EBKMFVe6cwo=",
)  # fmt: skip
LEASES = ResourceType(
    "coordination.k8s.io", "v1", "leases", "Lease", singular="lease", unconditional_update=False,
    storage_version_hash="gqkMMb/YqFM=",
)  # fmt: skip
HORIZONTAL_POD_AUTOSCALERS = ResourceType(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler",
    singular="horizontalpodautoscaler", short_names=("hpa",), categories=("all",),
    subresource_types=(_status("HorizontalPodAutoscaler"),), storage_version_hash="qwQve8ut294=",
)  # fmt: skip
PERSISTENT_VOLUME_CLAIMS = ResourceType(
    "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", singular="persistentvolumeclaim",
    short_names=("pvc",), subresource_types=(_status("PersistentVolumeClaim"),),
    storage_version_hash="QWTyNDq0dC4=",
)  # fmt: skip
PERSISTENT_VOLUMES = ResourceType(
    "", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, singular="persistentvolume",
    short_names=("pv",), subresource_types=(_status("PersistentVolume"),), storage_version_hash="HN/zwEC+JgM=",
)  # fmt: skip
STORAGE_CLASSES = ResourceType(
    "storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False, singular="storageclass",
    short_names=("sc",), storage_version_hash="K+m6uJwbjGY=",
)  # fmt: skip
PRIORITY_CLASSES = ResourceType(
    "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False, singular="priorityclass",
    short_names=("pc",), storage_version_hash="1QwjyaZjj3Y=",
)  # fmt: skip
DEPLOYMENTS = ResourceType(
    "apps", "v1", "deployments", "Deployment", singular="deployment", short_names=("deploy",),
    categories=("all",), subresource_types=(_SCALE, _status("Deployment")),
    has_generation=True, generation_on_annotations=True, storage_version_hash="8aSe+NMegvE=",
)  # fmt: skip
REPLICA_SETS = ResourceType(
    "apps", "v1", "replicasets", "ReplicaSet", singular="replicaset", short_names=("rs",),
    categories=("all",), subresource_types=(_SCALE, _status("ReplicaSet")),
    has_generation=True, storage_version_hash="P1RzHs8/mWQ=",
)  # fmt: skip
STATEFUL_SETS = ResourceType(
    "apps", "v1", "statefulsets", "StatefulSet", singular="statefulset", short_names=("sts",),
    categories=("all",), subresource_types=(_SCALE, _status("StatefulSet")),
    has_generation=True, storage_version_hash="H+vl74LkKdo=",
)  # fmt: skip
DAEMON_SETS = ResourceType(
    "apps", "v1", "daemonsets", "DaemonSet", singular="daemonset", short_names=("ds",),
    categories=("all",), subresource_types=(_status("DaemonSet"),),
    has_generation=True, storage_version_hash="dd7pWHUlMKQ=",
)  # fmt: skip
JOBS = ResourceType(
    "batch", "v1", "jobs", "Job", singular="job", categories=("all",), subresource_types=(_status("Job"),),
    has_generation=True, storage_version_hash="mudhfqk/qZY=",
)  # fmt: skip
CRON_JOBS = ResourceType(
    "batch", "v1", "cronjobs", "CronJob", singular="cronjob", short_names=("cj",), categories=("all",),
    subresource_types=(_status("CronJob"),), has_generation=True, storage_version_hash="sd5LIXh4Fjs=",
)  # fmt: skip
CONTROLLER_REVISIONS = ResourceType(
    "apps", "v1", "controllerrevisions", "ControllerRevision", singular="controllerrevision",
    storage_version_hash="85nkx63pcBU=",
)  # fmt: skip
ENDPOINT_SLICES = ResourceType(
    "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", singular="endpointslice",
    has_generation=True, storage_version_hash="qgS0xkrxYAI=",
)  # fmt: skip

INGRESSES = ResourceType(
    "networking.k8s.io", "v1", "ingresses", "Ingress", singular="ingress", short_names=("ing",),
    subresource_types=(_status("Ingress"),), has_generation=True, storage_version_hash="39NQlfNR+bo=",
)  # fmt: skip
INGRESS_CLASSES = ResourceType(
    "networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False, singular="ingressclass",
    has_generation=True, storage_version_hash="l/iqIbDgFyQ=",
)  # fmt: skip
NETWORK_POLICIES = ResourceType(
    "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", singular="networkpolicy",
    short_names=("netpol",), has_generation=True, storage_version_hash="YpfwF18m1G8=",
)  # fmt: skip
POD_DISRUPTION_BUDGETS = ResourceType(
    "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", singular="poddisruptionbudget",
    short_names=("pdb",), subresource_types=(_status("PodDisruptionBudget"),), has_generation=True,
    unconditional_update=False, storage_version_hash="EVWiDmWqyJw=",
)  # fmt: skip
ROLES = ResourceType(
    "rbac.authorization.k8s.io", "v1", "roles", "Role", singular="role", storage_version_hash="7FuwZcIIItM=",
)  # fmt: skip
ROLE_BINDINGS = ResourceType(
    "rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", singular="rolebinding",
    storage_version_hash="eGsCzGH6b1g=",
)  # fmt: skip
CUSTOM_RESOURCE_DEFINITIONS = ResourceType(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False,
    singular="customresourcedefinition", short_names=("crd", "crds"), categories=("api-extensions",),
    subresource_types=(_status("CustomResourceDefinition"),), has_generation=True, unconditional_update=False,
    storage_version_hash="jfWCUB31mvA=",
)  # fmt: skip

REGISTRY: tuple[ResourceType, ...] = (
    CONFIG_MAPS, ENDPOINTS, EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICE_ACCOUNTS,
    SERVICES, RESOURCE_QUOTAS, LIMIT_RANGES, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS,
    CONTROLLER_REVISIONS, HORIZONTAL_POD_AUTOSCALERS, LEASES, ENDPOINT_SLICES, PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES, STORAGE_CLASSES, PRIORITY_CLASSES, JOBS, CRON_JOBS, INGRESSES, INGRESS_CLASSES,
    NETWORK_POLICIES, POD_DISRUPTION_BUDGETS, ROLES, ROLE_BINDINGS, CUSTOM_RESOURCE_DEFINITIONS,
)  # fmt: skip

# The named built-in groups in the order of discovery, each with its one version.
GROUP_VERSIONS = {
    "apps": "v1", "events.k8s.io": "v1", "autoscaling": "v2", "batch": "v1", "networking.k8s.io": "v1",
    "policy": "v1", "rbac.authorization.k8s.io": "v1", "storage.k8s.io": "v1", "apiextensions.k8s.io": "v1",
    "scheduling.k8s.io": "v1", "coordination.k8s.io": "v1", "discovery.k8s.io": "v1",
}  # fmt: skip

# Events are stored once and served at two addresses: `v1` and `events.k8s.io/v1`.
EVENTS_GROUP_ALIAS = ("events.k8s.io", "v1", "events")


_BY_ADDRESS = {(entry.group, entry.version, entry.plural): entry for entry in REGISTRY}
_BY_KIND = {(entry.api_version, entry.kind): entry for entry in REGISTRY}


class ResourceTypes:
    """The types that one cluster serves: the built-in ones, and those of its CustomResourceDefinitions.

    A custom type is stored in one version and found under each served version. `serial` changes whenever the custom
    types change; `on_removed` are called with each type that is no longer served.
    """

    def __init__(self) -> None:
        self.serial = 0
        self.on_removed: list[Callable[[ResourceType], None]] = []
        self._custom: dict[tuple[str, str], ResourceType] = {}

    def __iter__(self) -> Iterator[ResourceType]:
        yield from REGISTRY
        yield from self._custom.values()

    def find(self, group: str, version: str, plural: str) -> ResourceType | None:
        """Returns the resource type at this address, or None."""
        if (group, version, plural) == EVENTS_GROUP_ALIAS:
            return EVENTS
        custom = self._custom.get((group, plural))
        if custom is not None and custom.custom is not None and version in custom.custom.versions:
            return custom
        return _BY_ADDRESS.get((group, version, plural))

    def find_kind(self, api_version: str, kind: str) -> ResourceType | None:
        """Returns the resource type with this apiVersion and kind (as in an owner reference), or None."""
        found = _BY_KIND.get((api_version, kind))
        group, _, version = api_version.rpartition("/")
        served = (
            entry
            for entry in self._custom.values()
            if entry.kind == kind
            and entry.group == group
            and entry.custom is not None
            and version in entry.custom.versions
        )
        return found or next(served, None)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Returns the named groups in the order of discovery, each with its versions, newest first."""
        result: dict[str, tuple[str, ...]] = {name: (version,) for name, version in GROUP_VERSIONS.items()}
        for entry in self._custom.values():
            if entry.custom is not None:
                known = result.get(entry.group, ())
                result[entry.group] = tuple(sorted({*known, *entry.custom.versions}, key=_version_order))
        return result

    def custom(self, group: str, plural: str) -> ResourceType | None:
        """Returns the custom type of this group and plural, or None."""
        return self._custom.get((group, plural))

    def add(self, resource: ResourceType) -> None:
        """Serves a custom type."""
        self._custom[resource.group, resource.plural] = resource
        self.serial += 1

    def remove(self, resource: ResourceType) -> None:
        """Stops serving a custom type."""
        self._custom.pop((resource.group, resource.plural), None)
        self.serial += 1
        for notify in self.on_removed:
            notify(resource)


def find_kind(api_version: str, kind: str) -> ResourceType | None:
    """Returns the built-in type with this apiVersion and kind, or None."""
    return _BY_KIND.get((api_version, kind))


def _version_order(version: str) -> tuple[int, int, int]:
    """Returns the sort key of a version in discovery: `v2` before `v1` before `v1beta2` before `v1alpha1`; other names
    last.
    """
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0))
