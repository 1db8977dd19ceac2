"""Values of shapes that Kubernetes does not allow at a field.

The guard finds each one and raises no other error.
"""

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


def test_a_service_type_that_is_not_text_is_found() -> None:
    assert [each.path for each in found_in(service(type=["ExternalName"]))] == ["spec.type"]


@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_keys_of_operators_and_meshes_are_found_on_the_object_itself(kind: str) -> None:
    whole = deployment()
    whole["metadata"][kind] = {"sidecar.jaegertracing.io/inject": "true"}
    assert [(each.rule, each.steps[1]) for each in found_in(whole)] == [("podKeys", kind)]


def test_a_label_that_makes_a_mesh_bypass_a_service_is_found() -> None:
    document = service()
    document["metadata"]["labels"] = {"istio.io/use-waypoint": "none", "tier": "front"}
    assert [each.path for each in found_in(document)] == ["metadata.labels[istio.io/use-waypoint]"]
