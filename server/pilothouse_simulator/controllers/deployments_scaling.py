"""The arithmetic of Deployments: how many replicas each replica set may have at each step.

Pure functions over objects, a port of the real controller's `deploymentutil`: maxSurge and maxUnavailable
(absolute or per cent), the size of a new replica set, proportional scaling in the middle of a rollout, and
the revision and replica annotations.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor
from typing import Any

from pilothouse_simulator.values.json_copy import copy_json

JsonObject = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
TEMPLATE_HASH_LABEL = "pod-template-hash"
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    }
)
_MASK = 0xFFFFFFFF
_SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def replicas_of(workload: JsonObject) -> int:
    """Returns `spec.replicas` (default 1)."""
    return int(workload["spec"].get("replicas", 1))


def total_replicas(replica_sets: Iterable[JsonObject]) -> int:
    """Returns the sum of `spec.replicas`."""
    return sum(replicas_of(replica_set) for replica_set in replica_sets)


def status_total(replica_sets: Iterable[JsonObject], field: str) -> int:
    """Returns the sum of one counter of the status."""
    return sum(int(replica_set.get("status", {}).get(field, 0)) for replica_set in replica_sets)


def is_rolling(deployment: JsonObject) -> bool:
    """Returns whether the strategy is RollingUpdate."""
    return bool(deployment["spec"].get("strategy", {}).get("type", "RollingUpdate") == "RollingUpdate")


def surge_and_unavailable(deployment: JsonObject) -> tuple[int, int]:
    """Returns maxSurge and maxUnavailable as numbers of pods; zero for Recreate.

    Percentages refer to the replicas; maxSurge is rounded up, maxUnavailable down. If both are zero, one pod may be
    unavailable, because otherwise a rollout could never proceed.
    """
    replicas = replicas_of(deployment)
    if not is_rolling(deployment):
        return 0, 0
    rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate") or {}
    surge = ceil(_absolute(rolling.get("maxSurge", "25%"), replicas))
    unavailable = floor(_absolute(rolling.get("maxUnavailable", "25%"), replicas))
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def _absolute(value: int | str, replicas: int) -> Fraction:
    if isinstance(value, str) and value.endswith("%"):
        return Fraction(int(value[:-1]) * replicas, 100)
    return Fraction(int(value))


def new_replica_set_size(deployment: JsonObject, all_sets: list[JsonObject], new_set: JsonObject) -> int:
    """Returns how many replicas the new replica set may have now, given the sizes of all sets."""
    wanted = replicas_of(deployment)
    if not is_rolling(deployment):
        return wanted
    surge, _ = surge_and_unavailable(deployment)
    room = wanted + surge - total_replicas(all_sets)
    if room <= 0:
        return replicas_of(new_set)
    return replicas_of(new_set) + min(room, wanted - replicas_of(new_set))


def proportional_sizes(deployment: JsonObject, active_sets: list[JsonObject]) -> dict[str, int]:
    """Returns the sizes by name when a deployment is scaled in the middle of a rollout: each set keeps its share.

    The largest set gets the rounding remainder (among equal sets, the newest when growing, the oldest when shrinking).
    """
    surge, _ = surge_and_unavailable(deployment)
    allowed = replicas_of(deployment) + surge if replicas_of(deployment) > 0 else 0
    to_add = allowed - total_replicas(active_sets)
    newest_first = to_add > 0
    ordered = sorted(
        active_sets, key=lambda entry: entry["metadata"]["creationTimestamp"], reverse=newest_first
    )
    ordered.sort(key=replicas_of, reverse=True)
    sizes: dict[str, int] = {}
    added = 0
    for replica_set in ordered:
        share = _share(deployment, replica_set, to_add, added)
        sizes[replica_set["metadata"]["name"]] = replicas_of(replica_set) + share
        added += share
    if ordered and to_add:
        largest = ordered[0]["metadata"]["name"]
        sizes[largest] = max(0, sizes[largest] + to_add - added)
    return sizes


def _share(deployment: JsonObject, replica_set: JsonObject, to_add: int, added: int) -> int:
    size = replicas_of(replica_set)
    if size == 0 or to_add in (0, added):
        return 0
    if replicas_of(deployment) == 0:
        fraction = -size
    else:
        surge, _ = surge_and_unavailable(deployment)
        before = annotated_number(replica_set, MAX_REPLICAS) or int(
            deployment.get("status", {}).get("replicas", 0)
        )
        fraction = round(size * (replicas_of(deployment) + surge) / max(1, before)) - size
    return min(fraction, to_add - added) if to_add > 0 else max(fraction, to_add - added)


def annotated_number(obj: JsonObject, annotation: str) -> int | None:
    """Returns the number in an annotation; None if it is absent or not a number."""
    text = (obj["metadata"].get("annotations") or {}).get(annotation)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def is_saturated(deployment: JsonObject, new_set: JsonObject) -> bool:
    """Returns whether the new replica set alone has all wanted replicas, and all are available."""
    wanted = replicas_of(deployment)
    return (
        replicas_of(new_set) == wanted
        and annotated_number(new_set, DESIRED_REPLICAS) == wanted
        and status_total([new_set], "availableReplicas") == wanted
    )


def replicas_annotations(deployment: JsonObject) -> dict[str, str]:
    """Returns the annotations that record the size of the deployment in a replica set."""
    surge, _ = surge_and_unavailable(deployment)
    wanted = replicas_of(deployment)
    return {DESIRED_REPLICAS: str(wanted), MAX_REPLICAS: str(wanted + surge)}


def annotate_new_replica_set(
    deployment: JsonObject, replica_set: JsonObject, revision: int, *, exists: bool
) -> bool:
    """Updates the revision and copied annotations of the new replica set in place. Returns whether they changed.

    A replica set that is reused after a rollback keeps its former revisions in an annotation.
    """
    annotations = replica_set["metadata"].setdefault("annotations", {})
    before = dict(annotations)
    for key, value in (deployment["metadata"].get("annotations") or {}).items():
        if key not in _NOT_COPIED:
            annotations[key] = value
    old_revision = annotated_number(replica_set, REVISION)
    if (old_revision or 0) < revision:
        annotations[REVISION] = str(revision)
        if old_revision is not None:
            history = annotations.get(REVISION_HISTORY)
            annotations[REVISION_HISTORY] = f"{history},{old_revision}" if history else str(old_revision)
    if not exists:
        annotations |= replicas_annotations(deployment)
    return bool(annotations != before)


def same_template(first: JsonObject, second: JsonObject) -> bool:
    """Returns whether two pod templates are equal except for their pod-template-hash."""
    return _without_hash(first) == _without_hash(second)


def _without_hash(template: JsonObject) -> JsonObject:
    metadata = dict(template.get("metadata") or {})
    labels = {
        key: value for key, value in (metadata.get("labels") or {}).items() if key != TEMPLATE_HASH_LABEL
    }
    return {**template, "metadata": {**metadata, "labels": labels}}


def template_hash(template: JsonObject, collisions: int) -> str:
    """Returns a name for a template: stable for equal templates, changed by `collisions`.

    The real controller hashes a dump of Go structures, on which nobody can depend. This hash is FNV-1a (32 bit) of the
    template in a canonical text form, spelt with the same letters.
    """
    digest = 0x811C9DC5
    for byte in (_canonical(template) + (str(collisions) if collisions else "")).encode():
        digest = ((digest ^ byte) * 0x01000193) & _MASK
    return "".join(_SAFE_LETTERS[ord(digit) % len(_SAFE_LETTERS)] for digit in str(digest))


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_canonical(entry) for entry in value) + "]"
    return repr(value)


def with_hash_label(labels: dict[str, str] | None, value: str) -> dict[str, str]:
    """Returns a copy of the labels with the template's hash."""
    return {**copy_json(labels or {}), TEMPLATE_HASH_LABEL: value}
