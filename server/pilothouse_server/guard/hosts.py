"""Checks hosts of carried objects and Services against the `allowed_hosts`.

The patterns of two namespaces of a cluster do not overlap. So a namespace does not get a host by using it first, and a
refusal reveals nothing about other namespaces. An empty host means every host and needs `object.privileged`.
"""

from __future__ import annotations

from typing import Any, Final

from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.guard.checks import Check, Inspection, Way, shown
from pilothouse_server.guard.model import HOST, PRIVILEGED_OBJECT, GuardViolation
from pilothouse_server.values.hosts import HostError, is_covered, normalised

_EMPTY: Final = "is empty, which means every host"
_MOST_HOSTS = 1000


def host(value: Any, found: Inspection, way: Way) -> None:
    """Checks a host or a wildcard (`*.x`); an empty host needs `object.privileged`."""
    if value in (None, ""):
        found.note(way, "emptyHost", _EMPTY, permission=PRIVILEGED_OBJECT)
        return
    if not isinstance(value, str):
        found.note(way, HOST, "must be text", permission="")
        return
    try:
        name = normalised(value)
    except HostError as refused:
        found.note(way, HOST, refused.rule, shown(value), permission="")
        return
    allowed = found.facts.allowed_hosts
    if allowed is not None and not is_covered(name, allowed):
        words = (
            f'is "{name}", which is not among the allowed_hosts of the namespace; an administrator sets them'
        )
        found.note(way, HOST, words, name, permission="")


def refusal(found: GuardViolation, field: str) -> FailedPrecondition:
    """Returns the error for a host that its namespace may not use."""
    metadata = {"field": field, "host": " ".join(found.what)}
    return FailedPrecondition(f"{found.path} {found.words}", reason="HOST_NOT_ALLOWED", metadata=metadata)


def field(key: str) -> Check:
    """Returns the check of the host in a field of an object; a missing field counts as an empty host."""

    def check(value: Any, found: Inspection, way: Way) -> None:
        if isinstance(value, dict):
            host(value.get(key), found, (way, key))

    return check


def fields(key: str) -> Check:
    """Returns the check of the hosts in a list of an object; a missing or empty list counts as an empty host."""

    def check(value: Any, found: Inspection, way: Way) -> None:
        if not isinstance(value, dict):
            return
        names = value.get(key)
        if not names or not isinstance(names, list):
            host(names or None, found, (way, key))
            return
        for number, name in enumerate(names):
            host(name, found, ((way, key), number))

    return check


def hosts_in_text(text: Any, found: Inspection, way: Way) -> None:
    """Checks the hosts in an annotation, separated by commas."""
    names = str(text).split(",")
    if len(names) > _MOST_HOSTS:
        found.note(way, HOST, f"must have at most {_MOST_HOSTS} hosts", permission="")
        return
    for name in names:
        host(name.strip(" "), found, way)
