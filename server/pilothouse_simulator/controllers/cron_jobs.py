"""The CronJob controller: creates a Job at each time of a schedule, and deletes old Jobs.

A port of the real controller (`pkg/controller/cronjob/cronjob_controllerv2.go`), tested against recording 23. After
several missed runs it makes up only for the latest, unless `startingDeadlineSeconds` has passed. A Job's name is that
of its CronJob and the minute of its run since 1970. The status lists the unfinished Jobs that the controller created. A
Job that someone else created with the CronJob as its owner counts only for `lastSuccessfulTime` and the history.

Not recorded: `startingDeadlineSeconds`, time zones and missing Jobs follow the source above.

Tests need not wait for the clock: the annotation `simulate.pilothouse.dev/run-at` of a CronJob, with a time later than
`lastScheduleTime`, starts the run of that time immediately, even if the schedule does not contain it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    Controller,
    Key,
    controller_of,
    key_of,
)
from pilothouse_simulator.controllers.jobs import finished_condition
from pilothouse_simulator.controllers.replica_sets import controller_reference
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import format_time, parse_time
from pilothouse_simulator.values.cron_schedule import CronSchedule, parse_schedule
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.pod_behavior import PREFIX
from pilothouse_simulator.values.resources import CRON_JOBS, JOBS

JsonObject = dict[str, Any]

_COMPONENT = "cronjob-controller"
_RUN_AT = PREFIX + "run-at"
_SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_TOO_MANY = 100


class CronJobController(Controller[Key]):
    """Syncs CronJobs; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is CRON_JOBS:
            self.enqueue(key_of(event.object))
        elif event.resource is JOBS:
            for job in (event.object, event.previous):
                owner = controller_of(job) if job is not None else None
                if owner is not None and owner["kind"] == "CronJob":
                    self.enqueue((event.object["metadata"]["namespace"], owner["name"]))

    def sync(self, key: Key) -> None:
        """Records the Jobs that have ended, creates the Job that is due, and deletes old Jobs."""
        cron_job = self.store.get(CRON_JOBS, *key)
        if cron_job is None:
            return
        uid = cron_job["metadata"]["uid"]
        jobs = [
            job
            for job in self.index.dependents(uid, JOBS)
            if (owner := controller_of(job)) is not None and owner["uid"] == uid
        ]
        status: JsonObject = copy_json(cron_job["status"])
        self._note_jobs(cron_job, jobs, status)
        failure: ApiError | None = None
        if "deletionTimestamp" not in cron_job["metadata"]:
            try:
                self._run_due(cron_job, status)
            except ApiError as error:
                failure = error
            self._trim_history(cron_job, jobs)
        if not status.get("active"):
            status.pop("active", None)
        if status != cron_job["status"]:
            self.store.update_status(CRON_JOBS, {**cron_job, "status": status}, CONTROLLER_MANAGER)
        if failure is not None:
            raise failure

    def _note_jobs(self, cron_job: JsonObject, jobs: list[JsonObject], status: JsonObject) -> None:
        active = status.get("active") or []
        known = {entry["uid"] for entry in active}
        for job in jobs:
            uid, name, condition = job["metadata"]["uid"], job["metadata"]["name"], finished_condition(job)
            if condition is None:
                if uid not in known:
                    message = f"Saw a job that the controller did not create or forgot: {name}"
                    self._event(cron_job, "UnexpectedJob", message, warning=True)
                continue
            if uid in known:
                known.discard(uid)
                message = f"Saw completed job: {name}, condition: {condition['type']}"
                self._event(cron_job, "SawCompletedJob", message)
            completed = job["status"].get("completionTime")
            if completed and completed > status.get("lastSuccessfulTime", ""):
                status["lastSuccessfulTime"] = completed
        present = {job["metadata"]["uid"] for job in jobs}
        for entry in active:
            if entry["uid"] not in present:
                known.discard(entry["uid"])
                self._event(cron_job, "MissingJob", f"Active job went missing: {entry['name']}")
        status["active"] = [entry for entry in active if entry["uid"] in known]

    # Runs

    def _run_due(self, cron_job: JsonObject, status: JsonObject) -> None:
        spec, now = cron_job["spec"], self.clock.now()
        asked_for = self._asked_for(cron_job, status)
        if spec["suspend"] and asked_for is None:
            return
        schedule, zone = parse_schedule(spec["schedule"]), spec.get("timeZone") or "UTC"
        following = schedule.next_after(now, zone)
        if following is not None:
            self.enqueue(key_of(cron_job), after=(following - now).total_seconds() + 0.1)
        due = asked_for or self._latest_missed(cron_job, status, schedule, now)
        if due is None:
            return
        deadline = spec.get("startingDeadlineSeconds")
        if asked_for is None and deadline is not None and due + timedelta(seconds=int(deadline)) < now:
            message = f"Missed scheduled time to start a job: {due:%a, %d %b %Y %H:%M:%S +0000}"
            self._event(cron_job, "MissSchedule", message, warning=True)
            return
        self._run(cron_job, status, due)

    def _asked_for(self, cron_job: JsonObject, status: JsonObject) -> datetime | None:
        """Returns the time of the annotation that requests a run, unless that run is done."""
        text = (cron_job["metadata"].get("annotations") or {}).get(_RUN_AT, "")
        try:
            moment = parse_time(text)
        except ValueError:
            return None
        last = status.get("lastScheduleTime")
        return moment if last is None or moment > parse_time(last) else None

    def _latest_missed(
        self, cron_job: JsonObject, status: JsonObject, schedule: CronSchedule, now: datetime
    ) -> datetime | None:
        """Returns the latest time of the schedule since the last run; None if no run is due."""
        zone = cron_job["spec"].get("timeZone") or "UTC"
        earliest = parse_time(status.get("lastScheduleTime") or cron_job["metadata"]["creationTimestamp"])
        deadline = cron_job["spec"].get("startingDeadlineSeconds")
        if deadline is not None:
            earliest = max(earliest, now - timedelta(seconds=int(deadline)))
        first = schedule.next_after(earliest, zone)
        if first is None or first > now:
            return None
        second = schedule.next_after(first, zone)
        latest, missed = first, 1
        if second is not None and second <= now:
            missed = int((now - first) / (second - first)) + 1
            # An estimate; the loop below steps through the last few times.
            latest = max(first, first + (missed - 3) * (second - first))
            while (following := schedule.next_after(latest, zone)) is not None and following <= now:
                latest = following
        if missed > _TOO_MANY:
            message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self._event(cron_job, "TooManyMissedTimes", message, warning=True)
        return latest

    def _run(self, cron_job: JsonObject, status: JsonObject, due: datetime) -> None:
        policy, active = cron_job["spec"]["concurrencyPolicy"], status["active"]
        if policy == "Forbid" and active:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._event(cron_job, "JobAlreadyActive", message)
            return
        if policy == "Replace":
            for entry in active:
                self._delete(cron_job, entry["name"])
            active = status["active"] = []
        job = self._make_job(cron_job, due)
        if job is not None:
            self._event(cron_job, "SuccessfulCreate", f"Created job {job['metadata']['name']}")
            reference = {
                "kind": JOBS.kind,
                "apiVersion": JOBS.api_version,
                **{name: job["metadata"][name] for name in ("namespace", "name", "uid", "resourceVersion")},
            }
            active.append(reference)
        status["lastScheduleTime"] = format_time(due)

    def _make_job(self, cron_job: JsonObject, due: datetime) -> JsonObject | None:
        """Creates the Job of a run; returns None if it exists."""
        template, namespace = copy_json(cron_job["spec"]["jobTemplate"]), cron_job["metadata"]["namespace"]
        metadata: JsonObject = {
            key: value
            for key, value in template["metadata"].items()
            if key in ("labels", "annotations") and value
        }
        zone = cron_job["spec"].get("timeZone")
        shown = due.astimezone(ZoneInfo(zone)).isoformat() if zone else format_time(due)
        metadata.setdefault("annotations", {})[_SCHEDULED_AT] = shown
        metadata |= {
            "name": f"{cron_job['metadata']['name']}-{int(due.timestamp()) // 60}",
            "namespace": namespace,
            "ownerReferences": [controller_reference(cron_job)],
        }
        try:
            return self.store.create(
                JOBS, {"metadata": metadata, "spec": template["spec"]}, manager=CONTROLLER_MANAGER
            )
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            self._event(cron_job, "FailedCreate", f"Error creating job: {error}", warning=True)
            raise

    def _trim_history(self, cron_job: JsonObject, jobs: list[JsonObject]) -> None:
        spec = cron_job["spec"]
        for kind, limit in (
            ("Complete", spec["successfulJobsHistoryLimit"]),
            ("Failed", spec["failedJobsHistoryLimit"]),
        ):
            finished = [
                job
                for job in jobs
                if (condition := finished_condition(job)) is not None and condition["type"] == kind
            ]
            finished.sort(key=lambda job: (job["status"].get("startTime", ""), job["metadata"]["name"]))
            for job in finished[: max(0, len(finished) - int(limit))]:
                if "deletionTimestamp" not in job["metadata"]:
                    self._delete(cron_job, job["metadata"]["name"])

    def _delete(self, cron_job: JsonObject, name: str) -> None:
        namespace = cron_job["metadata"]["namespace"]
        if self.store.get(JOBS, namespace, name) is not None:
            self.store.delete(JOBS, namespace, name, propagation_policy="Background")
            self._event(cron_job, "SuccessfulDelete", f"Deleted job {name}")

    def _event(self, cron_job: JsonObject, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.record(CRON_JOBS, cron_job, reason, message, component=_COMPONENT, warning=warning)
