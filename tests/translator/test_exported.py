"""The output of `kubectl get -o yaml` can be applied: fields that the cluster has set are left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.apply.test_volumes import CLAIM
from tests.translator.manifests import NAMESPACE, SERVICE, WEB, documents
from tests.waiting import poll_until

from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.manifest import Manifest
from pilothouse_manifests.translator.problems import Problems
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from pilothouse_server.storage.claims import PERSISTENT_VOLUME_CLAIMS, STORAGE_CLASSES
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.controllers.claims import PROVISIONER

CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: fast}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: keys}
type: Opaque
data: {a: MQ==}
"""
ACCOUNT = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
"""
RESOURCES: list[tuple[Resource[Any], str]] = [
    (DEPLOYMENTS, WEB),
    (SERVICES, SERVICE),
    (CONFIG_MAPS, CONFIG_MAP),
    (SECRETS, SECRET),
    (SERVICE_ACCOUNTS, ACCOUNT),
    # The cluster normalises quantities.
    (PERSISTENT_VOLUME_CLAIMS, CLAIM.replace("1024Mi", "1Gi")),
]


def converted(*texts: str) -> Manifest:
    problems = Problems()
    result = convert(documents(*texts), NAMESPACE, problems)
    assert not problems.all, problems.all
    return result


async def exported(client: ClusterClient) -> list[str]:
    """Returns every object as the cluster returns it when its controllers are done, with kubectl's annotations."""
    await client.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    provider = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": PROVISIONER}
    await client.apply(STORAGE_CLASSES, {**provider, "metadata": {"name": "fast"}})
    for resource, text in RESOURCES:
        manifest = yaml.safe_load(text)
        manifest["metadata"]["namespace"] = NAMESPACE
        manifest["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}\n"}
        await client.apply(resource, manifest)

    async def settled() -> bool:
        deployment = await client.read(DEPLOYMENTS, NAMESPACE, "web")
        claim = await client.read(PERSISTENT_VOLUME_CLAIMS, NAMESPACE, "data")
        bound = claim["status"]["phase"] == "Bound"
        return bound and "deployment.kubernetes.io/revision" in deployment["metadata"]["annotations"]

    await poll_until(settled)
    return [
        yaml.safe_dump(await client.read(resource, NAMESPACE, yaml.safe_load(text)["metadata"]["name"]))
        for resource, text in RESOURCES
    ]


async def test_an_export_translates_like_the_applied_manifest() -> None:
    async with SimulatedCluster(speed=50.0) as cluster:
        client = await ClusterClient.from_kubeconfig(cluster.kubeconfig(), name="test")
        try:
            texts = await exported(client)
        finally:
            await client.close()
    for words in ("uid:", "resourceVersion:", "creationTimestamp:", "managedFields:"):
        assert all(words in text for text in texts)
    assert "clusterIPs:" in texts[1]
    assert "volumeName:" in texts[5]
    found, plain = converted(*texts), converted(*(text for _, text in RESOURCES))
    # The export states the defaults of a pod explicitly; their meaning is the same.
    (web,), (same,) = found.workloads, plain.workloads
    assert (web.name, web.values["image"]) == (same.name, same.values["image"])
    assert web.values["labels"] == same.values["labels"]
    assert not web.values["annotations"]
    ports = [
        [(port.name, port.number, port.target, port.node_port) for port in each.services[0].ports]
        for each in (found, plain)
    ]
    assert ports[0] == ports[1]
    assert found.services[0].service_type == plain.services[0].service_type
    assert [each.values for each in found.configs] == [each.values for each in plain.configs]
    assert [each.values for each in found.volumes] == [each.values for each in plain.volumes]


def recorded_deployment() -> dict[str, Any]:
    """Returns a Deployment as a real cluster returned it."""
    path = Path(__file__).parents[1] / "recordings" / "03a-deployment-server-side-apply.json"
    text = path.read_text()
    found = next(
        each for each in _objects(json.loads(text)) if each["kind"] == "Deployment" and each.get("status")
    )
    found["metadata"]["namespace"] = NAMESPACE
    return found


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if {"apiVersion", "kind", "metadata"} <= node.keys() and "uid" in node["metadata"]:
            yield node
        for inner in node.values():
            yield from _objects(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _objects(inner)
    elif isinstance(node, str) and node.startswith("{"):
        with suppress(ValueError):
            yield from _objects(json.loads(node))


def test_cluster_set_fields_are_dropped_with_one_note_per_document() -> None:
    recorded = recorded_deployment()
    recorded["spec"]["template"]["metadata"]["creationTimestamp"] = None
    problems = Problems()
    convert(documents(yaml.safe_dump(recorded), SERVICE, CONFIG_MAP), NAMESPACE, problems)
    assert not problems.all, [str(each) for each in problems.all]
    (note,) = map(str, problems.notes)
    subject = f"deployment/{recorded['metadata']['name']}"
    assert f"{subject}: leaves out what the cluster sets: metadata.creationTimestamp, " in note
    for name in ("generation", "managedFields", "resourceVersion", "uid"):
        assert note.count(f"metadata.{name}") == 1
    assert note.endswith(", status")
    assert "template" not in note


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("finalizers", ["a/b"]),
        ("ownerReferences", [{"uid": "u"}]),
        ("generateName", "web-"),
        ("namespace", "kube-system"),
    ],
)
def test_metadata_with_further_effects_is_refused_by_its_path(field: str, value: Any) -> None:
    document = yaml.safe_load(WEB)
    document["metadata"][field] = value
    problems = Problems()
    convert(documents(yaml.safe_dump(document)), NAMESPACE, problems)
    (told,) = problems.all
    assert told.path == f"metadata.{field}"
    assert not problems.notes


def test_a_cluster_ip_is_requested_unless_a_cluster_assigned_it() -> None:
    (asked,) = converted(SERVICE + "  clusterIP: 10.96.0.7\n").services
    assert asked.values["cluster_ip"] == "10.96.0.7"
    given = SERVICE.replace("{name: web}", "{name: web, uid: u}") + "  clusterIP: 10.96.0.7\n"
    (known,) = converted(given).services
    assert "cluster_ip" not in known.values
