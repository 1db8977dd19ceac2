"""Labels and annotations of pods: copied from the container once, then separate; and rows that have none yet."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values.resources import DEPLOYMENTS
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import poll_until

CHART = {"app": "web", "helm.sh/chart": "web-1.0.0"}


async def make(server: Server, **fields: Any) -> pb.Container:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    return await server.admin.containers.create(
        namespace="demo", container=pb.Container(name="web", image="nginx:1.27", **fields)
    )


async def change(server: Server, container: pb.Container, *paths: str) -> pb.Container:
    return await server.admin.containers.update(
        namespace="demo", name="web", container=container, update_mask=FieldMask(paths=paths)
    )


async def applied(server: Server) -> dict[str, Any]:
    """Returns the Deployment, once the desired generation is observed."""
    assert server.cluster is not None
    store = server.cluster.store

    async def look() -> bool:
        row = await server.admin.containers.get(namespace="demo", name="web")
        return row.observed_generation == row.generation

    await poll_until(look)
    found = store.get(DEPLOYMENTS, "demo", "web")
    assert found is not None
    return found


def theirs(pods: dict[str, Any], of: str = "labels") -> dict[str, str]:
    found = pods["metadata"].get(of) or {}
    return {key: text for key, text in found.items() if not key.startswith(("pilothouse.dev", "app.kube"))}


async def test_a_later_label_of_the_container_does_not_change_pods(server: Server) -> None:
    made = await make(server, labels=CHART, annotations={"note": "one"})
    assert dict(made.pod_labels) == CHART
    assert dict(made.pod_annotations) == {"note": "one"}
    before = await applied(server)
    assert theirs(before["spec"]["template"]) == CHART

    later = {**CHART, "helm.sh/chart": "web-1.0.1"}
    changed = await change(server, pb.Container(labels=later), "labels", "annotations")
    assert dict(changed.pod_labels) == CHART
    after = await applied(server)
    assert theirs(after) == later
    assert "note" not in theirs(after, "annotations")
    assert after["spec"]["template"] == before["spec"]["template"]

    await change(server, pb.Container(), "pod_labels", "pod_annotations")
    emptied = await applied(server)
    assert theirs(emptied["spec"]["template"]) == {}
    assert "note" not in (emptied["spec"]["template"]["metadata"].get("annotations") or {})
    found = await server.admin.containers.get(namespace="demo", name="web")
    assert (dict(found.pod_labels), dict(found.labels)) == ({}, later)


async def test_pods_have_their_own_labels(server: Server) -> None:
    made = await make(server, labels={"team": "a"}, pod_labels={"tier": "b"}, annotations={"note": "one"})
    assert (dict(made.pod_labels), dict(made.pod_annotations)) == ({"tier": "b"}, {})
    template = (await applied(server))["spec"]["template"]
    assert theirs(template) == {"tier": "b"}
    with pytest.raises(PilothouseError) as refused:
        await change(server, pb.Container(pod_labels={"pilothouse.dev/container-uid": "x"}), "pod_labels")
    assert refused.value.message.startswith('container.pod_labels: "pilothouse.dev/container-uid"')


async def test_a_row_without_pod_labels_restarts_no_pod(database: Database, tmp_path: Any) -> None:
    """A server of the previous release wrote the row; readers then use the container's own labels."""
    async with running_server(database, tmp_path) as server:
        await make(server, labels=CHART, annotations={"note": "one"})
        before = await applied(server)
        async with database.owner() as owner:
            await owner.execute("UPDATE containers SET spec = spec - 'pod_labels' - 'pod_annotations'")
        changed = await change(server, pb.Container(replicas=2), "replicas")
        assert dict(changed.pod_labels) == CHART
        assert (await applied(server))["spec"]["template"] == before["spec"]["template"]
