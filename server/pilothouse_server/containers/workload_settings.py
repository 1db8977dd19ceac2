"""The settings of a container's workload: one struct for each kind, tagged with the kind.

They are stored in the JSON document of the container, so fields may be added or changed only as `model` describes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

WorkloadKind = Literal["deployment", "stateful_set", "daemon_set", "job", "cron_job"]


class KindSettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=False, gc=False):
    """Base: immutable, and small as JSON because defaults are left out."""


class DeploymentSettings(KindSettings, frozen=True, tag="deployment"):
    """Empty settings are not sent, so that Kubernetes uses its defaults. `max_*`: a number or a percentage."""

    strategy: str = ""
    max_surge: str = ""
    max_unavailable: str = ""
    min_ready_seconds: int = 0
    progress_deadline_seconds: int | None = None
    revision_history_limit: int | None = None


class ClaimTemplate(KindSettings, frozen=True):
    """A claim that each pod of a StatefulSet gets; its name is also the name of a volume of the pods."""

    name: str
    size: str = ""
    access_modes: tuple[str, ...] = ()
    storage_class: str = ""
    volume_mode: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ClaimRetention(KindSettings, frozen=True):
    """`Retain` or `Delete`; empty: `Retain`."""

    when_deleted: str = ""
    when_scaled: str = ""


class StatefulSetSettings(KindSettings, frozen=True, tag="stateful_set"):
    """Empty settings are not sent, so that Kubernetes uses its defaults."""

    service_name: str = ""
    pod_management: str = ""
    update_strategy: str = ""
    update_partition: int = 0
    max_unavailable: str = ""
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    first_ordinal: int = 0
    claim_templates: tuple[ClaimTemplate, ...] = ()
    claim_retention: ClaimRetention = ClaimRetention()


class DaemonSetSettings(KindSettings, frozen=True, tag="daemon_set"):
    """Empty settings are not sent, so that Kubernetes uses its defaults."""

    update_strategy: str = ""
    max_unavailable: str = ""
    max_surge: str = ""
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None


class PodCondition(KindSettings, frozen=True):
    """A condition of a pod; empty status: `True`."""

    type: str
    status: str = ""


class PodFailureRule(KindSettings, frozen=True):
    """A rule for failed pods: by the exit codes of a program (any program if empty), or by conditions of the pod."""

    action: str
    program: str = ""
    operator: str = ""
    exit_codes: tuple[int, ...] = ()
    pod_conditions: tuple[PodCondition, ...] = ()


class SuccessRule(KindSettings, frozen=True):
    """A rule for success: by the indexes that succeeded, by their number, or by how many of these indexes succeeded."""

    succeeded_indexes: str = ""
    succeeded_count: int | None = None


class JobSettings(KindSettings, frozen=True, tag="job"):
    """Empty settings are not sent, so that Kubernetes uses its defaults; `restart_policy` has none, so it is sent."""

    completions: int | None = None
    parallelism: int | None = None
    completion_mode: str = ""
    backoff_limit: int | None = None
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    active_deadline_seconds: int | None = None
    ttl_seconds: int | None = None
    restart_policy: str = ""
    pod_replacement_policy: str = ""
    pod_failure_policy: tuple[PodFailureRule, ...] = ()
    success_policy: tuple[SuccessRule, ...] = ()


class CronJobSettings(KindSettings, frozen=True, tag="cron_job"):
    """Empty settings are not sent, so that Kubernetes uses its defaults. `max_concurrent` is the platform's own."""

    schedule: str = ""
    time_zone: str = ""
    concurrency: str = ""
    max_concurrent: int | None = None
    starting_deadline_seconds: int | None = None
    successful_history_limit: int | None = None
    failed_history_limit: int | None = None
    job_labels: dict[str, str] = {}
    job_annotations: dict[str, str] = {}
    job: JobSettings = JobSettings()


WorkloadSettings = (
    DeploymentSettings | StatefulSetSettings | DaemonSetSettings | JobSettings | CronJobSettings
)
