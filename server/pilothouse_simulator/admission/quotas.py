"""ResourceQuota: the usage of an object, and the check at admission.

As in the real server, the check compares a write with `status.hard` and `status.used`, and writes the new `used` before
the object is stored, so that two concurrent writes cannot both take the last of a quota. When usage falls (a pod was
deleted or ended) or `spec.hard` changes, `controllers.quotas` counts again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pilothouse_simulator.admission.pod_resources import pod_total
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.quantities import canonical_quantity, parse_quantity
from pilothouse_simulator.values.resources import PODS, RESOURCE_QUOTAS, SERVICES, ResourceType

JsonObject = dict[str, Any]
Usage = dict[str, Decimal]

ENDED = ("Succeeded", "Failed")
# Kinds that a quota can also name by the plain plural; all others are counted as `count/<plural>.<group>` only.
_PLAIN = frozenset({"configmaps", "persistentvolumeclaims", "pods", "resourcequotas", "secrets", "services"})
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_LIMITED_KINDS = ("requests", "limits")


def usage_of(resource: ResourceType, obj: JsonObject) -> Usage:
    """Returns the usage of one object, by the names that quotas use. Ended pods count as objects only."""
    usage: Usage = {f"count/{api_errors.qualified(resource)}": Decimal(1)}
    if resource is PODS:
        if obj.get("status", {}).get("phase") in ENDED:
            return usage
        for kind in _LIMITED_KINDS:
            for name in _COMPUTE:
                usage[f"{kind}.{name}"] = pod_total(obj, kind, name)
        for name in _COMPUTE:
            usage[name] = usage[f"requests.{name}"]
    if resource.group == "" and resource.plural in _PLAIN:
        usage[resource.plural] = Decimal(1)
    if resource is SERVICES:
        kind = obj["spec"].get("type")
        ports = len(obj["spec"].get("ports") or [])
        usage["services.loadbalancers"] = Decimal(kind == "LoadBalancer")
        usage["services.nodeports"] = Decimal(ports if kind in ("NodePort", "LoadBalancer") else 0)
    if resource.plural == "persistentvolumeclaims":
        requested = (obj["spec"].get("resources") or {}).get("requests") or {}
        usage["requests.storage"] = parse_quantity(requested.get("storage", "0"))
        storage_class = obj["spec"].get("storageClassName")
        if storage_class:
            prefix = f"{storage_class}.storageclass.storage.k8s.io"
            usage[f"{prefix}/requests.storage"] = usage["requests.storage"]
            usage[f"{prefix}/persistentvolumeclaims"] = Decimal(1)
    return usage


def admit(
    store: ObjectStore, resource: ResourceType, obj: JsonObject, old: JsonObject | None, *, dry_run: bool
) -> None:
    """Charges a write to the quotas of its namespace. Raises 403 if a quota would be exceeded."""
    namespace = obj["metadata"].get("namespace")
    quotas = store.list(RESOURCE_QUOTAS, namespace) if namespace else []
    if not quotas or resource is RESOURCE_QUOTAS:
        return
    usage = usage_of(resource, obj)
    before = usage_of(resource, old) if old is not None else {}
    added = {name: amount - before.get(name, Decimal(0)) for name, amount in usage.items()}
    charged: list[JsonObject] = []
    for quota in quotas:
        hard = quota.get("status", {}).get("hard") or {}
        if not _in_scope(quota, resource, obj):
            continue
        if old is None and resource is PODS:
            _check_specified(quota, hard, obj)
        wanted = {name: added[name] for name in sorted(hard) if added.get(name, Decimal(0)) > 0}
        if not wanted:
            continue
        _check_room(quota, resource, obj, wanted)
        used = dict(quota["status"].get("used") or {})
        for name, amount in wanted.items():
            used[name] = spell(parse_quantity(used.get(name, "0")) + amount, name)
        changed = copy_json(quota)
        changed["status"]["used"] = used
        charged.append(changed)
    if not dry_run:
        for quota in charged:
            store.replace(RESOURCE_QUOTAS, quota)


def _check_specified(quota: JsonObject, hard: JsonObject, pod: JsonObject) -> None:
    """Raises 403 unless every container states the amounts of the compute resources that the quota limits."""
    spec = pod["spec"]
    missing: dict[str, list[str]] = {}
    for name in sorted(hard):
        kind, _, resource = name.rpartition(".")
        if resource not in _COMPUTE or kind not in ("", *_LIMITED_KINDS):
            continue
        for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
            amounts = (container.get("resources") or {}).get(kind or "requests") or {}
            if resource not in amounts:
                missing.setdefault(name, []).append(container["name"])
    if missing:
        shown = "; ".join(f"{name} for: {','.join(containers)}" for name, containers in missing.items())
        message = f"failed quota: {quota['metadata']['name']}: must specify {shown}"
        raise api_errors.forbidden(PODS, str(pod["metadata"].get("name", "")), message)


def _check_room(quota: JsonObject, resource: ResourceType, obj: JsonObject, wanted: Usage) -> None:
    hard, used = quota["status"]["hard"], quota["status"].get("used") or {}
    exceeded = [
        name
        for name, amount in wanted.items()
        if parse_quantity(used.get(name, "0")) + amount > parse_quantity(hard[name])
    ]
    if not exceeded:
        return
    requested = ",".join(f"{name}={spell(wanted[name], name)}" for name in exceeded)
    taken = ",".join(f"{name}={used.get(name, '0')}" for name in exceeded)
    limited = ",".join(f"{name}={hard[name]}" for name in exceeded)
    message = f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, used: {taken}, limited: {limited}"
    raise api_errors.forbidden(resource, str(obj["metadata"].get("name", "")), message)


def _in_scope(quota: JsonObject, resource: ResourceType, obj: JsonObject) -> bool:
    """Returns whether the scopes of a quota cover the object. A quota with scopes counts pods only."""
    scopes = quota["spec"].get("scopes") or []
    if not scopes:
        return True
    if resource is not PODS:
        return False
    best_effort = obj.get("status", {}).get("qosClass") == "BestEffort"
    deadline = obj["spec"].get("activeDeadlineSeconds") is not None
    holds = {
        "BestEffort": best_effort, "NotBestEffort": not best_effort,
        "Terminating": deadline, "NotTerminating": not deadline,
    }  # fmt: skip
    return all(holds.get(scope, True) for scope in scopes)


def spell(amount: Decimal, name: str) -> str:
    """Returns an amount with the family of suffixes that is usual for its resource."""
    if "memory" in name or "storage" in name:
        number = int(amount)
        return canonical_quantity(f"{number // 1024}Ki" if number % 1024 == 0 else str(number))
    return canonical_quantity(f"{int(amount * 1000)}m")


def count(store: ObjectStore, quota: JsonObject) -> dict[str, str]:
    """Returns the `used` of a quota, counted from all objects of its namespace."""
    namespace = quota["metadata"]["namespace"]
    totals: Usage = {name: Decimal(0) for name in quota["spec"].get("hard") or {}}
    for resource in store.types:
        if not resource.namespaced:
            continue
        for obj in store.list(resource, namespace):
            if not _in_scope(quota, resource, obj):
                continue
            for name, amount in usage_of(resource, obj).items():
                if name in totals:
                    totals[name] += amount
    return {name: spell(amount, name) for name, amount in sorted(totals.items())}
