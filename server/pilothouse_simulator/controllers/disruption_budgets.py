"""The controller of PodDisruptionBudgets: counts the pods that a budget selects.

No recording shows it. Numbers, conditions and their wording follow Kubernetes'
`pkg/controller/disruption/disruption.go` and `UpdateDisruptionAllowedCondition` of `k8s.io/component-helpers`.
`disruptedPods` is not implemented, because an eviction here deletes its pod immediately.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

from pilothouse_simulator.controllers.conditions import with_conditions
from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    Controller,
    Key,
    controller_of,
    key_of,
    matches_selector,
)
from pilothouse_simulator.controllers.replica_sets import ready_since
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
)

JsonObject = dict[str, Any]

_COMPONENT = "controllermanager"
_OWNERS = (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS)


class DisruptionBudgetController(Controller[Key]):
    """Syncs PodDisruptionBudgets; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is POD_DISRUPTION_BUDGETS:
            self.enqueue(key_of(event.object))
        elif event.resource in (PODS, *_OWNERS):
            namespace, _ = key_of(event.object)
            for budget in self.store.list(POD_DISRUPTION_BUDGETS, namespace):
                self.enqueue(key_of(budget))

    def sync(self, key: Key) -> None:
        """Counts the pods of one budget and writes its status."""
        budget = self.store.get(POD_DISRUPTION_BUDGETS, *key)
        if budget is None:
            return
        pods = [
            pod
            for pod in self.store.list(PODS, key[0])
            if matches_selector(budget["spec"].get("selector"), pod["metadata"].get("labels") or {})
        ]
        expected, desired = self._expected(budget["spec"], pods)
        healthy = sum(
            "deletionTimestamp" not in pod["metadata"] and ready_since(pod) is not None for pod in pods
        )
        allowed = max(0, healthy - desired) if expected > 0 else 0
        status: JsonObject = {
            "observedGeneration": budget["metadata"].get("generation", 1),
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
        }
        status["conditions"] = with_conditions(
            (budget.get("status") or {}).get("conditions"),
            [
                {
                    "type": "DisruptionAllowed",
                    "status": "True" if allowed else "False",
                    "reason": "SufficientPods" if allowed else "InsufficientPods",
                    "message": "",
                    "observedGeneration": status["observedGeneration"],
                }
            ],
            format_time(self.clock.now()),
        )
        if status == budget.get("status"):
            return
        if not pods:
            self.recorder.record(
                POD_DISRUPTION_BUDGETS, budget, "NoPods", "No matching pods found", component=_COMPONENT
            )
        self.store.update_status(POD_DISRUPTION_BUDGETS, {**budget, "status": status}, CONTROLLER_MANAGER)

    def _expected(self, spec: JsonObject, pods: list[JsonObject]) -> tuple[int, int]:
        """Returns how many pods there should be, and how many of them must be healthy."""
        most, least = spec.get("maxUnavailable"), spec.get("minAvailable")
        if most is not None:
            expected = self._scale(pods)
            return expected, max(0, expected - _absolute(most, expected))
        if isinstance(least, str):
            expected = self._scale(pods)
            return expected, _absolute(least, expected)
        return (len(pods), least) if least is not None else (0, 0)

    def _scale(self, pods: list[JsonObject]) -> int:
        """Returns the sum of the replicas of the top-level controllers of these pods.

        Pods without a controller do not count.
        """
        scales: dict[str, int] = {}
        for pod in pods:
            reference = controller_of(pod)
            while reference is not None and reference["uid"] not in scales:
                resource = next((entry for entry in _OWNERS if entry.kind == reference["kind"]), None)
                namespace = pod["metadata"]["namespace"]
                owner = (
                    self.store.get(resource, namespace, reference["name"]) if resource is not None else None
                )
                if owner is None:
                    break
                above = controller_of(owner)
                if above is None:
                    scales[reference["uid"]] = int(owner["spec"].get("replicas", 1))
                reference = above
        return sum(scales.values())


def _absolute(value: int | str, whole: int) -> int:
    """Returns a number of pods; a percentage of `whole` is rounded up."""
    if isinstance(value, str):
        return ceil(Fraction(int(value.removesuffix("%")) * whole, 100))
    return int(value)
