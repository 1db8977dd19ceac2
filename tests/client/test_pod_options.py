"""Pod and rollout options of `containers create` and `update`: the fields and mask paths that they write."""

from __future__ import annotations

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands.container_spec import Specification
from pilothouse_client.commands.failures import CommandError


def test_pod_options_set_fields_and_mask_paths() -> None:
    container = pb.Container(pod_labels={"a": "1"})
    paths = Specification(
        pod_labels=["b=2"],
        env_from_config=["settings"],
        env_from_secret=["keys"],
        requests=["ephemeral-storage=1Gi"],
        limits=["nvidia.com/gpu=1"],
        strategy="Recreate",
        automount_token=False,
        extra=["spec.template.spec.containers[name=main].tty=true", 'spec.template.spec.hostname="a=b"'],
    ).write_to(container)
    assert set(paths) == {
        "pod_labels",
        "env_from",
        "resources.requests",
        "resources.limits",
        "deployment.strategy",
        "automount_service_account_token",
        "extra_fields",
    }
    assert dict(container.pod_labels) == {"a": "1", "b": "2"}
    assert [each.source_name for each in container.env_from] == ["settings", "keys"]
    assert dict(container.resources.limits) == {"nvidia.com/gpu": "1"}
    assert container.deployment == pb.DeploymentSettings(strategy="Recreate")
    assert not container.automount_service_account_token
    assert dict(container.extra_fields) == {
        "spec.template.spec.containers[name=main].tty": "true",
        "spec.template.spec.hostname": '"a=b"',
    }


def test_an_extra_field_without_a_value_is_refused() -> None:
    with pytest.raises(CommandError, match="PATH=JSON"):
        Specification(extra=["spec.template.spec.containers[name=main]"]).write_to(pb.Container())
