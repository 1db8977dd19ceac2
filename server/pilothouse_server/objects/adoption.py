"""Adopts drift of an object: changes by others on the cluster become desired values. Pure functions.

A field is adopted only if the document has it and if it needs no permission, because no caller is there to check.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import msgspec

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.objects import documents
from pilothouse_server.objects.model import CarriedObject

# Given the stored and the wanted object, raises PilothouseError if the change is not allowed.
Allowed = Callable[[CarriedObject, CarriedObject], None]


def adopt(carried: CarriedObject, live: Manifest, paths: Sequence[str], allowed: Allowed) -> CarriedObject:
    """Returns the object with those of the named fields of the live object that may be adopted."""
    for path in paths:
        try:
            candidate = _with(carried, live, path)
            allowed(carried, candidate)
        except PilothouseError:
            continue
        carried = candidate
    return carried


def is_adopted(carried: CarriedObject, live: Manifest, path: str) -> bool:
    """Returns whether the desired value of a field is the one on the cluster."""
    said, there = (field_paths.value_at(each, path) for each in (documents.manifest(carried), live))
    return bool(said == there)


def _with(carried: CarriedObject, live: Manifest, path: str) -> CarriedObject:
    document = documents.manifest(carried)
    steps = field_paths.find(document, path)
    if not steps:
        return carried
    value = field_paths.value_at(live, path)
    if value is None:
        document = field_paths.without(document, [path])
    else:
        holder = document
        for step in steps[:-1]:
            holder = holder[step]  # type: ignore[index]
        holder[steps[-1]] = value  # type: ignore[index]
    text = json.dumps(document, ensure_ascii=False)
    given = msgspec.structs.replace(carried, document=text, labels={}, annotations={})
    return documents.completed(given, (carried.namespace, carried.kubernetes_namespace))
