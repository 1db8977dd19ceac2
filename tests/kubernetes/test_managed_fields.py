"""The owner of a field by the managed fields, and these after a takeover."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_server.kubernetes import managed_fields

_POD = ".spec.template.spec"
_MINER = f'{_POD}.containers[name="miner"]'
_CONTEXT = f"{_POD}.securityContext.runAsUser"


def _pod(fields: dict[str, Any]) -> dict[str, Any]:
    return {"f:spec": {"f:template": {"f:spec": fields}}}


def _entry(manager: str, operation: str, fields: dict[str, Any], **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}


def _live(*entries: dict[str, Any]) -> dict[str, Any]:
    containers = [{"name": "main", "image": "a"}, {"name": "miner", "image": "b"}]
    spec = {"containers": containers, "securityContext": {"runAsUser": 0}}
    return {
        "apiVersion": "apps/v1",
        "metadata": {"managedFields": list(entries)},
        "spec": {"replicas": 1, "template": {"spec": spec}},
    }


_OURS = _entry("us", "Apply", _pod({"f:containers": {'k:{"name":"main"}': {".": {}, "f:image": {}}}}))
_THEIRS = _entry(
    "them",
    "Update",
    _pod(
        {
            "f:containers": {'k:{"name":"miner"}': {".": {}, "f:image": {}, "f:name": {}}},
            "f:securityContext": {".": {}, "f:runAsUser": {}},
        }
    ),
    time="2026-01-01T00:00:00Z",
)
_NEWEST = _entry("restarter", "Update", {"f:spec": {"f:paused": {}}}, time="2026-01-02T00:00:00Z")
_BELOW = _entry(
    "setter",
    "Update",
    _pod({"f:containers": {'k:{"name":"miner"}': {"f:env": {}}}}),
    time="2026-01-03T00:00:00Z",
)
_STATUS = _entry(
    "controller", "Update", _pod({"f:securityContext": {"f:runAsUser": {}}}), subresource="status"
)


@pytest.mark.parametrize(
    ("path", "manager"),
    [
        (_MINER, "them"),
        (f"{_MINER}.image", "them"),
        (_CONTEXT, "them"),
        (f'{_POD}.containers[name="main"].image', ""),
        (".spec.replicas", ""),
        (".metadata.labels.gone", ""),
    ],
)
def test_a_manager_is_named_if_its_entry_contains_exactly_the_path(path: str, manager: str) -> None:
    live = _live(_OURS, _THEIRS, _NEWEST, _BELOW, _STATUS)
    assert managed_fields.holder(live, path, apart_from="us") == manager


def test_the_placeholder_owner_of_a_cleared_record_is_no_owner() -> None:
    live = _live(_OURS, {**_THEIRS, "manager": managed_fields.BEFORE_FIRST_APPLY})
    assert managed_fields.holder(live, _MINER, apart_from="us") == ""


def test_fields_that_are_taken_over_have_one_owner() -> None:
    live = _live(_OURS, _THEIRS, _NEWEST, _STATUS)
    said = {"spec": {"template": {"spec": {"containers": [{"name": "main"}]}}}}
    ours, *others = managed_fields.taken_over(live, [_MINER, _CONTEXT], "us", said)
    assert ours["fieldsV1"] == _pod(
        {
            "f:containers": {
                'k:{"name":"main"}': {".": {}, "f:image": {}},
                'k:{"name":"miner"}': {".": {}},
            },
            # Its parent must be owned as well, or it would stay behind empty.
            "f:securityContext": {".": {}, "f:runAsUser": {}},
        }
    )
    assert others == [_NEWEST, _STATUS]
    assert _THEIRS in live["metadata"]["managedFields"]


def test_an_entry_is_created_for_a_cleared_record() -> None:
    said = {"spec": {"template": {"spec": {"containers": [{"name": "main"}]}}}}
    (ours,) = managed_fields.taken_over(_live(), [_MINER], "us", said)
    assert (ours["manager"], ours["operation"], ours["apiVersion"]) == ("us", "Apply", "apps/v1")
    assert ours["fieldsV1"] == _pod({"f:containers": {'k:{"name":"miner"}': {".": {}}}})
