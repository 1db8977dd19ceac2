"""The simulated ingress controller: gives an address to each Ingress of a class that exists.

Kubernetes has no ingress controller of its own, and no recording shows one. Like common ingress controllers, this one
writes its address to `status.loadBalancer.ingress` of the Ingresses that name one of the cluster's classes, in
`spec.ingressClassName` or in the older annotation. An Ingress whose class does not exist gets no address, as in a
cluster without its controller.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.admission.networking import CLASS_ANNOTATION
from pilothouse_simulator.controllers.controller import Controller, Key, key_of
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.resources import INGRESS_CLASSES, INGRESSES

JsonObject = dict[str, Any]

# An address from the block for documentation (RFC 5737), like that of the Gateways.
INGRESS_ADDRESS = "192.0.2.1"
CONTROLLER_NAME = "simulate.pilothouse.dev/ingress"
_MANAGER = "ingress-controller"
_DEFAULT = {"ingressclass.kubernetes.io/is-default-class": "true"}


def create_ingress_classes(store: ObjectStore) -> None:
    """Creates the classes of a cluster that are missing: the default class, and the most common one."""
    classes: tuple[JsonObject, ...] = ({"name": "simulated", "annotations": _DEFAULT}, {"name": "nginx"})
    for metadata in classes:
        if store.get(INGRESS_CLASSES, None, metadata["name"]) is None:
            store.create(INGRESS_CLASSES, {"metadata": metadata, "spec": {"controller": CONTROLLER_NAME}})


class IngressController(Controller[Key]):
    """Syncs Ingresses; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is INGRESSES:
            self.enqueue(key_of(event.object))
        elif event.resource is INGRESS_CLASSES:
            for ingress in self.store.list(INGRESSES):
                self.enqueue(key_of(ingress))

    def sync(self, key: Key) -> None:
        """Writes the address of one Ingress, or removes it if its class does not exist."""
        ingress = self.store.get(INGRESSES, *key)
        if ingress is None or "deletionTimestamp" in ingress["metadata"]:
            return
        annotations = ingress["metadata"].get("annotations") or {}
        name = ingress["spec"].get("ingressClassName") or annotations.get(CLASS_ANNOTATION, "")
        served = bool(name) and self.store.get(INGRESS_CLASSES, None, name) is not None
        balancer = {"ingress": [{"ip": INGRESS_ADDRESS}]} if served else {}
        if ingress["status"].get("loadBalancer") != balancer:
            changed = {**ingress, "status": {"loadBalancer": balancer}}
            self.store.update_status(INGRESSES, changed, _MANAGER)
