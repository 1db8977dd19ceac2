"""Imports accept the same Deployments as `apply`, and an imported Deployment is recreated completely when deleted."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import yaml

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_simulator.values.resources import DEPLOYMENTS
from tests.harness import Server
from tests.main_job.legacy import Kubectl
from tests.shapes.differences import differences
from tests.shapes.test_shapes import MANIFESTS, PATHS
from tests.translator.manifests import EXAMPLE
from tests.waiting import poll_until


@pytest.mark.full(minutes=3)
async def test_shapes_are_imported_and_a_deleted_deployment_is_recreated(
    shared_server: Server,
) -> None:
    assert shared_server.cluster is not None
    kubectl, store = Kubectl(shared_server), shared_server.cluster.store
    there: dict[tuple[str, str], dict[str, Any]] = {}
    for path in (*MANIFESTS, EXAMPLE):
        namespace = f"{path.stem}-imported"
        await kubectl.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        documents = [each for each in yaml.safe_load_all(path.read_text()) if each["kind"] in PATHS]
        for document in documents:
            await kubectl.ask("POST", PATHS[document["kind"]][0].format(namespace), document)
        await shared_server.admin.namespaces.create(
            namespace=namespace_pb2.Namespace(name=namespace), adopt=True
        )
        for name in (each["metadata"]["name"] for each in documents if each["kind"] == "Deployment"):
            there[namespace, name] = _there(store, namespace, name)
        answer = await shared_server.admin.containers.import_(namespace=namespace)
        refused = {each.deployment: list(each.problems) for each in answer.results if each.problems}
        assert refused == {}
        for each in answer.results:
            assert each.container.drift_policy == pb.DRIFT_POLICY_REPAIR, each.notes
            kept = {note.partition(":")[0] for note in each.notes if note.endswith("extra_fields")}
            assert kept == set(each.container.extra_fields)
    assert len(there) >= 15
    for (namespace, name), before in there.items():
        await poll_until(partial(_drifted, shared_server, namespace, name), "InSync".__eq__)
        assert _there(store, namespace, name)["spec"] == before["spec"], name
    for namespace, name in there:
        await kubectl.ask("DELETE", f"{PATHS['Deployment'][0].format(namespace)}/{name}")
    for (namespace, name), before in there.items():
        await poll_until(partial(_made_again, store, before))
        after = _there(store, namespace, name)
        assert after["spec"] == before["spec"], name
        assert differences(before, after) == [], name


async def _made_again(store: Any, before: dict[str, Any]) -> bool:
    metadata, spec = before["metadata"], before["spec"]
    found = store.get(DEPLOYMENTS, metadata["namespace"], metadata["name"])
    # The platform creates it without pods first, and scales it later.
    made = found is not None and found["metadata"]["uid"] != metadata["uid"]
    return made and not found["spec"].get("paused") and found["spec"]["replicas"] == spec["replicas"]


def _there(store: Any, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] | None = deepcopy(store.get(DEPLOYMENTS, namespace, name))
    assert found is not None
    # The cluster's number of the current ReplicaSet.
    found["metadata"].get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
    return found


async def _drifted(server: Server, namespace: str, name: str) -> str:
    row = await server.admin.containers.get(namespace=namespace, name=name)
    if row.observed_generation < row.generation:
        return f"{name} is not applied yet"
    found = [each for each in row.conditions if each.type == "Drifted"]
    return "; ".join(each.reason if each.reason == "InSync" else str(each) for each in found)
