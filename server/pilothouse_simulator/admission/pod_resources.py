"""The total request of a pod.

A pod's request for one resource is the sum over its containers and sidecars, or the request of its largest init
container (with the sidecars started before it) if that is more: init containers run one after the other, before the
rest. An amount of the pod itself (`spec.resources`) overrides those of its containers (recording 29).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pilothouse_simulator.values.quantities import canonical_quantity, parse_quantity

JsonObject = dict[str, Any]


def is_sidecar(container: JsonObject) -> bool:
    """Returns whether an init container keeps running next to the main ones (restartPolicy Always)."""
    return bool(container.get("restartPolicy") == "Always")


def pod_total(pod: JsonObject, kind: str, resource: str) -> Decimal:
    """Returns the total request of a pod. `kind` is `requests` or `limits`, `resource` such as `cpu` (in cores)."""

    def amount(container: JsonObject) -> Decimal:
        return parse_quantity(((container.get("resources") or {}).get(kind) or {}).get(resource, "0"))

    spec = pod["spec"]
    overhead = parse_quantity((spec.get("overhead") or {}).get(resource, "0"))
    if resource in _of_pod(pod, kind):
        return amount(spec) + overhead
    sidecars = Decimal(0)
    peak = Decimal(0)
    for container in spec.get("initContainers") or []:
        if is_sidecar(container):
            sidecars += amount(container)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + amount(container))
    steady = sum((amount(container) for container in spec["containers"]), sidecars)
    return max(steady, peak) + overhead


def pod_total_quantities(pod: JsonObject, kind: str) -> dict[str, str]:
    """Returns the totals of all resources named in the pod, as quantities.

    A total that equals an amount in the pod is spelt like that amount.
    """
    spellings: dict[str, list[str]] = {}
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        for resource, text in ((container.get("resources") or {}).get(kind) or {}).items():
            spellings.setdefault(resource, []).append(str(text))
    spellings |= {resource: [str(text)] for resource, text in _of_pod(pod, kind).items()}
    totals: dict[str, str] = {}
    for resource, texts in spellings.items():
        total = pod_total(pod, kind, resource)
        same = next((text for text in texts if parse_quantity(text) == total), None)
        totals[resource] = same if same is not None else _spell(total, resource)
    return totals


def _of_pod(pod: JsonObject, kind: str) -> JsonObject:
    return ((pod["spec"].get("resources") or {}).get(kind)) or {}


def _spell(amount: Decimal, resource: str) -> str:
    if resource == "cpu":
        return canonical_quantity(f"{int(amount * 1000)}m")
    number = int(amount)
    return canonical_quantity(f"{number // 1024}Ki" if number % 1024 == 0 else str(number))
