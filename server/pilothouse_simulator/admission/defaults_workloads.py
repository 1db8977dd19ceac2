"""Defaults of the workload kinds. Filling them is idempotent."""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.admission import claims, jobs
from pilothouse_simulator.admission.defaults_pods import default_template
from pilothouse_simulator.values.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    PERSISTENT_VOLUME_CLAIMS,
    REPLICA_SETS,
    STATEFUL_SETS,
    ResourceType,
)

JsonObject = dict[str, Any]

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
WORKLOADS = frozenset({DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS, JOBS, CRON_JOBS})
# The counters that are also shown at zero.
_DAEMON_SET_COUNTERS = (
    "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady",
)  # fmt: skip


def default_deployment(obj: JsonObject) -> None:
    """Fills the defaults of a Deployment in place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    default_template(spec)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    for field in ("minReadySeconds", "paused"):
        if not spec.get(field):
            spec.pop(field, None)
    status = obj.setdefault("status", {})
    for condition in status.get("conditions") or []:
        condition.setdefault("lastUpdateTime", None)
        condition.setdefault("lastTransitionTime", None)


def default_replica_set(obj: JsonObject) -> None:
    """Fills the defaults of a ReplicaSet in place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    default_template(spec)
    if not spec.get("minReadySeconds"):
        spec.pop("minReadySeconds", None)
    obj.setdefault("status", {}).setdefault("replicas", 0)


def default_stateful_set(obj: JsonObject) -> None:
    """Fills the defaults of a StatefulSet in place.

    `maxUnavailable` is dropped, as by the recorded server: its feature gate MaxUnavailableStatefulSet is off.
    """
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    default_template(spec)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("partition", 0)
        rolling.pop("maxUnavailable", None)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    spec.setdefault("revisionHistoryLimit", 10)
    for claim in spec.get("volumeClaimTemplates") or []:
        claim.setdefault("apiVersion", PERSISTENT_VOLUME_CLAIMS.api_version)
        claim.setdefault("kind", PERSISTENT_VOLUME_CLAIMS.kind)
        claims.apply_defaults(PERSISTENT_VOLUME_CLAIMS, claim)
    for field in ("minReadySeconds", "volumeClaimTemplates"):
        if not spec.get(field):
            spec.pop(field, None)
    status = obj.setdefault("status", {})
    status.setdefault("replicas", 0)
    status.setdefault("availableReplicas", 0)


def default_daemon_set(obj: JsonObject) -> None:
    """Fills the defaults of a DaemonSet in place."""
    spec = obj.setdefault("spec", {})
    default_template(spec)
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    if not spec.get("minReadySeconds"):
        spec.pop("minReadySeconds", None)
    status = obj.setdefault("status", {})
    for field in _DAEMON_SET_COUNTERS:
        status.setdefault(field, 0)


def initialize_workload(resource: ResourceType, obj: JsonObject) -> None:
    """Sets the fields that the server sets in a new object, including its first status."""
    if resource is JOBS:
        jobs.initialize(obj)
    elif resource is DAEMON_SETS:
        number_template(obj, None)
        obj["status"] = dict.fromkeys(_DAEMON_SET_COUNTERS, 0)
    elif resource is STATEFUL_SETS:
        obj["status"] = {"replicas": 0, "availableReplicas": 0}
    else:
        obj["status"] = {"replicas": 0} if resource is REPLICA_SETS else {}


def number_template(obj: JsonObject, old: JsonObject | None) -> None:
    """Numbers the templates of a DaemonSet in its annotation. A value that a client sends is ignored."""
    before = int(((old or {"metadata": {}})["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, 0))
    changed = old is None or obj["spec"]["template"] != old["spec"]["template"]
    obj["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = str(before + changed)
