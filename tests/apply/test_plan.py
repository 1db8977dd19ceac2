"""The plan of an apply: nothing if the server has the same in its own form, else the least change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.translator.manifests import EXAMPLE, NAMESPACE, SERVICE, WEB, container, wanted, web

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply import canonical
from pilothouse_client.apply.canonical import amount, image
from pilothouse_client.apply.documents import load
from pilothouse_client.apply.execute import line
from pilothouse_client.apply.messages import message, values
from pilothouse_client.apply.plan import Action, Step, difference, plan
from pilothouse_manifests.translator.attach import attach
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.problems import Problems

# Fields that the caller gives and a manifest has no word for: apply leaves them as they are.
UNTOUCHED_FIELDS = (
    "name",
    "display_name",
    "drift_policy",
    "pod_container_name",
    "selector",
    "runs_kept",
    "revisions_kept",
    "extra_fields",
    "etag",
)


def planned(*texts: str, existing: list[pb.Container]) -> list[Step]:
    problems = Problems()
    steps = plan(wanted(*texts, existing=existing), existing, problems)
    assert not problems.all
    return steps


def stored(made: pb.Container) -> pb.Container:
    """A container as a server may hold it: defaults filled in, values normalised, lists in another order."""
    result = pb.Container()
    result.CopyFrom(made)
    result.uid, result.etag, result.generation = "4f7c", "abc", 3
    result.status, result.drift_policy, result.display_name = (
        pb.CONTAINER_STATUS_RUNNING,
        pb.DRIFT_POLICY_REPORT,
        "Shop",
    )
    result.image = image(made.image)
    if not result.HasField("replicas"):
        result.replicas = 4
    if not result.HasField("termination_grace_seconds"):
        result.termination_grace_seconds = 30
    for port in result.ports:
        if port.service_type != pb.SERVICE_TYPE_NONE:
            port.service_port = port.service_port or port.container_port
    result.ports.sort(key=lambda port: -port.container_port)
    result.empty_dirs.sort(key=lambda folder: folder.name, reverse=True)
    for probe in (result.probes.liveness, result.probes.readiness, result.probes.startup):
        if probe.ByteSize():
            probe.period_seconds = probe.period_seconds or 10
            probe.failure_threshold = probe.failure_threshold or 3
    result.resources.SetInParent()
    result.security_context.SetInParent()
    for resources in [result.resources, *(init.resources for init in result.init_containers)]:
        resources.cpu_request = {"100m": "0.1"}.get(resources.cpu_request, resources.cpu_request)
        resources.memory_limit = {"128Mi": "131072Ki"}.get(resources.memory_limit, resources.memory_limit)
    return result


def test_a_container_that_is_not_there_is_created() -> None:
    (step,) = planned(WEB, existing=[])
    assert (step.action, step.before, step.update_mask) == (Action.CREATE, None, ())


def test_applying_the_example_again_changes_nothing() -> None:
    problems = Problems()
    documents = load([str(EXAMPLE)], problems)
    manifest = convert(documents, NAMESPACE, problems)
    existing = [stored(message(pb.Container, each.values)) for each in attach(manifest, [])]
    there = [values(each) for each in existing]
    again = plan(attach(convert(documents, NAMESPACE, problems), there), existing, problems)
    assert not problems.all
    assert {step.name: step.update_mask for step in again} == {each.name: () for each in existing}
    assert {step.action for step in again} == {Action.NOTHING}
    assert all(difference(step) == "" for step in again)


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        (WEB.replace("1.27", "1.28"), ("image",)),
        (web("replicas: 7"), ("replicas",)),
        (web(container="resources: {limits: {cpu: 300m}}"), ("resources.cpu_limit",)),
        (web(container="env: [{name: A, value: a}]"), ("env",)),
        (web(pod="serviceAccountName: robot"), ("service_account",)),
        (web(pod="imagePullSecrets: [{name: registry}]"), ("image_pull_secrets",)),
        (web(pod="terminationGracePeriodSeconds: 5"), ("termination_grace_seconds",)),
        (web(container="securityContext: {privileged: false}"), ("security_context",)),
        (web(container="readinessProbe: {grpc: {port: 8080}}"), ("probes",)),
        (
            web("replicas: 7", container="resources: {requests: {cpu: 1, memory: 1Gi}}").replace(
                "8080", "8081"
            ),
            ("ports", "resources.cpu_request", "resources.memory_request", "replicas"),
        ),
    ],
)
def test_a_change_names_the_fields_that_differ_and_no_others(text: str, mask: tuple[str, ...]) -> None:
    (step,) = planned(text, existing=[stored(container(WEB))])
    assert (step.action, step.update_mask) == (Action.UPDATE, mask)
    # And back: what a manifest no longer says is taken away. Except for the replicas, which it then leaves to others.
    (back,) = planned(WEB, existing=[stored(container(text))])
    assert back.update_mask == tuple(path for path in mask if path != "replicas")


def test_a_service_alone_changes_the_ports_alone() -> None:
    (step,) = planned(SERVICE, existing=[stored(container(web(container="env: [{name: A, value: a}]")))])
    assert step.update_mask == ("ports",)


def test_the_name_of_the_pods_container_cannot_be_changed() -> None:
    existing = [stored(container(WEB))]
    problems = Problems()
    plan(wanted(WEB.replace("name: server", "name: main"), existing=existing), existing, problems)
    (problem,) = problems.all
    assert str(problem) == (
        "web.yaml:1: deployment/web: spec.template.spec.containers[0].name: "
        "cannot be changed: it is 'server' on the server; delete the container first"
    )


def test_a_selector_is_the_manifests_and_cannot_be_changed() -> None:
    (made,) = planned(WEB, existing=[])
    assert dict(made.container.selector) == {"app": "web"}
    existing = [stored(made.container)]
    problems = Problems()
    plan(wanted(WEB.replace("app: web", "app: shop"), existing=existing), existing, problems)
    (problem,) = problems.all
    assert str(problem) == (
        "web.yaml:1: deployment/web: spec.selector.matchLabels: "
        "cannot be changed: it is app=web on the server; delete the container first"
    )


def test_a_container_that_is_older_than_its_selector_is_unchanged() -> None:
    older = stored(container(WEB))
    older.ClearField("selector")
    (step,) = planned(WEB, existing=[older])
    assert step.action is Action.NOTHING


def test_a_service_is_given_up_before_it_is_taken() -> None:
    moving = SERVICE.replace("{app: web}", "{app: second}")
    first = stored(container(web(name="first"), SERVICE.replace("{app: web}", "{app: first}")))
    texts = (web(name="second"), web(name="first"), moving)
    assert [step.name for step in planned(*texts, existing=[first])] == ["first", "second"]
    assert [step.name for step in planned(*texts, existing=[])] == ["second", "first"]


def test_the_difference_is_shown_as_a_unified_diff() -> None:
    (step,) = planned(WEB.replace("1.27", "1.28"), existing=[stored(container(WEB))])
    assert difference(step) == (
        "--- container/web (server)\n"
        "+++ container/web (web.yaml:1)\n"
        "@@ -1,5 +1,5 @@\n"
        " name: web\n"
        "-image: nginx:1.27\n"
        "+image: nginx:1.28\n"
        " ports:\n"
        " - name: http\n"
        "   container_port: 8080\n"
    )
    (created,) = planned(WEB, existing=[])
    assert difference(created).startswith("--- /dev/null\n+++ container/web (web.yaml:1)\n@@ -0,0 +1,")
    assert "\n-" not in difference(created).removeprefix("--- ")


def test_every_field_of_a_container_is_decided_untouched_or_the_servers() -> None:
    decided = {*canonical.DECIDED_FIELDS, *UNTOUCHED_FIELDS}
    given_by_caller = {
        field.name
        for field in pb.Container.DESCRIPTOR.fields
        if field.number < 50 and field.name not in ("namespace", "uid")
    }
    assert given_by_caller == decided - {"etag"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("nginx", "nginx:latest"),
        ("docker.io/library/nginx:1", "nginx:1"),
        ("index.docker.io/team/app", "team/app:latest"),
        ("library/nginx", "nginx:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("ghcr.io/a/b@sha256:00", "ghcr.io/a/b@sha256:00"),
        ("ghcr.io/library/b:1", "ghcr.io/library/b:1"),
    ],
)
def test_two_references_to_one_image_are_equal(one: str, other: str) -> None:
    assert image(one) == image(other) == other


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100m", "0.1"),
        ("0.1", "0.1"),
        ("1.50", "1.5"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("2e3", "2000"),
        ("1E", "1000000000000000000"),
        ("5E3", "5000"),
        ("100n", "0.0000001"),
        ("0", "0"),
        ("", ""),
        ("lots", "lots"),
    ],
)
def test_quantities_are_compared_as_numbers(text: str, number: str) -> None:
    assert amount(text) == number


@given(st.integers(0, 10**12))
def test_a_quantity_is_the_same_in_every_unit(millis: int) -> None:
    assert amount(f"{millis}m") == amount(f"{millis * 1000}u") == amount(f"{millis}e-3")


def test_every_source_of_a_variable_goes_to_values_and_back() -> None:
    for number in pb.EnvValueFrom.values():
        if number:
            made = pb.Container(env=[pb.EnvVar(name="A", value_from=number, source_key="limits.cpu")])
            assert message(pb.Container, values(made)) == made


SET = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: pg, image: "postgres:17"}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ("storage: 1Gi", "storage: 2Gi", "spec.volumeClaimTemplates"),
        ("serviceName: db", "serviceName: peers", "spec.serviceName"),
        ("serviceName: db", "serviceName: db\n  podManagementPolicy: Parallel", "spec.podManagementPolicy"),
    ],
)
def test_a_setting_that_is_immutable_is_named_with_replace(before: str, after: str, path: str) -> None:
    (made,) = planned(SET, existing=[])
    existing = [stored(made.container)]
    problems = Problems()
    changed = SET.replace(before, after)
    plan(wanted(changed, existing=existing), existing, problems)
    (problem,) = problems.all
    assert str(problem) == (
        f"web.yaml:1: statefulset/db: {path}: immutable in a StatefulSet that exists; --replace deletes it, without "
        "its pods and claims, and creates it again"
    )
    replacing = Problems()
    (step,) = plan(wanted(changed, existing=existing), existing, replacing, replace=True)
    assert not replacing.all
    assert (step.action, step.update_mask) == (Action.REPLACE, ("stateful_set",))
    assert line(step) == "container/db replaced: a new StatefulSet around its pods and claims"


def test_another_kind_is_named_by_the_kind_that_is_there() -> None:
    (made,) = planned(SET, existing=[])
    problems = Problems()
    existing = [stored(made.container)]
    plan(wanted(WEB.replace("name: web", "name: db"), existing=existing), existing, problems, replace=True)
    assert str(problems.all[-1]) == (
        "web.yaml:1: deployment/db: kind: cannot be changed: it is a StatefulSet on the server; delete the container "
        "first"
    )


def test_a_problem_of_a_plan_has_the_kind_of_its_document() -> None:
    (made,) = planned(SET, existing=[])
    problems = Problems()
    existing = [stored(made.container)]
    plan(wanted(SET.replace("name: pg", "name: main"), existing=existing), existing, problems)
    assert [each.subject for each in problems.all] == ["statefulset/db"]
