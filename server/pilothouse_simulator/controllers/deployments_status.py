"""Status and conditions of a Deployment, as the real controller writes them.

`observedGeneration`, the counters and `Available` follow from the replica sets. `Progressing` is a small state machine:
NewReplicaSetCreated or FoundNewReplicaSet, ReplicaSetUpdated at every step forward, NewReplicaSetAvailable at the end,
ProgressDeadlineExceeded after too long without a step, DeploymentPaused and DeploymentResumed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pilothouse_simulator.controllers.deployments_scaling import (
    replicas_of,
    status_total,
    surge_and_unavailable,
    total_replicas,
)
from pilothouse_simulator.values.clock import format_time, parse_time
from pilothouse_simulator.values.json_copy import copy_json

JsonObject = dict[str, Any]

NEW_REPLICA_SET_AVAILABLE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
# A deadline that means "none".
_NO_DEADLINE = 2**31 - 1


def find_condition(status: JsonObject, kind: str) -> JsonObject | None:
    """Returns the condition of this type, or None."""
    return next((entry for entry in status.get("conditions") or [] if entry["type"] == kind), None)


def remove_condition(status: JsonObject, kind: str) -> None:
    """Removes the condition of this type."""
    if "conditions" in status:
        status["conditions"] = [entry for entry in status["conditions"] if entry["type"] != kind]


def set_condition(
    status: JsonObject, kind: str, value: str, reason: str, message: str, now: datetime
) -> None:
    """Sets a condition, unless it already has this status and reason. A changed one moves to the end."""
    current = find_condition(status, kind)
    if current is not None and (current["status"], current["reason"]) == (value, reason):
        return
    text = format_time(now)
    transition = current["lastTransitionTime"] if current and current["status"] == value else text
    remove_condition(status, kind)
    status.setdefault("conditions", []).append(
        {
            "type": kind,
            "status": value,
            "lastUpdateTime": text,
            "lastTransitionTime": transition,
            "reason": reason,
            "message": message,
        }
    )


def has_progress_deadline(deployment: JsonObject) -> bool:
    """Returns whether the deployment has a progress deadline."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return seconds is not None and int(seconds) != _NO_DEADLINE


def calculate_status(
    deployment: JsonObject, all_sets: list[JsonObject], new_set: JsonObject | None, now: datetime
) -> JsonObject:
    """Returns the status that follows from the replica sets.

    Progressing is copied from the old status. Counters of zero are absent.
    """
    old = deployment.get("status") or {}
    available = status_total(all_sets, "availableReplicas")
    counters = {
        "replicas": status_total(all_sets, "replicas"),
        "updatedReplicas": status_total([new_set] if new_set else [], "replicas"),
        "readyReplicas": status_total(all_sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total_replicas(all_sets) - available),
    }
    status: JsonObject = {
        "observedGeneration": deployment["metadata"]["generation"],
        **{name: count for name, count in counters.items() if count},
        "terminatingReplicas": status_total(all_sets, "terminatingReplicas"),
    }
    if old.get("collisionCount"):
        status["collisionCount"] = old["collisionCount"]
    status["conditions"] = copy_json(old.get("conditions") or [])
    _, unavailable = surge_and_unavailable(deployment)
    if available >= replicas_of(deployment) - unavailable:
        set_condition(
            status, "Available", "True", "MinimumReplicasAvailable",
            "Deployment has minimum availability.", now,
        )  # fmt: skip
    else:
        set_condition(
            status, "Available", "False", "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.", now,
        )  # fmt: skip
    return status


def is_complete(deployment: JsonObject, status: JsonObject) -> bool:
    """Returns whether all wanted replicas are new and available, and no other replicas are left."""
    wanted = replicas_of(deployment)
    if any(status.get(count, 0) != wanted for count in ("updatedReplicas", "replicas", "availableReplicas")):
        return False
    return int(status.get("observedGeneration", 0)) >= int(deployment["metadata"]["generation"])


def calculate_rollout_status(
    deployment: JsonObject, all_sets: list[JsonObject], new_set: JsonObject | None, now: datetime
) -> JsonObject:
    """Returns the result of `calculate_status` with Progressing and ReplicaFailure, for a rollout."""
    status = calculate_status(deployment, all_sets, new_set, now)
    old = deployment.get("status") or {}
    if not has_progress_deadline(deployment):
        remove_condition(status, "Progressing")
    current = find_condition(old, "Progressing")
    finished = (
        current is not None
        and current["reason"] == NEW_REPLICA_SET_AVAILABLE
        and status.get("replicas", 0) == status.get("updatedReplicas", 0)
    )
    if has_progress_deadline(deployment) and not finished:
        name = new_set["metadata"]["name"] if new_set else deployment["metadata"]["name"]
        subject = f'{"ReplicaSet" if new_set else "Deployment"} "{name}"'
        if is_complete(deployment, status):
            set_condition(
                status, "Progressing", "True", NEW_REPLICA_SET_AVAILABLE,
                f"{subject} has successfully progressed.", now,
            )  # fmt: skip
        elif _is_progressing(old, status):
            remove_condition(status, "Progressing")
            set_condition(
                status, "Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", now
            )
            if current is not None and current["status"] == "True":
                status["conditions"][-1]["lastTransitionTime"] = current["lastTransitionTime"]
        elif _has_timed_out(deployment, status, now):
            set_condition(
                status, "Progressing", "False", TIMED_OUT, f"{subject} has timed out progressing.", now
            )
    failure = _replica_failure(all_sets, new_set)
    if failure is None:
        remove_condition(status, "ReplicaFailure")
    else:
        set_condition(status, "ReplicaFailure", failure["status"], failure["reason"], failure["message"], now)
    return status


def _is_progressing(old: JsonObject, new: JsonObject) -> bool:
    def outdated(status: JsonObject) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    return outdated(new) < outdated(old) or any(
        new.get(counter, 0) > old.get(counter, 0)
        for counter in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def _has_timed_out(deployment: JsonObject, status: JsonObject, now: datetime) -> bool:
    condition = find_condition(status, "Progressing")
    if condition is None or condition["reason"] == NEW_REPLICA_SET_AVAILABLE:
        return False
    return condition["reason"] == TIMED_OUT or _deadline(deployment, condition) < now


def _deadline(deployment: JsonObject, condition: JsonObject) -> datetime:
    allowed = timedelta(seconds=int(deployment["spec"]["progressDeadlineSeconds"]))
    return parse_time(condition["lastUpdateTime"]) + allowed


def seconds_to_deadline(deployment: JsonObject, status: JsonObject, now: datetime) -> float | None:
    """Returns the seconds until the progress deadline passes; None if no progress is expected."""
    condition = find_condition(status, "Progressing")
    if condition is None or not has_progress_deadline(deployment):
        return None
    if is_complete(deployment, status) or condition["reason"] in (
        TIMED_OUT,
        NEW_REPLICA_SET_AVAILABLE,
        PAUSED,
    ):
        return None
    return max(0.0, (_deadline(deployment, condition) - now).total_seconds()) + 0.05


def _replica_failure(all_sets: list[JsonObject], new_set: JsonObject | None) -> JsonObject | None:
    for replica_set in ([new_set] if new_set else []) + all_sets:
        condition = find_condition(replica_set.get("status") or {}, "ReplicaFailure")
        if condition is not None:
            return condition
    return None
