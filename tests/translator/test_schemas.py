"""Kubernetes' schemas in the wheel: they are complete and small, and never make a field allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from tests.processes import finished

from pilothouse_manifests.schemas import tables
from pilothouse_manifests.schemas.definitions import Schemas
from pilothouse_manifests.schemas.openapi import definitions_of
from pilothouse_manifests.schemas.tables import NEWEST, OLDEST, schemas
from pilothouse_server.guard.objects import KINDS

ROOT = Path(__file__).parents[2]
DEPLOYMENT = ("apps/v1", "Deployment")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("spec.replica", "replicas"),
        ("spec.template.spec.containers[web].imagePulPolicy", "imagePullPolicy"),
        # This field may belong to a newer Kubernetes.
        ("spec.template.spec.containers[0].zzz", None),
        ("spec.template.spec.containers[a.b].image", None),
        ("spec.template.spec.affinity.podAffinity", None),
        # The user chooses the keys of a mapping, and nothing is known below an unknown field.
        ("spec.template.metadata.labels.app", None),
        ("spec.template.spec.unknown.deeper", None),
        ("metadata.annotations[a.b/c]", None),
    ],
)
def test_a_misspelt_field_is_found_with_the_nearest_valid_name(path: str, meant: str | None) -> None:
    assert schemas().meant(*DEPLOYMENT, path) == meant


def test_misspelt_fields_of_a_value_are_found_at_any_depth() -> None:
    spec = "spec.template.spec"
    term = {"topologyKy": "zone", "labelSelector": {"matchLabels": {"topologyKy": "a", "a.b/c": "d"}}}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}, "podAfinity": {}}
    found = dict(schemas().misspelt(*DEPLOYMENT, f"{spec}.affinity", affinity))
    assert found == {
        f"{spec}.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKy": "topologyKey",
        f"{spec}.affinity.podAfinity": "podAffinity",
    }
    tty = f"{spec}.containers[name=main].ty"
    assert dict(schemas().misspelt(*DEPLOYMENT, tty, True)) == {tty: "tty"}
    assert dict(schemas().misspelt(*DEPLOYMENT, f"{spec}.hostAlias.deeper", 1)) == {
        f"{spec}.hostAlias": "hostAliases"
    }
    assert dict(schemas().misspelt(*DEPLOYMENT, f"{spec}.hostAliases", [{"ip": "a", "hostnames": []}])) == {}


@pytest.mark.parametrize(
    ("path", "value", "faults"),
    [
        ("spec.hostNetwork", "true", {"": "must be true or false, not a text"}),
        ("spec.hostAliases", {"ip": "a"}, {"": "must be a list, not an object"}),
        (
            "spec.hostAliases",
            [{"hostnames": "db"}],
            {"[0]": 'must have the field "ip"', "[0].hostnames": "must be a list, not a text"},
        ),
        ("spec.dnsConfig.options", [{"name": 1}], {"[0].name": "must be a text, not a whole number"}),
        ("spec.containers[name=main].tty", 1, {"": "must be true or false, not a whole number"}),
        ("spec.containers[name=main].tty", True, {}),
        ("spec.affinity", [], {"": "must be an object, not a list"}),
        (
            "spec.affinity",
            {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}},
            {
                ".podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]": 'must have the field "topologyKey"'
            },
        ),
        (
            "spec.topologySpreadConstraints",
            [{"maxSkew": 1.5, "topologyKey": "z", "whenUnsatisfiable": "a"}],
            {"[0].maxSkew": "must be a whole number, not a number"},
        ),
        (
            "spec.topologySpreadConstraints",
            [{"maxSkew": True, "topologyKey": "z", "whenUnsatisfiable": "a"}],
            {"[0].maxSkew": "must be a whole number, not true or false"},
        ),
        ("spec.overhead", {"cpu": "1", "memory": 1}, {}),
        ("spec.overhead", {"cpu": []}, {"[cpu]": "must be a number or a text, not a list"}),
        ("spec.affinity", None, {}),
        # The schemas do not contain this field: it may belong to a newer Kubernetes.
        ("spec.fieldOfLater", [1], {}),
    ],
)
def test_wrong_types_and_missing_fields_are_found_by_their_path(
    path: str, value: Any, faults: dict[str, str]
) -> None:
    whole = f"spec.template.{path}"
    assert dict(schemas().problems(*DEPLOYMENT, whole, value)) == {
        f"{whole}{below}": rule for below, rule in faults.items()
    }


def test_circular_references_end_without_a_fault() -> None:
    known = Schemas(
        {
            "a": {"kind": "v1 A", "fields": {"mode": "#b", "list": "#d"}},
            "b": "#c",
            "c": "#b",
            "d": ["array", "#d"],
        }
    )
    assert list(known.problems("v1", "A", "mode", {"x": [1]})) == []
    assert list(known.problems("v1", "A", "list", [[[]]])) == []
    assert list(known.problems("v1", "A", "list", [[1]])) == [
        ("list[0][0]", "must be a list, not a whole number")
    ]


def test_a_value_outside_an_enum_is_found() -> None:
    known = Schemas({"a": {"kind": "v1 A", "fields": {"mode": ["enum", "x", "y"]}}})
    for value in ("z", ["x"], {"x": 1}, 1):
        assert list(known.problems("v1", "A", "mode", value)) == [("mode", "must be one of x, y")]
    assert list(known.problems("v1", "A", "mode", "x")) == []


def test_an_unknown_release_uses_the_nearest_known_one() -> None:
    stop_signal = (*DEPLOYMENT, "spec.template.spec.containers[0].lifecycle.stopSignal")
    assert [minor for minor in range(OLDEST, NEWEST + 1) if schemas(minor).has(*stop_signal)] == [
        33,
        34,
        35,
        36,
        37,
    ]
    assert not schemas(12).has(*stop_signal)
    assert schemas(99).has(*stop_signal)
    assert schemas().meant("example.com/v1", "Thing", "spec.any") is None


def test_a_clusters_schema_document_is_read_without_foreign_references() -> None:
    document = {
        "components": {
            "schemas": {
                "example.Thing": {
                    "type": "object",
                    "required": ["spec"],
                    "x-kubernetes-group-version-kind": [
                        {"group": "example.com", "version": "v1", "kind": "Thing"}
                    ],
                    "properties": {
                        "spec": {"allOf": [{"$ref": "#/components/schemas/example.Spec"}]},
                        "other": {"$ref": "https://evil.example/schema.json"},
                        "file": {"$ref": "file:///etc/passwd#/components/schemas/a"},
                    },
                },
                "example.Spec": {
                    "properties": {
                        "mode": {"type": "string", "enum": ["a", "b"], "pattern": "(a+)+$"},
                        "size": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
                        "items": {
                            "type": "array",
                            "items": {"type": "object", "additionalProperties": {"type": "string"}},
                        },
                    }
                },
            }
        }
    }
    found = definitions_of(document)
    assert found["example.Thing"] == {
        "fields": {"spec": "#example.Spec", "other": "any", "file": "any"},
        "required": ["spec"],
        "kind": "example.com/v1 Thing",
    }
    assert found["example.Spec"]["fields"] == {
        "mode": ["enum", "a", "b"],
        "size": "integer|string",
        "items": ["array", ["map", "string"]],
    }
    known = Schemas(found)
    assert known.meant("example.com/v1", "Thing", "spec.mod") == "mode"
    assert known.meant("example.com/v1", "Thing", "other.any") is None


def _listed(node: Any, path: str) -> Iterator[str]:
    """Yields the paths that an allow-list of the guard names."""
    while isinstance(node, list | tuple):
        node = node[-1]
    for key, inner in node.items() if isinstance(node, dict) else ():
        yield (name := f"{path}.{key}" if path else key)
        yield from _listed(inner, name)


def test_each_field_listed_by_the_guard_exists_in_kubernetes() -> None:
    unknown = [
        (kind, path)
        for kind, listed in KINDS.items()
        for path in _listed(listed.fields, "")
        if not any(schemas(minor).has(*kind, path) for minor in (NEWEST, OLDEST))
    ]
    assert unknown == []
    assert list(_listed({"spec": {"made": "up"}}, "")) == ["spec", "spec.made"]
    assert not schemas().has(*DEPLOYMENT, "spec.made")


def test_the_file_is_small_and_accompanied_by_its_licence() -> None:
    folder = resources.files("pilothouse_manifests.schemas")
    assert len((folder / tables.FILE).read_bytes()) < 2 * 1024 * 1024
    assert "Apache License, Version 2.0" in (folder / "LICENSE").read_text()


@pytest.mark.full
async def test_the_file_is_generated_from_kubernetes_validate() -> None:
    code, output, errors = await finished(sys.executable, ".ci/schemas.py", "check", cwd=ROOT)
    assert (code, output, errors) == (0, b"", b"")
