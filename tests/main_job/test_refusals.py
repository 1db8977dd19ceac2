"""A cluster's refusal is reported with its message, is no outage, is not retried rapidly, and ends with its cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import PilothouseError, RetryPolicy
from pilothouse_simulator.admission.pod_security import ENFORCE
from pilothouse_simulator.admission.webhooks import Webhook
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.waiting import poll_until


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    return shared_server.for_one_test()


MEBIBYTE = 1024 * 1024


def web(name: str = "web", **fields: Any) -> pb.Container:
    return pb.Container(name=name, image="nginx:1.27", **fields)


def of_size(name: str, size: int) -> pb.Container:
    values = [pb.EnvVar(name=f"LONG_{number}", value="x" * 30_000) for number in range(size // 30_000 + 1)]
    return web(name, env=values)


async def demo(server: Server) -> None:
    assert server.cluster is not None
    store = server.cluster.store
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=server.namespace))

    async def there() -> bool:
        return store.get(resources.NAMESPACES, None, server.namespace) is not None

    await poll_until(there)


async def shown(
    server: Server, holds: Callable[[pb.Container], bool], name: str = "web", seconds: float = 20.0
) -> pb.Container:
    async def look() -> pb.Container | None:
        found = await server.admin.containers.get(namespace=server.namespace, name=name)
        return found if holds(found) else None

    found = await poll_until(look, seconds=seconds)
    assert found is not None
    return found


def applied(container: pb.Container) -> Any:
    return next((item for item in container.conditions if item.type == "Applied"), None)


def running(container: pb.Container) -> bool:
    return container.status == pb.CONTAINER_STATUS_RUNNING and not container.reason


async def work(server: Server, name: str) -> dict[str, Any]:
    async with server.database.system() as connection:
        row = await connection.fetchrow(
            "SELECT last_error, extract(epoch FROM due_at - w.updated_at) AS pause FROM reconcile_work AS w "
            "JOIN containers AS c ON c.id = w.resource_id WHERE resource_type = 'container' AND c.name = $1",
            name,
        )
    return dict(row or {})


async def enforced(server: Server, level: str) -> None:
    """Sets the level of Pod Security of the namespace; changes by others are reverted."""
    assert server.cluster is not None
    store = server.cluster.store
    labels = namespace_pb2.Namespace(labels={ENFORCE: level})
    await server.admin.namespaces.update(
        name=server.namespace, namespace=labels, update_mask=FieldMask(paths=["labels"])
    )

    async def on_cluster() -> str:
        namespace = store.get(resources.NAMESPACES, None, server.namespace)
        return str((namespace or {"metadata": {"labels": {}}})["metadata"]["labels"].get(ENFORCE))

    await poll_until(on_cluster, lambda found: found == level)


# The HTTP library would send such a body in parts; the body is bounded, and copied within a millisecond.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_an_object_over_the_clusters_limit_is_a_refusal_and_no_outage(server: Server) -> None:
    await demo(server)
    containers = server.admin.containers
    for name, (size, words) in {
        "huge": (1_700_000, "etcdserver: request is too large"),
        "huger": (2_500_000, "trying to send message larger than max"),
        "hugest": (3_300_000, "Request entity too large: limit is 3145728"),
    }.items():
        with pytest.raises(PilothouseError) as refused:
            await containers.create(
                namespace=server.namespace, container=of_size(name, size), validate_only=True
            )
        assert (refused.value.code.name, refused.value.reason) == ("INVALID_ARGUMENT", "CLUSTER_REFUSED")
        assert words in str(refused.value)
        assert refused.value.metadata["cluster_reason"] == "TooLarge"
        await containers.create(namespace=server.namespace, container=of_size(name, size))
        found = await shown(server, lambda seen: applied(seen) is not None, name)
        assert (found.status, found.reason) == (pb.CONTAINER_STATUS_FAILED, "TooLarge")
        assert words in found.message
        refusal = applied(found)
        assert (refusal.status, refusal.reason) == (resource_pb2.CONDITION_STATUS_FALSE, "TooLarge")
        # The refusal is final: nothing is in progress, and the next attempt waits as long as after a refusal.
        assert not found.reconciling
        left = await work(server, name)
        assert words in left["last_error"]
        assert left["pause"] >= 1.0
        # A container that fits is applied immediately.
        small = web(name, env=[pb.EnvVar(name="LONG_0", value="x")])
        await containers.update(
            namespace=server.namespace, name=name, container=small, update_mask=FieldMask(paths=["env"])
        )
        assert (await shown(server, running, name)).ready_replicas == 1


async def test_a_denying_webhook_is_reported_with_its_message_until_it_relents(server: Server) -> None:
    await demo(server)
    assert server.cluster is not None
    server.cluster.faults.webhooks.append(
        Webhook("policy.example.org", ("deployments",), "images must come from registry.example.org")
    )
    words = 'admission webhook "policy.example.org" denied the request: images must come from registry.example.org'
    with pytest.raises(PilothouseError) as refused:
        await server.admin.containers.create(namespace=server.namespace, container=web(), validate_only=True)
    assert (refused.value.code.name, refused.value.reason) == ("FAILED_PRECONDITION", "CLUSTER_REFUSED")
    assert words in str(refused.value)
    await server.admin.containers.create(namespace=server.namespace, container=web())
    found = await shown(server, lambda seen: seen.status == pb.CONTAINER_STATUS_FAILED)
    assert (found.reason, found.message) == ("Forbidden", words)
    assert applied(found).status == resource_pb2.CONDITION_STATUS_FALSE
    server.cluster.faults.clear()
    # No request is needed for the next attempt.
    assert (await shown(server, running)).message == ""


async def test_an_unreachable_webhook_is_no_outage_of_the_cluster(server: Server) -> None:
    await demo(server)
    assert server.cluster is not None
    await server.admin.containers.create(namespace=server.namespace, container=web("other"))
    await shown(server, running, "other")
    server.cluster.faults.webhooks.append(Webhook("policy.example.org", ("deployments",), fails=True))
    once = server.admin.with_options(retry=RetryPolicy(attempts=1))
    with pytest.raises(PilothouseError) as failed:
        await once.containers.create(namespace=server.namespace, container=web(), validate_only=True)
    assert (failed.value.code.name, failed.value.metadata["cluster"]) == ("UNAVAILABLE", "local")
    assert 'cluster "local" fails: Internal error occurred: failed calling webhook' in str(failed.value)
    await server.admin.containers.create(namespace=server.namespace, container=web())
    found = await shown(server, lambda seen: applied(seen) is not None)
    assert (found.status, found.reason) == (pb.CONTAINER_STATUS_PENDING, "InternalError")
    assert 'failed calling webhook "policy.example.org"' in found.message
    assert (applied(found).status, applied(found).reason) == (
        resource_pb2.CONDITION_STATUS_UNKNOWN,
        "InternalError",
    )
    other = await server.admin.containers.get(namespace=server.namespace, name="other")
    assert not other.HasField("stale_since")
    assert running(other)
    server.cluster.faults.clear()
    await shown(server, running)


async def test_a_webhook_that_denies_pods_is_shown_although_the_workload_exists(server: Server) -> None:
    await demo(server)
    assert server.cluster is not None
    server.cluster.faults.webhooks.append(Webhook("policy.example.org", ("pods",), "no pods today"))
    denied = 'admission webhook "policy.example.org" denied the request: no pods today'
    kinds = {
        "web": (web(), denied),
        "db": (
            web(name="db", replicas=1, stateful_set=pb.StatefulSetSettings()),
            f"create Pod db-0 in StatefulSet db failed error: {denied}",
        ),
        "agent": (
            pb.Container(name="agent", image="nginx:1.27", daemon_set=pb.DaemonSetSettings()),
            f"Error creating: {denied}",
        ),
    }
    runs = {
        "once": pb.Container(name="once", image="nginx:1.27", job=pb.JobSettings()),
        "nightly": pb.Container(
            name="nightly", image="nginx:1.27", cron_job=pb.CronJobSettings(schedule="0 0 1 1 *")
        ),
    }
    for container in (*(each for each, _ in kinds.values()), *runs.values()):
        await server.admin.containers.create(namespace=server.namespace, container=container)
    await server.admin.containers.run(namespace=server.namespace, name="nightly")
    told = f"Error creating: {denied}"
    await shown(server, lambda seen: (seen.reason, seen.message) == ("FailedCreate", told), name="once")
    await shown(server, lambda seen: seen.message.endswith(f"FailedCreate {told}"), name="nightly")
    for name, (_, words) in kinds.items():
        found = await shown(server, lambda seen: seen.reason == "FailedCreate", name=name)
        assert (found.status, found.message) == (pb.CONTAINER_STATUS_FAILED, words)
        assert applied(found).status == resource_pb2.CONDITION_STATUS_TRUE
    server.cluster.faults.clear()
    for name in (*kinds, "once"):
        await shown(server, running, seconds=40.0, name=name)


async def test_a_pod_security_refusal_is_shown_and_ends_with_the_level(server: Server) -> None:
    await demo(server)
    await enforced(server, "restricted")
    await server.admin.containers.create(namespace=server.namespace, container=web())
    found = await shown(server, lambda seen: seen.reason == "FailedCreate")
    assert found.status == pb.CONTAINER_STATUS_FAILED
    assert (
        'is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
        in found.message
    )
    assert "must set securityContext.runAsNonRoot=true" in found.message
    failure = next(item for item in found.conditions if item.type == "ReplicaFailure")
    assert failure.message == found.message
    await enforced(server, "baseline")
    # A lower level triggers no attempt: the cluster's own controller retries after its backoff.
    await shown(server, running, seconds=40.0)


async def test_a_limit_range_refusal_is_shown_until_the_container_fits(server: Server) -> None:
    await demo(server)
    assert server.cluster is not None
    limits = {"limits": [{"type": "Container", "max": {"memory": "128Mi"}}]}
    metadata = {"name": "small", "namespace": server.namespace}
    server.cluster.store.create(resources.LIMIT_RANGES, {"metadata": metadata, "spec": limits})
    big = pb.Resources(memory_request="256Mi", memory_limit="256Mi")
    await server.admin.containers.create(namespace=server.namespace, container=web(resources=big))
    found = await shown(server, lambda seen: seen.reason == "FailedCreate")
    assert found.status == pb.CONTAINER_STATUS_FAILED
    assert "maximum memory usage per Container is 128Mi, but limit is 256Mi" in found.message
    small = pb.Resources(memory_request="64Mi", memory_limit="64Mi")
    await server.admin.containers.update(
        namespace=server.namespace,
        name="web",
        container=pb.Container(resources=small),
        update_mask=FieldMask(paths=["resources"]),
    )
    await shown(server, running)
