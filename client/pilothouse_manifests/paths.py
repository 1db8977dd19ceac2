"""Relates paths of server-side apply to the table: the keys of lists, the value at a path, and the defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pilothouse_manifests.fields import (
    Chosen,
    Entry,
    Field,
    FieldPart,
    Group,
    Names,
    Nested,
    OneOf,
    Repeated,
    Rest,
    Variable,
)
from pilothouse_manifests.table import (
    CONTAINERS,
    INIT_CONTAINER,
    INIT_CONTAINERS,
    MAIN_CONTAINER,
    POD,
    SERVICE,
    SERVICE_PORT,
    SIDECAR,
    VOLUME_SOURCES,
    VOLUMES,
)

_NAMED = re.compile(r'\[name="(?P<name>[^"]+)"\](?P<rest>.*)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class PathValue:
    """The value that a path stands for.

    `name`: the value's name, with dots if it is within another value. `item`: the item of a list by name or of a map.
    `programs` and `program`: the list of programs that contains the value, and the program's name in it; both are empty
    for the main program and for fields of the whole pod.
    """

    name: str
    item: str = ""
    programs: str = ""
    program: str = ""


def keyed_lists() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Returns the merge keys of the lists whose items server-side apply distinguishes, by the list's key.

    Several rows: lists with the same key in different mappings, which their items distinguish.
    """
    found: dict[str, tuple[tuple[str, ...], ...]] = {CONTAINERS: (("name",),), VOLUMES: (("name",),)}
    for key, keys in _keyed((*POD.entries, *MAIN_CONTAINER.entries)):
        if keys not in found.setdefault(key, ()):
            found[key] = (*found[key], keys)
    service_port = next(f for f in SERVICE_PORT.entries if isinstance(f, Field) and f.required)
    found["ports"] = (*found["ports"], (service_port.key, "protocol"))
    return found


def _keyed(entries: tuple[Entry, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry in entries:
        if isinstance(entry, Group):
            yield from _keyed(entry.entries)
        elif isinstance(entry, Field):
            match entry.kind:
                case Names():
                    yield entry.key, ("name",)
                case Repeated(part=part, keys=keys):
                    if keys:
                        yield entry.key, keys
                    yield from _keyed(part.entries)
                case Nested(part=part):
                    yield from _keyed(part.entries)


def defaults() -> dict[str, list[object]]:
    """Returns the defaults that the API fills in in pod templates and Services, by the key of the field.

    Defaults that depend on another field (`imagePullPolicy`) are not among them.
    """
    found: dict[str, list[object]] = {}
    parts = (POD, MAIN_CONTAINER, INIT_CONTAINER, SERVICE, SERVICE_PORT)
    for part in (*parts, *(part for _, part in VOLUME_SOURCES.values())):
        for key, value in _defaults(part):
            found.setdefault(key, []).append(value)
    return found


def _defaults(part: FieldPart | Group) -> Iterator[tuple[str, object]]:
    for key, *values in part.defaults:
        yield from ((key, value) for value in values)
    for entry in part.entries:
        match entry:
            case Group():
                yield from _defaults(entry)
            case Field(kind=Nested(part=inner) | Repeated(part=inner)):
                yield from _defaults(inner)
            case Field(default=default) if default is not None and not callable(default):
                yield entry.key, default
            case OneOf(choices=choices) | Variable(choices=choices) | Chosen(choices=choices):
                for _, _, inner in choices:
                    yield from _defaults(inner)


def adoptable(path: str, main: str) -> PathValue | None:
    """Returns the value of a container that corresponds to a field of the pod template's spec.

    `path` is relative to that spec. `main`: the name of the pod's main container. None if there is no such value, or if
    a change that others make to the field cannot be adopted alone.
    """
    for key, part in ((CONTAINERS, SIDECAR), (INIT_CONTAINERS, INIT_CONTAINER)):
        if (rest := _within(path, key)) is None:
            continue
        found = _NAMED.match(rest)
        if found is None:
            return None
        if key == CONTAINERS and found["name"] == main:
            return _among(MAIN_CONTAINER.entries, found["rest"])
        value = _among(part.entries, found["rest"])
        return None if value is None else replace(value, programs=part.name, program=found["name"])
    return _among(POD.entries, path)


def adoptable_setting(part: FieldPart, path: str) -> PathValue | None:
    """Returns the value of a container that corresponds to a field of its workload's spec, outside the template."""
    return _among(part.entries, path)


def _among(entries: tuple[Entry, ...], path: str) -> PathValue | None:
    for entry in entries:
        if isinstance(entry, Rest) and path:
            # A `Rest` is the last entry of its group.
            return PathValue(entry.name, path.removeprefix("."))
        if not isinstance(entry, Field | Group):
            continue
        rest = _within(path, entry.key)
        if rest is None:
            continue
        if isinstance(entry, Group):
            return _among(entry.entries, rest)
        return _value(entry, rest) if entry.adopted else None
    return None


def _value(field: Field, rest: str) -> PathValue | None:
    match field.kind:
        case Nested(part=part, apart=True) if rest:
            inner = _among(part.entries, rest)
            return None if inner is None else PathValue(f"{field.name}.{inner.name}", inner.item)
        case Repeated(keys=("name",)) if rest:
            found = _NAMED.match(rest)
            return PathValue(field.name, found["name"]) if found else None
    return PathValue(field.name)


def field_of(entries: tuple[Entry, ...], steps: Sequence[str | int]) -> str | None:
    """Returns the platform's name of the field at `steps` from a part: `security_context.privileged`; None if none."""
    key, *rest = steps
    for entry in entries:
        match entry:
            case Group(key=found) if found == key:
                return field_of(entry.entries, rest) if rest else None
            case Field(key=found, alias=alias) if key in (found, alias):
                return _field_within(entry, rest)
            case OneOf(choices=choices) | Variable(choices=choices):
                for name, found, part in choices:
                    if found == key:
                        return _joined(name, part, rest)
    return None


def _field_within(field: Field, rest: Sequence[str | int]) -> str | None:
    match field.kind:
        case Nested(part=part):
            return _joined(field.name, part, rest)
        case Repeated(part=part) if rest:
            return _joined(f"{field.name}[{rest[0]}]", part, rest[1:])
    return field.name


def _joined(name: str, part: FieldPart, rest: Sequence[str | int]) -> str | None:
    if not rest:
        return name
    inner = field_of(part.entries, rest)
    return None if inner is None else f"{name}.{inner}"


def _within(path: str, key: str) -> str | None:
    """Returns the rest of a path after a key.

    None if the path does not begin with the key."""
    start = f".{key}"
    if not path.startswith(start):
        return None
    rest = path.removeprefix(start)
    return rest if not rest or rest[0] in ".[" else None
