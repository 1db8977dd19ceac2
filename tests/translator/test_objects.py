"""Documents of carried kinds are kept as written, without the fields that a cluster sets."""

from __future__ import annotations

import pytest
from tests.translator.manifests import documents, problems_of, web

from pilothouse_manifests.translator.convert import convert, unknown_kinds
from pilothouse_manifests.translator.manifest import Manifest
from pilothouse_manifests.translator.problems import Problems

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: cafe, uid: u, resourceVersion: "7", labels: {a: "1"}}
spec: {podSelector: {}, policyTypes: [Ingress]}
status: {}
"""
ACCOUNT = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n"
CLUSTER = "apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nmetadata: {name: db}\nspec: {instances: 3}\n"


def _converted(text: str, *opened: tuple[str, str]) -> Manifest:
    problems = Problems()
    manifest = convert(documents(text), "cafe", problems, opened)
    assert not problems.all
    return manifest


def test_a_document_of_a_carried_kind_is_kept_as_written() -> None:
    (found,) = _converted(POLICY).objects
    assert found.document == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "labels": {"a": "1"}},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }


@pytest.mark.parametrize(
    ("account", "workload"),
    [
        # Its pods mount a token as on any cluster, so it differs from the account that the platform creates.
        (ACCOUNT, web(pod="serviceAccountName: robot")),
        (ACCOUNT, web()),
        (ACCOUNT + "automountServiceAccountToken: true\n", web(pod="serviceAccountName: robot")),
        (ACCOUNT.replace("robot}", "robot, labels: {a: b}}"), web(pod="serviceAccountName: robot")),
    ],
)
def test_the_document_of_a_service_account_is_an_object(account: str, workload: str) -> None:
    manifest = _converted(f"{account}---\n{workload}")
    assert [(each.kind, each.name) for each in manifest.objects] == [("ServiceAccount", "robot")]


def test_a_custom_resource_needs_a_cluster_that_opens_its_kind() -> None:
    kind = ("postgresql.cnpg.io/v1", "Cluster")
    assert unknown_kinds(documents(CLUSTER + "---\n" + POLICY + "---\n" + web())) == {kind}
    assert [each.name for each in _converted(CLUSTER, kind).objects] == ["db"]
    (problem,) = problems_of(CLUSTER)
    assert "is not yet supported" in problem.message


def test_a_helm_test_is_left_out_with_a_note() -> None:
    problems = Problems()
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: t, annotations: {helm.sh/hook: test}}\nspec: {}\n"
    manifest = convert(documents(pod), "cafe", problems)
    assert not problems.all
    assert not manifest.objects
    assert [str(each) for each in problems.notes] == [
        "web.yaml:1: pod/t: is left out: it is a Helm hook (test), which runs on demand only"
    ]


def test_a_pod_is_refused_with_an_alternative() -> None:
    (problem,) = problems_of("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {}\n")
    assert "Pod of v1 cannot be represented: write a Deployment" in str(problem)
