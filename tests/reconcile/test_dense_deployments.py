"""Deletion of a Deployment that has more values than the client parses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import TooManyValues
from pilothouse_server.kubernetes.ownership import CONTAINER_UID
from pilothouse_server.reconcile.apply import container_actions
from tests.clusters.hostile import Asked, hostile_server
from tests.kubernetes.containers import container as smallest


@pytest.mark.parametrize("ours", [True, False])
async def test_the_label_decides_the_owner_of_a_dense_deployment(ours: bool) -> None:
    """Without the label only the selector could show the owner, and the selector is not read. Such a Deployment is not
    reported as deleted.
    """
    container = smallest()
    labels = {CONTAINER_UID: container.uid} if ours else {}
    metadata = json.dumps({"metadata": {"name": container.kubernetes_name, "uid": "u", "labels": labels}})
    dense = b'{"metadata": {}, "x": [%s]}' % b",".join([b"{}"] * 500_000)

    async def answer(asked: Asked) -> None:
        await asked.whole(metadata.encode() if "PartialObjectMetadata" in asked.head else dense)

    async with hostile_server(answer) as server:
        client: Any = await ClusterClient.from_kubeconfig(server.kubeconfig(), name="dense")
        try:
            if ours:
                found = await container_actions._workload_to_delete(client, container)
                assert found is not None
                assert found.metadata.uid == "u"
            else:
                with pytest.raises(TooManyValues):
                    await container_actions._workload_to_delete(client, container)
        finally:
            await client.close()
