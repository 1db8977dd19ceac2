"""The status of a simulated pod, as its kubelet reports it.

Phase, conditions and container statuses follow from the state of the containers by the real kubelet's rules. A
condition keeps its transition time while its status is unchanged. Fields that a kubelet does not set (qosClass, the
reason of a deletion) stay unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilothouse_simulator.admission.pod_resources import pod_total_quantities
from pilothouse_simulator.nodes.pod_containers import ContainerRole, RunningContainer, is_restarted
from pilothouse_simulator.values.clock import format_time

JsonObject = dict[str, Any]

_CONDITION_ORDER = (
    "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled",
)  # fmt: skip


@dataclass
class Sandbox:
    """The pod's sandbox on its node.

    `pod_ip` is empty until the network is up. `failure` is the reason and message if the whole pod has failed.
    """

    host_ip: str
    start_time: str
    pod_ip: str = ""
    is_up: bool = False
    failure: tuple[str, str] | None = None


def build_status(
    pod: JsonObject, containers: list[RunningContainer], sandbox: Sandbox, now: datetime, *, over: bool
) -> JsonObject:
    """Returns the status to report. `over`: none of the pod's containers will run again, so its phase is final."""
    old = pod["status"]
    finished = _is_finished(pod, containers, over=over)
    failed = sandbox.failure is not None
    phase = (
        "Failed" if failed and finished else _phase(pod, containers, finished=finished and not sandbox.is_up)
    )
    status: JsonObject = {"observedGeneration": pod["metadata"]["generation"], "phase": phase}
    if sandbox.failure is not None:
        status["reason"], status["message"] = sandbox.failure
    if "reason" in old and over:
        status |= {key: old[key] for key in ("reason", "message") if key in old}
    # If a main container never ran, the kubelet fails the pod without updating its conditions for the end.
    seen = not over or not any(
        container.role is ContainerRole.MAIN and container.current is None for container in containers
    )
    status["conditions"] = _conditions(
        pod, containers, sandbox, now, finished=finished and seen, failed=failed and finished
    )
    status |= {"hostIP": sandbox.host_ip, "hostIPs": [{"ip": sandbox.host_ip}]}
    if sandbox.pod_ip:
        status |= {"podIP": sandbox.pod_ip, "podIPs": [{"ip": sandbox.pod_ip}]}
    status["startTime"] = sandbox.start_time
    initial = [container for container in containers if container.role is not ContainerRole.MAIN]
    if initial:
        status["initContainerStatuses"] = [_container_status(container) for container in initial]
    main = [container for container in containers if container.role is ContainerRole.MAIN]
    # Init containers are in the order of the spec, main containers in the order of their names.
    main.sort(key=lambda container: container.name)
    status["containerStatuses"] = [_container_status(container) for container in main]
    status["qosClass"] = old.get("qosClass", "BestEffort")
    requests = pod_total_quantities(pod, "requests")
    limits = pod_total_quantities(pod, "limits")
    if requests:
        status["allocatedResources"] = requests
    status["resources"] = {key: value for key, value in (("limits", limits), ("requests", requests)) if value}
    return status


def _is_finished(pod: JsonObject, containers: list[RunningContainer], *, over: bool) -> bool:
    """Returns whether all main containers have ended for good."""
    if over:
        return True
    policy = pod["spec"].get("restartPolicy", "Always")
    main = [container for container in containers if container.role is ContainerRole.MAIN]
    failed_init = policy == "Never" and any(
        container.role is ContainerRole.INIT and _exit_code(container) not in (None, 0)
        for container in containers
    )
    if failed_init:
        return True
    return all(
        (code := _exit_code(container)) is not None and not is_restarted(container.spec, policy, code)
        for container in main
    )


def _exit_code(container: RunningContainer) -> int | None:
    """Returns the exit code of a container; None while it runs or before it ever ran."""
    if container.is_running or container.current is None:
        return None
    return container.current.exit_code


def _phase(pod: JsonObject, containers: list[RunningContainer], *, finished: bool) -> str:
    if finished:
        ended_well = all(
            _exit_code(container) == 0 and not container.never_ran
            for container in containers
            if container.role is ContainerRole.MAIN
        )
        return "Succeeded" if ended_well else "Failed"
    if not _is_initialized(containers):
        return "Pending"
    waiting = any(
        container.role is ContainerRole.MAIN and container.current is None for container in containers
    )
    return "Pending" if waiting else "Running"


def _is_initialized(containers: list[RunningContainer]) -> bool:
    return not _incomplete(containers)


def _incomplete(containers: list[RunningContainer]) -> list[str]:
    """Returns the init containers that are not done, and the sidecars that have never counted as started."""

    def is_incomplete(container: RunningContainer) -> bool:
        if container.role is ContainerRole.INIT:
            return _exit_code(container) != 0
        first = container.is_running and container.restarts == 0
        waits = container.current is None or (first and not container.started)
        return container.role is ContainerRole.SIDECAR and waits

    return [container.name for container in containers if is_incomplete(container)]


def _conditions(
    pod: JsonObject,
    containers: list[RunningContainer],
    sandbox: Sandbox,
    now: datetime,
    *,
    finished: bool,
    failed: bool,
) -> list[JsonObject]:
    phase = "Failed" if failed else _phase(pod, containers, finished=finished)
    incomplete = _incomplete(containers)
    unready = [
        container.name
        for container in containers
        if container.role is not ContainerRole.INIT and not container.ready
    ]
    end_reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
    readiness: tuple[str, str, str]
    if end_reason:
        readiness = ("False", end_reason, "")
    elif unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        readiness = ("False", "ContainersNotReady", message)
    else:
        readiness = ("True", "", "")
    if incomplete:
        message = f"containers with incomplete status: [{' '.join(incomplete)}]"
        initialized = ("False", "ContainersNotInitialized", message)
    else:
        initialized = ("True", "PodCompleted" if phase == "Succeeded" else "", "")
    wanted = {
        "PodReadyToStartContainers": ("True" if sandbox.is_up else "False", "", ""),
        "Initialized": initialized,
        "Ready": readiness,
        "ContainersReady": readiness,
        "PodScheduled": ("True", "", ""),
    }
    known = {condition["type"]: condition for condition in pod["status"].get("conditions") or []}
    # Conditions that others set (DisruptionTarget) stay, before the kubelet's own.
    conditions = [dict(entry) for kind, entry in known.items() if kind not in wanted]
    for kind in _CONDITION_ORDER:
        value, reason, message = wanted[kind]
        same = kind in known and known[kind]["status"] == value
        condition: JsonObject = {
            "type": kind,
            "observedGeneration": pod["metadata"]["generation"],
            "status": value,
            "lastProbeTime": None,
            "lastTransitionTime": known[kind]["lastTransitionTime"] if same else format_time(now),
        }
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        conditions.append(condition)
    return conditions


def _container_status(container: RunningContainer) -> JsonObject:
    attempt = container.current
    status: JsonObject = {
        "name": container.name,
        "state": _state(container),
        "lastState": {},
        "ready": container.ready,
        "restartCount": container.restarts,
        "image": container.spec["image"],
        "imageID": "",
        "started": container.started,
    }
    last = container.previous
    if container.waiting is not None:
        last = container.current
    if last is not None and not container.never_ran:
        status["lastState"] = {"terminated": last.terminated()}
    if attempt is not None:
        status |= {
            "image": qualified_image(container.spec["image"]),
            "imageID": container.image_id,
            "containerID": attempt.container_id,
        }
        resources = container.spec.get("resources") or {}
        if resources.get("requests"):
            status["allocatedResources"] = resources["requests"]
        status["resources"] = resources
    mounts = [_mount(entry) for entry in container.spec.get("volumeMounts") or []]
    if mounts:
        status["volumeMounts"] = mounts
    return status


def _state(container: RunningContainer) -> JsonObject:
    if container.never_ran:
        return {
            "terminated": {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was terminated",
                "startedAt": None,
                "finishedAt": None,
            }
        }
    if container.waiting is not None:
        reason, message = container.waiting
        return {"waiting": {"reason": reason, "message": message} if message else {"reason": reason}}
    if container.current is None:
        return {"waiting": {"reason": "ContainerCreating"}}
    if container.is_running:
        return {"running": {"startedAt": format_time(container.current.started_at)}}
    return {"terminated": container.current.terminated()}


def _mount(mount: JsonObject) -> JsonObject:
    entry: JsonObject = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        entry |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
    return entry


def qualified_image(image: str) -> str:
    """Returns the full reference of an image: registry, repository and tag."""
    if "@" not in image and ":" not in image.rpartition("/")[2]:
        image += ":latest"
    host, slash, _ = image.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"
