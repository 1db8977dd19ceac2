"""Writes `schema_types.json`: the field types of all kinds the simulator serves, taken from the models of the
`kubernetes` package.

The models name every field and its type, which decoding, server-side apply and strategic merge need. Importing the
models costs more than a second and 160 MB, so the types are stored as data, and only this generator imports the models.
`python -m pilothouse_simulator.store.schema_build` regenerates the file; a test compares it with the models.

The file maps type name -> field -> type, where a type is a primitive (`str`, `int`, `bool`, `float`, `any`,
`time`), the name of another entry, or `list:<type>` / `map:<type>`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

TYPES_FILE = Path(__file__).with_name("schema_types.json")

ROOTS = (
    "V1ConfigMap", "V1Deployment", "V1EndpointSlice", "V1Endpoints", "CoreV1Event", "V1Namespace", "V1Node",
    "V1Pod", "V1ReplicaSet", "V1Scale", "V1Secret", "V1Service", "V1ServiceAccount", "V1Lease", "V1Job",
    "V1PersistentVolume", "V1PersistentVolumeClaim", "V1ResourceQuota", "V1LimitRange", "V1StatefulSet",
    "V1ControllerRevision", "V1CronJob", "V1DaemonSet", "V1PriorityClass", "V1StorageClass",
    "V2HorizontalPodAutoscaler", "V1Ingress", "V1IngressClass", "V1NetworkPolicy", "V1PodDisruptionBudget", "V1Role",
    "V1RoleBinding", "V1CustomResourceDefinition",
)  # fmt: skip

_PRIMITIVES = {"str": "str", "int": "int", "bool": "bool", "float": "float", "object": "any", "datetime": "time",
               "bytes": "str"}  # fmt: skip
_CONTAINER = re.compile(r"^(?:List|list)\[(.*)\]$|^(?:Dict|dict)[\[(]str, (.*)[\])]$")


def _convert(name: str) -> str:
    if name in _PRIMITIVES:
        return _PRIMITIVES[name]
    match = _CONTAINER.match(name)
    if match is None:
        return name
    return f"list:{_convert(match[1])}" if match[1] else f"map:{_convert(match[2])}"


def build() -> dict[str, dict[str, str]]:
    """Returns all types reachable from ROOTS, sorted by name."""
    from kubernetes.client import models

    types: dict[str, dict[str, str]] = {}
    waiting = list(ROOTS)
    while waiting:
        name = waiting.pop()
        if name in types:
            continue
        model: Any = getattr(models, name)
        fields = {
            model.attribute_map[attribute]: _convert(kind) for attribute, kind in model.openapi_types.items()
        }
        types[name] = dict(sorted(fields.items()))
        for kind in fields.values():
            inner = kind.rpartition(":")[2]
            if inner not in _PRIMITIVES.values():
                waiting.append(inner)
    return dict(sorted(types.items()))


def render() -> str:
    """Returns the text of the file, with one type per line."""
    lines = [f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in build().items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TYPES_FILE.write_text(render())
