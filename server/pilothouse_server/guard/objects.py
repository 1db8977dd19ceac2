"""The allow-lists of objects, by exact version and kind. An object of any other version or kind is refused."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pilothouse_server.guard import annotation_keys, checks
from pilothouse_server.guard.model import PRIVILEGED, PRIVILEGED_OBJECT
from pilothouse_server.guard.pods import FREE, LABEL_SELECTOR, TEMPLATE, WORDS


class KindFields(msgspec.Struct, frozen=True):
    """The allow-list of one kind.

    `fields`: fields that everybody may set. `permission`: the permission that any other field needs. `labels` and
    `annotations`: their checks; the rules for other metadata are the same for all kinds. `whole`: a check of the
    complete object.
    """

    fields: dict[str, Any]
    permission: str = PRIVILEGED_OBJECT
    labels: Any = WORDS
    annotations: Any = WORDS
    cluster_scoped: bool = False
    whole: checks.Check | None = None


_DEPLOYMENT = {
    "spec": {
        "minReadySeconds": FREE,
        "paused": FREE,
        "progressDeadlineSeconds": FREE,
        "replicas": FREE,
        "revisionHistoryLimit": FREE,
        "selector": LABEL_SELECTOR,
        "strategy": {"type": FREE, "rollingUpdate": {"maxSurge": FREE, "maxUnavailable": FREE}},
        "template": TEMPLATE,
    }
}
_SERVICE = {
    "spec": {
        **dict.fromkeys(
            (
                *("allocateLoadBalancerNodePorts", "externalTrafficPolicy", "internalTrafficPolicy"),
                *("ipFamilies", "ipFamilyPolicy", "loadBalancerSourceRanges", "publishNotReadyAddresses"),
                *("sessionAffinity", "trafficDistribution"),
            ),
            FREE,
        ),
        "clusterIP": checks.cluster_ip,
        "clusterIPs": checks.cluster_ip,
        "ports": [
            dict.fromkeys(("appProtocol", "name", "nodePort", "port", "protocol", "targetPort"), FREE),
        ],
        "selector": WORDS,
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": FREE}},
        "type": checks.service_type,
    }
}
_CLAIM = {
    "spec": {
        **dict.fromkeys(("accessModes", "storageClassName", "volumeMode"), FREE),
        "resources": {"requests": WORDS, "limits": WORDS},
    }
}
_STATEFUL_SET = {
    "spec": {
        **dict.fromkeys(
            ("minReadySeconds", "podManagementPolicy", "replicas", "revisionHistoryLimit", "serviceName"),
            FREE,
        ),
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": FREE, "whenScaled": FREE},
        "ordinals": {"start": FREE},
        "selector": LABEL_SELECTOR,
        "template": TEMPLATE,
        "updateStrategy": {"type": FREE, "rollingUpdate": {"maxUnavailable": FREE, "partition": FREE}},
        "volumeClaimTemplates": [
            {"metadata": {"name": FREE, "labels": WORDS, "annotations": WORDS}, **_CLAIM},
        ],
    }
}
_DAEMON_SET = {
    "spec": {
        **dict.fromkeys(("minReadySeconds", "revisionHistoryLimit"), FREE),
        "selector": LABEL_SELECTOR,
        "template": TEMPLATE,
        "updateStrategy": {"type": FREE, "rollingUpdate": {"maxUnavailable": FREE, "maxSurge": FREE}},
    }
}
_JOB = {
    "spec": {
        **dict.fromkeys(
            (
                *(
                    "activeDeadlineSeconds",
                    "backoffLimit",
                    "backoffLimitPerIndex",
                    "completionMode",
                    "completions",
                ),
                *(
                    "maxFailedIndexes",
                    "parallelism",
                    "podFailurePolicy",
                    "podReplacementPolicy",
                    "successPolicy",
                ),
                *("suspend", "ttlSecondsAfterFinished"),
            ),
            FREE,
        ),
        "template": TEMPLATE,
    }
}
_CRON_JOB = {
    "spec": {
        **dict.fromkeys(
            (
                *("concurrencyPolicy", "failedJobsHistoryLimit", "schedule", "startingDeadlineSeconds"),
                *("successfulJobsHistoryLimit", "suspend", "timeZone"),
            ),
            FREE,
        ),
        "jobTemplate": {
            "metadata": {"labels": checks.obeyed_keys, "annotations": checks.obeyed_keys},
            **_JOB,
        },
    }
}
KINDS: Final[dict[tuple[str, str], KindFields]] = {
    # Workloads and Services have guarded keys, too: operators add programs to the pods of Deployments with such keys,
    # and meshes leave out Services with such labels.
    ("apps/v1", "Deployment"): KindFields(
        _DEPLOYMENT, PRIVILEGED, labels=checks.obeyed_keys, annotations=checks.obeyed_keys
    ),
    ("apps/v1", "StatefulSet"): KindFields(
        _STATEFUL_SET, PRIVILEGED, labels=checks.obeyed_keys, annotations=checks.obeyed_keys
    ),
    ("apps/v1", "DaemonSet"): KindFields(
        _DAEMON_SET, PRIVILEGED, labels=checks.obeyed_keys, annotations=checks.obeyed_keys
    ),
    ("batch/v1", "Job"): KindFields(
        _JOB, PRIVILEGED, labels=checks.obeyed_keys, annotations=checks.obeyed_keys
    ),
    ("batch/v1", "CronJob"): KindFields(
        _CRON_JOB, PRIVILEGED, labels=checks.obeyed_keys, annotations=checks.obeyed_keys
    ),
    ("v1", "Service"): KindFields(
        _SERVICE, labels=checks.obeyed_keys, annotations=annotation_keys.of_services
    ),
    ("v1", "ConfigMap"): KindFields({"data": WORDS, "binaryData": WORDS, "immutable": FREE}),
    ("v1", "Secret"): KindFields({"data": WORDS, "stringData": WORDS, "immutable": FREE, "type": FREE}),
    ("v1", "PersistentVolumeClaim"): KindFields(_CLAIM),
    ("v1", "Namespace"): KindFields({}, cluster_scoped=True),
    # The platform sends only the ResourceQuota of a namespace's own quota; callers cannot send one.
    ("v1", "ResourceQuota"): KindFields({"spec": {"hard": WORDS}}),
}
