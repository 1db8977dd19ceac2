"""Paths of fields in the API's syntax: found, removed, compared."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_server.kubernetes import field_paths

OBJECT: dict[str, Any] = {
    "metadata": {"labels": {"app": "web", "app.kubernetes.io/name": "web", "app.kubernetes": "odd"}},
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": "nginx:1",
                "env": [{"name": "A", "value": "1"}, {"name": "]", "value": "2"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}],
                "command": ["a", "b"],
            }
        ],
        "finalizers": ["x", "y"],
    },
}
MAIN = '.spec.containers[name="main"]'


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{MAIN}.image", "nginx:1"),
        (".metadata.labels.app.kubernetes.io/name", "web"),
        (".metadata.labels.app.kubernetes", "odd"),
        (".metadata.labels.app", "web"),
        (f'{MAIN}.env[name="]"].value', "2"),
        (f'{MAIN}.ports[containerPort=53,protocol="UDP"].containerPort', 53),
        (f"{MAIN}.command[1]", "b"),
        ('.spec.finalizers[="y"]', "y"),
        (f'{MAIN}.env[name="B"].value', None),
        (".spec.absent.deeper", None),
        ('.spec.containers[name="other"].image', None),
    ],
)
def test_a_field_is_found_by_its_path(path: str, value: object) -> None:
    assert field_paths.value_at(OBJECT, path) == value
    assert (field_paths.find(OBJECT, path) is None) == (value is None)


def test_removed_fields_leave_no_empty_parents_and_the_input_unchanged() -> None:
    only = {"spec": {"template": {"spec": {"containers": [{"name": "main"}], "nodeSelector": {"a": "b"}}}}}
    left = field_paths.without(only, [".spec.template.spec.nodeSelector.a", ".not.there"])
    assert left == {"spec": {"template": {"spec": {"containers": [{"name": "main"}]}}}}
    assert "nodeSelector" in only["spec"]["template"]["spec"]
    without = field_paths.without(OBJECT, [f'{MAIN}.env[name="A"]', f'{MAIN}.env[name="]"]'])
    assert "env" not in without["spec"]["containers"][0]


def test_a_field_is_owned_by_the_manager_that_applied_it() -> None:
    fields: dict[str, Any] = {
        "f:spec": {
            "f:paused": {},
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"main"}': {".": {}, "f:image": {}}}}},
        }
    }
    entries = [{"manager": "us", "operation": "Apply", "fieldsV1": fields}]
    entries.append({"manager": "us", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}})
    containers = [{"name": "other", "image": "a"}, {"name": "main", "image": "b", "tty": True}]
    spec = {"paused": True, "replicas": 1, "template": {"spec": {"containers": containers}}}
    live = {"metadata": {"managedFields": entries}, "spec": spec}
    of_main = '.spec.template.spec.containers[name="main"]'
    assert all(field_paths.is_owned(live, path, "us") for path in (".spec.paused", f"{of_main}.image"))
    others = (
        ".spec.replicas",
        f"{of_main}.tty",
        '.spec.template.spec.containers[name="other"].image',
        ".spec.x",
    )
    assert not any(field_paths.is_owned(live, path, "us") for path in others)
    assert not field_paths.is_owned(live, ".spec.paused", "them")


def test_only_the_given_fields_are_compared() -> None:
    said = {
        "spec": {
            "replicas": 1,
            "containers": [
                {
                    "name": "main",
                    "image": "a",
                    "command": ["x"],
                    "env": [{"name": "A", "value": "1"}],
                    "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}],
                }
            ],
        }
    }
    before = {
        "spec": {
            "replicas": 1,
            "more": 1,
            "containers": [
                {
                    "name": "main",
                    "image": "b",
                    "command": ["y"],
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                }
            ],
        }
    }
    found = list(field_paths.differing(said, before, {**said, "more": 2}))
    assert found == [
        f"{MAIN}.image",
        f"{MAIN}.command",
        f'{MAIN}.env[name="A"]',
        f'{MAIN}.ports[containerPort=80,protocol="TCP"].name',
    ]
    # Every returned path can be removed.
    assert field_paths.without(said, found)["spec"]["containers"][0].keys() == {"name", "ports"}
    assert list(field_paths.differing(said, said, said)) == []
