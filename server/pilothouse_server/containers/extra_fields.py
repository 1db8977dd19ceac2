"""The rules for extra fields: allowed paths that do not overlap, and JSON of bounded size and depth."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from pilothouse_manifests.extra_fields import (
    SELECTOR_EXPRESSIONS,
    PathError,
    PathStep,
    is_missing,
    is_of_jobs,
    overlap,
    parse,
    spelled,
)
from pilothouse_manifests.schemas.definitions import Schemas
from pilothouse_manifests.schemas.tables import NEWEST, OLDEST, schemas
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.pod_manifests import pod_spec
from pilothouse_server.containers.workloads import has_schedule, workload_type
from pilothouse_server.errors import invalid

_FIELD: Final = "container.extra_fields"
_MINOR = re.compile(r"v?1\.([0-9]{1,3})")
_LONGEST_PATH = 512
_CHARACTERS = 32 * 1024
_DEPTH = 16


def checked_extra_fields(found: Findings, container: Container) -> dict[str, str]:
    """Returns the extra fields with their paths in normal form; notes each broken rule."""
    given = container.spec.extra_fields
    if not given:
        return given
    if sum(len(path) + len(text) for path, text in given.items()) > _CHARACTERS:
        found.add(_FIELD, "max_length", f"must not be longer than {_CHARACTERS} characters in total")
        return given
    template = workload_type(container).template
    document = _document(container, template)
    checked: dict[tuple[PathStep, ...], str] = {}
    for path, text in given.items():
        at = f'{_FIELD}["{path[:_LONGEST_PATH]}"]'
        if len(path) > _LONGEST_PATH:
            found.add(at, "max_length", f"must have a path of at most {_LONGEST_PATH} characters")
            continue
        try:
            steps = parse(path)
        except PathError as error:
            found.add(at, "path", str(error))
            continue
        if _is_of_other_kind(container, steps):
            words = (
                f"is a path of another workload kind: fields of these pods begin with {'.'.join(template)}"
            )
            found.add(at, "path", words)
        elif is_missing(document, steps):
            found.add(at, "exists", "names an item that the pods do not have")
        if any(overlap(steps, other) for other in checked):
            found.add(at, "unique", "is the same as another path, or one contains the other")
        if rule := _json_problem(text):
            found.add(at, "json", rule)
        else:
            _check_names(found, at, container, path, text)
        checked[steps] = text
    return {spelled(steps): text for steps, text in checked.items()}


def _check_names(found: Findings, at: str, container: Container, path: str, text: str) -> None:
    """Notes names that look like a misspelt field of any Kubernetes version.

    Without this check, the guard's error would only name the permission that an unknown field needs.
    """
    resource = workload_type(container).resource
    value = msgspec.json.decode(text)
    for wrong, meant in schemas().misspelt(resource.api_version, resource.kind, path, value):
        found.add(at, "field", f'"{wrong}" is no field of Kubernetes; did you mean "{meant}"?')


def refuse_changed_selector(wanted: Container, stored: Container) -> None:
    """Raises InvalidArgument if the selector differs from that of the stored container."""
    before, after = (
        msgspec.json.decode(each.spec.extra_fields.get(SELECTOR_EXPRESSIONS, "null"))
        for each in (stored, wanted)
    )
    if before != after:
        words = (
            "cannot change: Kubernetes never changes a selector; delete the container and create another one"
        )
        raise invalid(f'{_FIELD}["{SELECTOR_EXPRESSIONS}"]', words)


def _document(container: Container, template: tuple[str, ...]) -> dict[str, Any]:
    """Returns the part of the workload that describes its pods."""
    document: dict[str, Any] = {"spec": pod_spec(container)}
    for key in reversed(template):
        document = {key: document}
    return document


def _is_of_other_kind(container: Container, steps: tuple[PathStep, ...]) -> bool:
    """Returns whether a path is for another kind: the pod template of CronJobs alone is inside of their Jobs."""
    inside = is_of_jobs(steps)
    return inside != has_schedule(container) and (inside or steps[1].key == "template")


def schemas_of(version: str) -> tuple[Schemas, bool]:
    """Returns the schemas for a version of Kubernetes (the newest if empty), and whether they are of this version."""
    number = _MINOR.match(version)
    minor = NEWEST if number is None else int(number[1])
    return schemas(minor), number is not None and OLDEST <= minor <= NEWEST


def check_by_schema(found: Findings, container: Container, known: Schemas, *, complete: bool) -> None:
    """Notes each fault that the schemas find in extra fields.

    `complete`: the schemas have every field of the cluster. Otherwise a name that resembles no known field passes,
    because it may be new.
    """
    resource = workload_type(container).resource
    for path, text in container.spec.extra_fields.items():
        value = msgspec.json.decode(text)
        for wrong, rule in known.problems(
            resource.api_version, resource.kind, path, value, complete=complete
        ):
            found.add(f'{_FIELD}["{path}"]', "field", f'"{wrong}" {rule}')


def _json_problem(text: str) -> str | None:
    if _deepest(text) > _DEPTH:
        return f"must not be more than {_DEPTH} levels deep"
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return "must be JSON"
    return "must not be null; leave the field out" if value is None else None


def _deepest(text: str) -> int:
    """Returns the depth of brackets, including those in strings: an upper bound that needs no parser."""
    level = deepest = 0
    for character in text:
        if character in "[{":
            level += 1
            deepest = max(deepest, level)
        elif character in "]}":
            level -= 1
    return deepest
