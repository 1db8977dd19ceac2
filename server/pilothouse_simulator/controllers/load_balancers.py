"""The simulated load balancer: gives an address to each Service of type LoadBalancer.

Kubernetes has no load balancer of its own, and in the recorded cluster, which has none, such a Service stays pending.
So this controller runs only on request. Like MetalLB, it gives each Service one free address of its block, and ignores
Services that name a class (`spec.loadBalancerClass`). Unlike cloud load balancers it sets no finalizer.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any, Final

from pilothouse_simulator.controllers.controller import Controller, Key, key_of
from pilothouse_simulator.store.events import StoreEvent
from pilothouse_simulator.values.resources import SERVICES

JsonObject = dict[str, Any]

# A block for documentation (RFC 5737), different from that of Gateways and Ingresses.
ADDRESSES: Final = tuple(map(str, IPv4Network("198.51.100.0/24").hosts()))
_MANAGER = "load-balancer"


class LoadBalancerController(Controller[Key]):
    """Syncs Services; the key is namespace and name."""

    def observe(self, event: StoreEvent) -> None:
        if event.resource is SERVICES:
            self.enqueue(key_of(event.object))

    def sync(self, key: Key) -> None:
        """Writes or removes the address of one Service. Without a free address, the Service stays pending."""
        service = self.store.get(SERVICES, *key)
        if service is None or "deletionTimestamp" in service["metadata"]:
            return
        present = _address(service)
        if service["spec"]["type"] != "LoadBalancer":
            wanted = None
        elif service["spec"].get("loadBalancerClass"):
            return
        else:
            wanted = present or self._free()
        if wanted != present:
            balancer = {"ingress": [{"ip": wanted, "ipMode": "VIP"}]} if wanted else {}
            changed = {**service, "status": {**(service.get("status") or {}), "loadBalancer": balancer}}
            self.store.update_status(SERVICES, changed, _MANAGER)

    def _free(self) -> str | None:
        taken = {_address(each) for each in self.store.list(SERVICES)}
        return next((address for address in ADDRESSES if address not in taken), None)


def _address(service: JsonObject) -> str | None:
    entries = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    return entries[0].get("ip") if entries else None
