"""Volumes of pods on the simulated cluster: the API refuses invalid ones with the messages of Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse_simulator.admission.validation_volumes import validate_volumes

pytestmark = pytest.mark.full

NAME = {"path": "name", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}


def token(**fields: Any) -> dict[str, Any]:
    return {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600, **fields}}


def amount(**fields: Any) -> dict[str, Any]:
    reference = {"containerName": "main", "resource": "limits.cpu", "divisor": "0", **fields}
    return {"downwardAPI": {"items": [{"path": "cpu", "resourceFieldRef": reference}]}}


REFUSED: dict[str, dict[str, Any]] = {
    "v[0]: Required value: must specify a volume type": {},
    "v[0].secret: Forbidden: may not specify more than 1 volume type": {"emptyDir": {}, "secret": {}},
    "v[0].configMap.name: Required value": {"configMap": {}},
    "v[0].secret.secretName: Required value": {"secret": {"name": "a"}},
    "v[0].persistentVolumeClaim.claimName: Required value": {"persistentVolumeClaim": {}},
    "v[0].configMap.items[0].key: Required value": {"configMap": {"name": "a", "items": [{"path": "a"}]}},
    "v[0].secret.items[0].path: Invalid value: \"../a\": must not contain '..'": {
        "secret": {"secretName": "a", "items": [{"key": "a", "path": "../a"}]}
    },
    'v[0].secret.items[0].path: Invalid value: "/a": must be a relative path': {
        "secret": {"secretName": "a", "items": [{"key": "a", "path": "/a"}]}
    },
    "v[0].projected.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive": {
        "projected": {"defaultMode": 512}
    },
    'v[0].projected: Invalid value: "token": conflicting duplicate paths': {
        "projected": {"sources": [token(), token()]}
    },
    "v[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 599: "
    "may not specify a duration less than 10 minutes": {
        "projected": {"sources": [token(expirationSeconds=599)]}
    },
    "v[0].projected.sources[0].secret.name: Required value": {"projected": {"sources": [{"secret": {}}]}},
    "v[0].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required": {
        "downwardAPI": {"items": [{"path": "a"}]}
    },
    "v[0].downwardAPI.items[0].resourceFieldRef.containerName: Required value": amount(containerName=""),
    'v[0].downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: "status.podIP": supported values: '
    '"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"': {
        "downwardAPI": {"items": [{"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}}]}
    },
    "v[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity": {
        "emptyDir": {"sizeLimit": "-1"}
    },
}


def test_a_volume_that_kubernetes_refuses_is_refused() -> None:
    found = {
        words: [
            f"{each.field}: {each.message}" for each in validate_volumes([{"name": "v", **volume}], "v")[1]
        ]
        for words, volume in REFUSED.items()
    }
    assert found == {words: [words] for words in REFUSED}


def test_volumes_of_each_kind_pass() -> None:
    sources: list[dict[str, Any]] = [
        {"emptyDir": {"sizeLimit": "1Gi", "mode": 0o1777}},
        {"configMap": {"name": "a", "defaultMode": 0}},
        {"persistentVolumeClaim": {"claimName": "a"}},
        {"downwardAPI": {"items": [NAME]}},
        amount(resource="requests.hugepages-2Mi"),
        {"projected": {"sources": [token(), {"downwardAPI": {"items": [NAME]}}]}},
        {"nfs": {"server": "a", "path": "/"}},
    ]
    volumes = [{"name": f"v{number}", **source} for number, source in enumerate(sources)]
    assert validate_volumes(volumes, "v") == ({each["name"] for each in volumes}, [])
