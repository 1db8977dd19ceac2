"""Table responses: the columns and cells that `kubectl get` prints, per kind.

Kinds without columns of their own show name and age. Column descriptions are shortened, because clients rarely print
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pilothouse_simulator.api.representation import metadata_only
from pilothouse_simulator.api.tables_policies import (
    autoscaler_cells,
    budget_cells,
    custom_cells,
    ingress_cells,
    ingress_class_cells,
    network_policy_cells,
    quota_cells,
    role_binding_cells,
    role_cells,
)
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INGRESS_CLASSES,
    INGRESSES,
    JOBS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
    ResourceType,
    find_kind,
)
from pilothouse_simulator.values.selectors import format_label_selector

JsonObject = dict[str, Any]
Cells = Callable[[JsonObject, datetime], list[Any]]

_NONE = "<none>"


@dataclass(frozen=True)
class TableColumn:
    """One column; `priority` 1 is shown only with `-o wide`."""

    name: str
    type: str = "string"
    priority: int = 0
    description: str = ""

    def to_json(self) -> JsonObject:
        return {
            "name": self.name,
            "type": self.type,
            "format": "name" if self.name == "Name" else "",
            "description": self.description or self.name,
            "priority": self.priority,
        }


def human_duration(seconds: float) -> str:
    """Formats a duration the way kubectl shows ages: `5s`, `2m3s`, `17m`, `5h`, `3d4h`."""
    total = int(seconds)
    if total < 0:
        return "0s" if total > -2 else "<invalid>"
    if total < 120:
        return f"{total}s"
    minutes = total // 60
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = total // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y{days % 365}d"


def age(text: str | None, now: datetime) -> str:
    """Returns the time since an RFC 3339 time; `<unknown>` if it is absent."""
    if not text:
        return "<unknown>"
    return human_duration((now - datetime.fromisoformat(text).astimezone(UTC)).total_seconds())


def _created(obj: JsonObject, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _aged(cells: Callable[[JsonObject, str], list[Any]]) -> Cells:
    return lambda obj, now: cells(obj, _created(obj, now))


@dataclass
class PodSummary:
    """The values in the columns of a pod: Status, ready containers, restarts, and when the last restart was."""

    reason: str
    ready: int = 0
    restarts: int = 0
    last_restart: str | None = None


def pod_summary(pod: JsonObject) -> PodSummary:
    """Returns the summary of a pod's containers, as the real server makes it."""
    status = pod.get("status", {})
    summary = PodSummary(str(status.get("reason") or status.get("phase", "")))
    if not _is_initializing(pod, summary):
        _summarize_containers(status, summary)
    if pod["metadata"].get("deletionTimestamp"):
        summary.reason = "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return summary


def _is_initializing(pod: JsonObject, summary: PodSummary) -> bool:
    """Returns whether an init container is not done yet. Status then describes the first such container."""
    sidecars, total = _sidecars(pod), len(pod["spec"].get("initContainers") or [])
    for index, entry in enumerate(pod.get("status", {}).get("initContainerStatuses") or []):
        summary.restarts += int(entry.get("restartCount", 0))
        state = entry.get("state", {})
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if (terminated and terminated.get("exitCode") == 0) or entry.get("started"):
            summary.ready += bool(entry.get("ready")) and entry["name"] in sidecars
            continue
        if terminated:
            summary.reason = f"Init:{_end_of(terminated)}"
        elif waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            summary.reason = f"Init:{waiting['reason']}"
        else:
            summary.reason = f"Init:{index}/{total}"
        return True
    return False


def _sidecars(pod: JsonObject) -> set[str]:
    """Returns the init containers that keep running; they count like main containers."""
    listed = pod["spec"].get("initContainers") or []
    return {each["name"] for each in listed if each.get("restartPolicy") == "Always"}


def _summarize_containers(status: JsonObject, summary: PodSummary) -> None:
    sidecars = summary.ready
    for entry in reversed(status.get("containerStatuses") or []):
        summary.restarts += int(entry.get("restartCount", 0))
        last = entry.get("lastState", {}).get("terminated")
        if last and last.get("finishedAt"):
            summary.last_restart = max(summary.last_restart or "", last["finishedAt"])
        waiting, terminated = entry["state"].get("waiting"), entry["state"].get("terminated")
        if waiting and waiting.get("reason"):
            summary.reason = waiting["reason"]
        elif terminated:
            summary.reason = _end_of(terminated)
        elif entry.get("ready") and entry["state"].get("running"):
            summary.ready += 1
    if summary.reason == "Completed" and summary.ready > sidecars:
        summary.reason = "Running"


def _end_of(terminated: JsonObject) -> str:
    return terminated.get("reason") or f"ExitCode:{terminated.get('exitCode')}"


def _pod_cells(pod: JsonObject, now: datetime) -> list[Any]:
    summary = pod_summary(pod)
    total = len(pod["spec"].get("containers") or []) + len(_sidecars(pod))
    status = pod.get("status", {})
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts += f" ({age(summary.last_restart, now)} ago)"
    return [
        pod["metadata"]["name"],
        f"{summary.ready}/{total}",
        summary.reason,
        restarts,
        _created(pod, now),
        status.get("podIP") or _NONE,
        pod["spec"].get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        _NONE,
    ]


def _images(spec: JsonObject) -> tuple[str, str]:
    containers = spec.get("containers") or []
    return (
        ",".join(container["name"] for container in containers),
        ",".join(container.get("image", "") for container in containers),
    )


def _deployment_cells(obj: JsonObject, now: datetime) -> list[Any]:
    status, spec = obj.get("status", {}), obj["spec"]
    names, images = _images(spec["template"]["spec"])
    return [
        obj["metadata"]["name"],
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _created(obj, now),
        names,
        images,
        format_label_selector(spec.get("selector")),
    ]


def _replica_set_cells(obj: JsonObject, now: datetime) -> list[Any]:
    status, spec = obj.get("status", {}), obj["spec"]
    names, images = _images(spec["template"]["spec"])
    return [
        obj["metadata"]["name"],
        spec.get("replicas", 1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        _created(obj, now),
        names,
        images,
        format_label_selector(spec.get("selector")),
    ]


def _stateful_set_cells(obj: JsonObject, now: datetime) -> list[Any]:
    spec = obj["spec"]
    ready = f"{obj['status'].get('readyReplicas', 0)}/{spec.get('replicas', 1)}"
    return [obj["metadata"]["name"], ready, _created(obj, now), *_images(spec["template"]["spec"])]


def _daemon_set_cells(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj["status"]
    selector = spec["template"]["spec"].get("nodeSelector") or {}
    return [
        obj["metadata"]["name"],
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or _NONE,
        _created(obj, now),
        *_images(spec["template"]["spec"]),
        format_label_selector(spec.get("selector")),
    ]


def _job_cells(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj["status"]
    completions, parallelism = spec.get("completions"), spec.get("parallelism", 1)
    wanted = completions if completions is not None else 1 if parallelism <= 1 else f"1 of {parallelism}"
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
    kinds = ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")
    found = next((kind for kind in kinds if conditions.get(kind) == "True"), "Running")
    if "deletionTimestamp" in obj["metadata"]:
        found = "Terminating"
    duration = ""
    if started := status.get("startTime"):
        ended = status.get("completionTime")
        duration = age(started, datetime.fromisoformat(ended) if ended else now)
    return [
        obj["metadata"]["name"],
        found,
        f"{status.get('succeeded', 0)}/{wanted}",
        duration,
        _created(obj, now),
        *_images(spec["template"]["spec"]),
        format_label_selector(spec.get("selector")),
    ]


def _cron_job_cells(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj["status"]
    last = status.get("lastScheduleTime")
    template = spec["jobTemplate"]["spec"]
    return [
        obj["metadata"]["name"],
        spec["schedule"],
        spec.get("timeZone") or _NONE,
        str(spec["suspend"]),
        len(status.get("active") or []),
        age(last, now) if last else _NONE,
        _created(obj, now),
        *_images(template["template"]["spec"]),
        format_label_selector(template.get("selector")) or _NONE,
    ]


def _revision_cells(obj: JsonObject, now: datetime) -> list[Any]:
    owners = obj["metadata"].get("ownerReferences") or []
    controller = next((entry for entry in owners if entry.get("controller")), None)
    resource = find_kind(controller["apiVersion"], controller["kind"]) if controller is not None else None
    owner = f"{resource.singular}.{resource.group}/{controller['name']}" if resource and controller else _NONE
    return [obj["metadata"]["name"], owner, obj["revision"], _created(obj, now)]


def _service_cells(obj: JsonObject, now: datetime) -> list[Any]:
    spec = obj["spec"]
    ports = ",".join(
        f"{port['port']}:{port['nodePort']}/{port['protocol']}"
        if port.get("nodePort")
        else f"{port['port']}/{port['protocol']}"
        for port in spec.get("ports") or []
    )
    external = spec.get("externalName") or ",".join(spec.get("externalIPs") or []) or _NONE
    selector = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items()))
    return [
        obj["metadata"]["name"],
        spec["type"],
        spec.get("clusterIP") or _NONE,
        external,
        ports or _NONE,
        _created(obj, now),
        selector or _NONE,
    ]


def _namespace_cells(obj: JsonObject, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], obj["status"].get("phase", ""), _created(obj, now)]


def _node_cells(obj: JsonObject, now: datetime) -> list[Any]:
    status = obj.get("status", {})
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
    state = {"True": "Ready", "False": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    if obj.get("spec", {}).get("unschedulable"):
        state += ",SchedulingDisabled"
    addresses = {entry["type"]: entry["address"] for entry in status.get("addresses") or []}
    info = status.get("nodeInfo", {})
    prefix = "node-role.kubernetes.io/"
    roles = sorted(
        label.removeprefix(prefix)
        for label in obj["metadata"].get("labels") or {}
        if label.startswith(prefix)
    )
    return [
        obj["metadata"]["name"],
        state,
        ",".join(roles) or _NONE,
        _created(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", _NONE),
        addresses.get("ExternalIP", _NONE),
        info.get("osImage", "<unknown>"),
        info.get("kernelVersion", "<unknown>"),
        info.get("containerRuntimeVersion", "<unknown>"),
    ]


def _event_cells(obj: JsonObject, now: datetime) -> list[Any]:
    involved = obj.get("involvedObject", {})
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or first
    component = obj.get("source", {}).get("component") or obj.get("reportingComponent", "")
    return [
        age(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{involved.get('kind', '').lower()}/{involved.get('name', '')}",
        involved.get("fieldPath", ""),
        component,
        str(obj.get("message", "")).strip(),
        age(first, now),
        obj.get("count", 1),
        obj["metadata"]["name"],
    ]


def _config_map_cells(obj: JsonObject, now: datetime) -> list[Any]:
    count = len(obj.get("data") or {}) + len(obj.get("binaryData") or {})
    return [obj["metadata"]["name"], count, _created(obj, now)]


def _secret_cells(obj: JsonObject, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], obj["type"], len(obj.get("data") or {}), _created(obj, now)]


def _modes(obj: JsonObject) -> str:
    short = {
        "ReadWriteOnce": "RWO",
        "ReadOnlyMany": "ROX",
        "ReadWriteMany": "RWX",
        "ReadWriteOncePod": "RWOP",
    }
    return ",".join(short.get(mode, mode) for mode in obj.get("accessModes") or [])


def _claim_cells(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj["status"]
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    capacity = (status.get("capacity") or {}).get("storage", "")
    return [obj["metadata"]["name"], phase, spec.get("volumeName", ""), capacity, _modes(status),
            spec.get("storageClassName", ""), "<unset>", _created(obj, now), spec.get("volumeMode", "")]  # fmt: skip


def _volume_cells(obj: JsonObject, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj["status"]
    phase = "Terminating" if "deletionTimestamp" in obj["metadata"] else status.get("phase", "")
    claim = spec.get("claimRef")
    return [obj["metadata"]["name"], spec["capacity"]["storage"], _modes(spec), spec["persistentVolumeReclaimPolicy"],
            phase, f"{claim['namespace']}/{claim['name']}" if claim else "", spec.get("storageClassName", ""),
            "<unset>", status.get("reason", ""), _created(obj, now), spec.get("volumeMode", "")]  # fmt: skip


def _storage_class_cells(obj: JsonObject, now: datetime) -> list[Any]:
    annotations = obj["metadata"].get("annotations") or {}
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [obj["metadata"]["name"] + (" (default)" if default else ""), obj["provisioner"], obj["reclaimPolicy"],
            obj["volumeBindingMode"], bool(obj.get("allowVolumeExpansion")), _created(obj, now)]  # fmt: skip


def _service_account_cells(obj: JsonObject, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], len(obj.get("secrets") or []), _created(obj, now)]


def _endpoints_cells(obj: JsonObject, now: datetime) -> list[Any]:
    addresses = [
        f"{address['ip']}:{port['port']}"
        for subset in obj.get("subsets") or []
        for address in subset.get("addresses") or []
        for port in subset.get("ports") or [{"port": ""}]
    ]
    return [obj["metadata"]["name"], ",".join(addresses) or _NONE, _created(obj, now)]


def _endpoint_slice_cells(obj: JsonObject, now: datetime) -> list[Any]:
    ports = ",".join(str(port.get("port", "")) for port in obj.get("ports") or [])
    endpoints = ",".join(
        address for endpoint in obj.get("endpoints") or [] for address in endpoint.get("addresses") or []
    )
    return [
        obj["metadata"]["name"],
        obj.get("addressType", ""),
        ports or "<unset>",
        endpoints or "<unset>",
        _created(obj, now),
    ]


def _default_cells(obj: JsonObject, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


def _columns(*names: str, wide: tuple[str, ...] = (), integers: tuple[str, ...] = ()) -> list[TableColumn]:
    plain = [TableColumn(name, "integer" if name in integers else "string") for name in names]
    return plain + [TableColumn(name, "integer" if name in integers else "string", 1) for name in wide]


_TABLES: dict[ResourceType, tuple[list[TableColumn], Cells]] = {
    PODS: (
        _columns("Name", "Ready", "Status", "Restarts", "Age",
                 wide=("IP", "Node", "Nominated Node", "Readiness Gates")), _pod_cells),
    DEPLOYMENTS: (
        _columns("Name", "Ready", "Up-to-date", "Available", "Age", wide=("Containers", "Images", "Selector"),
                 integers=("Up-to-date", "Available")), _deployment_cells),
    REPLICA_SETS: (
        _columns("Name", "Desired", "Current", "Ready", "Age", wide=("Containers", "Images", "Selector"),
                 integers=("Desired", "Current", "Ready")), _replica_set_cells),
    STATEFUL_SETS: (_columns("Name", "Ready", "Age", wide=("Containers", "Images")), _stateful_set_cells),
    DAEMON_SETS: (
        _columns("Name", "Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", "Age",
                 wide=("Containers", "Images", "Selector"),
                 integers=("Desired", "Current", "Ready", "Up-to-date", "Available")), _daemon_set_cells),
    JOBS: (
        _columns("Name", "Status", "Completions", "Duration", "Age", wide=("Containers", "Images", "Selector")),
        _job_cells),
    CRON_JOBS: (
        [*_columns("Name", "Schedule", "Timezone"), TableColumn("Suspend", "boolean"),
         *_columns("Active", "Last Schedule", "Age", wide=("Containers", "Images", "Selector"), integers=("Active",))],
        _cron_job_cells),
    CONTROLLER_REVISIONS: (
        _columns("Name", "Controller", "Revision", "Age", integers=("Revision",)), _revision_cells),
    SERVICES: (
        _columns("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", wide=("Selector",)),
        _service_cells),
    NAMESPACES: (_columns("Name", "Status", "Age"), _namespace_cells),
    NODES: (
        _columns("Name", "Status", "Roles", "Age", "Version",
                 wide=("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime")),
        _node_cells),
    EVENTS: (
        [TableColumn("Last Seen"), TableColumn("Type"), TableColumn("Reason"), TableColumn("Object"),
         TableColumn("Subobject", priority=1),
         TableColumn("Source", priority=1), TableColumn("Message"), TableColumn("First Seen", priority=1),
         TableColumn("Count", "integer", 1), TableColumn("Name", priority=1)], _event_cells),
    CONFIG_MAPS: (_columns("Name", "Data", "Age", integers=("Data",)), _config_map_cells),
    SECRETS: (_columns("Name", "Type", "Data", "Age", integers=("Data",)), _secret_cells),
    SERVICE_ACCOUNTS: (_columns("Name", "Secrets", "Age", integers=("Secrets",)), _service_account_cells),
    ENDPOINTS: (_columns("Name", "Endpoints", "Age"), _endpoints_cells),
    PERSISTENT_VOLUME_CLAIMS: (
        _columns("Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass",
                 "Age", wide=("VolumeMode",)), _claim_cells),
    PERSISTENT_VOLUMES: (
        _columns("Name", "Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim", "StorageClass",
                 "VolumeAttributesClass", "Reason", "Age", wide=("VolumeMode",)), _volume_cells),
    STORAGE_CLASSES: (
        _columns("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"),
        _storage_class_cells),
    ENDPOINT_SLICES: (_columns("Name", "AddressType", "Ports", "Endpoints", "Age"), _endpoint_slice_cells),
    INGRESSES: (_columns("Name", "Class", "Hosts", "Address", "Ports", "Age"), _aged(ingress_cells)),
    INGRESS_CLASSES: (_columns("Name", "Controller", "Parameters", "Age"), _aged(ingress_class_cells)),
    NETWORK_POLICIES: (_columns("Name", "Pod-Selector", "Age"), _aged(network_policy_cells)),
    POD_DISRUPTION_BUDGETS: (
        _columns("Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age",
                 integers=("Allowed Disruptions",)), _aged(budget_cells)),
    HORIZONTAL_POD_AUTOSCALERS: (
        _columns("Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age",
                 integers=("MaxPods", "Replicas")), _aged(autoscaler_cells)),
    RESOURCE_QUOTAS: (_columns("Name", "Request", "Limit", "Age"), _aged(quota_cells)),
    ROLES: (_columns("Name", "Created At"), _aged(role_cells)),
    ROLE_BINDINGS: (
        _columns("Name", "Role", "Age", wide=("Users", "Groups", "ServiceAccounts")), _aged(role_binding_cells)),
}  # fmt: skip
_AGE_COLUMN = ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},)
_DEFAULT_TABLE: tuple[list[TableColumn], Cells] = (_columns("Name", "Created At"), _default_cells)


def _custom_table(resource: ResourceType) -> tuple[list[TableColumn], Cells] | None:
    """Returns the columns of a custom resource: those of its definition, or its age."""
    if resource.custom is None:
        return None
    columns: tuple[JsonObject, ...] = resource.custom.columns or _AGE_COLUMN
    shown = [
        TableColumn(column["name"], column["type"], column.get("priority", 0), column.get("description", ""))
        for column in columns
    ]
    return [TableColumn("Name"), *shown], lambda obj, now: custom_cells(columns, obj, now, age)


def build_table(
    resource: ResourceType,
    objects: list[JsonObject],
    now: datetime,
    *,
    with_columns: bool,
    whole: bool = False,
) -> JsonObject:
    """Returns a meta.k8s.io/v1 Table without its metadata.

    With `whole`, rows have the full object (includeObject=Object).
    """
    columns, cells = _custom_table(resource) or _TABLES.get(resource, _DEFAULT_TABLE)
    table: JsonObject = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}}
    table["columnDefinitions"] = [column.to_json() for column in columns] if with_columns else None
    table["rows"] = [
        {"cells": cells(obj, now), "object": obj if whole else metadata_only(obj)} for obj in objects
    ]
    return table
