"""Walks over a complete object and collects its violations.

The walk costs about as much as rendering the object: a few microseconds per container. A path is kept as a chain of
pairs (`Way`), and is converted to steps only for a finding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from pilothouse_manifests.carried import is_built_in, never_taken
from pilothouse_server.guard.carried_kinds import CARRIED_KINDS, CUSTOM
from pilothouse_server.guard.checks import METADATA, UNLISTED, Way, shown
from pilothouse_server.guard.model import (
    PRIVILEGED,
    PRIVILEGED_OBJECT,
    UNCOMPARED,
    UNGUARDED,
    CarriedFacts,
    GuardViolation,
    Keys,
    OpenedKind,
    Steps,
)
from pilothouse_server.guard.objects import KINDS, KindFields
from pilothouse_server.guard.pods import FREE, WORDS
from pilothouse_server.values.document_paths import selected

DOMAIN: Final = "pilothouse.dev"
# The domain of the keys with which a caller sets how the simulated cluster treats pods.
_SIMULATED = f"simulate.{DOMAIN}"
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_ALL_KINDS: Final[Mapping[Any, KindFields]] = {**KINDS, **CARRIED_KINDS}
# Values without effect. An empty object is not one: an empty `namespaceSelector` selects all namespaces.
_NOTHING: Final[tuple[Any, ...]] = (None, "", [])
_NEVER: Final = ""
# The name, and the preconditions with which the platform writes only to one exact object.
_IDENTITY: Final = frozenset({"name", "uid", "resourceVersion"})


def violations(
    document: Mapping[str, Any],
    *,
    namespace: str,
    keys: Keys = UNGUARDED,
    ours: Collection[str] = (),
    facts: CarriedFacts = UNCOMPARED,
) -> list[GuardViolation]:
    """Returns the parts of an object that not everybody may send, in field order.

    `namespace`: the Kubernetes namespace that the object may be sent to. `ours`: keys of `pilothouse.dev` that the
    platform itself sets in the object; none for an object from a caller. `facts`: the values that a carried object is
    compared with.
    """
    walk = _Walk(keys, frozenset(ours), namespace, facts)
    version, kind = document.get("apiVersion"), document.get("kind")
    found = _ALL_KINDS.get((version, kind)) if isinstance(version, str) and isinstance(kind, str) else None
    if found is None and (opened := _opened(facts, version, kind)):
        return _of_custom(walk, document, opened)
    if found is None:
        why = (
            never_taken(shown(version), shown(kind)) or "the platform does not send this kind in this version"
        )
        words = f"is {shown(version)} {shown(kind)}: {why}"
        walk.note((None, "apiVersion"), "kind", words, permission=_NEVER)
        return walk.found
    walk.permission = found.permission
    for key, value in document.items():
        if key == "metadata":
            _metadata(walk, value, found, namespace)
        elif key not in ("apiVersion", "kind"):
            if key in found.fields:
                walk.walk(value, found.fields[key], (None, key))
            else:
                walk.unlisted((None, key), value)
    if kind == "Service":
        _selected(walk, document)
    if found.whole is not None:
        found.whole(document, walk, None)
    return walk.found


class _Walk:
    """The walk over one object; implements `checks.Inspection`."""

    def __init__(self, keys: Keys, ours: frozenset[str], namespace: str, facts: CarriedFacts) -> None:
        self.keys = keys
        self.namespace = namespace
        self.facts = facts
        self.permission = PRIVILEGED
        self.found: list[GuardViolation] = []
        self._ours = ours

    def note(
        self, way: Way, rule: str, words: str, *what: str, permission: str = PRIVILEGED, instead: str = ""
    ) -> None:
        self.found.append(GuardViolation(_steps(way), rule, words, what, permission, instead))

    def unlisted(self, way: Way, value: Any) -> None:
        if value not in _NOTHING:
            steps = _steps(way)
            place = ".".join(step for step in steps if isinstance(step, str))
            words = "is not among the fields that everybody may set"
            what = (place, shown(value))
            self.found.append(GuardViolation(steps, UNLISTED, words, what, self.permission))
            self.domain_below(way, value)

    def domain_below(self, way: Way, value: Any) -> None:
        """Notes keys of the platform's domain at any depth of a field without a list."""
        pending = [(way, value)]
        while pending:
            at, holder = pending.pop()
            if isinstance(holder, dict):
                self.domain(at, holder)
                pending += [((at, key), item) for key, item in holder.items()]
            elif isinstance(holder, list):
                pending += [((at, number), item) for number, item in enumerate(holder)]

    def domain(self, way: Way, mapping: dict[str, Any]) -> None:
        for key in mapping:
            if DOMAIN in key and key not in self._ours and _is_reserved(key):
                self.note((way, key), "domain", "is a key that the platform sets", permission=_NEVER)

    def walk(self, value: Any, node: Any, way: Way) -> None:
        """Notes the findings in a field; `node` is the field's entry in an allow-list."""
        kind = type(node)
        if value is None:
            return
        if kind is dict and type(value) is dict:
            self.fields(value, node, way)
        elif kind is list and type(value) is list:
            (inner,) = node
            for number, item in enumerate(value):
                self.walk(item, inner, (way, number))
        elif kind is tuple:
            check, table = node
            check(value, self, way)
            self.walk(value, table, way)
        elif callable(node):
            node(value, self, way)
        elif node is WORDS and type(value) is dict:
            self._words(value, way)
        elif node is not FREE or not _is_free(value):
            self.unlisted(way, value)

    def _words(self, value: dict[str, Any], way: Way) -> None:
        self.domain(way, value)
        for key, item in value.items():
            if type(item) not in _SCALARS:
                self.unlisted((way, key), item)

    def fields(self, value: dict[str, Any], table: dict[str, Any], way: Way) -> None:
        """Notes the findings in the fields of an object."""
        for key, item in value.items():
            node, kind = table.get(key), type(item)
            if node is FREE and kind in _SCALARS:
                continue
            if node is None:
                self.unlisted((way, key), item)
            elif kind is dict and type(node) is dict:
                self.fields(item, node, (way, key))
            else:
                self.walk(item, node, (way, key))


def _opened(facts: CarriedFacts, version: Any, kind: Any) -> OpenedKind | None:
    """Returns how the cluster opens a kind, or None. Kinds that are built in or never taken cannot be opened."""
    opened = facts.opened
    if opened is None or (opened.api_version, opened.kind) != (version, kind):
        return None
    return None if is_built_in(version, kind) or never_taken(version, kind) else opened


def _of_custom(walk: _Walk, document: Mapping[str, Any], opened: OpenedKind) -> list[GuardViolation]:
    """Returns the findings in a custom resource.

    Its operator decides the effect of its fields, so there is no allow-list: only the refused paths are compared.
    """
    walk.permission = PRIVILEGED_OBJECT
    if not opened.to_tenants:
        words = f"is {opened.kind}, which the cluster opens only to holders of {PRIVILEGED_OBJECT}"
        walk.note((None, "kind"), "objectKind", words, opened.kind, permission=PRIVILEGED_OBJECT)
    for key, value in document.items():
        if key == "metadata":
            _metadata(walk, value, CUSTOM, walk.namespace)
        elif key not in ("apiVersion", "kind"):
            walk.domain_below((None, key), value)
    for path in opened.refused_paths:
        for place, value in selected(document, path):
            way: Way = None
            for step in place:
                way = (way, step)
            words = "is among the refused_paths of its kind on the cluster"
            walk.note(way, "refusedPath", words, shown(value), permission=PRIVILEGED_OBJECT)
    return walk.found


def _metadata(walk: _Walk, metadata: Any, kind: KindFields, namespace: str) -> None:
    way: Way = (None, "metadata")
    if not isinstance(metadata, dict):
        walk.note(way, "metadata", "must be an object", permission=_NEVER)
        return
    for key, value in metadata.items():
        if key == "labels":
            walk.walk(value, kind.labels, (way, key))
        elif key == "annotations":
            walk.walk(value, kind.annotations, (way, key))
        elif key == "namespace" and not kind.cluster_scoped:
            if value != namespace:
                words = f"is {shown(value)}, but must be {namespace}"
                walk.note((way, key), "namespace", words, permission=_NEVER)
        elif key == "name" and kind.cluster_scoped and value != namespace:
            words = f"is {shown(value)}, but must be {namespace}"
            walk.note((way, key), "namespace", words, permission=_NEVER)
        elif key not in _IDENTITY:
            walk.note((way, key), "metadata", f"may not be set: {METADATA}", permission=_NEVER)


def _selected(walk: _Walk, service: Mapping[str, Any]) -> None:
    spec = service.get("spec")
    if not (spec.get("selector") if isinstance(spec, dict) else None):
        words = "is empty: a user who writes its EndpointSlices chooses where requests go"
        way = (None, "spec"), "selector"
        walk.note(way, "serviceSelector", words, permission=walk.permission)


def _is_free(value: Any) -> bool:
    if type(value) is list:
        return all(type(item) in _SCALARS for item in value)
    return type(value) in _SCALARS


def _is_reserved(key: str) -> bool:
    prefix, slash, _ = key.partition("/")
    return bool(slash) and (prefix == DOMAIN or prefix.endswith(f".{DOMAIN}")) and prefix != _SIMULATED


def _steps(way: Way) -> Steps:
    steps: list[str | int] = []
    while way is not None:
        way, step = way
        steps.append(step)
    return tuple(reversed(steps))
