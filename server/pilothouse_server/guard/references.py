"""Checks references of carried objects: another namespace needs a permission.

A reference into another namespace needs `object.privileged`, but `parentRefs` may also name the gateways that the
cluster shares. The platform accepts no ReferenceGrant from a caller, so a reference into another namespace would depend
on grants that already exist there.
"""

from __future__ import annotations

from typing import Any, Final

from pilothouse_manifests.carried import GATEWAY
from pilothouse_server.guard.checks import Check, Inspection, Way, shown
from pilothouse_server.guard.model import PRIVILEGED_OBJECT

OTHER_NAMESPACE: Final = "otherNamespace"
_KIND: Final = "referencedKind"
_GATEWAY: Final = (GATEWAY, "Gateway")
_SERVICE: Final = ("", "Service")


def _referenced(value: dict[str, Any], default: tuple[str, str]) -> tuple[str, str]:
    """Returns the group and kind of a reference; Gateway API also accepts "core" for the empty group."""
    group, kind = value.get("group"), value.get("kind")
    group = default[0] if group is None else "" if group == "core" else group
    return shown(group), shown(default[1] if kind is None else kind)


def _reference(default: tuple[str, str], *more: tuple[str, str]) -> Check:
    """Returns the check of a reference: to an object of these kinds, in the object's own namespace."""

    def check(value: Any, found: Inspection, way: Way) -> None:
        if not isinstance(value, dict):
            return
        named = _referenced(value, default)
        if named not in (default, *more):
            words = f"names {named[1]} of {named[0] or 'the core'}, whose effect the platform cannot check"
            found.note(way, _KIND, words, *named, permission=PRIVILEGED_OBJECT)
        namespace = value.get("namespace")
        if namespace not in (None, "", found.namespace):
            _note_namespace(namespace, named, value, found, (way, "namespace"))

    return check


def _note_namespace(
    namespace: Any, named: tuple[str, str], value: dict[str, Any], found: Inspection, way: Way
) -> None:
    what = (*named, shown(namespace), shown(value.get("name")))
    words = f'reaches "{shown(namespace)}", another Kubernetes namespace'
    found.note(way, OTHER_NAMESPACE, words, *what, permission=PRIVILEGED_OBJECT)


backend: Final = _reference(_SERVICE)
certificate: Final = _reference(("", "Secret"))
_own_parent: Final = _reference(_GATEWAY, _SERVICE)


def parent(value: Any, found: Inspection, way: Way) -> None:
    """Checks the parent of a route: a Gateway or, in a mesh, a Service."""
    if isinstance(value, dict) and _referenced(value, _GATEWAY) == _GATEWAY:
        shared = found.facts.shared_gateways
        # None is passed at a write: the gateway was compared when the route was admitted.
        if shared is None or f"{value.get('namespace')}/{value.get('name')}" in shared:
            return
    _own_parent(value, found, way)


def routes_from(value: Any, found: Inspection, way: Way) -> None:
    """Checks the namespaces from which a listener accepts routes."""
    if value not in (None, "", "Same", "None"):
        words = "accepts routes of other Kubernetes namespaces"
        found.note(way, OTHER_NAMESPACE, words, shown(value), permission=PRIVILEGED_OBJECT)


def default_backend(value: Any, found: Inspection, way: Way) -> None:
    """Checks the backend of an Ingress for requests that match no rule."""
    if value is not None:
        words = "receives requests for every host"
        found.note(way, "defaultBackend", words, shown(value), permission=PRIVILEGED_OBJECT)


def path_of_ingress(value: Any, found: Inspection, way: Way) -> None:
    """Checks a path, which controllers write into their configuration."""
    if value is not None and (not isinstance(value, str) or any(each in value for each in _CONTROLS)):
        words = "contains characters that may end a line of a controller's configuration"
        found.note(way, "path", words, shown(value), permission=PRIVILEGED_OBJECT)


_CONTROLS: Final = (*(chr(each) for each in range(33)), "\x7f", ";", "{", "}", "#", '"', "'", "`")
