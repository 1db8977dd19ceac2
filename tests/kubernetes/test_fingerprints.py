"""Fingerprints of objects: the changes that affect one, and those that do not."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec
import pytest

from pilothouse_server.kubernetes import fingerprints
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
    """Returns the fingerprint of the object with these values, by path with slashes."""
    changed = deepcopy(OBJECT)
    for path, value in changes.items():
        *steps, last = path.split("/", 2)
        part = changed
        for step in steps:
            part = part[step]
        part[last] = value
    found: KubernetesObject = fingerprints.read(msgspec.json.encode(changed), resource)
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
def test_irrelevant_changes_keep_the_fingerprint(changes: dict[str, Any]) -> None:
    assert fingerprints.same(mark(changes), mark({}))


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
def test_relevant_changes_alter_the_fingerprint(changes: dict[str, Any]) -> None:
    assert fingerprints.changed(mark(changes), mark({}))


def test_the_fingerprint_of_a_config_map_depends_on_its_version() -> None:
    assert fingerprints.changed(
        mark({"metadata/resourceVersion": "8"}, CONFIG_MAP_METADATA), mark({}, CONFIG_MAP_METADATA)
    )
    assert fingerprints.same(mark({"status/replicas": 2}, CONFIG_MAP_METADATA), mark({}, CONFIG_MAP_METADATA))


def test_objects_without_fingerprints_are_neither_same_nor_changed() -> None:
    assert mark({}, PODS) == ""
    assert not fingerprints.same("", "")
    assert not fingerprints.changed("", "")


def test_an_older_version_differs_from_a_newer_one_and_from_none() -> None:
    noted = mark({})
    assert fingerprints.older("6", noted)
    assert not fingerprints.older("7", noted)
    assert not fingerprints.older("10", noted)
    assert not fingerprints.older("6", "")
    assert not fingerprints.older("opaque", noted)


@pytest.mark.parametrize(
    ("escaped", "shown"),
    [
        (rb"a\u0000b", "a\ufffdb"),
        (rb"\ud800", "\ufffd"),
        (rb"\uDC00\uD83D", "\ufffd\ufffd"),
        # A surrogate pair is one character; the second text only looks like an escape.
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\\u0000", r"\u0000"),
        (rb"\\\u0000", "\\\ufffd"),
        (rb"\n\u2028\u00e9", "\n\u2028\xe9"),
    ],
)
def test_characters_that_no_database_stores_are_replaced_on_reading(escaped: bytes, shown: str) -> None:
    found = fingerprints.read(b'{"status": {"message": "%b"}}' % escaped, PODS)
    assert found.status.message == shown
    found.status.message.encode()


def test_an_object_of_invalid_characters_alone_is_refused() -> None:
    with pytest.raises(Unreachable):
        fingerprints.read(b'{"status": {"message": "%b"}}' % (rb"\u0000" * 400_000), PODS)
