"""Paths of server-side apply against the table: which lists have keys, which value a path stands for, and defaults."""

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
    """`name`: the value, with dots where it stands within another. `item`: of a list by name or of a map, which.

    `programs` and `program`: the list of programs that has it, and the name of the one there; both are empty for the
    main program and for fields of the whole pod.
    """

    name: str
    item: str = ""
    programs: str = ""
    program: str = ""


def keyed_lists() -> dict[str, tuple[tuple[str, ...], ...]]:
    """The keys of the lists whose items are fields of their own, by the list's key in its mapping.

    More than one row: lists of the same key in different mappings, told apart by their items.
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
    """Returns the values that the API fills in by itself in pod templates and Services, by the key of the field.

    Those that depend on another field (`imagePullPolicy`) are not among them.
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
    """Returns the value of a container that corresponds to a field of its workload's pod template's spec.

    `path` is relative to that spec. `main`: name of the pod's main container. None: there is none, or a change by
    others there cannot be taken over alone.
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
    """The value of a container that a field of its workload's spec (`part`), apart from its template, stands for."""
    return _among(part.entries, path)


def _among(entries: tuple[Entry, ...], path: str) -> PathValue | None:
    for entry in entries:
        if isinstance(entry, Rest) and path:
            # The last of its group.
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
    """Returns the name here of the field at `steps` from a part: `security_context.privileged`; None without one."""
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
    """Returns the rest of a path within a key; None if it leads elsewhere."""
    start = f".{key}"
    if not path.startswith(start):
        return None
    rest = path.removeprefix(start)
    return rest if not rest or rest[0] in ".[" else None
