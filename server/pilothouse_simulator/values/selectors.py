"""Label and field selectors of list and watch requests.

The label grammar and its error messages follow the parser of Kubernetes' apimachinery. Field selectors support only the
fields of the real server: the name and namespace of every kind, and a few more for some kinds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pilothouse_simulator.values.api_errors import bad_request
from pilothouse_simulator.values.resources import (
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    ResourceType,
)

JsonObject = dict[str, Any]
Predicate = Callable[[JsonObject], bool]

_TOKEN = re.compile(r"\s*(==|!=|=|>|<|!|\(|\)|,|[^\s=!<>(),]+)")
_LABEL_NAME = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_FIELD_TERM = re.compile(r"^(.*?)(!=|==|=)(.*)$")
_SYMBOLS = frozenset({"==", "!=", "=", ">", "<", "!", "(", ")", ","})
_OPERATORS = "in, notin, =, ==, !=, gt, lt"


@dataclass(frozen=True)
class SelectorRequirement:
    """One condition on a label: operator `in`, `notin`, `exists`, `absent`, `gt` or `lt`."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Returns whether a set of labels satisfies the condition."""
        present = self.key in labels
        if self.operator == "in":
            return present and labels[self.key] in self.values
        if self.operator == "notin":
            return not present or labels[self.key] not in self.values
        if self.operator == "exists":
            return present
        if self.operator == "absent":
            return not present
        try:
            value, bound = int(labels.get(self.key, "")), int(next(iter(self.values)))
        except ValueError:
            return False
        return value > bound if self.operator == "gt" else value < bound


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._position = 0

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._position += 1
        return token

    def parse(self) -> list[SelectorRequirement]:
        requirements: list[SelectorRequirement] = []
        if not self._tokens:
            return requirements
        while True:
            requirements.append(self._requirement())
            token = self._next()
            if token == "":
                return requirements
            if token != ",":
                raise bad_request(f"found '{token}', expected: ',' or 'end of string'")

    def _requirement(self) -> SelectorRequirement:
        token = self._next()
        if token == "!":
            return SelectorRequirement(self._key(self._next()), "absent")
        key = self._key(token)
        operator = self._peek()
        if operator in ("", ","):
            return SelectorRequirement(key, "exists")
        self._next()
        if operator in ("in", "notin"):
            return SelectorRequirement(key, operator, self._values(key))
        if operator in ("=", "==", "!="):
            value = self._exact_value(key)
            return SelectorRequirement(key, "notin" if operator == "!=" else "in", frozenset({value}))
        if operator in (">", "<"):
            value = self._exact_value(key)
            return SelectorRequirement(key, "gt" if operator == ">" else "lt", frozenset({value}))
        raise bad_request(f"unable to parse requirement: found '{operator}', expected: {_OPERATORS}")

    def _key(self, token: str) -> str:
        if token in _SYMBOLS or token == "":
            raise bad_request(f"unable to parse requirement: found '{token}', expected: identifier")
        name = token.rpartition("/")[2]
        if not _LABEL_NAME.match(name) or len(name) > 63:
            raise bad_request(
                f'unable to parse requirement: <nil>: Invalid value: "{token}": name part must consist of '
                "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
                "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
                "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            )
        return token

    def _exact_value(self, key: str) -> str:
        token = self._peek()
        if token in ("", ","):
            return ""
        self._next()
        if token in _SYMBOLS:
            raise bad_request(f"unable to parse requirement: found '{token}', expected: identifier")
        return self._checked_value(key, token)

    def _checked_value(self, key: str, value: str) -> str:
        if not _LABEL_VALUE.match(value) or len(value) > 63:
            raise bad_request(
                f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}": a valid label must '
                "be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
                "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
                "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            )
        return value

    def _values(self, key: str) -> frozenset[str]:
        token = self._next()
        if token != "(":
            raise bad_request(f"unable to parse requirement: found '{token}' expected: '('")
        values: set[str] = set()
        expect_value = True
        while True:
            token = self._next()
            if token == ")":
                if expect_value:
                    values.add("")
                return frozenset(values)
            if token == ",":
                if expect_value:
                    values.add("")
                expect_value = True
                continue
            if token == "" or token in _SYMBOLS:
                raise bad_request(f"unable to parse requirement: found '{token}', expected: ',', or ')'")
            values.add(self._checked_value(key, token))
            expect_value = False


def parse_label_selector(text: str) -> list[SelectorRequirement]:
    """Parses `a=b,c in (d,e),!f`. Raises 400 for bad syntax."""
    return _Parser(text).parse()


def selector_matches(selector: JsonObject | None, labels: Mapping[str, str]) -> bool:
    """Returns whether a LabelSelector object (matchLabels, matchExpressions) selects labels. None selects nothing."""
    if selector is None:
        return False
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    requirements = [
        SelectorRequirement(key, "in", frozenset({value}))
        for key, value in (selector.get("matchLabels") or {}).items()
    ]
    requirements += [
        SelectorRequirement(entry["key"], operators[entry["operator"]], frozenset(entry.get("values") or ()))
        for entry in selector.get("matchExpressions") or []
    ]
    return all(requirement.matches(labels) for requirement in requirements)


def format_label_selector(selector: JsonObject | None) -> str:
    """Returns a LabelSelector object in the textual form (`status.selector` of a Scale)."""
    selector = selector or {}
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for entry in selector.get("matchExpressions") or []:
        values = ",".join(sorted(entry.get("values") or ()))
        parts.append(
            {
                "In": f"{entry['key']} in ({values})",
                "NotIn": f"{entry['key']} notin ({values})",
                "Exists": entry["key"],
                "DoesNotExist": f"!{entry['key']}",
            }[entry["operator"]]
        )
    return ",".join(parts)


_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_EXTRA_FIELDS: dict[ResourceType, tuple[str, ...]] = {
    PODS: ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
           "spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"),
    EVENTS: ("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
             "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
             "reason", "reportingComponent", "source", "type"),
    NODES: ("spec.unschedulable",),
    NAMESPACES: ("status.phase",),
    REPLICA_SETS: ("status.replicas",),
    SERVICES: ("spec.clusterIP", "spec.type"),
    SECRETS: ("type",),
    JOBS: ("status.successful",),
}  # fmt: skip
_OWN_CONVERSION = frozenset({PODS, EVENTS, NODES, NAMESPACES, REPLICA_SETS, SECRETS, SERVICES})


def field_value(obj: JsonObject, path: str) -> str:
    """Returns the value of a field for field selectors as text; empty if it is absent."""
    if path == "source":
        return str(obj.get("source", {}).get("component") or obj.get("reportingComponent", ""))
    if path == "status.successful":
        return str(obj.get("status", {}).get("succeeded", 0))
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else ""
    return value if isinstance(value, str) else json.dumps(value)


def parse_field_selector(resource: ResourceType, text: str) -> list[tuple[str, str, bool]]:
    """Parses `metadata.name=x,status.phase!=Running` into (field, value, equal). Raises 400 for others."""
    terms: list[tuple[str, str, bool]] = []
    known = (*_COMMON_FIELDS, *_EXTRA_FIELDS.get(resource, ()))
    for term in filter(None, text.split(",")):
        match = _FIELD_TERM.match(term)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        field, operator, value = match.groups()
        if field not in known:
            if resource is JOBS:
                raise bad_request(f'field label "{field}" not supported for Job')
            if resource in _OWN_CONVERSION:
                raise bad_request(f"field label not supported: {field}")
            raise bad_request(
                f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'
            )
        terms.append((field, value, operator != "!="))
    return terms


def build_predicate(resource: ResourceType, label_selector: str, field_selector: str) -> Predicate | None:
    """Returns one predicate for both selectors, or None if neither is given."""
    requirements = parse_label_selector(label_selector) if label_selector else []
    terms = parse_field_selector(resource, field_selector) if field_selector else []
    if not requirements and not terms:
        return None

    def matches(obj: JsonObject) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(requirement.matches(labels) for requirement in requirements) and all(
            (field_value(obj, field) == value) is equal for field, value, equal in terms
        )

    return matches
