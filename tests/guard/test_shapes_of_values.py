"""Values of shapes that Kubernetes does not have at a field: the guard finds each, and fails on none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.guard.objects import Guarded, deployment
from tests.guard.test_guard import found_in, service

_CONTEXT = "spec.containers[0].securityContext"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{_CONTEXT}.capabilities.add", "SYS_ADMIN"),
        (f"{_CONTEXT}.capabilities.add", [["SYS_ADMIN"]]),
        (f"{_CONTEXT}.capabilities.add", {"SYS_ADMIN": 1}),
        (f"{_CONTEXT}.seccompProfile", {"type": ["Unconfined"]}),
        (f"{_CONTEXT}.appArmorProfile", {"type": {}}),
        ("spec.securityContext.seLinuxOptions", {"type": ["spc_t"]}),
        ("spec.securityContext.sysctls", [{"name": ["kernel.msgmax"]}]),
        ("spec.priorityClassName", ["system-node-critical"]),
        ("spec.tolerations", [{"key": ["gpu"]}]),
        ("spec.hostNetwork", 1),
        ("spec.hostPID", "false"),
        ("spec.hostnetwork", True),
        (
            "spec.containers[0].ports",
            [{"containerPort": 80, "hostPort": False}],
        ),
        (
            "spec.volumes",
            [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"audience": ["vault"]}}]}}],
        ),
    ],
)
def test_a_value_of_another_shape_is_found(path: str, value: Any) -> None:
    assert {each.permission for each in found_in(deployment(Guarded(path, value, "")))} == {
        "container.privileged"
    }


def test_a_type_of_a_service_that_is_no_text_is_found() -> None:
    assert [each.path for each in found_in(service(type=["ExternalName"]))] == ["spec.type"]


@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_keys_that_operators_and_meshes_obey_are_found_on_the_object_itself(kind: str) -> None:
    whole = deployment()
    whole["metadata"][kind] = {"sidecar.jaegertracing.io/inject": "true"}
    assert [(each.rule, each.steps[1]) for each in found_in(whole)] == [("podKeys", kind)]


def test_a_label_by_which_a_mesh_passes_a_service_by_is_found() -> None:
    document = service()
    document["metadata"]["labels"] = {"istio.io/use-waypoint": "none", "tier": "front"}
    assert [each.path for each in found_in(document)] == ["metadata.labels[istio.io/use-waypoint]"]
