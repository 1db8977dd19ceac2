"""The schemas of a cluster's own OpenAPI: read once for each hash.

Their size is limited, and they never cause a failure.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from pilothouse_manifests.schemas.openapi import definitions_of
from pilothouse_server.kubernetes import openapi
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.openapi import ClusterSchemas
from pilothouse_simulator import SimulatedCluster

APPS = "apps/v1"
ADDRESS = "/openapi/v3/apis/apps/v1"


async def test_schemas_are_read_from_a_cluster_and_cached() -> None:
    async with SimulatedCluster() as cluster:
        client = await ClusterClient.from_kubeconfig(cluster.kubeconfig(), name="near")
        try:
            schemas = ClusterSchemas()
            found = await schemas.read(client, APPS)
            assert found is not None
            assert found.has(APPS, "Deployment", "spec.template.spec.containers[0].lifecycle.stopSignal")
            assert found.meant(APPS, "Deployment", "spec.replica") == "replicas"
            problem = list(found.problems(APPS, "Deployment", "spec.template.spec.hostAliases", {}))
            assert [rule for _, rule in problem] == ["must be a list, not an object"]
            # The hash is the same, so the document is not read again.
            assert await schemas.read(client, APPS) is found
            assert await schemas.read(client, "example.com/v1") is None
            cluster.faults.refuse_connections = True
            assert await schemas.read(client, APPS) is None
        finally:
            await client.close()


class Answers:
    """A cluster that returns these documents by their path.

    A real cluster does not send such documents.
    """

    server = "https://odd.example"

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self.documents = documents
        self.asked: list[str] = []

    async def document(self, path: str, query: Mapping[str, str]) -> bytes:
        self.asked.append(path)
        return self.documents[path]


def _index(address: Any) -> bytes:
    return json.dumps({"paths": {"apis/apps/v1": {"serverRelativeURL": address}}}).encode()


@pytest.mark.parametrize(
    ("index", "body"),
    [
        (b"[]", b""),
        (b"{", b""),
        (_index("https://elsewhere.example/openapi/v3/x"), b""),
        (_index("/api/v1/secrets"), b""),
        (_index(7), b""),
        (_index(ADDRESS), b"[1]"),
        (_index(ADDRESS), b'{"components": {"schemas": {"a": 1}}}'),
        (_index(ADDRESS), b'{"components": {"schemas": {"a": {"properties": []}}}}'),
        (_index(ADDRESS), b'{"components": {"schemas": {"a": ' + b'{"items":' * 5000 + b"1" + b"}" * 5002),
        (_index(ADDRESS), b" " * (8 * 1024 * 1024 + 1)),
        (_index(ADDRESS), b"\xff"),
        (_index(ADDRESS), b'{"components": {"schemas": {"a": {"properties": {"b": {"$ref": 7}}}}}}'),
        (_index(ADDRESS), b'{"components": {"schemas": {"a": {"properties": {"b": {"$ref": ["#/x"]}}}}}}'),
    ],
)
async def test_an_unusable_document_is_ignored(index: bytes, body: bytes) -> None:
    cluster: Any = Answers({"/openapi/v3": index, ADDRESS: body})
    schemas = ClusterSchemas()
    assert await schemas.read(cluster, APPS) is None
    assert set(cluster.asked) <= {"/openapi/v3", ADDRESS}


async def test_references_stay_in_the_document_and_cycles_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {
        "file": {"$ref": "file:///etc/passwd"},
        "far": {"$ref": "https://elsewhere.example/openapi/v3#/components/schemas/a"},
        "up": {"$ref": "#/components/schemas/../../paths"},
        "missing": {"$ref": "#/components/schemas/none"},
        "circle": {"$ref": "#/components/schemas/one"},
    }
    thing = {
        "properties": fields,
        "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}],
    }
    circle = {"one": {"$ref": "#/components/schemas/two"}, "two": {"$ref": "#/components/schemas/one"}}
    body = json.dumps({"components": {"schemas": {"thing": thing, **circle}}}).encode()
    cluster: Any = Answers({"/openapi/v3": _index(ADDRESS), ADDRESS: body})
    threads = []

    def noted(document: Mapping[str, Any]) -> dict[str, Any]:
        threads.append(threading.get_ident())
        return definitions_of(document)

    monkeypatch.setattr(openapi, "definitions_of", noted)
    found = await ClusterSchemas().read(cluster, APPS)
    assert found is not None
    for name in fields:
        assert list(found.problems(APPS, "Deployment", name, {"a": [1]}, complete=True)) == []
    assert cluster.asked == ["/openapi/v3", ADDRESS]
    # Parsing megabytes takes long, so it does not run on the event loop.
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_a_document_with_a_new_hash_is_read_again() -> None:
    def documents(mode: str, digest: str) -> dict[str, bytes]:
        thing = {
            "properties": {"mode": {"type": "string", "enum": [mode]}},
            "x-kubernetes-group-version-kind": [{"group": "apps", "version": "v1", "kind": "Deployment"}],
        }
        body = json.dumps({"components": {"schemas": {"thing": thing}}}).encode()
        return {"/openapi/v3": _index(f"{ADDRESS}?hash={digest}"), ADDRESS: body}

    cluster: Any = Answers(documents("old", "1"))
    schemas = ClusterSchemas()
    for digest, mode in (("1", "old"), ("2", "new")):
        cluster.documents = documents(mode, digest)
        found = await schemas.read(cluster, APPS)
        assert found is not None
        assert list(found.problems(APPS, "Deployment", "mode", "x")) == [("mode", f"must be one of {mode}")]
    asked = len(cluster.asked)
    await schemas.read(cluster, APPS)
    assert len(cluster.asked) == asked + 1
