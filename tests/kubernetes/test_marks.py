"""Fingerprints of objects: the changes that affect one, and those that do not."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec
import pytest

from pilothouse_server.kubernetes import marks
from pilothouse_server.kubernetes.errors import Unreachable
from pilothouse_server.kubernetes.objects import (
    CONFIG_MAP_METADATA,
    DEPLOYMENTS,
    PODS,
    KubernetesObject,
    Resource,
)

OBJECT: dict[str, Any] = {
    "metadata": {
        "name": "web",
        "uid": "u",
        "generation": 3,
        "resourceVersion": "7",
        "labels": {"a": "1", "b": "2"},
        "annotations": {"note": "x", "deployment.kubernetes.io/revision": "1"},
        "managedFields": [{"manager": "pilothouse"}],
    },
    "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "main", "image": "nginx"}]}}},
    "status": {"replicas": 1},
}


def mark(changes: dict[str, Any], resource: Resource[Any] = DEPLOYMENTS) -> str:
    """The mark of the object with these values, by dotted path."""
    changed = deepcopy(OBJECT)
    for path, value in changes.items():
        *steps, last = path.split("/", 2)
        part = changed
        for step in steps:
            part = part[step]
        part[last] = value
    found: KubernetesObject = marks.read(msgspec.json.encode(changed), resource)
    return found.mark


@pytest.mark.parametrize(
    "changes",
    [
        {"status/replicas": 3, "metadata/resourceVersion": "8"},
        {"metadata/managedFields": []},
        {"metadata/annotations/deployment.kubernetes.io/revision": "2"},
        {"metadata/labels": {"b": "2", "a": "1"}},
    ],
)
def test_what_nobody_wants_of_it_leaves_a_mark_the_same(changes: dict[str, Any]) -> None:
    assert marks.same(mark(changes), mark({}))


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata/labels/a": "2"},
        {"metadata/annotations/note": "y"},
        {"metadata/uid": "v"},
        {"metadata/generation": 2},
        {"spec/replicas": 2},
        {"spec/template": {}},
    ],
)
def test_what_is_wanted_of_it_changes_a_mark(changes: dict[str, Any]) -> None:
    assert marks.changed(mark(changes), mark({}))


def test_of_config_maps_the_version_counts() -> None:
    assert marks.changed(
        mark({"metadata/resourceVersion": "8"}, CONFIG_MAP_METADATA), mark({}, CONFIG_MAP_METADATA)
    )
    assert marks.same(mark({"status/replicas": 2}, CONFIG_MAP_METADATA), mark({}, CONFIG_MAP_METADATA))


def test_what_has_no_marks_is_never_said_to_agree_nor_to_have_changed() -> None:
    assert mark({}, PODS) == ""
    assert not marks.same("", "")
    assert not marks.changed("", "")


def test_an_older_version_is_told_from_a_newer_one_and_from_none() -> None:
    noted = mark({})
    assert marks.older("6", noted)
    assert not marks.older("7", noted)
    assert not marks.older("10", noted)
    assert not marks.older("6", "")
    assert not marks.older("opaque", noted)


@pytest.mark.parametrize(
    ("escaped", "shown"),
    [
        (rb"a\u0000b", "a\ufffdb"),
        (rb"\ud800", "\ufffd"),
        (rb"\uDC00\uD83D", "\ufffd\ufffd"),
        # A character in two halves, and what only looks like an escape.
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\\u0000", r"\u0000"),
        (rb"\\\u0000", "\\\ufffd"),
        (rb"\n\u2028\u00e9", "\n\u2028\xe9"),
    ],
)
def test_what_no_database_holds_is_replaced_where_an_object_is_read(escaped: bytes, shown: str) -> None:
    found = marks.read(b'{"status": {"message": "%b"}}' % escaped, PODS)
    assert found.status.message == shown
    found.status.message.encode()


def test_an_object_that_is_no_text_at_all_is_not_mended() -> None:
    with pytest.raises(Unreachable):
        marks.read(b'{"status": {"message": "%b"}}' % (rb"\u0000" * 400_000), PODS)
