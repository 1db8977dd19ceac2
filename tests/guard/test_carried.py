"""Every carried kind × guarded path × caller × create and update.

The callers are a namespace's operator and administrator, the platform administrator, and a holder of
`object.privileged`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from pilothouse_manifests.carried import CARRIED, is_built_in, never_taken
from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from pilothouse_server.guard.carried_kinds import CARRIED_KINDS
from pilothouse_server.guard.carrying import admitted_rights, warnings_of
from pilothouse_server.guard.inspection import violations
from pilothouse_server.guard.model import UNCOMPARED, CarriedFacts, OpenedKind
from pilothouse_server.identity.access.shipped_roles import SHIPPED_ROLES
from tests.guard.carried import (
    GUARDED,
    HOST,
    NEVER,
    OPENED,
    ORDINARY,
    PRIVILEGED,
    RBAC,
    Carried,
    document,
    place,
)

_OPERATOR = frozenset({*SHIPPED_ROLES["operator"].permissions, "object.*"})
_EXCLUDED = SHIPPED_ROLES["operator"].excluded
CALLERS = {
    "operator": Principal(1, "olga", (Grant("operator", "shop", 1, _OPERATOR, _EXCLUDED),)),
    "administrator": Principal(2, "anna", (Grant("admin", "shop", 1, frozenset({"*"})),)),
    "platform": Principal(3, "root", (Grant("admin", None, None, frozenset({"*"})),)),
    "privileged": Principal(
        4,
        "paul",
        (
            Grant("operator", "shop", 1, _OPERATOR, _EXCLUDED),
            Grant("privileged", None, None, frozenset({PRIVILEGED})),
        ),
    ),
}
HOLDS: dict[str, set[str]] = {
    "operator": set(),
    "administrator": set(),
    "platform": {PRIVILEGED, RBAC},
    "privileged": {PRIVILEGED},
}


def asks(caller: str) -> Callable[[str], bool]:
    return lambda permission: CALLERS[caller].allows(permission, "shop")


def refused(changed: Carried, caller: str, *, stored: bool) -> str | None:
    """Returns the missing permission, the reason of a refusal, '' or None.

    The result is '' for parts that are never sent, and None if the object was allowed.
    """
    before = ORDINARY[changed.kind] if stored else None
    try:
        admitted_rights(document(changed), before, place(**dict(changed.facts)), asks(caller))
    except PermissionDenied as denied:
        return str(denied.metadata["permission"])
    except FailedPrecondition as denied:
        return denied.reason
    except InvalidArgument:
        return NEVER
    return None


@pytest.mark.parametrize("stored", [False, True], ids=["create", "update"])
@pytest.mark.parametrize("caller", CALLERS)
def test_a_guarded_path_needs_its_permission(caller: str, stored: bool) -> None:
    for guarded in GUARDED:
        if stored and guarded.path == "kind":
            continue
        needed = None if guarded.needs in HOLDS[caller] else guarded.needs
        assert refused(guarded, caller, stored=stored) == needed, guarded


def test_each_kind_has_guarded_paths_and_is_allowed_without_them() -> None:
    for kind, ordinary in ORDINARY.items():
        assert any(each.kind == kind for each in GUARDED)
        for caller in CALLERS:
            rights = admitted_rights(ordinary, None, place(), asks(caller))
            # Rights of Roles, and the right to scale an HPA's container, are always those of the caller.
            assert bool(rights) == (kind in ("Role", "RoleBinding", "HorizontalPodAutoscaler"))


def test_the_carried_kinds_are_those_with_an_allow_list() -> None:
    assert CARRIED_KINDS.keys() == CARRIED


def test_a_guarded_path_is_found_by_its_path() -> None:
    for guarded in GUARDED:
        found = violations(
            document(guarded), namespace="shop", keys=place().keys, facts=place(**dict(guarded.facts)).facts
        )
        path = ".".join(str(step) for step in found[-1].steps)
        assert any(
            ".".join(str(step) for step in each.steps).startswith(guarded.path)
            or guarded.path.startswith(path)
            for each in found
        ), guarded


def test_a_right_is_kept_while_only_labels_and_annotations_change() -> None:
    stored = document(Carried("Ingress", "spec.defaultBackend", {"service": {"name": "web"}}))
    labelled = deepcopy(stored)
    labelled["metadata"]["labels"]["tier"] = "front"
    assert admitted_rights(labelled, stored, place(), asks("operator"))
    other = deepcopy(labelled)
    other["spec"]["ingressClassName"] = "traefik"
    with pytest.raises(PermissionDenied, match=r"spec\.defaultBackend receives requests for every host"):
        admitted_rights(other, stored, place(), asks("operator"))


def test_a_present_annotation_stays_when_the_object_changes() -> None:
    stored = document(Carried("Ingress", "metadata.annotations", {"unknown.example/key": "x"}))
    other = deepcopy(stored)
    other["spec"]["ingressClassName"] = "traefik"
    assert admitted_rights(other, stored, place(), asks("operator"))


def test_an_object_that_was_admitted_is_written_without_facts() -> None:
    """The control of `UNCOMPARED`.

    A part that is found at the write was already found at the admission.
    """
    for guarded in GUARDED:
        if guarded.needs not in (PRIVILEGED, RBAC) or guarded.facts:
            continue
        wanted = document(guarded)
        rights = set(admitted_rights(wanted, None, place(), asks("platform")))
        facts = CarriedFacts(opened=OPENED)
        assert {each.right for each in violations(wanted, namespace="shop", facts=facts)} <= rights, guarded


def test_kinds_that_are_never_accepted_have_a_reason() -> None:
    for api_version, kinds in {
        "v1": "Secret ConfigMap PersistentVolumeClaim Service Pod ReplicationController Endpoints LimitRange Event"
        " ResourceQuota PodTemplate Namespace Node PersistentVolume Binding",
        "apps/v1": "Deployment StatefulSet DaemonSet ReplicaSet ControllerRevision",
        "batch/v1": "Job CronJob",
        "batch/v2alpha1": "CronJob",
        "extensions/v1beta1": "Ingress NetworkPolicy",
        "discovery.k8s.io/v1": "EndpointSlice",
        "gateway.networking.k8s.io/v1beta1": "ReferenceGrant GatewayClass",
        "events.k8s.io/v1": "Event",
        "coordination.k8s.io/v1": "Lease",
        "authorization.k8s.io/v1": "LocalSubjectAccessReview SelfSubjectRulesReview",
        "authentication.k8s.io/v1": "TokenReview TokenRequest",
        "apiregistration.k8s.io/v1": "APIService",
        "admissionregistration.k8s.io/v1": "ValidatingWebhookConfiguration",
        "apiextensions.k8s.io/v1": "CustomResourceDefinition",
        "certificates.k8s.io/v1": "CertificateSigningRequest",
        "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding",
        "later.k8s.io/v1": "LaterReview",
    }.items():
        for kind in kinds.split():
            assert never_taken(api_version, kind), (api_version, kind)
    assert never_taken("v1", "Pod") == "write a Deployment"
    assert not any(never_taken(api_version, kind) for api_version, kind in CARRIED)
    assert never_taken("shop.example/v1", "Review") is None


def test_another_version_of_a_carried_kind_is_built_in() -> None:
    assert is_built_in("autoscaling/v2beta2", "HorizontalPodAutoscaler")
    assert is_built_in("networking.k8s.io/v1beta1", "Ingress")
    assert not is_built_in("a.example/v1", "Ingress")


def test_a_custom_resource_that_is_not_open_to_tenants_needs_a_permission() -> None:
    opened = OpenedKind(OPENED.api_version, OPENED.kind)
    with pytest.raises(PermissionDenied, match=r"object\.privileged"):
        admitted_rights(ORDINARY["Cluster"], None, place(opened=opened), asks("administrator"))
    assert admitted_rights(ORDINARY["Cluster"], None, place(opened=opened), asks("privileged"))


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("networking.k8s.io/v1beta1", "Ingress"),
        ("v1", "Pod"),
        ("certificates.k8s.io/v1", "CertificateSigningRequest"),
    ],
)
def test_no_cluster_opens_a_kind_with_an_allow_list_or_a_refused_kind(api_version: str, kind: str) -> None:
    facts = CarriedFacts(opened=OpenedKind(api_version, kind, to_tenants=True))
    found = violations({"apiVersion": api_version, "kind": kind}, namespace="shop", facts=facts)
    assert [each.permission for each in found] == [NEVER]


def test_an_autoscaler_needs_the_permission_to_scale() -> None:
    with pytest.raises(PermissionDenied) as denied:
        admitted_rights(ORDINARY["HorizontalPodAutoscaler"], None, place(), lambda _: False)
    assert denied.value.metadata["permission"] == "container.scale"


@pytest.mark.parametrize(
    ("spec", "pods", "field"),
    [
        ({"maxUnavailable": 0}, None, "spec.maxUnavailable"),
        ({"maxUnavailable": "0%"}, None, "spec.maxUnavailable"),
        ({"minAvailable": "100%"}, None, "spec.minAvailable"),
        ({"minAvailable": 1}, 1, "spec.minAvailable"),
        ({"minAvailable": "51%"}, 1, "spec.minAvailable"),
        ({"minAvailable": 1}, 2, None),
        ({"minAvailable": 1}, None, None),
        ({"minAvailable": 0}, 1, None),
        ({"minAvailable": "50%"}, 4, None),
        ({"maxUnavailable": 1}, 1, None),
        ({"maxUnavailable": "1%"}, 1, None),
        ({}, None, None),
    ],
)
def test_a_budget_that_blocks_every_drain_causes_a_warning(
    spec: dict[str, Any], pods: int | None, field: str | None
) -> None:
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": spec}
    found = warnings_of(budget, CarriedFacts(pods=pods))
    assert [path for path, _ in found] == ([] if field is None else [field])
    if found:
        assert "blocks every drain" in found[0][1]
    assert warnings_of(ORDINARY["Ingress"], UNCOMPARED) == []


def test_a_refused_host_is_named_with_its_field() -> None:
    with pytest.raises(FailedPrecondition, match=r'spec\.rules\[0\]\.host is "other\.example"') as denied:
        admitted_rights(
            document(Carried("Ingress", "spec.rules.0.host", "other.example")),
            None,
            place(),
            asks("platform"),
        )
    assert denied.value.reason == HOST
    assert denied.value.metadata == {"field": "object.document.spec.rules[0].host", "host": "other.example"}
