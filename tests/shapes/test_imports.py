"""Imports take over the Deployments that `apply` takes: of the shapes nine in ten and more."""

from __future__ import annotations

import pytest
import yaml

from pilothouse.namespace.v1 import namespace_pb2
from tests.harness import Server
from tests.main_job.legacy import Kubectl
from tests.shapes.test_shapes import MANIFESTS, PATHS


@pytest.mark.full(minutes=3)
async def test_imports_take_nine_in_ten_of_the_shapes(shared_server: Server) -> None:
    kubectl = Kubectl(shared_server)
    there, taken, refused = 0, 0, []
    for path in MANIFESTS:
        namespace = f"{path.stem}-imported"
        await kubectl.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        for document in yaml.safe_load_all(path.read_text()):
            there += document["kind"] == "Deployment"
            await kubectl.ask("POST", PATHS[document["kind"]][0].format(namespace), document)
        await shared_server.admin.namespaces.create(
            namespace=namespace_pb2.Namespace(name=namespace), adopt=True
        )
        answer = await shared_server.admin.containers.import_(namespace=namespace)
        taken += sum(result.HasField("container") for result in answer.results)
        refused += [
            f"{path.stem}: {result.deployment}: {', '.join(result.problems)}"
            for result in answer.results
            if not result.HasField("container")
        ]
    assert taken + len(refused) == there
    assert taken >= 0.9 * there, "\n".join(refused)
