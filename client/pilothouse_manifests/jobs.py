"""The settings of a Job: its spec in Kubernetes, apart from its selector, which the API writes, and its template.

`restart_policy` is a field of the template's spec, so `POD_OF_JOB` has it.
"""

from __future__ import annotations

from pilothouse_manifests.fields import Field, FieldPart, Flag, Group, Number, Numbers, Repeated, Text
from pilothouse_manifests.sources import INT64_MAXIMUM
from pilothouse_manifests.table import POD

SUSPEND = "suspend"
RESTART_POLICY = "restartPolicy"
INDEXED, NON_INDEXED = "Indexed", "NonIndexed"
NEVER, ON_FAILURE = "Never", "OnFailure"
FAIL_INDEX = "FailIndex"
_OPTIONAL_NUMBER = Number(optional=True)

POD_CONDITION = FieldPart(
    "pod_conditions",
    (
        Field("type", "type", Text(), required=True),
        Field("status", "status", Text(("True", "False", "Unknown")), default="True"),
    ),
)
# A rule for a pod that failed: by the exit codes of its programs, or by its conditions.
POD_FAILURE_RULE = FieldPart(
    "pod_failure_policy",
    (
        Field("action", "action", Text(("FailJob", FAIL_INDEX, "Ignore", "Count")), required=True),
        Group(
            "onExitCodes",
            (
                Field("program", "containerName", Text()),
                Field("operator", "operator", Text(("In", "NotIn"))),
                Field("exit_codes", "values", Numbers()),
            ),
        ),
        Field("pod_conditions", "onPodConditions", Repeated(POD_CONDITION, by="type")),
    ),
)
# A rule by which an indexed Job succeeds before all of its indexes have succeeded.
SUCCESS_RULE = FieldPart(
    "success_policy",
    (
        Field("succeeded_indexes", "succeededIndexes", Text()),
        Field("succeeded_count", "succeededCount", _OPTIONAL_NUMBER),
    ),
)
JOB_SETTINGS = FieldPart(
    "job",
    (
        Field("job.completions", "completions", _OPTIONAL_NUMBER, adopted=False),
        Field("job.parallelism", "parallelism", _OPTIONAL_NUMBER),
        Field(
            "job.completion_mode",
            "completionMode",
            Text((INDEXED, NON_INDEXED)),
            default=NON_INDEXED,
            adopted=False,
        ),
        Field("job.backoff_limit", "backoffLimit", _OPTIONAL_NUMBER),
        Field("job.backoff_limit_per_index", "backoffLimitPerIndex", _OPTIONAL_NUMBER, adopted=False),
        Field("job.max_failed_indexes", "maxFailedIndexes", _OPTIONAL_NUMBER, adopted=False),
        Field(
            "job.active_deadline_seconds",
            "activeDeadlineSeconds",
            Number(minimum=1, maximum=INT64_MAXIMUM, optional=True),
        ),
        Field("job.ttl_seconds", "ttlSecondsAfterFinished", _OPTIONAL_NUMBER),
        Field(
            "job.pod_replacement_policy",
            "podReplacementPolicy",
            Text(("TerminatingOrFailed", "Failed")),
            adopted=False,
        ),
        Group(
            "podFailurePolicy",
            (
                Field(
                    "job.pod_failure_policy",
                    "rules",
                    Repeated(POD_FAILURE_RULE, by="action"),
                    adopted=False,
                ),
            ),
        ),
        Group(
            "successPolicy",
            (
                Field(
                    "job.success_policy",
                    "rules",
                    Repeated(SUCCESS_RULE, by="succeededIndexes"),
                    adopted=False,
                ),
            ),
        ),
    ),
    defaults=(("manualSelector", False),),
)
# A Job's spec, apart from its selector and its template.
JOB = FieldPart(
    "job", (Field("suspended", SUSPEND, Flag(), adopted=False), *JOB_SETTINGS.entries), JOB_SETTINGS.defaults
)
# The setting of a Job that belongs to the spec of its template.
JOB_TEMPLATE = FieldPart(
    "job", (Field("job.restart_policy", RESTART_POLICY, Text((NEVER, ON_FAILURE)), required=True),)
)
# The rest of the template's spec. The restart policy is not among its defaults: other pods restart what has ended.
POD_OF_RUN = FieldPart("pod", POD.entries, tuple(each for each in POD.defaults if each[0] != RESTART_POLICY))
# Labels that the API writes on a Job and its pods, by which it selects them.
WRITTEN_LABELS = (
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
)
