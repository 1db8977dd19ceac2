"""The complete list of fields that do not survive the way to a cluster and back, and the reasons.

`test_every_field_survives` also fails if an entry is no longer true.
"""

from __future__ import annotations

_PEOPLE = "a word for people, which the cluster has no place for"
_ETAG = "names the state that is to be changed; it is no part of it"
_ONE = "1 alone is allowed, which is what the API takes where nothing is said"
_FOR_EVER = "cannot be taken back, as in Kubernetes"
_IN_PODS = "has no object on the cluster: it is a part of the pods that mount it, whose test takes it along"
_MANIFESTS = (
    "a manifest does not say whose a source is: an import brings it over, and apply asks the platform"
)
_TAKEN_OVER = "an import takes the claim over: it becomes a volume of the namespace"
_READINESS = "refused: a readiness probe ends nothing"

_POLICY = "what the platform does about others' changes; the cluster does not know it"
_OUR_LABEL = "selects by our label; that of somebody else's Service is refused, with what to give instead"

# Prefixes of the fields of a container's programs.
_PROGRAMS = ("", "sidecars.", "init_containers.")

_JOBS = "of a Job, which is no Deployment: tests/main_job/test_jobs.py has each"
_OF_JOBS = (
    *("completions", "parallelism", "completion_mode", "backoff_limit", "backoff_limit_per_index"),
    *("max_failed_indexes", "active_deadline_seconds", "ttl_seconds", "restart_policy"),
    *("pod_replacement_policy", "pod_failure_policy.action", "pod_failure_policy.program"),
    *("pod_failure_policy.operator", "pod_failure_policy.exit_codes"),
    *("pod_failure_policy.pod_conditions.type", "pod_failure_policy.pod_conditions.status"),
    *("success_policy.succeeded_indexes", "success_policy.succeeded_count"),
)
_CRON_JOBS = "of a CronJob, which is no Deployment: tests/main_job/test_cron_jobs.py has each"
_OF_CRON_JOBS = (
    *("schedule", "time_zone", "concurrency", "max_concurrent", "starting_deadline_seconds"),
    *("successful_history_limit", "failed_history_limit", "job_labels", "job_annotations"),
    *(f"job.{name}" for name in _OF_JOBS),
)
_STATEFUL_SETS = "of a StatefulSet, which is no Deployment: tests/main_job/test_stateful_sets.py has each"
_OF_STATEFUL_SETS = (
    *("service_name", "pod_management", "update_strategy", "update_partition", "max_unavailable"),
    *("min_ready_seconds", "revision_history_limit", "first_ordinal"),
    *(
        f"claim_templates.{name}"
        for name in ("name", "size", "access_modes", "storage_class", "volume_mode", "labels", "annotations")
    ),
    *("claim_retention.when_deleted", "claim_retention.when_scaled"),
)
_DAEMON_SETS = "of a DaemonSet, which is no Deployment: tests/main_job/test_daemon_sets.py has each"
_OF_DAEMON_SETS = (
    "update_strategy",
    "max_unavailable",
    "max_surge",
    "min_ready_seconds",
    "revision_history_limit",
)

# By resource and field. `everywhere`: the field cannot be set at all. `import`: Kubernetes cannot represent it.
EXCEPTIONS: dict[str, dict[str, dict[str, str]]] = {
    "pilothouse.container.v1.Container": {
        "everywhere": {
            "etag": _ETAG,
            "runs_kept": _JOBS,
            **{f"job.{name}": _JOBS for name in _OF_JOBS},
            **{f"cron_job.{name}": _CRON_JOBS for name in _OF_CRON_JOBS},
            **{f"stateful_set.{name}": _STATEFUL_SETS for name in _OF_STATEFUL_SETS},
            **{f"daemon_set.{name}": _DAEMON_SETS for name in _OF_DAEMON_SETS},
            **{f"{program}probes.readiness.termination_grace_seconds": _READINESS for program in _PROGRAMS},
        },
        "import": {
            "display_name": _PEOPLE,
            **{f"{program}probes.liveness.success_threshold": _ONE for program in _PROGRAMS},
            **{f"{program}probes.startup.success_threshold": _ONE for program in _PROGRAMS},
            "pod_volumes.existing_claim.claim_name": _TAKEN_OVER,
            "pod_volumes.existing_claim.read_only": _TAKEN_OVER,
            **{
                f"{program}{name}.external": _MANIFESTS
                for program in _PROGRAMS
                for name in ("env", "env_from")
            },
            **{
                f"pod_volumes.{place}{kind}.external": _MANIFESTS
                for place in ("", "projected.sources.")
                for kind in ("config_map", "secret")
            },
            "drift_policy": _POLICY,
            "revisions_kept": "what the platform keeps; the cluster does not know it",
        },
    },
    "pilothouse.storage.v1.Volume": {
        "everywhere": {"etag": _ETAG},
        "import": {
            "mount_path": "where AttachVolume mounts it unless told otherwise; the cluster has mounts alone",
            "host_path": "a folder of the node is not taken over by an import",
            "source_name": _IN_PODS,
            "medium": _IN_PODS,
            "optional": _IN_PODS,
            "external": _IN_PODS,
        },
    },
    "pilothouse.network.v1.Service": {
        "everywhere": {"etag": _ETAG},
        "import": {
            "containers": _OUR_LABEL,
            "cluster_ip": "the cluster does not say whether it was chosen by a person",
            "drift_policy": _POLICY,
        },
    },
    "pilothouse.config.v1.ConfigMap": {
        "everywhere": {"etag": _ETAG},
        "update": {"immutable": _FOR_EVER},
    },
    "pilothouse.config.v1.Secret": {
        "everywhere": {"etag": _ETAG, "string_data": "a way to give `data` as text; shown nowhere"},
        "update": {"immutable": _FOR_EVER},
    },
    "pilothouse.namespace.v1.Namespace": {"everywhere": {"etag": _ETAG}},
    "pilothouse.namespace.v1.Cluster": {"everywhere": {"etag": _ETAG}},
    "pilothouse.identity.v1.User": {"everywhere": {"etag": _ETAG}},
    "pilothouse.identity.v1.Role": {"everywhere": {"etag": _ETAG}},
}
