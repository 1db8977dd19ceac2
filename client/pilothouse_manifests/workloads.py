"""The settings of the kinds of workload other than Deployments: their specs, without selector and template.

The mounts of a StatefulSet's programs name the claims of its templates like volumes.
"""

from __future__ import annotations

from pilothouse_manifests.cron_jobs import CRON_JOB
from pilothouse_manifests.fields import (
    Field,
    FieldPart,
    Group,
    Number,
    NumberOrPercent,
    QuantityField,
    Repeated,
    Text,
    Texts,
    Words,
)
from pilothouse_manifests.jobs import JOB
from pilothouse_manifests.table import DEPLOYMENT, ROLLING_UPDATE

RETAIN, DELETE = "Retain", "Delete"
ON_DELETE = "OnDelete"
ORDERED_READY, PARALLEL = "OrderedReady", "Parallel"
_OPTIONAL_NUMBER = Number(optional=True)
_RETENTION = Text((RETAIN, DELETE))

# A claim in `volumeClaimTemplates`. The API fills in its other fields.
CLAIM_TEMPLATE = FieldPart(
    "claim_templates",
    (
        Group(
            "metadata",
            (
                Field("name", "name", Text(), required=True),
                Field("labels", "labels", Words()),
                Field("annotations", "annotations", Words()),
            ),
            defaults=(("creationTimestamp", None),),
        ),
        Group(
            "spec",
            (
                Group("resources", (Group("requests", (Field("size", "storage", QuantityField()),)),)),
                Field("access_modes", "accessModes", Texts()),
                Field("storage_class", "storageClassName", Text()),
                Field("volume_mode", "volumeMode", Text(("Filesystem", "Block")), default="Filesystem"),
            ),
        ),
    ),
    defaults=(("apiVersion", "v1"), ("kind", "PersistentVolumeClaim"), ("status", {"phase": "Pending"})),
)
STATEFUL_SET_SETTINGS = FieldPart(
    "stateful_set",
    (
        Field("stateful_set.service_name", "serviceName", Text(), adopted=False),
        Field(
            "stateful_set.pod_management",
            "podManagementPolicy",
            Text((ORDERED_READY, PARALLEL)),
            default=ORDERED_READY,
            adopted=False,
        ),
        Group(
            "updateStrategy",
            (
                Field(
                    "stateful_set.update_strategy",
                    "type",
                    Text((ROLLING_UPDATE, ON_DELETE)),
                    default=ROLLING_UPDATE,
                ),
                Group(
                    "rollingUpdate",
                    (
                        Field("stateful_set.update_partition", "partition", Number(), adopted=False),
                        Field(
                            "stateful_set.max_unavailable", "maxUnavailable", NumberOrPercent(), default="1"
                        ),
                    ),
                ),
            ),
        ),
        Field("stateful_set.min_ready_seconds", "minReadySeconds", Number()),
        Field("stateful_set.revision_history_limit", "revisionHistoryLimit", _OPTIONAL_NUMBER, default=10),
        Group("ordinals", (Field("stateful_set.first_ordinal", "start", Number(), adopted=False),)),
        Field(
            "stateful_set.claim_templates",
            "volumeClaimTemplates",
            Repeated(CLAIM_TEMPLATE, called="claim template"),
            adopted=False,
        ),
        Group(
            "persistentVolumeClaimRetentionPolicy",
            (
                Field(
                    "stateful_set.claim_retention.when_deleted",
                    "whenDeleted",
                    _RETENTION,
                    default=RETAIN,
                    adopted=False,
                ),
                Field(
                    "stateful_set.claim_retention.when_scaled",
                    "whenScaled",
                    _RETENTION,
                    default=RETAIN,
                    adopted=False,
                ),
            ),
        ),
    ),
)
# Settings of a StatefulSet that are immutable: changing them needs a new object.
FIXED_SETTINGS = ("service_name", "pod_management", "claim_templates")
# A StatefulSet's spec, apart from its selector and its template.
STATEFUL_SET = FieldPart(
    "stateful_set",
    (Field("replicas", "replicas", Number(optional=True), adopted=False), *STATEFUL_SET_SETTINGS.entries),
)
# A DaemonSet's spec, apart from its selector and its template.
DAEMON_SET = FieldPart(
    "daemon_set",
    (
        Group(
            "updateStrategy",
            (
                Field(
                    "daemon_set.update_strategy",
                    "type",
                    Text((ROLLING_UPDATE, ON_DELETE)),
                    default=ROLLING_UPDATE,
                ),
                Group(
                    "rollingUpdate",
                    (
                        Field("daemon_set.max_unavailable", "maxUnavailable", NumberOrPercent(), default="1"),
                        Field("daemon_set.max_surge", "maxSurge", NumberOrPercent(), default="0"),
                    ),
                ),
            ),
        ),
        Field("daemon_set.min_ready_seconds", "minReadySeconds", Number()),
        Field("daemon_set.revision_history_limit", "revisionHistoryLimit", _OPTIONAL_NUMBER, default=10),
    ),
)
# The parts by their kinds in Kubernetes; a part's name is that of its settings on the platform.
WORKLOAD_PARTS: dict[str, FieldPart] = {
    "Deployment": DEPLOYMENT,
    "StatefulSet": STATEFUL_SET,
    "DaemonSet": DAEMON_SET,
    "Job": JOB,
    "CronJob": CRON_JOB,
}
