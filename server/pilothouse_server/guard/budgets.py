"""Finds PodDisruptionBudgets that block every drain of a node.

Such a budget causes a warning, or is refused if the cluster sets `forbid_blocking_budgets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_server.guard.checks import Inspection, Way

_RULE = "blockingBudget"


def blocking(document: Mapping[str, Any], found: Inspection, _way: Way) -> None:
    """Notes a budget that blocks every drain, if the cluster forbids that."""
    if found.facts.forbid_blocking_budgets and (problem := problem_of(document, found.facts.pods)):
        key, words = problem
        words = f"{words}, and the cluster sets forbid_blocking_budgets; let at least one pod be evicted"
        found.note(((None, "spec"), key), _RULE, words, permission="")


def problem_of(document: Mapping[str, Any], pods: int | None = None) -> tuple[str, str] | None:
    """Returns the field of `spec` that is known to block every drain, and why; or None.

    `pods`: the number of pods that the budget selects, if it is known.
    """
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return None
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if most is not None and _amount(most, pods) == 0:
        return "maxUnavailable", "lets no pod be evicted, so it blocks every drain of a node"
    if least is None:
        return None
    if _percent(least) == 100:
        return "minAvailable", "needs all pods, so it blocks every drain of a node"
    needed = _amount(least, pods)
    if pods and needed is not None and needed >= pods:
        return "minAvailable", f"needs all of its {pods} pods, so it blocks every drain of a node"
    return None


def _percent(value: Any) -> int | None:
    if isinstance(value, str) and value.endswith("%") and value[:-1].isascii() and value[:-1].isdigit():
        return min(int(value[:-1][:6]), 100)
    return None


def _amount(value: Any, pods: int | None) -> int | None:
    """Returns an amount as a number of pods (Kubernetes rounds percentages up); None if it is unknown."""
    percent = _percent(value)
    if percent is None:
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if percent == 0:
        return 0
    return None if pods is None else -(-percent * pods // 100)
