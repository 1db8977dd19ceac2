"""The Job controller: runs pods until enough have succeeded or too many have failed.

A port of the real controller (`pkg/controller/job/job_controller.go`), tested against recordings 20 to 22b. Each pod
has a finalizer until its end is counted. The controller writes the end to `uncountedTerminatedPods` (or to
`completedIndexes`), then removes the finalizer, then increments the counter, so that a pod counts once even if the
controller is killed in between. A Job that has succeeded or failed gets SuccessCriteriaMet or FailureTarget with the
first of these writes, and Complete or Failed when all its pods have ended. Pods that a suspension deletes first lose
their finalizer and are not counted.

A Job whose `managedBy` names another controller is ignored. Not recorded: `FailIndex`, back-off within an index and
`maxFailedIndexes` follow KEP-3329 and KEP-3850; an index that is too large after `completions` was lowered follows
KEP-2214.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pilothouse_simulator.controllers.controller import CONTROLLER_MANAGER, Controller, controller_of, key_of
from pilothouse_simulator.controllers.jobs_counting import TRACKING, is_tracked
from pilothouse_simulator.controllers.jobs_step import JobStep
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.clock import parse_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import JOBS, PODS

JsonObject = dict[str, Any]
WorkKey = tuple[str, str, str]

_COMPONENT = "job-controller"
_JOB, _POD = "job", "pod"
_KUBERNETES = "kubernetes.io/job-controller"


def is_finished(job: JsonObject) -> bool:
    """Returns whether a Job is complete or has failed."""
    return finished_condition(job) is not None


def finished_condition(job: JsonObject) -> JsonObject | None:
    """Returns the condition Complete or Failed of a Job."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return dict(condition)
    return None


class JobController(Controller[WorkKey]):
    """Syncs Jobs, and pods whose Job is deleted; the key is which of the two, namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is JOBS:
            self.enqueue((_JOB, *key_of(event.object)))
            if event.type == "DELETED":
                references = self.index.dependent_references(event.object["metadata"]["uid"])
                for _, namespace, name in references:
                    self.enqueue((_POD, namespace, name))
        elif event.resource is PODS:
            for pod in (event.object, event.previous):
                owner = controller_of(pod) if pod is not None else None
                if owner is not None and owner["kind"] == "Job":
                    self.enqueue((_JOB, event.object["metadata"]["namespace"], owner["name"]))
            if event.type != "DELETED" and is_tracked(event.object):
                self.enqueue((_POD, *key_of(event.object)))

    def sync(self, key: WorkKey) -> None:
        """Counts the ended pods of a Job, and creates or deletes others."""
        kind, namespace, name = key
        if kind == _POD:
            self._release_orphan(namespace, name)
            return
        job = self.store.get(JOBS, namespace, name)
        if job is None or is_finished(job) or job["spec"].get("managedBy", _KUBERNETES) != _KUBERNETES:
            return
        uid = job["metadata"]["uid"]
        pods = [
            pod
            for pod in self.index.dependents(uid, PODS)
            if (owner := controller_of(pod)) is not None and owner["uid"] == uid
        ]
        JobStep(self, job, pods).take()

    def _release_orphan(self, namespace: str, name: str) -> None:
        """Removes the finalizer from a pod whose Job is deleted."""
        pod = self.store.get(PODS, namespace, name)
        if pod is None or not is_tracked(pod):
            return
        owner = controller_of(pod)
        if owner is not None:
            if owner["kind"] != JOBS.kind:
                return
            job = self.store.get(JOBS, namespace, owner["name"])
            if job is not None and job["metadata"]["uid"] == owner["uid"]:
                return
        self.release_pod(pod)

    # The actions of a step

    def create_pod(self, job: JsonObject, pod: JsonObject) -> JsonObject:
        """Creates a pod of a Job."""
        created = self.store.create(PODS, pod, manager=CONTROLLER_MANAGER)
        self.record_event(job, "SuccessfulCreate", f"Created pod: {created['metadata']['name']}")
        return created

    def delete_pod(self, job: JsonObject, pod: JsonObject) -> None:
        """Deletes a pod of a Job."""
        namespace, name = key_of(pod)
        self.store.delete(PODS, namespace, name)
        self.record_event(job, "SuccessfulDelete", f"Deleted pod: {name}")

    def release_pod(self, pod: JsonObject) -> None:
        """Removes the finalizer from a pod."""
        stored = self.store.get(PODS, *key_of(pod))
        if stored is None or not is_tracked(stored):
            return
        changed = copy_json(stored)
        remaining = [entry for entry in changed["metadata"]["finalizers"] if entry != TRACKING]
        changed["metadata"]["finalizers"] = remaining
        self.store.update(PODS, changed, manager=CONTROLLER_MANAGER)

    def write_status(self, job: JsonObject, status: JsonObject) -> JsonObject:
        """Writes the status of a Job if it has changed; returns the stored Job."""
        present = {name: value for name, value in status.items() if value is not None}
        if present == job["status"]:
            return job
        return self.store.update_status(JOBS, {**job, "status": present}, CONTROLLER_MANAGER)

    def come_back(self, job: JsonObject, after: timedelta) -> None:
        """Requests another sync of a Job after a time."""
        self.enqueue((_JOB, *key_of(job)), after=after.total_seconds() + 0.01)

    def record_event(self, job: JsonObject, reason: str, message: str, *, warning: bool = False) -> None:
        """Records an event about a Job."""
        self.recorder.record(JOBS, job, reason, message, component=_COMPONENT, warning=warning)


class FinishedJobController(Controller[tuple[str, str]]):
    """Deletes finished Jobs with their pods when `ttlSecondsAfterFinished` has passed, in the foreground."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is JOBS and event.type != "DELETED":
            self.enqueue(key_of(event.object))

    def sync(self, key: tuple[str, str]) -> None:
        """Deletes one Job, or requests another sync for when its time is over."""
        job = self.store.get(JOBS, *key)
        if job is None or "deletionTimestamp" in job["metadata"]:
            return
        condition, seconds = finished_condition(job), job["spec"].get("ttlSecondsAfterFinished")
        if condition is None or seconds is None:
            return
        due = parse_time(condition["lastTransitionTime"]) + timedelta(seconds=int(seconds))
        remaining = (due - self.clock.now()).total_seconds()
        if remaining > 0:
            self.enqueue(key, after=remaining + 0.01)
        else:
            self.store.delete(JOBS, *key, propagation_policy="Foreground")
