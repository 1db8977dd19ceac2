"""The rules between the settings of Jobs and CronJobs, as Kubernetes' API reference (v1.36) states them."""

from __future__ import annotations

import re
from typing import Final

from pilothouse_manifests.cron_jobs import ALLOW, FORBID, REPLACE
from pilothouse_manifests.jobs import FAIL_INDEX, INDEXED, NEVER, NON_INDEXED, ON_FAILURE
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workload_settings import CronJobSettings, JobSettings, PodFailureRule
from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.cron_schedule import RunSchedule, time_zone

# A run's name is its container's name with a number, and must fit into a label's value (63 characters).
LONGEST_NAME: Final = 57
# The controller appends a number to the name of a CronJob.
LONGEST_SCHEDULED_NAME: Final = 52
_ACTIONS = ("FailJob", FAIL_INDEX, "Ignore", "Count")
_MOST_AT_ONCE = 100_000
_INDEXES = re.compile(r"(?:0|[1-9][0-9]{0,9})(?:-[1-9][0-9]{0,9})?(?:,[1-9][0-9]{0,9}(?:-[1-9][0-9]{0,9})?)*")


def check_runs(found: Findings, container: Container) -> None:
    """Notes each broken rule of the settings of a Job or CronJob, and settings of runs for any other kind."""
    settings = container.spec.workload
    if isinstance(settings, CronJobSettings):
        _check_schedule(found, container, settings)
        _check_job(found, "container.cron_job.job", container, settings.job)
    elif isinstance(settings, JobSettings):
        _check_name(found, container)
        _check_job(found, "container.job", container, settings)
    elif container.spec.runs_kept is not None:
        found.add("container.runs_kept", "unused", "is only allowed with job and cron_job")


def _check_name(found: Findings, container: Container) -> None:
    if len(container.name) > LONGEST_NAME and not container.imported:
        rule = f"must not be longer than {LONGEST_NAME} characters for a Job: its runs are called NAME-2 and so on"
        found.add("container.name", "max_length", rule)
    if container.replicas != 1:
        found.add("container.replicas", "unused", "must be unset for a Job: set job.parallelism")


def _check_schedule(found: Findings, container: Container, settings: CronJobSettings) -> None:
    field = "container.cron_job"
    if len(container.name) > LONGEST_SCHEDULED_NAME and not container.imported:
        words = f"must not be longer than {LONGEST_SCHEDULED_NAME} characters for a CronJob"
        found.add("container.name", "max_length", words)
    if container.replicas != 1:
        words = "must be unset for a CronJob: set cron_job.job.parallelism"
        found.add("container.replicas", "unused", words)
    for name, check in (("schedule", RunSchedule.parse), ("time_zone", time_zone)):
        try:
            check(getattr(settings, name))
        except InvalidValueError as error:
            found.add(f"{field}.{name}", "format", str(error))
    found.one_of(f"{field}.concurrency", settings.concurrency, (ALLOW, FORBID, REPLACE))
    if settings.max_concurrent is not None and settings.concurrency not in ("", ALLOW):
        found.add(f"{field}.max_concurrent", "unused", f"is only allowed with concurrency {ALLOW}")


def _check_job(found: Findings, field: str, container: Container, job: JobSettings) -> None:
    found.one_of(f"{field}.completion_mode", job.completion_mode, (INDEXED, NON_INDEXED))
    found.one_of(f"{field}.restart_policy", job.restart_policy, (NEVER, ON_FAILURE))
    found.one_of(
        f"{field}.pod_replacement_policy", job.pod_replacement_policy, ("TerminatingOrFailed", "Failed")
    )
    _check_indexes(found, field, job)
    _check_success(found, field, job)
    _check_failures(found, field, container, job)


def _check_indexes(found: Findings, field: str, job: JobSettings) -> None:
    indexed = job.completion_mode == INDEXED
    if indexed and job.completions is None:
        found.add(f"{field}.completions", "required", f"must be set with completion_mode {INDEXED}")
    if indexed and (job.parallelism or 0) > _MOST_AT_ONCE:
        found.add(
            f"{field}.parallelism",
            "maximum",
            f"must not be above {_MOST_AT_ONCE} with completion_mode {INDEXED}",
        )
    if job.backoff_limit_per_index is None:
        if job.max_failed_indexes is not None:
            found.add(f"{field}.max_failed_indexes", "unused", "is only allowed with backoff_limit_per_index")
    elif not indexed:
        found.add(
            f"{field}.backoff_limit_per_index", "unused", f"is only allowed with completion_mode {INDEXED}"
        )
    elif (job.max_failed_indexes or 0) > (job.completions or 0):
        found.add(f"{field}.max_failed_indexes", "maximum", "must not be above completions")


def _check_success(found: Findings, field: str, job: JobSettings) -> None:
    if job.success_policy and job.completion_mode != INDEXED:
        found.add(f"{field}.success_policy", "unused", f"is only allowed with completion_mode {INDEXED}")
    for number, rule in enumerate(job.success_policy):
        at = f"{field}.success_policy[{number}]"
        if not rule.succeeded_indexes and rule.succeeded_count is None:
            found.add(at, "required", "must have succeeded_indexes, succeeded_count or both")
        if rule.succeeded_indexes:
            _check_index_list(found, f"{at}.succeeded_indexes", rule.succeeded_indexes, job.completions or 0)
        if (rule.succeeded_count or 0) > (job.completions or 0):
            found.add(f"{at}.succeeded_count", "maximum", "must not be above completions")


def _check_index_list(found: Findings, field: str, text: str, completions: int) -> None:
    if not _INDEXES.fullmatch(text):
        found.add(field, "format", "must be numbers and ranges in ascending order, such as 0,2-4")
        return
    last = -1
    for part in text.split(","):
        first, _, end = part.partition("-")
        if int(first) <= last or (end and int(end) <= int(first)):
            found.add(field, "format", "must be numbers and ranges in ascending order, such as 0,2-4")
            return
        last = int(end or first)
    if last >= completions:
        found.add(field, "maximum", "must be below completions")


def _check_failures(found: Findings, field: str, container: Container, job: JobSettings) -> None:
    restarts = job.restart_policy == ON_FAILURE
    if restarts and job.backoff_limit_per_index is not None:
        found.add(
            f"{field}.backoff_limit_per_index", "unused", f"is only allowed with restart_policy {NEVER}"
        )
    if job.pod_failure_policy:
        if restarts:
            found.add(f"{field}.pod_failure_policy", "unused", f"is only allowed with restart_policy {NEVER}")
        if job.pod_replacement_policy not in ("", "Failed"):
            found.add(
                f"{field}.pod_replacement_policy", "one_of", "must be Failed or empty with pod_failure_policy"
            )
    programs = {each.name for _, each in container.programs()}
    for number, rule in enumerate(job.pod_failure_policy):
        at = f"{field}.pod_failure_policy[{number}]"
        found.one_of(f"{at}.action", rule.action, _ACTIONS)
        if rule.action == FAIL_INDEX and job.backoff_limit_per_index is None:
            found.add(f"{at}.action", "unused", "FailIndex is only allowed with backoff_limit_per_index")
        if rule.program and rule.program not in programs:
            found.add(f"{at}.program", "one_of", f"must be one of {', '.join(sorted(programs))}")
        _check_failure_rule(found, at, rule)


def _check_failure_rule(found: Findings, at: str, rule: PodFailureRule) -> None:
    if bool(rule.exit_codes) == bool(rule.pod_conditions):
        found.add(at, "required", "must have either exit_codes or pod_conditions")
    if not rule.exit_codes:
        for name in ("program", "operator"):
            if getattr(rule, name):
                found.add(f"{at}.{name}", "unused", "is only allowed with exit_codes")
    else:
        if rule.operator not in ("In", "NotIn"):
            found.add(f"{at}.operator", "one_of", "must be one of In, NotIn")
        if list(rule.exit_codes) != sorted(set(rule.exit_codes)):
            found.add(f"{at}.exit_codes", "unique", "must be in ascending order, each once")
        if rule.operator == "In" and 0 in rule.exit_codes:
            found.add(f"{at}.exit_codes", "minimum", "must not contain 0 with operator In")
    for number, condition in enumerate(rule.pod_conditions):
        found.one_of(f"{at}.pod_conditions[{number}].status", condition.status, ("True", "False", "Unknown"))
