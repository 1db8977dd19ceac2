"""Settings of a Deployment: set, shown, applied, changed on a live object, refused by field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values.resources import DEPLOYMENTS
from tests.harness import Server
from tests.waiting import poll_until

SETTINGS = pb.DeploymentSettings(
    max_surge="1",
    max_unavailable="0",
    min_ready_seconds=1,
    progress_deadline_seconds=60,
    revision_history_limit=0,
)
RECREATE = pb.DeploymentSettings(strategy="Recreate")


async def make(server: Server, **fields: Any) -> pb.Container:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    return await server.admin.containers.create(
        namespace="demo", container=pb.Container(name="web", image="nginx:1.27", **fields)
    )


async def change(server: Server, container: pb.Container, *paths: str, **more: Any) -> pb.Container:
    return await server.admin.containers.update(
        namespace="demo", name="web", container=container, update_mask=FieldMask(paths=paths), **more
    )


async def spec_where(server: Server, holds: Any) -> dict[str, Any]:
    """Returns the spec of the Deployment, once the desired generation is applied and `holds` is true of the spec."""
    assert server.cluster is not None
    store = server.cluster.store

    async def look() -> dict[str, Any] | None:
        row = await server.admin.containers.get(namespace="demo", name="web")
        refused = [each for each in row.conditions if each.type == "Applied" and each.status != 1]
        assert not refused or not row.observed_generation, refused
        found = store.get(DEPLOYMENTS, "demo", "web")
        done = found is not None and row.observed_generation == row.generation and holds(found["spec"])
        return found["spec"] if found is not None and done else None

    found = await poll_until(look)
    assert found is not None
    return found


async def test_settings_are_shown_and_reach_the_deployment(server: Server) -> None:
    made = await make(server, deployment=SETTINGS)
    assert made.deployment == SETTINGS
    assert made.workload_kind == pb.WORKLOAD_KIND_DEPLOYMENT
    spec = await spec_where(server, lambda spec: spec["strategy"]["rollingUpdate"]["maxSurge"] == 1)
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert (spec["minReadySeconds"], spec["progressDeadlineSeconds"]) == (1, 60)
    assert spec["revisionHistoryLimit"] == 0
    changed = await change(server, pb.Container(), "deployment.max_surge", "deployment.max_unavailable")
    assert (changed.deployment.max_surge, changed.deployment.min_ready_seconds) == ("", 1)
    await spec_where(server, lambda spec: spec["strategy"]["rollingUpdate"]["maxSurge"] == "25%")
    filtered = server.admin.containers.list(namespace="demo", filter="workload_kind = DEPLOYMENT")
    assert [each.name async for each in filtered] == ["web"]


async def test_a_live_deployment_changes_to_recreate_and_back(server: Server) -> None:
    made = await make(server)
    assert made.WhichOneof("workload") is None
    await spec_where(server, lambda spec: spec["strategy"]["type"] == "RollingUpdate")
    # The cluster has filled in settings of rolling updates, which no manager owns and Recreate forbids.
    tried = await change(server, pb.Container(deployment=RECREATE), "deployment", validate_only=True)
    assert tried.deployment == RECREATE
    await change(server, pb.Container(deployment=RECREATE), "deployment")
    spec = await spec_where(server, lambda spec: spec["strategy"]["type"] == "Recreate")
    assert spec["strategy"] == {"type": "Recreate"}
    await change(server, pb.Container(), "deployment")
    await spec_where(server, lambda spec: spec["strategy"]["type"] == "RollingUpdate")
    row = await server.admin.containers.get(namespace="demo", name="web")
    (drifted,) = [each for each in row.conditions if each.type == "Drifted"]
    assert (drifted.status, drifted.reason) == (2, "InSync")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"strategy": "Replace"}, "container.deployment.strategy: must be one of RollingUpdate, Recreate"),
        (
            {"max_surge": "some"},
            "container.deployment.max_surge: must be a whole number or a percentage such as 25%",
        ),
        (
            {"strategy": "Recreate", "max_surge": "1"},
            "container.deployment.max_surge: is only allowed with strategy RollingUpdate",
        ),
        ({"max_unavailable": "101%"}, "container.deployment.max_unavailable: must not be above 100%"),
        (
            {"max_surge": "0", "max_unavailable": "0%"},
            "container.deployment.max_unavailable: must not be 0 if max_surge is 0, too",
        ),
        (
            {"min_ready_seconds": 60, "progress_deadline_seconds": 60},
            "container.deployment.progress_deadline_seconds: must be more than min_ready_seconds (60)",
        ),
    ],
)
async def test_a_broken_rule_of_settings_names_its_field(
    shared_server: Server, settings: dict[str, Any], expected: str
) -> None:
    wanted = pb.Container(name="web", image="nginx:1.27", deployment=pb.DeploymentSettings(**settings))
    with pytest.raises(PilothouseError) as refused:
        await shared_server.admin.containers.create(namespace="demo", container=wanted)
    assert refused.value.message == expected
