"""Properties of patches, field sets and quantities, tested with generated examples."""

from __future__ import annotations

import copy
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_simulator.api.patch import json_patch, merge_patch, strategic_merge_patch
from pilothouse_simulator.store.field_sets import (
    compare,
    field_set,
    from_fields_v1,
    merge,
    remove,
    to_fields_v1,
)
from pilothouse_simulator.store.field_tracking import FieldTracker, apply_configuration
from pilothouse_simulator.store.schema import schema_of
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.quantities import canonical_quantity, parse_quantity
from pilothouse_simulator.values.resources import DEPLOYMENTS
from pilothouse_simulator.values.selectors import build_predicate

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_names = st.sampled_from(["a", "b", "c", "d"])
_texts = st.sampled_from(["1", "2", "3"])
_labels = st.dictionaries(_names, _texts, max_size=3)
_env = st.lists(_names, unique=True, max_size=3).flatmap(
    lambda names: st.tuples(
        *(st.fixed_dictionaries({"name": st.just(name), "value": _texts}) for name in names)
    )
)
_containers = st.lists(_names, unique=True, max_size=3).flatmap(
    lambda names: st.tuples(
        *(
            st.fixed_dictionaries(
                {"name": st.just(name)},
                optional={
                    "image": _texts,
                    "env": _env.map(list),
                    "command": st.lists(_texts, max_size=2),
                    "resources": st.fixed_dictionaries({}, optional={"requests": _labels}),
                },
            )
            for name in names
        )
    )
)


@st.composite
def _deployments(draw: st.DrawFn) -> JsonObject:
    """Draws parts of a Deployment with nested keyed lists, maps and atomic lists, without empty containers."""
    pod = {"containers": list(draw(_containers))}
    obj: JsonObject = {
        "metadata": {"labels": draw(_labels)},
        "spec": {"replicas": draw(st.integers(0, 3)), "template": {"spec": pod}},
    }
    return obj if draw(st.booleans()) else {"metadata": obj["metadata"]}


SCHEMA = schema_of(DEPLOYMENTS)


def _pruned(value: Any) -> Any:
    """Returns the value without empty containers, which appear and disappear with their content."""
    if isinstance(value, dict):
        children = {name: _pruned(child) for name, child in value.items()}
        return {name: child for name, child in children.items() if child not in ({}, [])}
    if isinstance(value, list):
        return [_pruned(child) for child in value]
    return value


@given(_deployments())
def test_fields_v1_keeps_every_path(obj: JsonObject) -> None:
    fields = field_set(SCHEMA, obj)
    assert from_fields_v1(to_fields_v1(fields)) == fields


@given(_deployments())
def test_an_object_has_no_difference_from_itself(obj: JsonObject) -> None:
    assert compare(SCHEMA, obj, copy.deepcopy(obj)).same


@given(_deployments())
def test_removing_all_fields_leaves_nothing(obj: JsonObject) -> None:
    assert field_set(SCHEMA, _pruned(remove(SCHEMA, obj, field_set(SCHEMA, obj)))) == set()


@given(_deployments(), _deployments())
def test_merging_contains_what_was_applied(live: JsonObject, applied: JsonObject) -> None:
    merged = merge(SCHEMA, live, applied)
    assert merge(SCHEMA, merged, applied) == merged
    assert field_set(SCHEMA, _pruned(applied)) <= field_set(SCHEMA, merged)


def _apply(live: JsonObject, applied: JsonObject, manager: str = "one", *, force: bool = False) -> JsonObject:
    return apply_configuration(
        DEPLOYMENTS, live, applied, manager=manager, force=force, time="2026-01-01T00:00:00Z"
    )


def _values(obj: JsonObject) -> JsonObject:
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    pruned: JsonObject = _pruned({"metadata": metadata, "spec": obj.get("spec", {})})
    return pruned


@given(_deployments())
def test_applying_the_same_twice_changes_nothing(applied: JsonObject) -> None:
    once = _apply({}, applied)
    assert _apply(once, applied) == once


@given(_deployments(), _deployments())
def test_a_single_manager_gets_exactly_what_it_last_applied(first: JsonObject, second: JsonObject) -> None:
    result = _apply(_apply({}, first), second)
    assert _values(result) == _pruned({"metadata": second["metadata"], "spec": second.get("spec", {})})


@given(_deployments(), _deployments())
def test_fields_of_another_manager_survive_or_conflict(first: JsonObject, second: JsonObject) -> None:
    live = _apply({}, first, "one")
    with suppress(ApiError):
        unforced = _apply(live, second, "two")
        assert field_set(SCHEMA, _values(live)) <= field_set(SCHEMA, _values(unforced))
    result = _apply(live, second, "two", force=True)
    back = _apply(result, {"metadata": {}}, "two")
    assert field_set(SCHEMA, _values(back)) <= field_set(SCHEMA, _values(live))


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | _texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(_names, children, max_size=3),
    max_leaves=10,
)


@given(_json, st.dictionaries(_names, _json, max_size=3))
def test_a_merge_patch_is_idempotent_and_leaves_its_target_alone(target: Any, change: JsonObject) -> None:
    kept = copy.deepcopy(target)
    once = merge_patch(target, change)
    assert merge_patch(once, change) == once
    assert target == kept


@given(st.dictionaries(_names, _json, max_size=3), _names, _json)
def test_a_json_patch_adds_and_removes(target: JsonObject, name: str, value: Any) -> None:
    added = json_patch(target, [{"op": "add", "path": f"/{name}", "value": value}])
    assert added == {**target, name: value}
    removed = json_patch(
        added, [{"op": "test", "path": f"/{name}", "value": value}, {"op": "remove", "path": f"/{name}"}]
    )
    assert removed == {key: child for key, child in target.items() if key != name}


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "test", "path": "/a", "value": 2}],
        [{"op": "remove", "path": "/b"}],
        [{"op": "replace", "path": "/b", "value": 1}],
        [{"op": "add", "path": "/a/x", "value": 1}],
        [{"op": "move", "path": "/a"}],
        [{"op": "dance", "path": "/a"}],
    ],
)
def test_a_json_patch_that_does_not_fit_is_invalid(operations: list[JsonObject]) -> None:
    with pytest.raises(ApiError) as refusal:
        json_patch({"a": 1}, operations)
    assert refusal.value.code == 422


@given(_deployments(), _deployments())
def test_a_strategic_merge_patch_keeps_other_items(target: JsonObject, change: JsonObject) -> None:
    result = strategic_merge_patch(SCHEMA, target, change)
    assert strategic_merge_patch(SCHEMA, result, change) == result

    def names(obj: JsonObject) -> set[str]:
        pod = obj.get("spec", {}).get("template", {}).get("spec", {})
        return {container["name"] for container in pod.get("containers", [])}

    assert names(result) == names(target) | names(change)


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ({"metadata": {"finalizers": ["b"]}}, {"metadata": {"finalizers": ["a", "b"]}}),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, {"metadata": {"finalizers": []}}),
        ({"metadata": {"$patch": "replace", "name": "n"}}, {"metadata": {"name": "n"}}),
    ],
)
def test_strategic_merge_directives(directive: JsonObject, expected: JsonObject) -> None:
    assert strategic_merge_patch(SCHEMA, {"metadata": {"finalizers": ["a"]}}, directive) == expected


@given(
    st.integers(1, 10**6),
    st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E2"]),
)
def test_the_canonical_quantity_has_the_same_value(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    canonical = canonical_quantity(text)
    assert parse_quantity(canonical) == parse_quantity(text)
    assert canonical_quantity(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1000", "1k"),
        ("0.5", "500m"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("100m", "100m"),
        ("1000m", "1"),
    ],
)
def test_canonical_quantities(text: str, canonical: str) -> None:
    assert canonical_quantity(text) == canonical
    assert parse_quantity(text) == parse_quantity(canonical)
    assert isinstance(parse_quantity(text), Decimal)


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("a>3", {"a": "4"}, True),
        ("a<3", {"a": "4"}, False),
        ("a>3", {}, False),
        ("a in (x, y)", {"a": "y"}, True),
        ("example.com/a=b", {"example.com/a": "b"}, True),
        ("a=", {"a": ""}, True),
        ("!a,b", {"b": "1"}, True),
    ],
)
def test_label_selectors(selector: str, labels: dict[str, str], matches: bool) -> None:
    predicate = build_predicate(DEPLOYMENTS, selector, "")
    assert predicate is not None
    assert predicate({"metadata": {"labels": labels}}) is matches


def test_an_object_without_managed_fields_is_not_tracked_until_an_apply() -> None:
    """This is the behaviour of Kubernetes' fieldmanager (skipNonAppliedManager) after `managedFields` were cleared."""
    spec: JsonObject = {"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "1"}]}}}
    live: JsonObject = {"metadata": {"name": "web", "managedFields": [{}]}, "spec": spec}
    changed = copy.deepcopy(live)
    changed["spec"]["replicas"] = 2
    FieldTracker().track_update(DEPLOYMENTS, live, changed, "kubectl", "2026-01-01T00:00:00Z")
    assert "managedFields" not in changed["metadata"]
    sent: JsonObject = {"metadata": {}, "spec": {"replicas": 2}}
    applied = apply_configuration(
        DEPLOYMENTS, changed, sent, manager="us", force=False, time="2026-01-01T00:00:01Z"
    )
    entries = {each["manager"]: each["fieldsV1"]["f:spec"] for each in applied["metadata"]["managedFields"]}
    assert entries["us"] == {"f:replicas": {}}
    assert {"f:replicas", "f:template"} <= entries["before-first-apply"].keys()
    # An apply with another value conflicts with `before-first-apply`.
    sent["spec"]["replicas"] = 3
    with pytest.raises(ApiError, match="before-first-apply"):
        apply_configuration(
            DEPLOYMENTS, changed, sent, manager="us", force=False, time="2026-01-01T00:00:01Z"
        )
