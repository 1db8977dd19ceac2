"""The controller of resource quotas: updates `status.hard` and `status.used` where admission does not."""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.admission.quotas import ENDED, count
from pilothouse_simulator.controllers.controller import CONTROLLER_MANAGER, Controller, Key, key_of
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.resources import PODS, RESOURCE_QUOTAS, SERVICES

JsonObject = dict[str, Any]


class ResourceQuotaController(Controller[Key]):
    """Recounts when a quota changes, and when a counted object is deleted, ends or shrinks."""

    def observe(self, event: StoreEvent) -> None:
        namespace, _ = key_of(event.object)
        if event.resource is RESOURCE_QUOTAS:
            counted = event.object.get("status", {}).get("hard")
            if event.type != "DELETED" and event.object["spec"].get("hard") != counted:
                self.enqueue(key_of(event.object))
        elif namespace and self._lowers(event):
            for quota in self.store.list(RESOURCE_QUOTAS, namespace):
                self.enqueue(key_of(quota))

    @staticmethod
    def _lowers(event: StoreEvent) -> bool:
        if event.type == "DELETED":
            return True
        if event.previous is None:
            return False
        if event.resource is PODS:
            ended = event.object["status"].get("phase") in ENDED
            return ended and event.previous["status"].get("phase") not in ENDED
        return event.resource is SERVICES

    def sync(self, key: Key) -> None:
        quota = self.store.get(RESOURCE_QUOTAS, *key)
        if quota is None or "deletionTimestamp" in quota["metadata"]:
            return
        status = {"hard": quota["spec"].get("hard") or {}, "used": count(self.store, quota)}
        if status != quota.get("status"):
            self.store.update_status(RESOURCE_QUOTAS, {**quota, "status": status}, CONTROLLER_MANAGER)
