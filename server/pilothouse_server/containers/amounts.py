"""The rules for requests and limits, as in Kubernetes (v1.36, `validateContainerResourceRequirements`).

Kubernetes does not overcommit huge pages and the devices of extended resources: a request of them must equal the limit.
"""

from __future__ import annotations

import re

from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.model import Resources
from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.names import label_key_problem
from pilothouse_server.values.quantity import Quantity, normalise

_STANDARD = frozenset({"cpu", "memory", "ephemeral-storage"})
_HUGE_PAGES = re.compile(r"hugepages-[0-9]+[KMGTPE]i")
_KUBERNETES = "kubernetes.io/"


def checked_resources(found: Findings, field: str, resources: Resources) -> Resources:
    """Returns the resources in normal form; notes each broken rule."""
    texts = {}
    for name in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
        value = getattr(resources, name)
        texts[name] = normalise(value) if value else ""
    requests = _checked_map(found, f"{field}.requests", resources.requests)
    limits = _checked_map(found, f"{field}.limits", resources.limits)
    checked = Resources(**texts, requests=requests, limits=limits)
    for kind, amounts in (("request", requests), ("limit", limits)):
        for resource in ("cpu", "memory"):
            if texts[f"{resource}_{kind}"] and resource in amounts:
                text = f'"{resource}" is in {field}.{resource}_{kind}, too; give it once'
                found.add(f"{field}.{kind}s", "unique", text)
    _compare(found, field, checked)
    return checked


def _checked_map(found: Findings, field: str, amounts: dict[str, str]) -> dict[str, str]:
    checked = {}
    for name, text in amounts.items():
        if problem := _name_problem(name):
            found.add(field, "key", f'"{name}" {problem}')
        try:
            checked[name] = normalise(text)
        except InvalidValueError as error:
            found.add(f'{field}["{name}"]', "format", str(error))
            continue
        if not _is_native(name) and Quantity.parse(text).nanos % 10**9:
            found.add(f'{field}["{name}"]', "whole", "must be a whole number for an extended resource")
    return checked


def _name_problem(name: str) -> str | None:
    if "/" not in name:
        if name in _STANDARD or _HUGE_PAGES.fullmatch(name):
            return None
        return "must be cpu, memory, ephemeral-storage, hugepages-SIZE, or an extended resource such as nvidia.com/gpu"
    return label_key_problem(name)


def _compare(found: Findings, field: str, resources: Resources) -> None:
    requests, limits = _all(resources, "request"), _all(resources, "limit")
    for name, (at, request) in requests.items():
        limit_at, limit = limits.get(name, ("", ""))
        if not _is_overcommitted(name):
            if not limit or Quantity.parse(request) != Quantity.parse(limit):
                found.add(f"{field}.{at}", "agree", f'"{name}" must have a limit of the same amount')
        elif limit and Quantity.parse(request) > Quantity.parse(limit):
            upper = limit_at if limit_at.endswith("_limit") else f'{limit_at}["{name}"]'
            found.add(f"{field}.{at}", "maximum", f"must not be above {upper}")
    named = {*requests, *limits}
    if any(_HUGE_PAGES.fullmatch(name) for name in named) and not named & {"cpu", "memory"}:
        found.add(f"{field}.limits", "required", "huge pages need a request or limit of cpu or memory")


def _all(resources: Resources, kind: str) -> dict[str, tuple[str, str]]:
    """Returns the field and the amount of each resource."""
    amounts: dict[str, str] = getattr(resources, f"{kind}s")
    given = {name: (f"{kind}s", text) for name, text in amounts.items()}
    for name in ("cpu", "memory"):
        if text := getattr(resources, f"{name}_{kind}"):
            given[name] = (f"{name}_{kind}", text)
    return given


def _is_native(name: str) -> bool:
    return "/" not in name or _KUBERNETES in name


def _is_overcommitted(name: str) -> bool:
    return _is_native(name) and not _HUGE_PAGES.fullmatch(name)
