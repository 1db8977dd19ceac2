"""Fields of a workload that the table does not name: checks which paths are free, and writes the fields.

    spec.template.spec.affinity
    spec.template.spec.containers[name=main].tty
    spec.template.spec.volumes[name=scratch].csi

    spec.jobTemplate.spec.template.spec.affinity (of a CronJob)

Keys are joined by dots. An item of a list follows in brackets, with its merge keys. A path is free if no field of the
API writes it, or anything above or below it. A list that the table does not name is given as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse_manifests.cron_jobs import JOB_TEMPLATE_KEY
from pilothouse_manifests.fields import (
    Chosen,
    Constant,
    Entry,
    Field,
    Group,
    Nested,
    OneOf,
    PortField,
    Repeated,
    Rest,
    Variable,
)
from pilothouse_manifests.pod_volumes import OWN_SOURCES
from pilothouse_manifests.table import CONTAINERS, MAIN_CONTAINER, POD, VOLUME_SOURCES, VOLUMES
from pilothouse_manifests.workloads import WORKLOAD_PARTS

_STEP = re.compile(r"(?P<key>[A-Za-z][A-Za-z0-9]*)(?:\[(?P<item>[^\[\]]+)\])?(?:\.|$)")
_ITEM = re.compile(r'(?P<key>[A-Za-z]+)="?(?P<value>[^",=]+)"?(?:,|$)')
_VOLUME = re.compile(r'\.?spec\.template\.spec\.volumes\[name="?(?P<name>[^\[\]",=]+)"?\]\.')
_TEMPLATE = ("spec", "template", "spec")
# The path of the spec of a CronJob's Jobs, which is like the spec of a Job.
_OF_JOBS = ("spec", JOB_TEMPLATE_KEY, "spec")
# The API has only the labels of a selector. The expressions narrow the selector, and are immutable like the labels.
SELECTOR_EXPRESSIONS = "spec.selector.matchExpressions"
# Keys of a spec that the platform itself writes.
_OWN = ("selector", "template")
# Keys of volumes whose sources are fields of the API, with rules of their own.
_SHOWN = frozenset({"name", *(key for key, _ in (*VOLUME_SOURCES.values(), *OWN_SOURCES.values()))})


@dataclass(frozen=True, slots=True)
class PathStep:
    """A key, and the merge keys of an item if its value is a list; no merge keys mean the value itself."""

    key: str
    item: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.item:
            return self.key
        return f"{self.key}[{','.join(f'{key}={value}' for key, value in self.item)}]"


class PathError(ValueError):
    """A path that extra fields may not use; its text follows the field name, such as "must be a path …"."""


def parse(path: str) -> tuple[PathStep, ...]:
    """Parses a path; a leading dot and quotes around the values of merge keys are optional.

    Raises:
        PathError: the text is not a path, or the path is not free.
    """
    steps, rest = [], path.removeprefix(".")
    while rest:
        found = _STEP.match(rest)
        if found is None:
            raise PathError("must be a path such as spec.template.spec.containers[name=main].tty")
        steps.append(PathStep(found["key"], _item(found["item"])))
        rest = rest[found.end() :]
    _check(tuple(steps))
    return tuple(steps)


def spelled(steps: Sequence[PathStep]) -> str:
    """Returns the canonical spelling of a path."""
    return ".".join(map(str, steps))


def _item(text: str | None) -> tuple[tuple[str, str], ...]:
    if text is None:
        return ()
    found = [(each["key"], each["value"]) for each in _ITEM.finditer(text)]
    if ",".join(f"{key}={value}" for key, value in found) != text.replace('"', ""):
        raise PathError(f"must identify an item by merge keys, such as [name=main], not [{text}]")
    return tuple(sorted(found))


def _check(steps: tuple[PathStep, ...]) -> None:
    if spelled(steps) == SELECTOR_EXPRESSIONS:
        return
    keys = tuple(step.key for step in steps)
    if keys[:1] != _TEMPLATE[:1] or len(keys) < 2:
        raise PathError("must begin with spec., and name a field below it")
    if keys[: len(_OF_JOBS)] == _OF_JOBS and len(keys) > len(_OF_JOBS):
        steps = (steps[0], *steps[len(_OF_JOBS) :])
        keys = tuple(step.key for step in steps)
    if keys[1] not in _OWN:
        for part in WORKLOAD_PARTS.values():
            _check_below(part.entries, steps[1:])
        return
    if keys[: len(_TEMPLATE)] != _TEMPLATE or len(keys) == len(_TEMPLATE):
        raise PathError(
            "is set by the platform; in a template, only fields below spec.template.spec are free"
        )
    _check_pod(steps[len(_TEMPLATE) :])


def _check_pod(steps: tuple[PathStep, ...]) -> None:
    first, rest = steps[0], steps[1:]
    if first.key not in (CONTAINERS, VOLUMES):
        _check_below(POD.entries, steps)
        return
    _check_item(first, ("name",), rest)
    if first.key == CONTAINERS:
        _check_below(MAIN_CONTAINER.entries, rest)
    elif rest[0].key in _SHOWN:
        raise PathError(f"is set by fields of the API: volumes, empty_dirs and pod_volumes set {rest[0].key}")
    else:
        _check_whole(rest)


def _check_item(step: PathStep, keys: tuple[str, ...], rest: Sequence[PathStep]) -> None:
    if tuple(key for key, _ in step.item) != tuple(sorted(keys)) or not rest:
        named = ",".join(f"{key}=…" for key in keys)
        raise PathError(f"must name an item of {step.key} by [{named}], and a field below it")


def _check_whole(steps: Sequence[PathStep]) -> None:
    for step in steps:
        if step.item:
            raise PathError(f"must set the whole list {step.key}: its items cannot be set separately")


def _check_below(entries: tuple[Entry, ...], steps: tuple[PathStep, ...], within: str = "") -> None:
    """Raises PathError if an entry writes the field, or one above or below it.

    `within`: the name of the field that contains the entries."""
    first, rest = steps[0], steps[1:]
    for entry in entries:
        inner = _inner(entry, first)
        if inner is None:
            continue
        if not rest or not inner:
            raise PathError(f"is set by a field of the API{_named(entry, within)}")
        if isinstance(entry, Field) and isinstance(entry.kind, Repeated):
            _check_item(first, entry.kind.keys, rest)
        elif first.item:
            raise PathError(f"names an item of {first.key}, which is not a list")
        _check_below(inner, rest, entry.name if isinstance(entry, Field) else within)
        return
    _check_whole(steps)


def _inner(entry: Entry, step: PathStep) -> tuple[Entry, ...] | None:
    """Returns the entries below a step; none if the entry writes the step's value as a whole.

    None if the entry does not name the step."""
    match entry:
        case Field(key=key, alias=alias, kind=kind) if step.key in (key, alias):
            if isinstance(kind, Nested) or (isinstance(kind, Repeated) and kind.keys):
                return kind.part.entries
            return ()
        case Group(key=key, entries=entries) if key == step.key:
            return entries
        case OneOf(choices=choices) | Chosen(choices=choices):
            return next((part.entries for _, key, part in choices if key == step.key), None)
        case Variable(literal=literal, key=key) if step.key in (literal, key):
            return ()
        case PortField(key=key) | Constant(key=key) if key == step.key:
            return ()
        case Rest():
            return ()
    return None


def _named(entry: Entry, within: str) -> str:
    name = entry.name if isinstance(entry, Field | PortField) else ""
    named = ".".join(each for each in (within, name) if each)
    return f": {named}" if named else ""


def carry(carried: dict[str, str], path: str, value: Any) -> str:
    """Puts a field that the table does not name into `carried`, by its path with merge keys; returns that path.

    Returns an empty text if the path is not free.

    Both written manifests and live objects use this function.
    """
    try:
        steps = parse(path)
    except PathError:
        return ""
    carried[spelled(steps)] = json.dumps(value, ensure_ascii=False)
    return spelled(steps)


def volumes_of(paths: Iterable[str]) -> frozenset[str]:
    """Returns the names of the volumes whose sources are at these paths; mounts may name them."""
    found = (_VOLUME.match(path) for path in paths)
    return frozenset(each["name"] for each in found if each)


def overlap(one: Sequence[PathStep], other: Sequence[PathStep]) -> bool:
    """Returns whether two paths are the same, or one lies above the other."""
    shorter = min(len(one), len(other))
    return tuple(one[:shorter]) == tuple(other[:shorter])


def is_of_jobs(steps: Sequence[PathStep]) -> bool:
    """Returns whether a path leads into the Jobs of a CronJob."""
    return tuple(step.key for step in steps[: len(_OF_JOBS)]) == _OF_JOBS


def is_missing(document: Any, steps: Sequence[PathStep]) -> bool:
    """Returns whether a path leads through an item that a list of the object lacks.

    Missing volumes do not count, because `write` adds them.
    """
    for step in steps:
        document = document.get(step.key) if isinstance(document, dict) else None
        if step.item and step.key != VOLUMES:
            document = _found(document, step)
            if document is None:
                return True
    return False


def write(document: dict[str, Any], steps: Sequence[PathStep], value: Any) -> None:
    """Writes a value into a Kubernetes object; a list item on the path must exist, unless it is a volume."""
    place: Any = document
    for step in steps[:-1]:
        below = place.setdefault(step.key, [] if step.item else {})
        if step.item:
            found = _found(below, step)
            if found is None and step.key != VOLUMES:
                return
            if found is None:
                found = dict(step.item)
                below.append(found)
            below = found
        place = below
    place[steps[-1].key] = value


def _found(items: Any, step: PathStep) -> dict[str, Any] | None:
    for item in items or ():
        if all(_text(item, key) == value for key, value in step.item):
            found: dict[str, Any] = item
            return found
    return None


def _text(item: Mapping[str, Any], key: str) -> str:
    # An absent key has its default; of the merge keys, only a port's protocol has one.
    return str(item.get(key, "TCP" if key == "protocol" else ""))
