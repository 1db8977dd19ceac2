"""Merges config maps, secrets and carried objects of documents with the changes of other calls.

A value that the new documents leave as it is in the newest revision keeps its value in the namespace. Every other value
comes from the documents. Objects are merged key by key; a list counts as one value, because its items have no names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from pilothouse_server.applications.model import WantedObject
from pilothouse_server.config.model import ConfigMap
from pilothouse_server.config.operations.rules import merged as merged_values
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.objects import documents
from pilothouse_server.objects.model import CarriedObject

_CONFIG_FIELDS: Final = ("data", "binary_data", "immutable", "labels", "annotations")
_SECRET_FIELDS: Final = ("immutable", "labels", "annotations")


def with_other_changes(
    wanted: WantedObject, base: WantedObject, stored: Any, values: Mapping[str, bytes] | None
) -> WantedObject | None:
    """Returns the object of the documents with the changes of other calls; None for nouns merged by fields.

    `base`: the object of the newest revision. `values`: those of a stored secret.
    """
    merged: Any
    match wanted.value, base.value:
        case ConfigMap() as value, ConfigMap() as before:
            merged = msgspec.structs.replace(value, **_merged_fields(_CONFIG_FIELDS, before, value, stored))
        case CarriedObject() as value, CarriedObject() as before:
            document = _merged(*(documents.manifest(each) for each in (before, value, stored)))
            merged = msgspec.structs.replace(value, document=json.dumps(document, ensure_ascii=False))
        case Asked() as value, Asked() as before:
            given, present = _values(value), dict(values or {})
            secret = msgspec.structs.replace(
                value.secret, **_merged_fields(_SECRET_FIELDS, before.secret, value.secret, stored)
            )
            merged = replace(
                value, secret=secret, data=_merged(_values(before), given, present), string_data={}
            )
        case _:
            return None
    return msgspec.structs.replace(wanted, value=merged)


def _values(asked: Asked) -> dict[str, bytes]:
    return merged_values(asked.data, asked.string_data)


def _merged_fields(names: tuple[str, ...], base: Any, wanted: Any, stored: Any) -> dict[str, Any]:
    return {name: _merged(*(getattr(each, name) for each in (base, wanted, stored))) for name in names}


def _merged(base: Any, wanted: Any, stored: Any) -> Any:
    """Returns the stored value with the changes from `base` to `wanted`."""
    if base == wanted:
        return stored
    if not (isinstance(base, dict) and isinstance(wanted, dict) and isinstance(stored, dict)):
        return wanted
    found: dict[str, Any] = {}
    for key in {**stored, **wanted}:
        if (key in base, base.get(key)) == (key in wanted, wanted.get(key)):
            if key in stored:
                found[key] = stored[key]
        elif key in wanted:
            found[key] = _merged(base.get(key), wanted[key], stored.get(key))
    return found
