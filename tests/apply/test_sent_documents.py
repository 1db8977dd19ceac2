"""Documents of files as they are sent: problems are mapped to file and line, and parts can be left out."""

from __future__ import annotations

import json

from tests.translator.manifests import CHECKOUT, SERVICE, WEB, documents, web

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.apply.sent_documents import SentDocuments, subject_of
from pilothouse_manifests.translator.problems import Problems
from pilothouse_manifests.translator.weights import ProblemWeight

_NONE = pb.PROBLEM_WEIGHT_UNSPECIFIED
LIST = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n"


def sent(*texts: str) -> SentDocuments:
    problems = Problems()
    found = SentDocuments(documents(*texts), problems)
    assert not problems.all
    return found


def problem(
    document: int, path: str, reason: str = "UNSUPPORTED", weight: pb.ProblemWeight.ValueType = _NONE
) -> pb.ApplicationProblem:
    return pb.ApplicationProblem(
        document=document,
        path=path,
        kind="Deployment",
        name="web",
        reason=reason,
        message="no",
        weight=weight,
    )


def test_each_object_is_a_document_with_its_position() -> None:
    found = list(sent(WEB, LIST, SERVICE).messages())
    assert [json.loads(each.json)["kind"] for each in found] == ["Deployment", "ConfigMap", "Service"]
    assert [each.source for each in found] == ["web.yaml:1", "web.yaml:22", "web.yaml:26"]


def test_numbers_keep_their_values() -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nn: [0777, 0x10, 1.50, -3, 1e3, yes, ~, '0777']\n"
    (only,) = sent(text).messages()
    assert json.loads(only.json)["n"] == [511, 16, 1.5, -3, 1000.0, True, None, "0777"]


def test_a_number_that_json_cannot_represent_is_a_problem() -> None:
    problems = Problems()
    SentDocuments(documents("apiVersion: v1\nkind: ConfigMap\nn: .inf\n"), problems)
    assert [str(each) for each in problems.all] == [
        "web.yaml:1:1: expected a number, found one that JSON does not have"
    ]


def test_a_problem_has_the_line_of_its_field() -> None:
    found = sent(WEB, web(container="env:\n- {name: A, value: 4}", name="other"))
    path = "spec.template.spec.containers[0].env[0].value"
    assert str(found.problem_of(problem(1, path))) == f"web.yaml:35: deployment/web: {path}: no"
    # A path that the document does not contain gets the line of its nearest ancestor.
    assert found.problem_of(problem(1, "spec.template.spec.nowhere[2].x")).place.line == 30
    assert found.problem_of(problem(0, "container.image")).place.line == 15
    labelled = sent("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels:\n    a/b.c: x\n")
    assert labelled.problem_of(problem(0, "metadata.labels[a/b.c]")).place.line == 6


def test_a_refusal_has_its_reason_and_the_platforms_name_of_the_object() -> None:
    found = pb.ApplicationProblem(
        document=0,
        kind="Deployment",
        name="web",
        path="container.image",
        reason="INVALID_CONTAINER",
        message="no",
    )
    assert (
        str(sent(WEB).problem_of(found))
        == "web.yaml:15: container/web: container.image: no [INVALID_CONTAINER]"
    )
    assert subject_of("PersistentVolumeClaim", "data") == "volume/data"


def test_accepted_losses_are_left_out_and_the_rest_is_sent() -> None:
    found = sent(web("paused: true", container="env:\n- {name: A, value: a, odd: 1}"), SERVICE)
    weight = pb.PROBLEM_WEIGHT_BEHAVIOUR
    service = pb.ApplicationProblem(
        document=1,
        kind="Service",
        name="web",
        path="metadata.name",
        reason="UNSUPPORTED_DOCUMENT",
        weight=weight,
    )
    accepted = [
        found.problem_of(problem(0, "spec.paused", weight=weight)),
        found.problem_of(problem(0, "spec.template.spec.containers[0].env[0].odd", weight=weight)),
        # Removing only the annotation of a hook would send it as an ordinary object.
        found.problem_of(service),
    ]
    assert {each.weight for each in accepted} == {ProblemWeight.BEHAVIOUR}
    assert found.leave_out(accepted)
    (only,) = found.messages()
    spec = json.loads(only.json)["spec"]
    assert "paused" not in spec
    assert spec["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "a"}]
    assert not found.leave_out([])


def test_the_example_is_sent_completely() -> None:
    texts = [path.read_text() for path in sorted((CHECKOUT / "deploy" / "examples").glob("*.yaml"))]
    assert len(sent(*texts)) > 10
