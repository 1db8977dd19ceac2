"""Owners of the fields of an object by `metadata.managedFields`, and the transfer of ownership to us.

An entry names a manager, an operation (Apply, Update) and the fields that it set last. Only an entry that contains the
exact path of a field shows the owner; the newest entry alone shows nothing. Entries of the subresource `status`
are reports of controllers and do not count.

`before-first-apply` is not a manager: an API server writes it for all fields of an object whose record was cleared.

Ownership is transferred by a write of the record alone, as `kubectl apply --server-side` does when it takes over from
client-side apply. It changes no field, so nothing rolls out. Our next apply then removes the fields that it does not
name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import msgspec

from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.objects import Manifest

BEFORE_FIRST_APPLY = "before-first-apply"
_SELF = "."


def entry_of(live: Manifest, manager: str) -> Manifest | None:
    """Returns the entry of a manager's applies to the object itself; None if there is none."""
    return next((entry for entry in _entries(live) if _is_applied_by(entry, manager)), None)


def holder(live: Manifest, path: str, *, apart_from: str) -> str:
    """Returns the manager whose entry contains this exact path; empty if there is none.

    `apart_from`: the manager whose applies do not count. If several match, the one that wrote last is returned.
    """
    steps = field_paths.elements(live, path)
    if steps is None:
        return ""
    holders = [
        entry
        for entry in _entries(live)
        if not _is_applied_by(entry, apart_from)
        and entry.get("manager") != BEFORE_FIRST_APPLY
        and _has(entry.get("fieldsV1") or {}, steps)
    ]
    newest = max(holders, key=lambda entry: str(entry.get("time", "")), default=None)
    return "" if newest is None else str(newest.get("manager", ""))


def setter_of_finalizer(live: Manifest, finalizer: str) -> str:
    """Returns the manager that set a finalizer; empty if the cluster does not record it."""
    step = f"v:{msgspec.json.encode(finalizer).decode()}"
    for entry in _entries(live):
        metadata = (entry.get("fieldsV1") or {}).get("f:metadata") or {}
        if step in (metadata.get("f:finalizers") or {}):
            return str(entry.get("manager", ""))
    return ""


def taken_over(live: Manifest, paths: Iterable[str], manager: str, said: Manifest) -> list[Manifest]:
    """Returns the record in which only the applies of `manager` own these fields of the object.

    `said`: the manifest that the manager applies. If it does not name the mappings on the way to a field, the manager
    becomes their owner too, so that they are not left behind empty.
    """
    entries = deepcopy(list(_entries(live, all_=True)))
    mine = next((entry for entry in entries if _is_applied_by(entry, manager)), None)
    if mine is None:
        mine = {
            "manager": manager,
            "operation": "Apply",
            "apiVersion": live["apiVersion"],
            "fieldsType": "FieldsV1",
            "fieldsV1": {},
        }
        entries.append(mine)
    for path in paths:
        steps = field_paths.elements(live, path)
        if steps is None:
            continue
        for entry in entries:
            if entry is not mine and not entry.get("subresource"):
                _take(entry.get("fieldsV1") or {}, steps)
        _give(mine["fieldsV1"], steps, said)
    return [entry for entry in entries if entry.get("fieldsV1")]


def _entries(live: Manifest, *, all_: bool = False) -> Iterable[Manifest]:
    return (
        entry
        for entry in live["metadata"].get("managedFields") or ()
        if all_ or entry.get("subresource") != "status"
    )


def _is_applied_by(entry: Manifest, manager: str) -> bool:
    applied = (entry.get("manager"), entry.get("operation")) == (manager, "Apply")
    return applied and not entry.get("subresource")


def _has(fields: Manifest, steps: Sequence[str]) -> bool:
    """Returns whether a path is in a set of fields itself, and not only something below it."""
    for step in steps:
        found = _key(fields, step)
        if found is None:
            return False
        fields = fields[found]
    return not fields or _SELF in fields


def _take(fields: Manifest, steps: Sequence[str]) -> None:
    """Removes a path from a set of fields, and the steps that lead to nothing else."""
    first, *further = steps
    key = _key(fields, first)
    if key is None:
        return
    if further:
        _take(fields[key], further)
    if not further or not fields[key] or (fields[key].keys() == {_SELF}):
        del fields[key]


def _give(fields: Manifest, steps: Sequence[str], said: Any) -> None:
    for number, step in enumerate(steps):
        said = _said(said, step)
        key = _key(fields, step)
        fields = fields.setdefault(step if key is None else key, {})
        if said is None and number < len(steps) - 1:
            fields[_SELF] = {}
    if steps[-1].startswith("k:"):
        fields[_SELF] = {}


def _said(said: Any, step: str) -> Any:
    kind, _, name = step.partition(":")
    if kind == "f":
        return said.get(name) if isinstance(said, dict) else None
    items = said if isinstance(said, list) else ()
    return next((item for item in items if _is_item(item, step)), None)


def _is_item(item: Any, step: str) -> bool:
    keys: Manifest = msgspec.json.decode(step[2:])
    return isinstance(item, dict) and all(item.get(name) == value for name, value in keys.items())


def _key(fields: Manifest, step: str) -> str | None:
    """Returns the step as the set spells it: two writers may spell the keys of an item differently."""
    if step in fields:
        return step
    if not step.startswith("k:"):
        return None
    wanted = msgspec.json.decode(step[2:])
    keyed = (key for key in fields if key.startswith("k:"))
    return next((key for key in keyed if _names(msgspec.json.decode(key[2:]), wanted)), None)


def _names(keys: Manifest, wanted: Manifest) -> bool:
    """Returns whether both keys denote the same item; only a port's protocol has a default."""
    return {"protocol": "TCP", **keys} == {"protocol": "TCP", **wanted}
