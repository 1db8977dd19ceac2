"""The namespace controller: creates the first contents of a namespace, and empties a deleted one.

A namespace gets the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`; they are created again if someone
deletes them. In a namespace that is being deleted, every object is deleted, and the conditions list the remaining
objects and the finalizers that hold them. When nothing is left, the finalizer `kubernetes` is removed, and with it the
namespace. The first pass runs a moment after the deletion; later passes run after each removal, and at least every five
seconds.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pilothouse_simulator.controllers.controller import CONTROLLER_MANAGER, Controller
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    ResourceType,
)

JsonObject = dict[str, Any]

FIRST_LOOK_SECONDS = 0.3
_NEXT_LOOK_SECONDS = 5.0
_AFTER_REMOVAL_SECONDS = 0.1

ROOT_CERTIFICATE_NAME = "kube-root-ca.crt"
_CERTIFICATE_NOTE = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of "
    "Kubernetes clusters."
)
# A placeholder, also when the server uses TLS: simulated pods do not read it.
_CERTIFICATE = "(the simulated cluster has no certificate)\n"


class NamespaceController(Controller[str]):
    """Syncs namespaces; the key is the name."""

    def observe(self, event: StoreEvent) -> None:
        metadata = event.object["metadata"]
        if event.resource is NAMESPACES:
            deleted_now = "deletionTimestamp" in metadata and (
                event.previous is None or "deletionTimestamp" not in event.previous["metadata"]
            )
            self.enqueue(metadata["name"], after=FIRST_LOOK_SECONDS if deleted_now else 0.0)
        elif event.type == "DELETED" and "namespace" in metadata:
            parent = self.store.get(NAMESPACES, None, metadata["namespace"])
            if parent is None:
                return
            if "deletionTimestamp" in parent["metadata"]:
                self.enqueue(metadata["namespace"], after=_AFTER_REMOVAL_SECONDS)
            elif event.resource in (SERVICE_ACCOUNTS, CONFIG_MAPS):
                self.enqueue(metadata["namespace"])

    def sync(self, key: str) -> None:
        """Creates the first contents of a namespace, or empties a namespace that is being deleted."""
        namespace = self.store.get(NAMESPACES, None, key)
        if namespace is None:
            return
        if "deletionTimestamp" not in namespace["metadata"]:
            self._fill(key)
        else:
            self._empty(namespace)

    def _fill(self, name: str) -> None:
        if self.store.get(SERVICE_ACCOUNTS, name, "default") is None:
            account = {"metadata": {"name": "default", "namespace": name}}
            self.store.create(SERVICE_ACCOUNTS, account, manager=CONTROLLER_MANAGER)
        if self.store.get(CONFIG_MAPS, name, ROOT_CERTIFICATE_NAME) is None:
            metadata = {
                "name": ROOT_CERTIFICATE_NAME,
                "namespace": name,
                "annotations": {"kubernetes.io/description": _CERTIFICATE_NOTE},
            }
            document = {"metadata": metadata, "data": {"ca.crt": _CERTIFICATE}}
            self.store.create(CONFIG_MAPS, document, manager=CONTROLLER_MANAGER)

    def _empty(self, namespace: JsonObject) -> None:
        name = namespace["metadata"]["name"]
        remaining: Counter[str] = Counter()
        finalizers: Counter[str] = Counter()
        failures: list[str] = []
        for resource in self.store.types:
            if not resource.namespaced:
                continue
            for obj in self.store.list(resource, name):
                try:
                    left = self._delete(resource, obj)
                except ApiError as error:
                    failures.append(str(error))
                    left = obj
                if left is not None:
                    remaining[f"{resource.plural}.{resource.group}"] += 1
                    finalizers.update(left["metadata"].get("finalizers") or [])
        changed = copy_json(namespace)
        changed["status"]["conditions"] = self._conditions(
            namespace["status"].get("conditions") or [], remaining, finalizers, failures
        )
        stored = self.store.replace(NAMESPACES, changed)
        if remaining:
            self.enqueue(name, after=_NEXT_LOOK_SECONDS)
            return
        released = copy_json(stored)
        left_over = [entry for entry in stored["spec"].get("finalizers") or [] if entry != "kubernetes"]
        released["spec"]["finalizers"] = left_over
        self.store.replace(NAMESPACES, released)

    def _delete(self, resource: ResourceType, obj: JsonObject) -> JsonObject | None:
        """Deletes one object unless it is already being deleted; returns the remaining object."""
        metadata = obj["metadata"]
        if "deletionTimestamp" in metadata:
            return obj
        policy = None if resource is PODS else "Background"
        self.store.delete(resource, metadata["namespace"], metadata["name"], propagation_policy=policy)
        return self.store.get(resource, metadata["namespace"], metadata["name"])

    def _conditions(
        self,
        old: list[JsonObject],
        remaining: Counter[str],
        finalizers: Counter[str],
        failures: list[str],
    ) -> list[JsonObject]:
        resources = ", ".join(f"{kind} has {count} resource instances" for kind, count in remaining.items())
        holders = ", ".join(f"{name} in {count} resource instances" for name, count in finalizers.items())
        wanted = [
            ("NamespaceDeletionDiscoveryFailure", False, "ResourcesDiscovered",
             "All resources successfully discovered"),
            ("NamespaceDeletionGroupVersionParsingFailure", False, "ParsedGroupVersions",
             "All legacy kube types successfully parsed"),
            ("NamespaceDeletionContentFailure", True, "ContentDeletionFailed", "; ".join(failures))
            if failures
            else ("NamespaceDeletionContentFailure", False, "ContentDeleted",
                  "All content successfully deleted, may be waiting on finalization"),
            ("NamespaceContentRemaining", True, "SomeResourcesRemain",
             f"Some resources are remaining: {resources}")
            if remaining
            else ("NamespaceContentRemaining", False, "ContentRemoved", "All content successfully removed"),
            ("NamespaceFinalizersRemaining", True, "SomeFinalizersRemain",
             f"Some content in the namespace has finalizers remaining: {holders}")
            if finalizers
            else ("NamespaceFinalizersRemaining", False, "ContentHasNoFinalizers",
                  "All content-preserving finalizers finished"),
        ]  # fmt: skip
        known = {condition["type"]: condition for condition in old}
        now = format_time(self.clock.now())
        conditions = []
        for kind, is_true, reason, message in wanted:
            value = "True" if is_true else "False"
            same = kind in known and known[kind]["status"] == value
            moment = known[kind]["lastTransitionTime"] if same else now
            conditions.append(
                {
                    "type": kind,
                    "status": value,
                    "lastTransitionTime": moment,
                    "reason": reason,
                    "message": message,
                }
            )
        return conditions
