"""Table cells of the kinds for routing, policies, autoscalers, quotas and roles."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from pilothouse_simulator.values.selectors import format_label_selector

JsonObject = dict[str, Any]

_NONE = "<none>"
_STEP = re.compile(r"""\.((?:[^.\[\\]|\\.)+)|\[(\d+)\]|\[\?\(@\.(\w+)\s*==\s*["']([^"']*)["']\)\]""")


def ingress_cells(obj: JsonObject, created: str) -> list[Any]:
    """Returns name, class, hosts, address, ports, age."""
    spec = obj["spec"]
    hosts = [rule["host"] for rule in spec.get("rules") or [] if rule.get("host")]
    shown = ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "")
    entries = obj["status"].get("loadBalancer", {}).get("ingress") or []
    address = ",".join(entry.get("ip") or entry.get("hostname", "") for entry in entries)
    ports = "80, 443" if spec.get("tls") else "80"
    return [
        obj["metadata"]["name"],
        spec.get("ingressClassName") or _NONE,
        shown or "*",
        address,
        ports,
        created,
    ]


def ingress_class_cells(obj: JsonObject, created: str) -> list[Any]:
    """Returns name, controller, parameters, age."""
    parameters = obj["spec"].get("parameters")
    shown = _NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        shown = f"{parameters['kind']}{group}/{parameters['name']}"
    return [obj["metadata"]["name"], obj["spec"].get("controller", ""), shown, created]


def network_policy_cells(obj: JsonObject, created: str) -> list[Any]:
    """Returns name, pod selector, age."""
    return [obj["metadata"]["name"], format_label_selector(obj["spec"]["podSelector"]), created]


def budget_cells(obj: JsonObject, created: str) -> list[Any]:
    """Returns name, both limits, allowed disruptions, age."""
    spec = obj["spec"]
    limits = [
        "N/A" if spec.get(name) is None else str(spec[name]) for name in ("minAvailable", "maxUnavailable")
    ]
    return [obj["metadata"]["name"], *limits, obj["status"].get("disruptionsAllowed", 0), created]


def autoscaler_cells(obj: JsonObject, created: str) -> list[Any]:
    """Returns name, target, metrics, bounds, replicas, age."""
    spec = obj["spec"]
    reference = spec["scaleTargetRef"]
    targets: list[str] = []
    for metric in spec.get("metrics") or []:
        source = metric.get("resource")
        if source is not None:
            target = source.get("target") or {}
            limit = (
                f"{target['averageUtilization']}%"
                if "averageUtilization" in target
                else target.get("averageValue", "<unset>")
            )
            targets.append(f"{source['name']}: <unknown>/{limit}")
        else:
            targets.append("<unknown>")
    return [
        obj["metadata"]["name"],
        f"{reference['kind']}/{reference['name']}",
        ", ".join(targets) or _NONE,
        str(spec.get("minReplicas", "<unset>")),
        spec.get("maxReplicas", 0),
        (obj.get("status") or {}).get("currentReplicas", 0),
        created,
    ]


def quota_cells(obj: JsonObject, created: str) -> list[Any]:
    """Returns name, requests, limits, age."""
    status = obj.get("status") or {}
    used = status.get("used") or {}
    requests: list[str] = []
    limits: list[str] = []
    for name, hard in sorted((status.get("hard") or {}).items()):
        shown = f"{name}: {used.get(name, '0')}/{hard}"
        (limits if name.startswith("limits.") else requests).append(shown)
    return [obj["metadata"]["name"], ", ".join(requests), ", ".join(limits), created]


def role_cells(obj: JsonObject, _: str) -> list[Any]:
    """Returns name, creation time."""
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


def role_binding_cells(obj: JsonObject, created: str) -> list[Any]:
    """Returns name, role, age, and the subjects by kind."""
    named: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or []:
        prefix = f"{subject.get('namespace', '')}/" if subject["kind"] == "ServiceAccount" else ""
        named[subject["kind"]].append(prefix + subject["name"])
    reference = obj["roleRef"]
    subjects = [", ".join(names) for names in named.values()]
    return [obj["metadata"]["name"], f"{reference['kind']}/{reference['name']}", created, *subjects]


def custom_cells(columns: tuple[JsonObject, ...], obj: JsonObject, now: datetime, age: Any) -> list[Any]:
    """Returns name, and the columns that a definition adds."""
    cells: list[Any] = [obj["metadata"]["name"]]
    for column in columns:
        value = value_at(obj, column["jsonPath"])
        if column["type"] == "date":
            cells.append(age(value, now))
        elif isinstance(value, list | dict) and column["type"] == "string":
            cells.append(str(value).replace("'", '"'))
        else:
            cells.append(value)
    return cells


def value_at(obj: Any, path: str) -> Any:
    """Returns the value at a simple JSON path (names, `[0]`, `[*]`, `[?(@.type=="Ready")]`); None if there is none."""
    before, star, after = path.partition("[*]")
    if star:
        items = value_at(obj, before)
        values = [value_at(item, after) for item in items] if isinstance(items, list) else []
        return " ".join(str(value) for value in values if value is not None) or None
    for name, index, key, wanted in _STEP.findall(path):
        if name:
            obj = obj.get(name.replace("\\.", ".")) if isinstance(obj, dict) else None
        elif not isinstance(obj, list):
            return None
        elif index:
            obj = obj[int(index)] if int(index) < len(obj) else None
        else:
            obj = next((item for item in obj if isinstance(item, dict) and item.get(key) == wanted), None)
    return obj
