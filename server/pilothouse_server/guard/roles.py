"""Checks Roles and RoleBindings: callers cannot give rights that they lack.

`TABLE` maps a Kubernetes group, resource and verb to the permission for the same action on the platform. A caller
without `object.rbac` may use only rules from this table. Everything else needs `object.rbac`: wildcards, `escalate`,
`bind`, `impersonate`, tokens of service accounts, and each verb that creates or changes pods, workloads, Services or
routes, because a program that uses such a verb bypasses this guard and the audit log.

A RoleBinding gives the rights of its Role, so its caller needs the same permissions as for the Role.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Final

from pilothouse_manifests.carried import GATEWAY, RBAC
from pilothouse_server.guard.checks import Inspection, Way, shown
from pilothouse_server.guard.model import RBAC_OBJECT

_RULE: Final = "roleRule"
_BINDING: Final = "roleBinding"
_READ: Final = ("get", "list", "watch")
# The most combinations of group, resource and verb that a rule may have without `object.rbac`.
_MOST = 2000


def _reading(noun: str, group: str, *resources: str) -> dict[tuple[str, str, str], str]:
    return {(group, resource, verb): f"{noun}.{verb}" for resource in resources for verb in _READ}


def _writing(noun: str, group: str, resource: str, **more: str) -> dict[tuple[str, str, str], str]:
    verbs = {"create": "create", "update": "update", "patch": "update", "delete": "delete", **more}
    return {(group, resource, verb): f"{noun}.{ours}" for verb, ours in verbs.items()}


TABLE: Final[Mapping[tuple[str, str, str], str]] = {
    **_reading("container", "", "pods", "pods/status", "replicationcontrollers"),
    ("", "pods", "delete"): "container.restart",
    ("", "pods/log", "get"): "container.logs",
    **_reading(
        "container",
        "apps",
        *("deployments", "deployments/status", "deployments/scale", "replicasets", "replicasets/status"),
        *("statefulsets", "statefulsets/status", "statefulsets/scale", "daemonsets", "daemonsets/status"),
    ),
    **_reading("container", "batch", "jobs", "jobs/status", "cronjobs", "cronjobs/status"),
    **_reading("container", "", "events"),
    **_reading("container", "events.k8s.io", "events"),
    # Events describe other objects and change nothing.
    **_writing("object", "", "events"),
    **_writing("object", "events.k8s.io", "events"),
    **_reading("service", "", "services", "services/status", "endpoints"),
    **_reading("service", "discovery.k8s.io", "endpointslices"),
    **_reading("config", "", "configmaps"),
    **_writing("config", "", "configmaps"),
    **{("", "secrets", verb): "config.reveal" for verb in _READ},
    **_reading("storage", "", "persistentvolumeclaims", "persistentvolumeclaims/status"),
    **_reading("object", "", "serviceaccounts"),
    **_reading("namespace", "", "resourcequotas", "limitranges"),
    **_reading("object", "networking.k8s.io", "ingresses", "ingresses/status", "networkpolicies"),
    **_reading("object", "policy", "poddisruptionbudgets", "poddisruptionbudgets/status"),
    **_reading("object", "autoscaling", "horizontalpodautoscalers", "horizontalpodautoscalers/status"),
    **_reading("object", GATEWAY, "gateways", "gateways/status", "httproutes", "httproutes/status"),
    **_reading("object", RBAC, "roles", "rolebindings"),
    # Locks that the programs of a namespace use for leader election.
    **_reading("object", "coordination.k8s.io", "leases"),
    **_writing("object", "coordination.k8s.io", "leases"),
    ("metrics.k8s.io", "pods", "get"): "metrics.get",
    ("metrics.k8s.io", "pods", "list"): "metrics.list",
}


def rules(value: Any, found: Inspection, way: Way) -> None:
    """Checks the rules of a Role."""
    for number, permission, words, what in _needs(value):
        at = way if number is None else (way, number)
        found.note(at, _RULE, words, *what, permission=permission, instead=RBAC_OBJECT)


def _needs(value: Any) -> Iterator[tuple[int | None, str, str, tuple[str, ...]]]:
    """Yields the needs of a Role's rules: position of the rule, permission, words, and the parts of the right."""
    if value is None:
        return
    if not isinstance(value, list):
        yield None, RBAC_OBJECT, "is not a list of rules", (shown(value),)
        return
    for number, rule in enumerate(value):
        for permission, words, what in _needs_of(rule):
            yield number, permission, words, what


def _needs_of(rule: Any) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    if not isinstance(rule, dict):
        yield RBAC_OBJECT, "is not a rule", (shown(rule),)
        return
    for key in rule.keys() - {"apiGroups", "resources", "verbs", "resourceNames"}:
        if rule[key] not in (None, []):
            yield RBAC_OBJECT, f"sets {shown(key)}", (shown(key), shown(rule[key]))
    parts = [[] if rule.get(key) is None else rule[key] for key in ("apiGroups", "resources", "verbs")]
    if not all(_are_texts(part) for part in parts) or _size(parts) > _MOST:
        yield (
            RBAC_OBJECT,
            f"must have lists of text in apiGroups, resources and verbs, with at most {_MOST} combinations",
            (shown(rule),),
        )
        return
    seen = set()
    for group, resource, verb in product(*parts):
        permission = TABLE.get((group, resource, verb), RBAC_OBJECT)
        act = f"{verb} {resource}{'.' if group else ''}{group}"
        what = (act,) if permission == RBAC_OBJECT else (permission,)
        if what not in seen:
            seen.add(what)
            yield (
                permission,
                f'lets programs "{shown(act)}"',
                (*map(shown, what), shown(rule.get("resourceNames"))),
            )


def _are_texts(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(each, str) for each in part)


def _size(parts: Iterable[list[str]]) -> int:
    size = 1
    for part in parts:
        size *= len(part)
    return size


def bound_role(value: Any, found: Inspection, way: Way) -> None:
    """Checks the Role of a RoleBinding.

    A Role of the platform in the namespace, with no right that the caller lacks.
    """
    role = value if isinstance(value, dict) else {}
    name = shown(role.get("name"))
    if (role.get("apiGroup") or RBAC, role.get("kind")) != (RBAC, "Role"):
        words = (
            f'gives the rights of {shown(role.get("kind"))} "{name}", which is not a Role of the namespace'
        )
        found.note(way, _BINDING, words, shown(value), permission=RBAC_OBJECT)
        return
    known = found.facts.roles
    if known is None:
        return
    if (document := known.get(name)) is None:
        words = f'names Role "{name}", which the platform does not have in the namespace; create it first'
        found.note((way, "name"), _BINDING, words, name, permission=RBAC_OBJECT)
        return
    for _, permission, words, what in _needs(document.get("rules")):
        why = f'names Role "{name}", which {words}'
        found.note((way, "name"), _RULE, why, *what, permission=permission, instead=RBAC_OBJECT)


def subject(value: Any, found: Inspection, way: Way) -> None:
    """Checks a subject of a RoleBinding: a ServiceAccount of its namespace."""
    who = value if isinstance(value, dict) else {}
    if who.get("kind") != "ServiceAccount" or who.get("apiGroup"):
        words = "is not a ServiceAccount: users and groups get their rights by grants of the platform"
        found.note(way, _BINDING, words, shown(value), permission=RBAC_OBJECT)
    elif who.get("namespace") not in (None, "", found.namespace):
        words = f'is a ServiceAccount of "{shown(who.get("namespace"))}", another Kubernetes namespace'
        found.note((way, "namespace"), _BINDING, words, shown(value), permission=RBAC_OBJECT)
