"""The endpoint controller: the EndpointSlices and the legacy Endpoints of every Service with a selector.

Slices list the pods that have an address, and for each pod whether it is ready, serving and terminating; the Endpoints
object groups them into ready and not-ready addresses. A port given by name is resolved in the pod; a pod without a port
of that name is not listed under it.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.controllers.controller import (
    CONTROLLER_MANAGER,
    Controller,
    Key,
    ObjectIndex,
    key_of,
)
from pilothouse_simulator.controllers.replica_sets import controller_reference, ready_since
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock, format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES

JsonObject = dict[str, Any]

_SERVICE_LABEL = "kubernetes.io/service-name"
_TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
_SLICE_OWNER = "endpointslice-controller.k8s.io"
_PAUSE_PER_POD_SECONDS = 0.0005
_TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})


class EndpointController(Controller[Key]):
    """Syncs Services; the key is namespace and name."""

    def __init__(self, store: ObjectStore, clock: Clock, recorder: EventRecorder, index: ObjectIndex) -> None:
        super().__init__(store, clock, recorder, index)
        self._pauses: dict[Key, float] = {}

    def observe(self, event: StoreEvent) -> None:
        if event.resource is SERVICES:
            self.enqueue(key_of(event.object))
        elif event.resource is PODS:
            self._enqueue_services(event)

    def _enqueue_services(self, event: StoreEvent) -> None:
        if event.type == "MODIFIED" and event.previous is not None:
            before, after = _endpoint_facts(event.previous), _endpoint_facts(event.object)
            if before == after:
                return
        states = [pod["metadata"].get("labels") or {} for pod in (event.object, event.previous) if pod]
        for service in self.store.list(SERVICES, event.object["metadata"]["namespace"]):
            selector = service["spec"].get("selector")
            if selector and any(selector.items() <= labels.items() for labels in states):
                key = key_of(service)
                self.enqueue(key, after=self._pauses.get(key, 0.0))

    def sync(self, key: Key) -> None:
        """Updates the slice and the Endpoints of one Service."""
        namespace, name = key
        service = self.store.get(SERVICES, namespace, name)
        if service is None:
            self._pauses.pop(key, None)
            if self.store.get(ENDPOINTS, namespace, name) is not None:
                self.store.delete(ENDPOINTS, namespace, name)
            return
        selector = service["spec"].get("selector")
        if not selector or "deletionTimestamp" in service["metadata"]:
            return
        pods = [
            pod
            for pod in self.store.list(PODS, namespace)
            if selector.items() <= (pod["metadata"].get("labels") or {}).items()
            and pod["status"].get("podIP")
            and pod["status"].get("phase") not in _TERMINAL_PHASES
        ]
        self._write_slice(service, pods)
        self._write_endpoints(service, pods)
        # Each write contains all pods of a Service. For a Service with many pods, changes are collected before the next
        # write.
        self._pauses[key] = len(pods) * _PAUSE_PER_POD_SECONDS

    def _write_slice(self, service: JsonObject, pods: list[JsonObject]) -> None:
        uid = service["metadata"]["uid"]
        slices = self.index.dependents(uid, ENDPOINT_SLICES)
        content: JsonObject = {
            "addressType": "IPv4",
            "endpoints": [_endpoint(service, pod) for pod in pods],
            "ports": _ports(service, pods),
        }
        metadata = service["metadata"]
        if not slices:
            labels = dict(metadata.get("labels") or {})
            labels |= {
                "endpointslice.kubernetes.io/managed-by": _SLICE_OWNER,
                _SERVICE_LABEL: metadata["name"],
            }
            if service["spec"].get("clusterIP") == "None":
                labels["service.kubernetes.io/headless"] = ""
            new = {
                "metadata": {
                    "generateName": metadata["name"] + "-",
                    "namespace": metadata["namespace"],
                    "labels": labels,
                    "annotations": self._trigger_time(),
                    "ownerReferences": [controller_reference(service)],
                },
                **content,
            }
            self.store.create(ENDPOINT_SLICES, new, manager=CONTROLLER_MANAGER)
            return
        current = slices[0]
        if any(current.get(field) != value for field, value in content.items()):
            changed = {**copy_json(current), **content}
            changed["metadata"]["annotations"] = self._trigger_time()
            self.store.update(ENDPOINT_SLICES, changed, manager=CONTROLLER_MANAGER)

    def _write_endpoints(self, service: JsonObject, pods: list[JsonObject]) -> None:
        namespace, name = key_of(service)
        # Endpoints omit terminating pods, unless the Service publishes not-ready addresses.
        pods = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] or _wants_unready(service)]
        ready = [_address(pod) for pod in pods if ready_since(pod) or _wants_unready(service)]
        unready = [_address(pod) for pod in pods if not (ready_since(pod) or _wants_unready(service))]
        subset: JsonObject = {}
        if ready:
            subset["addresses"] = ready
        if unready:
            subset["notReadyAddresses"] = unready
        if subset and (ports := _ports(service, pods)):
            subset["ports"] = [
                {field: port[field] for field in ("name", "port", "protocol") if port.get(field)}
                for port in ports
            ]
        subsets = [subset] if subset else []
        labels = {**(service["metadata"].get("labels") or {}),
                  "endpoints.kubernetes.io/managed-by": "endpoint-controller"}  # fmt: skip
        current = self.store.get(ENDPOINTS, namespace, name)
        if current is None:
            new: JsonObject = {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": labels,
                    "annotations": self._trigger_time(),
                },
            }
            if subsets:
                new["subsets"] = subsets
            self.store.create(ENDPOINTS, new, manager=CONTROLLER_MANAGER)
        elif (current.get("subsets") or []) != subsets:
            changed = copy_json(current)
            changed["subsets"] = subsets
            if not subsets:
                del changed["subsets"]
            changed["metadata"]["annotations"] = self._trigger_time()
            self.store.update(ENDPOINTS, changed, manager=CONTROLLER_MANAGER)

    def _trigger_time(self) -> dict[str, str]:
        return {_TRIGGER_TIME: format_time(self.clock.now())}


def _endpoint_facts(pod: JsonObject) -> tuple[object, ...]:
    metadata, status = pod["metadata"], pod["status"]
    return (
        metadata.get("labels"),
        "deletionTimestamp" in metadata,
        status.get("podIP"),
        status.get("phase") in _TERMINAL_PHASES,
        ready_since(pod) is not None,
    )


def _wants_unready(service: JsonObject) -> bool:
    return bool(service["spec"].get("publishNotReadyAddresses"))


def _endpoint(service: JsonObject, pod: JsonObject) -> JsonObject:
    serving = ready_since(pod) is not None
    terminating = "deletionTimestamp" in pod["metadata"]
    ready = _wants_unready(service) or (serving and not terminating)
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": _target(pod),
        "nodeName": pod["spec"]["nodeName"],
    }


def _address(pod: JsonObject) -> JsonObject:
    return {
        "ip": pod["status"]["podIP"],
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": _target(pod),
    }


def _target(pod: JsonObject) -> JsonObject:
    metadata = pod["metadata"]
    return {
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _ports(service: JsonObject, pods: list[JsonObject]) -> list[JsonObject]:
    ports = []
    for port in service["spec"].get("ports") or []:
        target = port.get("targetPort", port["port"])
        if isinstance(target, str):
            target = next((number for pod in pods if (number := _named_port(pod, target)) is not None), None)
        if target is not None:
            ports.append(
                {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": target}
            )
    return ports


def _named_port(pod: JsonObject, name: str) -> int | None:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or []:
            if port.get("name") == name:
                return int(port["containerPort"])
    return None
