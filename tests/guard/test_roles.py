"""Roles and RoleBindings: sixty ways to gain rights.

Each is refused for a caller without `object.rbac`.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from pilothouse_server.errors import PermissionDenied
from pilothouse_server.guard.carrying import admitted_rights, missing
from pilothouse_server.guard.roles import TABLE
from pilothouse_server.kubernetes.rights import OF_ROLES, RIGHTS
from tests.guard.carried import ORDINARY, RBAC, JsonObject, place
from tests.guard.test_carried import asks

_RBAC_GROUP = "rbac.authorization.k8s.io"


def _rule(resources: str, verbs: str, group: str = "", **more: Any) -> JsonObject:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": verbs.split(), **more}


WAYS: list[JsonObject] = [
    *(
        _rule(resource, "get", group)
        for group, resource in (("", "*"), ("*", "pods"), ("*", "*"), ("apps", "*"))
    ),
    *(_rule("pods", verb) for verb in ("*", "create", "update", "patch", "deletecollection")),
    *(_rule("pods/exec", verb) for verb in ("create", "get")),
    *(_rule("pods/attach", verb) for verb in ("create", "get")),
    *(_rule(f"pods/{part}", "create") for part in ("portforward", "proxy", "binding", "eviction")),
    *(_rule(f"pods/{part}", "patch") for part in ("ephemeralcontainers", "status", "resize")),
    _rule("pods/*", "get"),
    _rule("*/log", "get"),
    *(
        _rule(resource, verb, "apps")
        for resource in ("deployments", "statefulsets", "daemonsets", "replicasets")
        for verb in ("create", "patch")
    ),
    _rule("deployments", "delete", "apps"),
    *(_rule("deployments/scale", verb, "apps") for verb in ("update", "patch")),
    *(_rule(resource, "create", "batch") for resource in ("jobs", "cronjobs")),
    *(_rule(resource, "create") for resource in ("replicationcontrollers", "podtemplates")),
    *(
        _rule(resource, verb, _RBAC_GROUP)
        for resource in ("roles", "rolebindings")
        for verb in ("create", "update")
    ),
    *(_rule("roles", verb, _RBAC_GROUP) for verb in ("escalate", "bind")),
    _rule("clusterroles", "bind", _RBAC_GROUP),
    *(_rule(resource, "impersonate") for resource in ("serviceaccounts", "users", "groups")),
    _rule("serviceaccounts/token", "create"),
    *(_rule("serviceaccounts", verb) for verb in ("create", "patch", "delete")),
    *(_rule("secrets", verb) for verb in ("get", "list", "watch", "create", "update", "patch")),
    _rule("secrets", "get", resourceNames=["one"]),
    *(_rule(resource, "create") for resource in ("services", "endpoints", "persistentvolumeclaims", "nodes")),
    _rule("services/proxy", "create"),
    *(_rule(resource, "create", "networking.k8s.io") for resource in ("ingresses", "networkpolicies")),
    _rule("endpointslices", "update", "discovery.k8s.io"),
    _rule("httproutes", "patch", "gateway.networking.k8s.io"),
    _rule("horizontalpodautoscalers", "create", "autoscaling"),
    _rule("poddisruptionbudgets", "delete", "policy"),
    _rule("configmaps pods", "get create"),
    _rule("configmaps", "get", nonResourceURLs=["/metrics"]),
    {"nonResourceURLs": ["*"], "verbs": ["get"]},
    _rule("widgets", "get", "a.example"),
    _rule("PODS", "get"),
    {"apiGroups": "", "resources": ["pods"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": [["get"]]},
    _rule(" ".join(f"r{n}" for n in range(60)), " ".join(f"v{n}" for n in range(60))),
]


def _role(*rules: JsonObject) -> JsonObject:
    return {**deepcopy(ORDINARY["Role"]), "rules": list(rules)}


def _missing(document: JsonObject, caller: str, **facts: Any) -> str | None:
    refused = missing(document, place(**facts), asks(caller))
    return None if refused is None else str(refused.metadata["permission"])


def test_no_rule_grants_more_rights_than_its_caller_has() -> None:
    assert len(WAYS) >= 60
    for rule in WAYS:
        wanted = _role(ORDINARY["Role"]["rules"][0], rule)
        of_secrets = rule.get("resources") == ["secrets"] and rule["verbs"][0] in ("get", "list", "watch")
        # Only an administrator of the namespace may read its secrets.
        assert _missing(wanted, "operator") == ("config.reveal" if of_secrets else RBAC), rule
        assert _missing(wanted, "administrator") == (None if of_secrets else RBAC), rule
        assert _missing(wanted, "platform") is None, rule


def test_a_binding_needs_the_permissions_of_its_role() -> None:
    binding = ORDINARY["RoleBinding"]
    for rule in WAYS:
        needed = _missing(_role(rule), "operator")
        assert _missing(binding, "operator", roles={"web": _role(rule)}) == needed, rule
    assert _missing(binding, "operator", roles={"web": _role()}) is None


def test_a_rule_without_verbs_groups_or_resources_grants_nothing() -> None:
    assert _missing(_role({}, _rule("", "get"), _rule("pods", "")), "operator") is None


def test_each_row_of_the_table_needs_its_permission() -> None:
    for (group, resource, verb), permission in TABLE.items():
        document = _role(_rule(resource, verb, group))
        refused = missing(document, place(), lambda _: False)
        assert isinstance(refused, PermissionDenied)
        assert refused.metadata["permission"] == permission
        assert admitted_rights(document, None, place(), {permission}.__contains__)


def test_no_row_lets_programs_create_pods_or_rights() -> None:
    written = {(group, resource) for group, resource, verb in TABLE if verb not in ("get", "list", "watch")}
    assert written == {
        ("", "pods"),
        ("", "configmaps"),
        ("", "events"),
        ("events.k8s.io", "events"),
        ("coordination.k8s.io", "leases"),
    }
    assert [verb for _, resource, verb in TABLE if resource == "pods"].count("delete") == 1
    assert not {"*", "escalate", "bind", "impersonate"} & {part for row in TABLE for part in row}


def test_the_platform_has_every_right_of_the_table_and_no_wildcard_right() -> None:
    """A cluster refuses Roles with rights that their writer lacks."""
    granted = {(each.api_group, each.resource, each.verb) for each in (*RIGHTS, *OF_ROLES)}
    assert TABLE.keys() <= granted, sorted(TABLE.keys() - granted)
    assert not {"*", "escalate", "bind", "impersonate"} & {part for each in granted for part in each}


def test_an_added_subject_needs_the_rights_of_the_role_again() -> None:
    stored = {**deepcopy(ORDINARY["RoleBinding"]), "roleRef": {"kind": "Role", "name": "powerful"}}
    labelled = deepcopy(stored)
    labelled["metadata"]["labels"] = {"tier": "front"}
    admitted_rights(labelled, stored, place(), asks("operator"))
    wider = deepcopy(stored)
    wider["subjects"].append({"kind": "ServiceAccount", "name": "other", "namespace": "shop"})
    with pytest.raises(PermissionDenied, match=r'names Role "powerful"'):
        admitted_rights(wider, stored, place(), asks("operator"))


def test_a_role_with_changed_rules_needs_the_permission_for_all_its_rules() -> None:
    stored = _role(_rule("secrets", "get"))
    with pytest.raises(PermissionDenied, match=r"config\.reveal"):
        admitted_rights(
            _role(_rule("secrets", "get"), _rule("pods", "get")), stored, place(), asks("operator")
        )
