"""The controller of HorizontalPodAutoscalers: sets the replicas of their targets through the scale subresource.

No recording shows it. Conditions and their wording follow Kubernetes' `pkg/controller/podautoscaler/horizontal.go`. It
measures nothing: the annotation `simulate.pilothouse.dev/replicas` of an autoscaler gives the number of replicas that
its metrics would request, and the controller limits it to `minReplicas` and `maxReplicas`. Without the annotation, the
current number is the requested one.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.controllers.conditions import with_conditions
from pilothouse_simulator.controllers.controller import CONTROLLER_MANAGER, Controller, Key, key_of
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.pod_behavior import PREFIX
from pilothouse_simulator.values.resources import (
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    REPLICA_SETS,
    STATEFUL_SETS,
    ResourceType,
)

JsonObject = dict[str, Any]

WANTED_REPLICAS = PREFIX + "replicas"
_COMPONENT = "horizontal-pod-autoscaler"
_SCALED = (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS)
_METRIC = "cpu resource utilization (percentage of request)"


class AutoscalerController(Controller[Key]):
    """Syncs HorizontalPodAutoscalers; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is HORIZONTAL_POD_AUTOSCALERS:
            self.enqueue(key_of(event.object))
        elif event.resource in _SCALED:
            namespace, name = key_of(event.object)
            for scaler in self.store.list(HORIZONTAL_POD_AUTOSCALERS, namespace):
                target = scaler["spec"].get("scaleTargetRef") or {}
                if (target.get("kind"), target.get("name")) == (event.resource.kind, name):
                    self.enqueue(key_of(scaler))

    def sync(self, key: Key) -> None:
        """Scales the target of one autoscaler, and writes its status."""
        scaler = self.store.get(HORIZONTAL_POD_AUTOSCALERS, *key)
        if scaler is None or "deletionTimestamp" in scaler["metadata"]:
            return
        reference = scaler["spec"]["scaleTargetRef"]
        kind = (reference.get("apiVersion", ""), reference["kind"])
        resource = next((entry for entry in _SCALED if (entry.api_version, entry.kind) == kind), None)
        target = self.store.get(resource, key[0], reference["name"]) if resource is not None else None
        if resource is None or target is None:
            self._report_missing(scaler, resource, reference)
            return
        current = int(target["spec"].get("replicas", 1))
        if current == 0:
            message = "scaling is disabled since the replica count of the target is zero"
            conditions = [
                _condition("AbleToScale", "SucceededGetScale", _GOT_SCALE),
                _condition("ScalingActive", "ScalingDisabled", message, holds=False),
            ]
            self._write(scaler, conditions, current=0, desired=0)
            return
        wanted, limited = _wanted(scaler, current)
        if wanted != current:
            changed = copy_json(target)
            changed["spec"]["replicas"] = wanted
            self.store.update(resource, changed, manager=CONTROLLER_MANAGER, subresource="scale")
            direction = "above" if wanted > current else "below"
            text = f"New size: {wanted}; reason: {_METRIC} {direction} target"
            self.recorder.record(
                HORIZONTAL_POD_AUTOSCALERS, scaler, "SuccessfulRescale", text, component=_COMPONENT
            )
            text = f"the HPA controller was able to update the target scale to {wanted}"
            able = _condition("AbleToScale", "SucceededRescale", text)
        else:
            able = _condition("AbleToScale", "ReadyForNewScale", "recommended size matches current size")
        text = f"the HPA was able to successfully calculate a replica count from {_METRIC}"
        active = _condition("ScalingActive", "ValidMetricFound", text)
        shown = int(target["status"].get("replicas", 0))
        self._write(
            scaler, [able, active, limited], current=shown, desired=wanted, rescaled=wanted != current
        )

    def _report_missing(
        self, scaler: JsonObject, resource: ResourceType | None, reference: JsonObject
    ) -> None:
        if resource is not None:
            problem = f'{api_errors.qualified(resource)} "{reference["name"]}" not found'
        else:
            kind = f'kind "{reference["kind"]}" in version "{reference.get("apiVersion", "")}"'
            problem = f"unable to determine resource for scale target reference: no matches for {kind}"
        message = f"the HPA controller was unable to get the target's current scale: {problem}"
        self._write(
            scaler, [_condition("AbleToScale", "FailedGetScale", message, holds=False)], current=0, desired=0
        )
        self.recorder.record(
            HORIZONTAL_POD_AUTOSCALERS, scaler, "FailedGetScale", problem, component=_COMPONENT, warning=True
        )

    def _write(
        self,
        scaler: JsonObject,
        conditions: list[JsonObject],
        *,
        current: int,
        desired: int,
        rescaled: bool = False,
    ) -> None:
        now = format_time(self.clock.now())
        status = {key: value for key, value in scaler.get("status", {}).items() if key != "currentReplicas"}
        status |= {"desiredReplicas": desired, "currentMetrics": None}
        if current:
            status["currentReplicas"] = current
        if rescaled:
            status["lastScaleTime"] = now
        status["conditions"] = with_conditions(status.get("conditions"), conditions, now)
        if status != scaler.get("status"):
            self.store.update_status(
                HORIZONTAL_POD_AUTOSCALERS, {**scaler, "status": status}, CONTROLLER_MANAGER
            )


_GOT_SCALE = "the HPA controller was able to get the target's current scale"


def _condition(kind: str, reason: str, message: str, *, holds: bool = True) -> JsonObject:
    return {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}


def _wanted(scaler: JsonObject, current: int) -> tuple[int, JsonObject]:
    """Returns the number of replicas within the bounds, and the condition that names the bound that limited it."""
    text = (scaler["metadata"].get("annotations") or {}).get(WANTED_REPLICAS, "")
    asked = int(text) if text.isdecimal() else current
    lowest, highest = int(scaler["spec"]["minReplicas"]), int(scaler["spec"]["maxReplicas"])
    if asked > highest:
        message = "the desired replica count is more than the maximum replica count"
        return highest, _condition("ScalingLimited", "TooManyReplicas", message)
    if asked < lowest:
        message = "the desired replica count is less than the minimum replica count"
        return lowest, _condition("ScalingLimited", "TooFewReplicas", message)
    message = "the desired count is within the acceptable range"
    return asked, _condition("ScalingLimited", "DesiredWithinRange", message, holds=False)
