"""Finds the line of a problem that only the server finds: the position of an API field in a document.

The table of `pilothouse_manifests` maps keys of a document to fields. So each key of the document is followed, and the
key that leads nearest to the field is chosen. Ports have no position of their own, because the API's ports come from
Services.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pilothouse_manifests.cron_jobs import CRON_JOB_SETTINGS
from pilothouse_manifests.fields import FieldPart
from pilothouse_manifests.jobs import JOB_SETTINGS
from pilothouse_manifests.paths import field_of
from pilothouse_manifests.services import SPEC
from pilothouse_manifests.table import (
    CLAIM,
    CONFIG_MAP,
    CONTAINERS,
    DEPLOYMENT_SETTINGS,
    INIT_CONTAINER,
    INIT_CONTAINERS,
    MAIN_CONTAINER,
    POD,
    SECRET,
    SIDECAR,
)
from pilothouse_manifests.translator.nodes import InputPosition, Mapping, Node, SequenceNode
from pilothouse_manifests.workloads import DAEMON_SET, STATEFUL_SET_SETTINGS

_STEP: Final = re.compile(r"([^.\[\]]+)|\[([^\]]*)\]")
# The message names with which a path of the API begins.
_MESSAGE: Final = re.compile(r"(container|service|config_map|secret|volume)\.(?P<field>.+)", re.DOTALL)
_DOCUMENT: Final = "object.document."
_PORT: Final = re.compile(r"^ports\[.*", re.DOTALL)
_TEMPLATE: Final = ("spec", "template")
_WORKLOADS: Final[dict[str, tuple[FieldPart, tuple[str, ...]]]] = {
    "Deployment": (DEPLOYMENT_SETTINGS, _TEMPLATE),
    "StatefulSet": (STATEFUL_SET_SETTINGS, _TEMPLATE),
    "DaemonSet": (DAEMON_SET, _TEMPLATE),
    "Job": (JOB_SETTINGS, _TEMPLATE),
    "CronJob": (CRON_JOB_SETTINGS, ("spec", "jobTemplate", *_TEMPLATE)),
}
_OTHERS: Final[dict[str, tuple[FieldPart, tuple[str, ...]]]] = {
    "Service": (SPEC, ("spec",)),
    "PersistentVolumeClaim": (CLAIM, ("spec",)),
    "ConfigMap": (CONFIG_MAP, ()),
    "Secret": (SECRET, ()),
}
_Steps = tuple[str | int, ...]


def place_of(root: Node, kind: str, path: str) -> InputPosition:
    """Returns the position of the field at a path of the document or of the API, or that of the nearest part."""
    named = _MESSAGE.fullmatch(path)
    if named is None:
        return _place(root, path.removeprefix(_DOCUMENT))
    wanted = _PORT.sub("ports", named["field"])
    nearest, place = "", root.place
    for steps, there in _nodes(root, ()):
        field = _field(kind, steps) or ""
        if len(field) > len(nearest) and re.match(rf"{re.escape(field)}(?![^.\[])", wanted):
            nearest, place = field, there
    return place


def _place(root: Node, path: str) -> InputPosition:
    place, here = root.place, root
    for step in (key or index for key, index in _STEP.findall(path)):
        if isinstance(here, Mapping) and step in here.entries:
            entry = here.entries[step]
            place, here = entry.place, entry.value
        elif isinstance(here, SequenceNode) and step.isdigit() and int(step) < len(here.items):
            here = here.items[int(step)]
            place = here.place
        else:
            break
    return place


def _nodes(node: Node, steps: _Steps) -> Iterator[tuple[_Steps, InputPosition]]:
    if isinstance(node, Mapping):
        for key, entry in node.entries.items():
            yield (*steps, key), entry.place
            yield from _nodes(entry.value, (*steps, key))
    elif isinstance(node, SequenceNode):
        for number, item in enumerate(node.items):
            yield (*steps, number), item.place
            yield from _nodes(item, (*steps, number))


def _field(kind: str, steps: _Steps) -> str | None:
    if steps[0] == "metadata":
        return str(steps[1]) if len(steps) == 2 else None
    if kind in _OTHERS:
        part, start = _OTHERS[kind]
        return field_of(part.entries, steps[len(start) :]) if steps[: len(start)] == start != steps else None
    if kind not in _WORKLOADS:
        return None
    settings, template = _WORKLOADS[kind]
    if steps[: len(template)] == template:
        return _field_of_template(steps[len(template) :])
    if steps == ("spec", "replicas"):
        return "replicas"
    return field_of(settings.entries, steps[1:]) if steps[0] == "spec" and len(steps) > 1 else None


def _field_of_template(steps: _Steps) -> str | None:
    if steps[:1] == ("metadata",):
        return f"pod_{steps[1]}" if len(steps) == 2 else None
    of_pod = steps[1:]
    if not of_pod:
        return None
    if of_pod[0] not in (CONTAINERS, INIT_CONTAINERS):
        return field_of(POD.entries, of_pod)
    if len(of_pod) < 3:
        return None
    number, inner = int(of_pod[1]), of_pod[2:]
    if of_pod[0] == CONTAINERS and number == 0:
        return field_of(MAIN_CONTAINER.entries, inner)
    part = SIDECAR if of_pod[0] == CONTAINERS else INIT_CONTAINER
    field = field_of(part.entries, inner)
    position = number - 1 if part is SIDECAR else number
    return None if field is None else f"{part.name}[{position}].{field}"
