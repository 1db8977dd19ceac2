"""The arithmetic of Jobs: indexes, failures, back-off and policies. Pure functions over pods and specs.

A port of the real controller's `indexed_job_utils.go`, `backoff_utils.go`, `pod_failure_policy.go` and
`success_policy.go`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from pilothouse_simulator.values.clock import parse_time

JsonObject = dict[str, Any]
Pods = list[JsonObject]

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"
_FIRST_BACK_OFF = timedelta(seconds=10)
_LONGEST_BACK_OFF = timedelta(minutes=10)
_MOST_DOUBLINGS = 10


def phase_of(pod: JsonObject) -> str:
    """Returns the phase of a pod."""
    return str(pod["status"].get("phase", ""))


def is_tracked(pod: JsonObject) -> bool:
    """Returns whether the end of this pod has not been counted yet."""
    return TRACKING in (pod["metadata"].get("finalizers") or [])


def has_failed(pod: JsonObject, spec: JsonObject) -> bool:
    """Returns whether a pod counts as failed.

    A pod that is being deleted counts, unless `podReplacementPolicy` is `Failed`.
    """
    if phase_of(pod) == "Failed":
        return True
    deleted = "deletionTimestamp" in pod["metadata"]
    return deleted and phase_of(pod) != "Succeeded" and spec["podReplacementPolicy"] != "Failed"


def index_of(pod: JsonObject) -> int | None:
    """Returns the completion index of a pod."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX)
    return int(text) if text is not None and text.isdigit() else None


def failures_of(pod: JsonObject, annotation: str = FAILURES) -> int:
    """Returns how often the index of this pod failed before this pod."""
    return int((pod["metadata"].get("annotations") or {}).get(annotation, "0"))


def parse_indexes(text: str | None) -> set[int]:
    """Returns the indexes of a text such as `0,2-4`."""
    found: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: Iterable[int]) -> str:
    """Returns the text of some indexes; three or more in a row are written as a range, two as single numbers."""
    ordered = sorted(set(indexes))
    starts = [0, *(place for place, (a, b) in enumerate(pairwise(ordered), 1) if b != a + 1), len(ordered)]
    parts: list[str] = []
    for begin, end in pairwise(starts):
        run = ordered[begin:end]
        if len(run) > 2:
            parts.append(f"{run[0]}-{run[-1]}")
        else:
            parts.extend(str(index) for index in run)
    return ",".join(parts)


def finished_at(pod: JsonObject) -> datetime:
    """Returns when a pod ended: its last container, or else its deletion, or else its creation."""
    status, metadata = pod["status"], pod["metadata"]
    ends = [
        entry["state"]["terminated"]["finishedAt"]
        for entry in status.get("containerStatuses") or []
        if (entry.get("state", {}).get("terminated") or {}).get("finishedAt")
    ]
    return parse_time(max(ends, default=metadata.get("deletionTimestamp") or metadata["creationTimestamp"]))


def back_off(pods: Pods, spec: JsonObject, now: datetime) -> timedelta:
    """Returns how long to wait before the next pod: ten seconds after a failure, doubled with each further one in a
    row.
    """
    ended = [pod for pod in pods if phase_of(pod) == "Succeeded" or has_failed(pod, spec)]
    failures = 0
    for pod in sorted(ended, key=finished_at, reverse=True):
        if phase_of(pod) == "Succeeded":
            break
        if match_failure_policy(spec, pod)[0] != "Ignore":
            failures += 1
    if not failures:
        return timedelta(0)
    return _remaining(failures, max(finished_at(pod) for pod in ended), now)


def _remaining(failures: int, last: datetime, now: datetime) -> timedelta:
    factor = 1 << min(failures - 1, _MOST_DOUBLINGS)
    pause = min(_FIRST_BACK_OFF * factor, _LONGEST_BACK_OFF)
    return max(last + pause - now, timedelta(0))


def index_back_off(failed: JsonObject, now: datetime) -> timedelta:
    """Returns how long an index still waits after the failure of its last pod."""
    return _remaining(failures_of(failed) + 1, finished_at(failed), now)


def match_failure_policy(spec: JsonObject, pod: JsonObject) -> tuple[str, str]:
    """Returns the action of the first rule of `podFailurePolicy` that a failed pod matches, and the reason; both are
    empty if it matches none."""
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or []
    if phase_of(pod) != "Failed":
        return "", ""
    place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for number, rule in enumerate(rules):
        action = rule["action"]
        if (codes := rule.get("onExitCodes")) is not None:
            found = _match_exit_code(codes, pod)
            if found is not None:
                name, code = found
                message = (
                    f"Container {name} for pod {place} failed with exit code {code} matching {action} rule at "
                    f"index {number}"
                )
                return action, message
        for pattern in rule.get("onPodConditions") or []:
            for condition in pod["status"].get("conditions") or []:
                if (condition["type"], condition["status"]) == (pattern["type"], pattern["status"]):
                    kind = condition["type"]
                    message = f"Pod {place} has condition {kind} matching {action} rule at index {number}"
                    return action, message
    return "", ""


def _match_exit_code(requirement: JsonObject, pod: JsonObject) -> tuple[str, int] | None:
    status = pod["status"]
    statuses = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    for entry in statuses:
        ended = (entry.get("state") or {}).get("terminated")
        if not ended or not ended["exitCode"]:
            continue
        if requirement.get("containerName") in (None, entry["name"]):
            listed = ended["exitCode"] in requirement["values"]
            if listed == (requirement["operator"] == "In"):
                return entry["name"], int(ended["exitCode"])
    return None


def met_success_rule(spec: JsonObject, succeeded: set[int]) -> int | None:
    """Returns the number of the first rule of `successPolicy` that these succeeded indexes meet."""
    for number, rule in enumerate((spec.get("successPolicy") or {}).get("rules") or []):
        wanted = parse_indexes(rule["succeededIndexes"]) if rule.get("succeededIndexes") else None
        matching = succeeded if wanted is None else succeeded & wanted
        count = rule.get("succeededCount")
        if len(matching) >= (count if count is not None else len(wanted or ())):
            return number
    return None


def restarts_of(pods: Pods) -> int:
    """Sums the container restarts of the pending and running pods, for `backoffLimit`."""
    return sum(
        int(entry.get("restartCount", 0))
        for pod in pods
        if phase_of(pod) in ("Pending", "Running")
        for field in ("initContainerStatuses", "containerStatuses")
        for entry in pod["status"].get(field) or []
    )
