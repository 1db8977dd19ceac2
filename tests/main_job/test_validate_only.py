"""`validate_only` reports the cluster's response, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError, RetryPolicy
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, NAMESPACES
from tests.conftest import connection
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.waiting import poll_until


def served(name: str, node_port: int) -> pb.Container:
    port = pb.Port(container_port=80, node_port=node_port, service_type=pb.SERVICE_TYPE_NODE_PORT)
    return pb.Container(name=name, image="nginx:1.27", ports=[port])


@asynccontextmanager
async def demo(server: Server) -> AsyncIterator[ClusterClient]:
    """Yields a client of the cluster, which has the namespace and a container with a node port."""
    assert server.cluster is not None
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    await server.admin.containers.create(namespace="demo", container=served("first", 30123))

    async def running() -> bool:
        found = await server.admin.containers.get(namespace="demo", name="first")
        return found.status == pb.CONTAINER_STATUS_RUNNING

    await poll_until(running)
    client = await ClusterClient.from_kubeconfig(server.cluster.kubeconfig(), name="local")
    yield client
    await client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(shared_server: Server) -> AsyncIterator[ClusterClient]:
    """Yields a client for tests with dry runs only."""
    async with demo(shared_server) as made:
        yield made


async def refusal(call: Any) -> PilothouseError:
    with pytest.raises(PilothouseError) as refused:
        await call
    return refused.value


async def test_the_clusters_refusal_is_reported_with_its_message_and_fields(
    shared_server: Server, client: ClusterClient
) -> None:
    containers = shared_server.admin.containers
    good = await containers.create(namespace="demo", container=served("second", 30124), validate_only=True)
    assert good.name == "second"
    error = await refusal(
        containers.create(namespace="demo", container=served("second", 30123), validate_only=True)
    )
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "CLUSTER_REFUSED")
    assert "provided port is already allocated" in str(error)
    assert "spec.ports[0].nodePort" in error.metadata["fields"]
    taken = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "theirs", "namespace": "demo"},
        "spec": {
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {
                "metadata": {"labels": {"app": "theirs"}},
                "spec": {"containers": [{"name": "main", "image": "nginx:1.27"}]},
            },
        },
    }
    await client.apply(DEPLOYMENTS, taken)
    error = await refusal(
        containers.create(
            namespace="demo",
            container=pb.Container(name="theirs", image="nginx:1.27"),
            validate_only=True,
        )
    )
    assert error.code.name == "FAILED_PRECONDITION"
    assert "does not belong to this container" in str(error)
    # An update is dry-run as well; an object that would be made again is no reason for a refusal.
    port = pb.Port(container_port=80, service_type=pb.SERVICE_TYPE_HEADLESS)
    changed = await containers.update(
        namespace="demo",
        name="first",
        container=pb.Container(ports=[port]),
        update_mask=FieldMask(paths=["ports"]),
        validate_only=True,
    )
    assert changed.ports[0].service_type == pb.SERVICE_TYPE_HEADLESS
    assert [item.name async for item in containers.list(namespace="demo")] == ["first"]
    assert [item.metadata.name for item in (await client.list(DEPLOYMENTS, "demo")).items] == [
        "first",
        "theirs",
    ]


async def test_namespaces_are_dry_run_as_well(shared_server: Server, client: ClusterClient) -> None:
    namespaces = shared_server.admin.namespaces
    theirs = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "theirs"}}
    await client.apply(NAMESPACES, theirs)
    wanted = namespace_pb2.Namespace(name="theirs")
    error = await refusal(namespaces.create(namespace=wanted, validate_only=True))
    assert error.code.name == "FAILED_PRECONDITION"
    assert "not managed by Pilothouse" in str(error)
    assert (await namespaces.create(namespace=wanted, adopt=True, validate_only=True)).name == "theirs"
    changed = await namespaces.update(
        name="demo",
        namespace=namespace_pb2.Namespace(labels={"a": "b"}),
        update_mask=FieldMask(paths=["labels"]),
        validate_only=True,
    )
    assert dict(changed.labels) == {"a": "b"}
    found = await client.get(NAMESPACES, None, "demo")
    assert found.metadata.label("a") == ""


async def test_an_unreachable_cluster_is_named(server: Server) -> None:
    async with demo(server):
        pass
    assert server.cluster is not None
    server.cluster.faults.refuse_connections = True
    wanted = pb.Container(name="second", image="nginx:1.27")
    once = server.admin.with_options(retry=RetryPolicy(attempts=1))
    error = await refusal(once.containers.create(namespace="demo", container=wanted, validate_only=True))
    assert (error.code.name, error.metadata["cluster"]) == ("UNAVAILABLE", "local")
    error = await refusal(
        once.namespaces.create(namespace=namespace_pb2.Namespace(name="more"), validate_only=True)
    )
    assert (error.code.name, error.metadata["cluster"]) == ("UNAVAILABLE", "local")
    # A real request waits for no cluster.
    await server.admin.containers.create(namespace="demo", container=wanted)
    server.cluster.faults.clear()


async def test_waiting_for_a_cluster_holds_no_lock_and_no_transaction(
    shared_server: Server, client: ClusterClient
) -> None:
    assert shared_server.cluster is not None
    asked: list[str] = []
    shared_server.cluster.faults.on_request = lambda _method, path: asked.append(path)
    shared_server.cluster.faults.storage_stalled = True
    tried = asyncio.create_task(
        shared_server.admin.containers.update(
            namespace="demo",
            name="first",
            container=pb.Container(replicas=2),
            update_mask=FieldMask(paths=["replicas"]),
            validate_only=True,
        )
    )

    async def being_tried_out() -> bool:
        # The server reads the namespace first.
        return "/api/v1/namespaces/demo" in asked

    async def transactions() -> int:
        async with connection(shared_server.database.admin_dsn) as sql:
            found: int = await sql.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pilothouse-app'"
                " AND datname = current_database() AND state LIKE 'idle in transaction%'"
            )
            return found

    await poll_until(being_tried_out)
    await poll_until(transactions, lambda count: count == 0, seconds=5.0)

    async def unlocked() -> bool:
        try:
            async with shared_server.database.owner() as sql:
                await sql.execute("SELECT 1 FROM containers WHERE name = 'first' FOR UPDATE NOWAIT")
        except asyncpg.LockNotAvailableError:
            # The observer or the usage may have it for a moment; the dry run would hold it until its end.
            return False
        return True

    await poll_until(unlocked, seconds=5.0)
    assert not tried.done()
    shared_server.cluster.faults.storage_stalled = False
    assert (await tried).replicas == 2
    assert (await shared_server.admin.containers.get(namespace="demo", name="first")).replicas == 1


async def test_apply_dry_run_reports_the_refusal_of_each_object(
    shared_server: Server, client: ClusterClient, tmp_path: Path
) -> None:
    documents = [
        f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers: [{{name: main, image: "nginx:1.27", ports: [{{containerPort: 80}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: NodePort
  selector: {{app: {name}}}
  ports: [{{port: 80, nodePort: {port}}}]
"""
        for name, port in (("bad", 30123), ("good", 30125))
    ]
    file = tmp_path / "two.yaml"
    file.write_text("---".join(documents))
    shell = await logged_in(shared_server, tmp_path)
    outcome = await shell.run("apply", "-f", str(file), "-n", "demo", "--dry-run")
    assert outcome.code == 3
    assert "service/bad: " in outcome.errors
    assert "already allocated" in outcome.errors
    assert "container/good" in outcome.output
    assert "image: nginx:1.27" in outcome.output
