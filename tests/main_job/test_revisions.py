"""Revisions of a container, and rollbacks to one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.legacy import Kubectl
from tests.waiting import poll_until

NAMESPACE = "revisions"
FIRST = pb.Container(
    name="web",
    image="nginx:1.27",
    replicas=2,
    labels={"app": "web"},
    env=[pb.EnvVar(name="LEVEL", value="info"), pb.EnvVar(name="COLOUR", value="red")],
    ports=[pb.Port(name="http", container_port=80)],
    resources=pb.Resources(cpu_request="100m", memory_limit="64Mi"),
    probes=pb.Probes(readiness=pb.Probe(http_get=pb.HttpGetAction(path="/ready", port=80))),
    args=["--first"],
)
SECOND = pb.Container(
    name="web",
    image="nginx:1.28",
    replicas=3,
    labels={"app": "web", "tier": "front"},
    env=[pb.EnvVar(name="LEVEL", value="debug")],
    ports=[pb.Port(name="http", container_port=8080)],
    args=["--second"],
)
PATHS = ["image", "replicas", "labels", "env", "ports", "resources", "probes", "args"]


@pytest.fixture(scope="module")
async def demo(shared_server: Server) -> Server:
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE))
    return shared_server


async def revisions(server: Server, name: str, number: int = 0) -> list[resource_pb2.Revision]:
    found = server.admin.containers.list_revisions(namespace=NAMESPACE, name=name, number=number)
    return [revision async for revision in found]


async def update(server: Server, name: str, **fields: Any) -> pb.Container:
    return await server.admin.containers.update(
        namespace=NAMESPACE,
        name=name,
        container=pb.Container(name=name, **fields),
        update_mask=FieldMask(paths=list(fields)),
    )


def desired(container: pb.Container) -> pb.Container:
    """Returns only the fields that callers set."""
    found = pb.Container()
    for path in ("name", *PATHS):
        FieldMask(paths=[path]).MergeMessage(container, found)
    return found


async def test_a_rollback_restores_every_field_as_a_new_revision(demo: Server) -> None:
    containers = demo.admin.containers
    first = await containers.create(namespace=NAMESPACE, container=FIRST)
    second = await containers.update(
        namespace=NAMESPACE, name="web", container=SECOND, update_mask=FieldMask(paths=PATHS)
    )
    assert desired(second) != desired(first)
    tried = await containers.rollback(namespace=NAMESPACE, name="web", validate_only=True)
    assert len(await revisions(demo, "web")) == 2
    answer = await containers.rollback(namespace=NAMESPACE, name="web")
    assert (answer.revision, list(answer.not_restored)) == (1, [])
    assert desired(answer.container) == desired(first) == desired(tried.container)
    assert {change.path for change in answer.changes} == {change.path for change in tried.changes}
    newest, middle, oldest = await revisions(demo, "web")
    assert [each.number for each in (newest, middle, oldest)] == [3, 2, 1]
    assert [each.origin for each in (newest, middle, oldest)] == [1, 0, 0]
    assert {each.created_by for each in (newest, middle, oldest)} == {"admin"}
    assert not oldest.changes
    assert not newest.documents
    changes = {each.path: (each.before, each.after) for each in middle.changes}
    assert changes["image"] == ('"nginx:1.27"', '"nginx:1.28"')
    assert changes["env.LEVEL.value"] == ('"info"', '"debug"')
    assert (json.loads(changes["env.COLOUR"][0])["value"], changes["env.COLOUR"][1]) == ("red", "")
    assert changes["replicas"] == ("2", "3")
    assert {each.path: (each.after, each.before) for each in newest.changes} == changes
    record = await demo.admin.audit.get_operation(operation_id=newest.operation_id)
    assert record.metadata is not None
    assert (record.action, record.metadata["revision"]) == ("rollback", 1)

    async def on_cluster() -> bool:
        assert demo.cluster is not None
        found = demo.cluster.store.get(resources.DEPLOYMENTS, NAMESPACE, "web")
        if found is None:
            return False
        [program] = found["spec"]["template"]["spec"]["containers"]
        return (program["image"], program["args"], found["spec"]["replicas"]) == (
            "nginx:1.27",
            ["--first"],
            2,
        )

    await poll_until(on_cluster)


async def test_one_revision_is_shown_with_its_document(demo: Server) -> None:
    await demo.admin.containers.create(namespace=NAMESPACE, container=pb.Container(name="one", image="a:1"))
    await update(demo, "one", image="a:2")
    [revision] = await revisions(demo, "one", 1)
    document = json.loads(revision.documents[0])
    assert (document["name"], document["image"], document["replicas"]) == ("one", "a:1", 1)
    with pytest.raises(PilothouseError, match='revision "7"'):
        await revisions(demo, "one", 7)


async def test_only_changes_of_desired_fields_make_revisions(demo: Server) -> None:
    containers = demo.admin.containers
    await containers.create(namespace=NAMESPACE, container=pb.Container(name="calm", image="a:1"))
    for call in (containers.stop, containers.start, containers.restart, containers.pause, containers.resume):
        await call(namespace=NAMESPACE, name="calm")
    await update(demo, "calm", image="a:1")
    assert [each.number for each in await revisions(demo, "calm")] == [1]
    # A rollback to a revision of a running container does not change the present state.
    await update(demo, "calm", image="a:2")
    await containers.stop(namespace=NAMESPACE, name="calm")
    answer = await containers.rollback(namespace=NAMESPACE, name="calm", revision=1)
    assert answer.container.status == pb.CONTAINER_STATUS_STOPPED
    again = await containers.rollback(namespace=NAMESPACE, name="calm", revision=1)
    assert not again.changes
    assert [each.number for each in await revisions(demo, "calm")] == [3, 2, 1]


async def test_the_oldest_revisions_are_deleted(demo: Server) -> None:
    container = pb.Container(name="many", image="a:1", revisions_kept=3)
    await demo.admin.containers.create(namespace=NAMESPACE, container=container)
    for number in range(2, 7):
        await update(demo, "many", image=f"a:{number}")
    assert [each.number for each in await revisions(demo, "many")] == [6, 5, 4]
    with pytest.raises(PilothouseError, match='revision "2"'):
        await demo.admin.containers.rollback(namespace=NAMESPACE, name="many", revision=2)
    # Also by size: two of them contain more than two megabytes that do not compress.
    async with demo.database.system() as sql:
        await sql.execute(
            "UPDATE revisions SET document = document || jsonb_build_object('x', (SELECT string_agg("
            "md5(random()::text), '') FROM generate_series(1, 70000))) WHERE number IN (5, 6)"
            " AND resource_id = (SELECT id FROM containers WHERE name = 'many')"
        )
    await update(demo, "many", image="a:7")
    assert [each.number for each in await revisions(demo, "many")] == [7, 6]


async def test_a_rollback_needs_the_permissions_of_a_change(demo: Server) -> None:
    containers = demo.admin.containers
    powerful = pb.Container(name="power", image="a:1", security_context=pb.SecurityContext(privileged=True))
    await containers.create(namespace=NAMESPACE, container=powerful)
    await containers.update(
        namespace=NAMESPACE,
        name="power",
        container=pb.Container(name="power"),
        update_mask=FieldMask(paths=["security_context"]),
    )
    user = await demo.user("revisions-operator", {NAMESPACE: "operator"})
    with pytest.raises(PilothouseError, match=r"container\.privileged"):
        await user.containers.rollback(namespace=NAMESPACE, name="power")
    viewer = await demo.user("revisions-viewer", {NAMESPACE: "viewer"})
    listed = viewer.containers.list_revisions(namespace=NAMESPACE, name="power")
    assert [each.number async for each in listed] == [2, 1]
    with pytest.raises(PilothouseError, match=r"container\.update"):
        await viewer.containers.rollback(namespace=NAMESPACE, name="power")
    with pytest.raises(PilothouseError, match="revision"):
        await containers.rollback(namespace=NAMESPACE, name="power", revision=9)


async def test_a_container_of_an_earlier_release_gets_two_revisions_when_changed(demo: Server) -> None:
    await demo.admin.containers.create(namespace=NAMESPACE, container=pb.Container(name="old", image="a:1"))
    async with demo.database.system() as sql:
        await sql.execute(
            "DELETE FROM revisions WHERE resource_id = (SELECT id FROM containers WHERE name = 'old')"
        )
        await sql.execute("UPDATE containers SET revision_number = 0 WHERE name = 'old'")
    assert not await revisions(demo, "old")
    with pytest.raises(PilothouseError, match="revision"):
        await demo.admin.containers.rollback(namespace=NAMESPACE, name="old")
    await update(demo, "old", image="a:2")
    second, first = await revisions(demo, "old")
    assert (first.number, first.created_by, second.number) == (1, "", 2)
    answer = await demo.admin.containers.rollback(namespace=NAMESPACE, name="old")
    assert answer.container.image == "a:1"


async def test_revisions_are_deleted_with_their_container(demo: Server) -> None:
    await demo.admin.containers.create(namespace=NAMESPACE, container=pb.Container(name="gone", image="a:1"))
    async with demo.database.system() as sql:
        found = await sql.fetchval("SELECT id FROM containers WHERE name = 'gone'")
    await demo.admin.containers.delete(namespace=NAMESPACE, name="gone")

    async def forgotten() -> bool:
        async with demo.database.system() as sql:
            left: int = await sql.fetchval("SELECT count(*) FROM revisions WHERE resource_id = $1", found)
            return left == 0

    await poll_until(forgotten)


async def test_an_adopted_value_of_others_is_a_revision(demo: Server) -> None:
    assert demo.cluster is not None
    container = pb.Container(name="theirs", image="a:1", drift_policy=pb.DRIFT_POLICY_ADOPT)
    await demo.admin.containers.create(namespace=NAMESPACE, container=container)

    async def settled() -> bool:
        found = await demo.admin.containers.get(namespace=NAMESPACE, name="theirs")
        return found.status == pb.CONTAINER_STATUS_RUNNING and not found.reconciling

    await poll_until(settled)
    kubectl = Kubectl(demo)
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/theirs"
    image = {"name": "main", "image": "a:2"}
    await kubectl.ask(
        "PATCH",
        path,
        {"spec": {"template": {"spec": {"containers": [image]}}}},
        "strategic-merge-patch+json",
    )

    async def adopted() -> bool:
        return len(await revisions(demo, "theirs")) == 2

    await poll_until(adopted)
    newest, _ = await revisions(demo, "theirs")
    assert [(each.path, each.after) for each in newest.changes] == [("image", '"a:2"')]
    assert newest.created_by in ("", "system")
    answer = await demo.admin.containers.rollback(namespace=NAMESPACE, name="theirs")
    assert answer.container.image == "a:1"
