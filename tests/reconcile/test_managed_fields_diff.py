"""An object matches its manifest if an apply would change nothing and none of our old fields remains."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from pilothouse_server.reconcile.apply.managed_fields_diff import matches_manifest

WANTED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "web"}},
    "spec": {
        "paused": False,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "nginx",
                        "args": ["a", "b"],
                        "env": [{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}],
                        "ports": [{"containerPort": 80}],
                    }
                ],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            }
        },
    },
}
OWNED: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:app.kubernetes.io/name": {}}},
    "f:spec": {
        "f:paused": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"main"}': {
                        ".": {},
                        "f:name": {},
                        "f:image": {},
                        "f:args": {},
                        "f:env": {
                            'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}},
                            'k:{"name":"EMPTY"}': {".": {}, "f:name": {}, "f:value": {}},
                        },
                        "f:ports": {
                            'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
                        },
                    }
                },
                "f:volumes": {'k:{"name":"scratch"}': {".": {}, "f:name": {}, "f:emptyDir": {}}},
            }
        },
    },
}


def live() -> dict[str, Any]:
    """Returns the object as the API has it: with defaults, and with additions by others."""
    found = deepcopy(WANTED)
    found["metadata"]["labels"]["theirs"] = "x"
    found["metadata"]["managedFields"] = [
        {
            "manager": "kubectl",
            "operation": "Update",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}},
        },
        {"manager": "pilothouse", "operation": "Apply", "fieldsV1": deepcopy(OWNED)},
    ]
    found["spec"]["replicas"] = 1
    (main,) = found["spec"]["template"]["spec"]["containers"]
    main["ports"][0]["protocol"] = "TCP"
    main["env"].append({"name": "THEIRS", "value": "x"})
    # The API leaves out false and empty values.
    del main["env"][1]["value"], found["spec"]["paused"]
    return found


def test_defaults_and_additions_by_others_do_not_matter() -> None:
    assert matches_manifest(WANTED, live())


def _other_image(found: dict[str, Any]) -> None:
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"


def _no_variable(found: dict[str, Any]) -> None:
    found["spec"]["template"]["spec"]["containers"][0]["env"] = []


def _no_label(found: dict[str, Any]) -> None:
    del found["metadata"]["labels"]["app.kubernetes.io/name"]


def _other_volume(found: dict[str, Any]) -> None:
    found["spec"]["template"]["spec"]["volumes"] = [{"name": "scratch", "hostPath": {"path": "/"}}]


def _longer_list(found: dict[str, Any]) -> None:
    found["spec"]["template"]["spec"]["containers"][0]["args"].append("c")


def _left_over_variable(found: dict[str, Any]) -> None:
    spec = found["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]
    spec["f:containers"]['k:{"name":"main"}']["f:env"]['k:{"name":"OLD"}'] = {".": {}, "f:name": {}}


def _left_over_field(found: dict[str, Any]) -> None:
    found["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]["f:minReadySeconds"] = {}


def _taken_away(found: dict[str, Any]) -> None:
    del found["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]["f:paused"]


def _not_ours(found: dict[str, Any]) -> None:
    del found["metadata"]["managedFields"][1]


@pytest.mark.parametrize(
    "change",
    [
        _other_image,
        _no_variable,
        _no_label,
        _other_volume,
        _longer_list,
        _left_over_variable,
        _left_over_field,
        _taken_away,
        _not_ours,
    ],
)
def test_changed_missing_and_left_over_fields_are_found(change: Any) -> None:
    found = live()
    change(found)
    assert not matches_manifest(WANTED, found)
