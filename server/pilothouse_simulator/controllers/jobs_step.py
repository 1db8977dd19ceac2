"""One sync of a Job: counts its pods, creates and deletes pods, and writes its status.

`JobStep.take` follows `syncJob`, `manageJob` and `trackJobStatusAndRemoveFinalizers` of the real controller.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

from pilothouse_simulator.controllers.jobs_counting import (
    FAILURES,
    IGNORED_FAILURES,
    INDEX,
    TRACKING,
    back_off,
    failures_of,
    finished_at,
    format_indexes,
    has_failed,
    index_back_off,
    index_of,
    is_tracked,
    match_failure_policy,
    met_success_rule,
    parse_indexes,
    phase_of,
    restarts_of,
)
from pilothouse_simulator.controllers.replica_sets import controller_reference, is_active, ready_since
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import Clock, format_time, parse_time
from pilothouse_simulator.values.json_copy import copy_json

JsonObject = dict[str, Any]
Pods = list[JsonObject]

_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_MOST_PER_SYNC = 500
_FINAL = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}


class JobActions(Protocol):
    """The changes that a step makes in the cluster."""

    clock: Clock

    def create_pod(self, job: JsonObject, pod: JsonObject) -> JsonObject:
        """Creates a pod of a Job."""

    def delete_pod(self, job: JsonObject, pod: JsonObject) -> None:
        """Deletes a pod of a Job."""

    def release_pod(self, pod: JsonObject) -> None:
        """Removes the finalizer from a pod."""

    def write_status(self, job: JsonObject, status: JsonObject) -> JsonObject:
        """Writes the status of a Job if it has changed; returns the stored Job."""

    def come_back(self, job: JsonObject, after: timedelta) -> None:
        """Requests another sync of a Job after a time."""

    def record_event(self, job: JsonObject, reason: str, message: str, *, warning: bool = False) -> None:
        """Records an event about a Job."""


class JobStep:
    """A Job in one sync."""

    def __init__(self, controller: JobActions, job: JsonObject, pods: Pods) -> None:
        self._controller = controller
        self._job = job
        self._spec = job["spec"]
        self._pods = sorted(pods, key=lambda pod: (index_of(pod) or 0, pod["metadata"]["name"]))
        self._now = controller.clock.now()
        self.status: JsonObject = copy_json(job["status"])
        self.status.setdefault("uncountedTerminatedPods", {})
        self._is_indexed = self._spec["completionMode"] == "Indexed"
        self._per_index = self._spec.get("backoffLimitPerIndex")
        self._active = [pod for pod in self._pods if is_active(pod)]
        self._terminating = [
            pod
            for pod in self._pods
            if "deletionTimestamp" in pod["metadata"] and phase_of(pod) not in ("Succeeded", "Failed")
        ]
        self._succeeded_indexes = parse_indexes(self.status.get("completedIndexes"))
        self._failed_indexes = parse_indexes(self.status.get("failedIndexes"))
        # Failed pods, by index, that keep their finalizer until the next pod of the index has copied their failure
        # count.
        self._waiting: dict[int, JsonObject] = {}
        self._target: tuple[str, str, str] | None = None
        self._failure: ApiError | None = None

    def take(self) -> None:
        """Runs the whole step."""
        if "startTime" not in self.status and not self._spec["suspend"]:
            self.status["startTime"] = format_time(self._now)
        self._count_indexes()
        self._judge()
        if self._target is not None:
            for pod in self._active:
                self._controller.delete_pod(self._job, pod)
            self._terminating = [*self._terminating, *self._active]
            self._active = []
        else:
            if "deletionTimestamp" not in self._job["metadata"]:
                try:
                    self._manage()
                except ApiError as error:
                    self._failure = error
            self._note_completion()
        self._write()
        if self._failure is not None:
            raise self._failure

    # Counts and verdicts

    def _is_uncounted(self, pod: JsonObject, kind: str) -> bool:
        return pod["metadata"]["uid"] in (self.status["uncountedTerminatedPods"].get(kind) or [])

    def _succeeded(self) -> int:
        if self._is_indexed:
            return len(self._succeeded_indexes)
        uncounted = self.status["uncountedTerminatedPods"].get("succeeded") or []
        new = [pod for pod in self._new_ended("succeeded") if phase_of(pod) == "Succeeded"]
        return int(self.status.get("succeeded", 0)) + len(uncounted) + len(new)

    def _failed(self) -> int:
        uncounted = self.status["uncountedTerminatedPods"].get("failed") or []
        new = [pod for pod in self._new_ended("failed") if self._counts_as_failed(pod)]
        return int(self.status.get("failed", 0)) + len(uncounted) + len(new)

    def _new_ended(self, kind: str) -> Pods:
        return [pod for pod in self._pods if is_tracked(pod) and not self._is_uncounted(pod, kind)]

    def _counts_as_failed(self, pod: JsonObject) -> bool:
        return has_failed(pod, self._spec) and not self._is_ignored(pod)

    def _is_ignored(self, pod: JsonObject) -> bool:
        return match_failure_policy(self._spec, pod)[0] == "Ignore"

    def _count_indexes(self) -> None:
        if not self._is_indexed:
            return
        completions = int(self._spec["completions"])
        for pod in self._pods:
            index = index_of(pod)
            if index is None or index >= completions or not is_tracked(pod):
                continue
            if phase_of(pod) == "Succeeded":
                self._succeeded_indexes.add(index)
            elif self._per_index is not None and has_failed(pod, self._spec):
                self._note_failed_index(pod, index)
        self._succeeded_indexes = {index for index in self._succeeded_indexes if index < completions}

    def _note_failed_index(self, pod: JsonObject, index: int) -> None:
        action = match_failure_policy(self._spec, pod)[0]
        if action == "FailIndex" or (action != "Ignore" and failures_of(pod) + 1 > int(self._per_index or 0)):
            self._failed_indexes.add(index)
            self._waiting.pop(index, None)
        elif index not in self._failed_indexes:
            known = self._waiting.get(index)
            if known is None or finished_at(known) < finished_at(pod):
                self._waiting[index] = pod

    def _judge(self) -> None:
        """Decides whether the Job must end; sets `_target` to the condition, its reason and message."""
        for condition in self.status.get("conditions") or []:
            if condition["type"] in _FINAL and condition["status"] == "True":
                self._target = condition["type"], condition["reason"], condition["message"]
                return
        for pod in self._pods:
            action, message = match_failure_policy(self._spec, pod)
            if action == "FailJob":
                self._target = "FailureTarget", "PodFailurePolicy", message
                return
        self._judge_limits()
        if self._target is None and self._is_indexed:
            self._judge_indexes()

    def _judge_limits(self) -> None:
        limit = int(self._spec["backoffLimit"])
        on_failure = self._spec["template"]["spec"]["restartPolicy"] == "OnFailure"
        restarts = restarts_of(self._pods) if on_failure else 0
        if self._failed() > limit or (restarts > 0 and restarts >= limit):
            message = "Job has reached the specified backoff limit"
            self._target = "FailureTarget", "BackoffLimitExceeded", message
            return
        seconds, started = self._spec.get("activeDeadlineSeconds"), self.status.get("startTime")
        if seconds is None or started is None or self._spec["suspend"]:
            return
        remaining = parse_time(started) + timedelta(seconds=int(seconds)) - self._now
        if remaining > timedelta(0):
            self._controller.come_back(self._job, remaining)
        else:
            message = "Job was active longer than specified deadline"
            self._target = "FailureTarget", "DeadlineExceeded", message

    def _judge_indexes(self) -> None:
        failed, most = len(self._failed_indexes), self._spec.get("maxFailedIndexes")
        if self._per_index is not None:
            if most is not None and failed > int(most):
                message = "Job has exceeded the specified maximal number of failed indexes"
                self._target = "FailureTarget", "MaxFailedIndexesExceeded", message
                return
            if failed and failed + len(self._succeeded_indexes) >= int(self._spec["completions"]):
                self._target = "FailureTarget", "FailedIndexes", "Job has failed indexes"
                return
        rule = met_success_rule(self._spec, self._succeeded_indexes)
        if rule is not None:
            self._target = "SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {rule}"

    def _note_completion(self) -> None:
        succeeded, completions = self._succeeded(), self._spec.get("completions")
        enough = succeeded > 0 if completions is None else succeeded >= int(completions)
        if enough and not self._active:
            message = "Reached expected number of succeeded pods"
            self._target = "SuccessCriteriaMet", "CompletionsReached", message
        elif "deletionTimestamp" not in self._job["metadata"]:
            self._note_suspension()

    def _note_suspension(self) -> None:
        suspended = self._spec["suspend"]
        known = next(
            (entry for entry in self.status.get("conditions") or [] if entry["type"] == "Suspended"), None
        )
        if suspended:
            self.status.pop("startTime", None)
        if (known is None and not suspended) or (known and (known["status"] == "True") == suspended):
            return
        if suspended:
            reason, message = "JobSuspended", "Job suspended"
        else:
            reason, message = "JobResumed", "Job resumed"
            self.status["startTime"] = format_time(self._now)
        self._set_condition("Suspended", "True" if suspended else "False", reason, message)
        self._controller.record_event(self._job, "Suspended" if suspended else "Resumed", message)

    # Pods

    def _manage(self) -> None:
        if self._spec["suspend"]:
            self._remove(self._active)
            return
        surplus = self._surplus()
        if surplus:
            self._remove(surplus)
            return
        wanted = self._wanted() - len(self._active)
        if self._spec["podReplacementPolicy"] == "Failed":
            wanted -= len(self._terminating)
        if wanted <= 0:
            return
        pause = timedelta(0) if self._per_index is not None else back_off(self._pods, self._spec, self._now)
        if pause > timedelta(0):
            self._controller.come_back(self._job, pause)
            return
        if self._is_indexed:
            for index in self._pending_indexes()[: min(wanted, _MOST_PER_SYNC)]:
                self._create(index)
        else:
            for _ in range(min(wanted, _MOST_PER_SYNC)):
                self._create(None)

    def _wanted(self) -> int:
        parallelism = int(self._spec["parallelism"])
        succeeded = self._succeeded()
        if self._spec.get("completions") is None:
            return len(self._active) if succeeded else parallelism
        return max(0, min(parallelism, int(self._spec["completions"]) - succeeded))

    def _surplus(self) -> Pods:
        """Returns the superfluous active pods: of finished or duplicate indexes, and above the wanted number."""
        kept: Pods = []
        surplus: Pods = []
        seen = set(self._succeeded_indexes)
        for pod in self._active:
            index = index_of(pod)
            useless = self._is_indexed and (
                index is None or index in seen or index >= int(self._spec["completions"])
            )
            (surplus if useless else kept).append(pod)
            if index is not None:
                seen.add(index)
        kept.sort(key=lambda pod: (ready_since(pod) is None, pod["metadata"]["creationTimestamp"]))
        return surplus + kept[self._wanted() :]

    def _remove(self, pods: Pods) -> None:
        """Deletes active pods that must not count as failed: removes their finalizer first."""
        for pod in pods:
            self._controller.release_pod(pod)
        for pod in pods:
            self._controller.delete_pod(self._job, pod)
        removed = {pod["metadata"]["uid"] for pod in pods}
        self._active = [pod for pod in self._active if pod["metadata"]["uid"] not in removed]
        self._terminating = [*self._terminating, *pods]
        self._pods = [pod for pod in self._pods if pod["metadata"]["uid"] not in removed]

    def _pending_indexes(self) -> list[int]:
        taken = self._succeeded_indexes | self._failed_indexes | {index_of(pod) for pod in self._active}
        if self._spec["podReplacementPolicy"] == "Failed":
            taken |= {index_of(pod) for pod in self._terminating}
        pending = []
        for index in range(int(self._spec["completions"])):
            if index in taken:
                continue
            failed = self._waiting.get(index)
            pause = index_back_off(failed, self._now) if failed is not None else timedelta(0)
            if pause > timedelta(0):
                self._controller.come_back(self._job, pause)
            else:
                pending.append(index)
        return pending

    def _create(self, index: int | None) -> None:
        job, template = self._job["metadata"], copy_json(self._spec["template"])
        prefix = job["name"] if index is None else f"{job['name']}-{index}"
        metadata = {
            key: value
            for key, value in template["metadata"].items()
            if key in ("labels", "annotations", "finalizers") and value
        }
        metadata |= {
            "generateName": f"{prefix}-",
            "namespace": job["namespace"],
            "ownerReferences": [controller_reference(self._job)],
        }
        metadata["finalizers"] = [*metadata.get("finalizers", []), TRACKING]
        spec = template["spec"]
        if index is not None:
            annotations = metadata.setdefault("annotations", {})
            annotations[INDEX] = str(index)
            metadata.setdefault("labels", {})[INDEX] = str(index)
            if self._per_index is not None:
                annotations |= self._failure_counts(index)
            spec["hostname"] = prefix
            for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
                _show_index(container)
        try:
            pod = self._controller.create_pod(self._job, {"metadata": metadata, "spec": spec})
        except ApiError as error:
            self._controller.record_event(self._job, "FailedCreate", f"Error creating: {error}", warning=True)
            raise
        self._active.append(pod)
        if index is not None:
            self._waiting.pop(index, None)

    def _failure_counts(self, index: int) -> dict[str, str]:
        """Returns the annotations that give a new pod the failure counts of its index."""
        before = self._waiting.get(index)
        if before is None:
            return {FAILURES: "0"}
        ignored = self._is_ignored(before)
        counts = {FAILURES: str(failures_of(before) + (0 if ignored else 1))}
        ignored_before = failures_of(before, IGNORED_FAILURES)
        if ignored or ignored_before:
            counts[IGNORED_FAILURES] = str(ignored_before + ignored)
        return counts

    # Status

    def _set_condition(self, kind: str, value: str, reason: str, message: str) -> None:
        now = format_time(self._controller.clock.now())
        condition = {
            "type": kind,
            "status": value,
            "lastProbeTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }
        conditions = self.status.setdefault("conditions", [])
        for place, known in enumerate(conditions):
            if known["type"] == kind:
                if known["status"] != value:
                    conditions[place] = condition
                return
        conditions.append(condition)

    def _write(self) -> None:
        """Records the ended pods, removes their finalizers, then writes their count and the end of the Job."""
        status = self.status
        status["active"] = len(self._active) or None
        status["ready"] = sum(1 for pod in self._active if ready_since(pod) is not None)
        status["terminating"] = len(self._terminating)
        ended = self._note_ended()
        if self._is_indexed:
            status["succeeded"] = len(self._succeeded_indexes) or None
            status["completedIndexes"] = format_indexes(self._succeeded_indexes) or None
            if self._per_index is not None:
                status["failedIndexes"] = format_indexes(self._failed_indexes)
        if self._target is not None:
            self._set_condition(self._target[0], "True", *self._target[1:])
        self._job = self._controller.write_status(self._job, status)
        for pod in ended:
            self._controller.release_pod(pod)
        self._settle()
        self._finish()
        self._controller.write_status(self._job, status)

    def _note_ended(self) -> Pods:
        """Records which pods have ended in the status; returns the pods whose finalizer can be removed."""
        uncounted: JsonObject = self.status["uncountedTerminatedPods"]
        failing = self._target is not None and self._target[0] == "FailureTarget"
        waiting = {pod["metadata"]["uid"] for pod in self._waiting.values()}
        deleting = "deletionTimestamp" in self._job["metadata"]
        done = []
        for pod in self._pods:
            failed = has_failed(pod, self._spec)
            succeeded = phase_of(pod) == "Succeeded"
            uid = pod["metadata"]["uid"]
            if not is_tracked(pod) or not (failed or succeeded or deleting or self._target is not None):
                continue
            if uid in waiting and not deleting and self._target is None:
                continue
            done.append(pod)
            known = self._is_uncounted(pod, "succeeded") or self._is_uncounted(pod, "failed")
            if succeeded:
                if not self._is_indexed and not known:
                    uncounted.setdefault("succeeded", []).append(uid)
            elif (failed or failing) and not known and not self._is_ignored(pod):
                uncounted.setdefault("failed", []).append(uid)
        return done

    def _settle(self) -> None:
        """Counts the recorded pods; their finalizers are removed now."""
        uncounted = self.status["uncountedTerminatedPods"]
        for kind in ("succeeded", "failed"):
            if uids := uncounted.pop(kind, []):
                self.status[kind] = int(self.status.get(kind) or 0) + len(uids)

    def _finish(self) -> None:
        """Ends the Job when none of its pods is still terminating."""
        if self._target is None or self._terminating:
            return
        kind, reason, message = self._target
        self._set_condition(_FINAL[kind], "True", reason, message)
        if kind == "SuccessCriteriaMet":
            self.status["completionTime"] = format_time(self._controller.clock.now())
            self._controller.record_event(self._job, "Completed", "Job completed")
        else:
            self._controller.record_event(self._job, reason, message, warning=True)


def _show_index(container: JsonObject) -> None:
    """Adds the variable with the completion index to a container, unless it has a variable of that name."""
    variables = container.setdefault("env", [])
    if all(entry["name"] != _INDEX_VARIABLE for entry in variables):
        source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
        variables.append({"name": _INDEX_VARIABLE, "valueFrom": source})
