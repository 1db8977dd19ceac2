"""The writes of Deployments, as recorded: server-side apply, patches, PUT, scale, status, refusals."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pilothouse_simulator import SimulatedCluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_APPLY = "03a-deployment-server-side-apply"
_VALIDATION = "03b-deployment-validation"
_PATCHES = "03c-deployment-patches-put-scale"
_OTHER_UID = "00000000-0000-0000-0000-000000000001"
# The number of templates that the controllers see before the next request varies by milliseconds.
_REVISION = frozenset({"deployment.kubernetes.io/revision"})


def _changed_env(run: Replay) -> JsonObject:
    """Returns the body of exchange 2 with another value; the recording shows the body of the next request here."""
    body: JsonObject = copy.deepcopy(run.recording["exchanges"][2]["request"]["body"])
    body["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "11"
    return body


def _named_web(run: Replay) -> JsonObject:
    """Returns the recorded body with its real name; the recording shows the name of a later request."""
    body: JsonObject = copy.deepcopy(run.recording["exchanges"][23]["request"]["body"])
    body["metadata"]["name"] = "web"
    return body


@virtual_time
async def test_server_side_apply_is_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(
            cluster,
            _APPLY,
            Options(
                bodies={4: _changed_env, 23: _named_web}, varying=_REVISION, racing=frozenset({18, 19, 43})
            ),
        )
    check(_APPLY, differences)


def _deployment(annotation_length: int = 0, value_length: int = 0) -> JsonObject:
    container: JsonObject = {"name": "app", "image": "busybox:1"}
    if value_length:
        container["env"] = [{"name": "A", "value": "x" * value_length}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "big", "annotations": {"a": "x" * annotation_length}},
        "spec": {
            "selector": {"matchLabels": {"app": "big"}},
            "template": {"metadata": {"labels": {"app": "big"}}, "spec": {"containers": [container]}},
        },
    }


@virtual_time
async def test_refusals_of_bad_bodies_are_as_recorded() -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}}
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(
            cluster,
            _VALIDATION,
            Options(
                bodies={
                    36: lambda _: _deployment(annotation_length=3_200_000),
                    37: lambda _: _deployment(annotation_length=270_000),
                    38: lambda _: _deployment(value_length=1_600_000),
                    39: lambda _: {**config_map, "data": {"a": "x" * 1_100_000}},
                }
            ),
        )
    check(_VALIDATION, differences)


def _stored(run: Replay, **metadata: Any) -> JsonObject:
    """Returns the object of the GET in exchange 16 with replaced metadata; None removes a field."""
    body: JsonObject = copy.deepcopy(run.answers[16])
    for name, value in metadata.items():
        if value is None:
            body["metadata"].pop(name)
        else:
            body["metadata"][name] = value
    return body


def _annotated(run: Replay) -> JsonObject:
    annotations = {**run.answers[16]["metadata"]["annotations"], "k": "v"}
    return _stored(run, annotations=annotations)


def _scale(run: Replay) -> JsonObject:
    """Returns the recorded body with the current resourceVersion, which came from an unrecorded read."""
    body: JsonObject = run.substitutions.apply(run.recording["exchanges"][24]["request"]["body"])
    deployments = [obj for _, obj in run.cluster.store.objects() if obj["kind"] == "Deployment"]
    body["metadata"]["resourceVersion"] = deployments[0]["metadata"]["resourceVersion"]
    return body


@virtual_time
async def test_patches_put_and_scale_are_as_recorded() -> None:
    async with SimulatedCluster(speed=20) as cluster:
        differences = await replay(
            cluster,
            _PATCHES,
            Options(
                bodies={
                    17: _annotated,
                    18: _stored,
                    19: lambda run: _stored(run, resourceVersion=None),
                    20: lambda run: _stored(run, resourceVersion=None, uid=_OTHER_UID),
                    24: _scale,
                },
                varying=_REVISION,
            ),
        )
    check(_PATCHES, differences)
