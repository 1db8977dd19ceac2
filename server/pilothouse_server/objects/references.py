"""Finds the other objects that a carried object names: Services, Secrets with certificates, gateways. Pure functions.

A caller writes the document, so any part of it may have any form. A part of an unexpected form names nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pilothouse_manifests.carried import GATEWAY
from pilothouse_server.kubernetes.objects import Manifest

MOST_BACKENDS: Final = 64
MOST_CERTIFICATES: Final = 32
INGRESS: Final = ("networking.k8s.io", "Ingress")
HTTP_ROUTE: Final = (GATEWAY, "HTTPRoute")
GATEWAY_KIND: Final = (GATEWAY, "Gateway")
# Kinds that route traffic to Services.
LEADING: Final = frozenset({INGRESS, HTTP_ROUTE})


def backends(kind: tuple[str, str], document: Manifest) -> tuple[tuple[str, str], ...]:
    """Returns the Services that an object of a group and kind routes to, each with its port as text."""
    if kind == INGRESS:
        found = _of_ingress(document)
    elif kind == HTTP_ROUTE:
        found = _of_route(document)
    else:
        return ()
    return tuple(dict.fromkeys(found))[:MOST_BACKENDS]


def certificates(kind: tuple[str, str], document: Manifest) -> tuple[str, ...]:
    """Returns the names of the Secrets in the object's own namespace whose certificates the object uses."""
    spec = document.get("spec")
    if kind == INGRESS:
        found = [_text(each, "secretName") for each in _items(spec, "tls")]
    elif kind == GATEWAY_KIND:
        listeners = (_inside(each, "tls") for each in _items(spec, "listeners"))
        found = [
            _text(reference, "name")
            for tls in listeners
            for reference in _items(tls, "certificateRefs")
            if not _text(reference, "namespace") and _text(reference, "kind") in ("", "Secret")
        ]
    else:
        found = []
    return tuple(dict.fromkeys(filter(None, found)))[:MOST_CERTIFICATES]


def parents(kind: tuple[str, str], document: Manifest, namespace: str) -> tuple[tuple[str, str], ...]:
    """Returns the gateways of a route: Kubernetes namespace and name."""
    if kind != HTTP_ROUTE:
        return ()
    references = (
        (_text(each, "namespace") or namespace, _text(each, "name"))
        for each in _items(document.get("spec"), "parentRefs")
        if _text(each, "kind") in ("", "Gateway")
    )
    return tuple(dict.fromkeys(each for each in references if each[1]))[:MOST_CERTIFICATES]


def _of_ingress(document: Manifest) -> Iterator[tuple[str, str]]:
    spec = document.get("spec")
    paths = (path for rule in _items(spec, "rules") for path in _items(_inside(rule, "http"), "paths"))
    named = (_inside(holder, "backend") for holder in paths)
    for backend in (_inside(spec, "defaultBackend"), *named):
        service = _inside(backend, "service")
        port = _inside(service, "port")
        if name := _text(service, "name"):
            yield name, _text(port, "name") or _number(port, "number")


def _of_route(document: Manifest) -> Iterator[tuple[str, str]]:
    for rule in _items(document.get("spec"), "rules"):
        for reference in _items(rule, "backendRefs"):
            own = _text(reference, "kind") in ("", "Service") and not _text(reference, "namespace")
            if own and (name := _text(reference, "name")):
                yield name, _number(reference, "port")


def _inside(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None


def _items(holder: Any, key: str) -> Iterable[Any]:
    found = _inside(holder, key)
    return found if isinstance(found, list) else ()


def _text(holder: Any, key: str) -> str:
    found = _inside(holder, key)
    return found if isinstance(found, str) else ""


def _number(holder: Any, key: str) -> str:
    found = _inside(holder, key)
    return str(found) if isinstance(found, int) else ""
