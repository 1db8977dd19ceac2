"""Requests and limits: the refusals and their messages, and the form sent."""

from __future__ import annotations

import msgspec
import pytest

from pilothouse_server.containers import rules
from pilothouse_server.containers.model import EnvFrom, EnvVar, Resources
from pilothouse_server.containers.pod_manifests import pod_spec
from pilothouse_server.errors import InvalidArgument
from tests.kubernetes.containers import container


def refusal(**fields: object) -> str:
    with pytest.raises(InvalidArgument) as refused:
        rules.checked(container(**fields))
    return refused.value.message


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (
            Resources(cpu_request="1", requests={"cpu": "2"}),
            'container.resources.requests: "cpu" is in container.resources.cpu_request, too; give it once',
        ),
        (
            Resources(memory_limit="1Gi", limits={"memory": "2Gi"}),
            'container.resources.limits: "memory" is in container.resources.memory_limit, too; give it once',
        ),
        (
            Resources(limits={"gpu": "1"}),
            'container.resources.limits: "gpu" must be cpu, memory, ephemeral-storage, hugepages-SIZE, '
            "or an extended resource such as nvidia.com/gpu",
        ),
        (
            Resources(limits={"nvidia.com/gpu": "500m"}),
            'container.resources.limits["nvidia.com/gpu"]: must be a whole number for an extended resource',
        ),
        (
            Resources(requests={"nvidia.com/gpu": "1"}),
            'container.resources.requests: "nvidia.com/gpu" must have a limit of the same amount',
        ),
        (
            Resources(requests={"hugepages-2Mi": "2Mi"}, limits={"hugepages-2Mi": "4Mi", "cpu": "1"}),
            'container.resources.requests: "hugepages-2Mi" must have a limit of the same amount',
        ),
        (
            Resources(limits={"hugepages-2Mi": "4Mi"}),
            "container.resources.limits: huge pages need a request or limit of cpu or memory",
        ),
        (
            Resources(requests={"ephemeral-storage": "2Gi"}, limits={"ephemeral-storage": "1Gi"}),
            'container.resources.requests: must not be above limits["ephemeral-storage"]',
        ),
        (
            Resources(cpu_request="2", limits={"cpu": "1"}),
            'container.resources.cpu_request: must not be above limits["cpu"]',
        ),
        (
            Resources(cpu_request="2", cpu_limit="1"),
            "container.resources.cpu_request: must not be above cpu_limit",
        ),
    ],
)
def test_a_refused_amount_is_named_with_its_field(resources: Resources, expected: str) -> None:
    assert refusal(resources=resources) == expected


def test_an_amount_that_is_not_a_quantity_is_refused() -> None:
    words = refusal(resources=Resources(limits={"ephemeral-storage": "lots"}))
    assert words.startswith('container.resources.limits["ephemeral-storage"]: must be a Kubernetes quantity')


def test_fields_and_maps_are_sent_together_in_normal_form() -> None:
    given = Resources(
        cpu_request="0.5",
        requests={"memory": "1024Mi"},
        limits={"nvidia.com/gpu": "2", "ephemeral-storage": "1.5Gi"},
    )
    found = rules.checked(container(resources=given))
    assert pod_spec(found)["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"nvidia.com/gpu": "2", "ephemeral-storage": "1536Mi"},
    }
    assert rules.quota_share(found) == (500, 2**30)


def test_variables_of_amounts_and_of_whole_sources_are_sent() -> None:
    subject = container(
        env=(EnvVar("CPU", value_from="resource_field_ref", source_key="limits.cpu", divisor="1m"),),
    )
    spec = msgspec.structs.replace(
        subject.spec,
        env_from=(EnvFrom("config_map", "app"), EnvFrom("secret", "keys", prefix="KEY_", optional=True)),
    )
    main = pod_spec(rules.checked(msgspec.structs.replace(subject, spec=spec)))["containers"][0]
    assert main["env"] == [
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}
    ]
    assert main["envFrom"] == [
        {"configMapRef": {"name": "app"}},
        {"prefix": "KEY_", "secretRef": {"name": "keys", "optional": True}},
    ]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (
            EnvVar("A", value_from="resource_field_ref", source_key="limits.gpu"),
            "container.env[0].source_key: must be limits. or requests. and one of cpu, memory, ephemeral-storage, "
            "hugepages-SIZE",
        ),
        (
            EnvVar("A", value_from="resource_field_ref", source_key="limits.cpu", divisor="1Mi"),
            "container.env[0].divisor: must be one of 1, 1m",
        ),
        (
            EnvVar("A", value="b", divisor="1"),
            "container.env[0].divisor: is only allowed with value_from RESOURCE_FIELD_REF",
        ),
    ],
)
def test_a_refused_resource_variable_is_named_with_its_field(variable: EnvVar, expected: str) -> None:
    assert refusal(env=(variable,)) == expected
