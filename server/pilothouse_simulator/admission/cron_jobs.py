"""Defaults and checks of CronJobs, as in recording 23.

The job template gets the defaults of pods, but not the defaults of Jobs: each Job gets those when it is created.
"""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from pilothouse_simulator.admission.defaults_pods import default_template
from pilothouse_simulator.admission.jobs import validate_job_spec
from pilothouse_simulator.admission.validation_metadata import invalid_value, not_supported, required
from pilothouse_simulator.admission.validation_pods import non_negative
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.cron_schedule import parse_schedule

JsonObject = dict[str, Any]

_POLICIES = ("Allow", "Forbid", "Replace")
_LONGEST_NAME = 52


def default_cron_job(obj: JsonObject) -> None:
    """Fills the defaults of a CronJob in place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = spec.setdefault("jobTemplate", {})
    template.setdefault("metadata", {})
    default_template(template.setdefault("spec", {}))
    obj.setdefault("status", {})


def validate_cron_job(obj: JsonObject) -> list[ErrorCause]:
    """Checks a CronJob whose defaults are filled."""
    spec = obj["spec"]
    causes: list[ErrorCause] = []
    name = str(obj["metadata"].get("name", ""))
    if len(name) > _LONGEST_NAME:
        causes.append(invalid_value("metadata.name", name, "must be no more than 52 characters"))
    causes += _validate_schedule(str(spec.get("schedule") or ""))
    causes += _validate_zone(spec.get("timeZone"))
    for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        causes += non_negative(spec.get(field), f"spec.{field}")
    if spec["concurrencyPolicy"] not in _POLICIES:
        causes.append(not_supported("spec.concurrencyPolicy", spec["concurrencyPolicy"], _POLICIES))
    return causes + validate_job_spec(spec["jobTemplate"]["spec"], "spec.jobTemplate.spec")


def _validate_schedule(schedule: str) -> list[ErrorCause]:
    if not schedule:
        return [required("spec.schedule")]
    if "TZ" in schedule:
        message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        return [invalid_value("spec.schedule", schedule, message)]
    try:
        parse_schedule(schedule)
    except ValueError as error:
        return [invalid_value("spec.schedule", schedule, str(error))]
    return []


def _validate_zone(zone: str | None) -> list[ErrorCause]:
    if zone is None:
        return []
    if not zone:
        return [invalid_value("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        message = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid_value("spec.timeZone", zone, message)]
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return [invalid_value("spec.timeZone", zone, f"unknown time zone {zone}")]
    return []
