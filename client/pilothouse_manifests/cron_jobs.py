"""The settings of a CronJob: its spec in Kubernetes and the spec of its Jobs, without the pod template.

The settings of a Job are one level deeper both here and in Kubernetes: `cron_job.job.parallelism` is
`spec.jobTemplate.spec.parallelism`. `restart_policy` is a field of the template's spec, as in a Job.
"""

from __future__ import annotations

from dataclasses import replace

from pilothouse_manifests.fields import Entry, Field, FieldPart, Flag, Group, Number, Text, Words
from pilothouse_manifests.jobs import JOB_SETTINGS, JOB_TEMPLATE, SUSPEND
from pilothouse_manifests.sources import INT64_MAXIMUM

ALLOW, FORBID, REPLACE = "Allow", "Forbid", "Replace"
JOB_TEMPLATE_KEY = "jobTemplate"
# The path of the pod template.
POD_TEMPLATE = ("spec", JOB_TEMPLATE_KEY, "spec", "template")
_OPTIONAL_NUMBER = Number(optional=True)


def _inner(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Returns the entries of a Job for the Jobs of a CronJob; changes by others are adopted as in a Job."""
    found: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Field):
            found.append(replace(entry, name=f"cron_job.{entry.name}"))
        elif isinstance(entry, Group):
            found.append(replace(entry, entries=_inner(entry.entries)))
    return tuple(found)


_SCHEDULE = (
    Field("cron_job.schedule", "schedule", Text(), required=True),
    Field("cron_job.time_zone", "timeZone", Text()),
    Field("cron_job.concurrency", "concurrencyPolicy", Text((ALLOW, FORBID, REPLACE)), default=ALLOW),
    Field(
        "cron_job.starting_deadline_seconds",
        "startingDeadlineSeconds",
        Number(maximum=INT64_MAXIMUM, optional=True),
    ),
    Field("cron_job.successful_history_limit", "successfulJobsHistoryLimit", _OPTIONAL_NUMBER, default=3),
    Field("cron_job.failed_history_limit", "failedJobsHistoryLimit", _OPTIONAL_NUMBER, default=1),
)
_JOB_METADATA = Group(
    "metadata",
    (
        Field("cron_job.job_labels", "labels", Words(), adopted=False),
        Field("cron_job.job_annotations", "annotations", Words(), adopted=False),
    ),
    defaults=(("creationTimestamp", None),),
)
_SUSPENDED = Field("suspended", SUSPEND, Flag(), adopted=False)
# The parts that are read from an object: a CronJob's spec without its Jobs, and the Jobs' spec without the template.
SCHEDULE = FieldPart("cron_job", (_SUSPENDED, *_SCHEDULE))
JOB_METADATA = FieldPart("cron_job", _JOB_METADATA.entries, _JOB_METADATA.defaults)
JOB_OF_CRON_JOB = FieldPart("cron_job", _inner(JOB_SETTINGS.entries), JOB_SETTINGS.defaults)
_JOBS = Group(
    JOB_TEMPLATE_KEY, (_JOB_METADATA, Group("spec", JOB_OF_CRON_JOB.entries, JOB_OF_CRON_JOB.defaults))
)
# The parts that are written to an object: all of these together.
CRON_JOB_SETTINGS = FieldPart("cron_job", (*_SCHEDULE, _JOBS))
CRON_JOB = FieldPart("cron_job", (_SUSPENDED, *_SCHEDULE, _JOBS))
# The setting that belongs to the spec of the template.
CRON_JOB_TEMPLATE = FieldPart("cron_job", _inner(JOB_TEMPLATE.entries))
