"""The weight of a problem, equal problems in one line, and consequential problems below their cause."""

from __future__ import annotations

import pytest
from tests.translator.manifests import SERVICE, WEB, documents, problems_of, web

from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.problems import Problems, counts, listed
from pilothouse_manifests.translator.weights import ProblemWeight

ELSEWHERE = "`kubectl apply` it: it will be left alone"


def document(version: str, kind: str, annotations: str = "") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, annotations: {{{annotations}}}}}\n"


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        (WEB.replace("      labels:", "      name: web\n      labels:"), ProblemWeight.HARMLESS),
        (web("paused: true"), ProblemWeight.BEHAVIOUR),
        (document("apps/v1", "ReplicaSet"), ProblemWeight.BEHAVIOUR),
        (document("v1", "LimitRange"), ProblemWeight.SECURITY),
        (document("cilium.io/v2", "CiliumNetworkPolicy"), ProblemWeight.SECURITY),
        (document("example.com/v1", "NetworkThing"), ProblemWeight.BEHAVIOUR),
        (document("app.k8s.io/v1beta1", "Application"), ProblemWeight.HARMLESS),
        (document("v1", "ConfigMap", "helm.sh/hook: 'pre-install,pre-upgrade'"), ProblemWeight.BEHAVIOUR),
        (document("v1", "ConfigMap", "helm.sh/hook: test"), ProblemWeight.HARMLESS),
    ],
)
def test_the_weight_of_a_problem_depends_on_what_is_left_out(text: str, weight: ProblemWeight) -> None:
    (problem,) = problems_of(text)
    assert problem.weight == weight


def test_a_helm_hook_is_refused_with_an_alternative() -> None:
    (line,) = listed(problems_of(document("v1", "ConfigMap", "helm.sh/hook: post-install")))
    assert line == (
        "web.yaml:1: configmap/a: metadata.annotations[helm.sh/hook]: a Helm hook (post-install) cannot be "
        f"represented: it would stay like any other object; {ELSEWHERE} (behaviour)"
    )


def test_equal_problems_share_one_line_with_their_positions() -> None:
    texts = [web("paused: true", name=f"web-{number}") for number in range(8)]
    (line,) = listed(problems_of("---\n".join(texts)))
    assert line == (
        "web.yaml:7: deployment/web-0: spec.paused: cannot be represented (behaviour); the same in "
        "deployment/web-1 (line 26), deployment/web-2 (line 45), deployment/web-3 (line 64), "
        "deployment/web-4 (line 83), deployment/web-5 (line 102), 2 more"
    )
    # Problems of other fields, or with other messages for one field, get their own lines.
    assert (
        len(listed(problems_of(web("paused: true", pod="volumes: [{name: a, emptyDir: {}, nfs: {}}]")))) == 2
    )


def test_a_consequential_problem_is_listed_below_its_cause() -> None:
    problems = problems_of("---\n".join([SERVICE, web("replicas: many")]))
    assert listed(problems) == [
        "web.yaml:15: deployment/web: spec.replicas: expected a whole number, found the string 'many'",
        "  web.yaml:1: service/web: spec.selector: cannot be represented: it selects no container, neither of "
        "these files nor on the server (behaviour)",
    ]
    assert counts(problems) == "1 behaviour, 1 invalid"


def test_a_mount_is_listed_below_its_unrepresentable_volume() -> None:
    mounts = "volumeMounts: [{name: data, mountPath: /data}]"
    lines = listed(problems_of(web(pod="volumes: [{name: data, emptyDir: {}, nfs: {}}]", container=mounts)))
    assert [line.partition(": ")[2] for line in lines] == [
        "deployment/web: spec.template.spec.volumes[0].nfs: cannot be represented as the source of a volume "
        "(behaviour)",
        "deployment/web: spec.template.spec.containers[0].volumeMounts[0]: mounts the volume 'data', which "
        "cannot be represented (behaviour)",
    ]
    assert [line.startswith("  ") for line in lines] == [False, True]


def test_the_newer_service_account_field_wins_as_on_the_cluster() -> None:
    problems = Problems()
    text = web(pod="serviceAccount: shop\nserviceAccountName: default")
    (found,) = convert(documents(text), "cafe", problems).workloads
    assert not problems.all
    assert found.values["service_account"] == "default"
    assert [str(each).partition(": ")[2] for each in problems.notes] == [
        "deployment/web: leaves out what the cluster sets: spec.template.spec.serviceAccount"
    ]
