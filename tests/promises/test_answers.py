"""The response of a create equals the message that a later get returns."""

from __future__ import annotations

from typing import Any

import pytest

from tests.promises.environment import Environment
from tests.promises.requests import OWN, config_map, secret, volume

WIDE: dict[str, Any] = {
    "name": "wide",
    "displayName": "Wide",
    "image": "registry.example.org/team/app@sha256:" + "a" * 64,
    "command": ["/bin/app"],
    "args": ["--serve"],
    "env": [
        {"name": "SECOND", "value": "2"},
        {"name": "FIRST", "value": "1"},
        {
            "name": "FROM_MAP",
            "valueFrom": "ENV_VALUE_FROM_CONFIG_MAP",
            "sourceName": "settings",
            "sourceKey": "a.conf",
        },
        {"name": "NODE", "valueFrom": "ENV_VALUE_FROM_FIELD_REF", "sourceKey": "spec.nodeName"},
    ],
    "ports": [
        {"name": "web", "containerPort": 8080, "servicePort": 80},
        {"name": "admin", "containerPort": 9090, "serviceName": "wide-admin", "servicePort": 9090},
    ],
    "volumeMounts": [
        {"volume": "scratch", "mountPath": "/scratch"},
        {"volume": "data", "mountPath": "/data", "subPath": "app"},
    ],
    "emptyDirs": [{"name": "scratch", "sizeLimit": "1Gi"}],
    "resources": {"cpuRequest": "0.1", "cpuLimit": "1", "memoryRequest": "64Mi", "memoryLimit": "128Mi"},
    "replicas": 3,
    "labels": {"tier": "front"},
    "annotations": {"team": "one"},
    "initContainers": [
        {
            "name": "prepare",
            "image": "busybox:1.37",
            "volumeMounts": [{"volume": "data", "mountPath": "/prepare"}],
        }
    ],
    "serviceAccount": "wide",
    "nodeSelector": {"disk": "fast"},
    "terminationGraceSeconds": 20,
    "driftPolicy": "DRIFT_POLICY_REPORT",
}
SMALL = {"name": "small", "image": "nginx:1.27"}


@pytest.mark.parametrize("wanted", [WIDE, SMALL], ids=["wide", "small"])
async def test_the_response_of_a_create_equals_the_stored_container(
    environment: Environment, wanted: dict[str, Any]
) -> None:
    await environment.must("CreateConfigMap", {"namespace": OWN, "configMap": config_map("settings")})
    await environment.must("CreateSecret", {"namespace": OWN, "secret": secret("keys")})
    await environment.must("CreateVolume", {"namespace": OWN, "volume": volume("data")})
    created = (await environment.must("CreateContainer", {"namespace": OWN, "container": wanted})).container
    read = (await environment.must("GetContainer", {"namespace": OWN, "name": wanted["name"]})).container
    assert created.uid
    # The uptime may grow between the two calls.
    created.ClearField("uptime")
    read.ClearField("uptime")
    assert created == read
    history = (
        await environment.must("ListStatusHistory", {"namespace": OWN, "name": wanted["name"]})
    ).status_changes
    assert [(line.username, bool(line.operation_id)) for line in history] == [("admin", True)]
    async with environment.sql() as sql:
        work = await sql.fetchval(
            "SELECT count(*) FROM reconcile_work AS w JOIN containers AS c ON c.id = w.resource_id "
            "WHERE w.resource_type = 'container' AND c.name = $1",
            wanted["name"],
        )
    assert work == 1
