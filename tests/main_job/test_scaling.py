"""ScaleContainer, and the roles of users who may do little more."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.waiting import poll_until

NAMESPACE = "scaling"


@pytest.fixture(scope="module")
async def demo(shared_server: Server) -> Server:
    quota = namespace_pb2.ResourceQuota(cpu="2")
    await shared_server.admin.namespaces.create(
        namespace=namespace_pb2.Namespace(name=NAMESPACE, resource_quota=quota)
    )
    return shared_server


async def test_a_container_gets_the_requested_number_of_pods(demo: Server) -> None:
    containers = demo.admin.containers
    web = pb.Container(name="web", image="nginx:1.27", resources=pb.Resources(cpu_request="500m"))
    made = await containers.create(namespace=NAMESPACE, container=web)
    scaled = await containers.scale(namespace=NAMESPACE, name="web", replicas=3, etag=made.etag)
    assert scaled.replicas == 3

    async def pods() -> int:
        assert demo.cluster is not None
        return len(demo.cluster.store.list(resources.PODS, NAMESPACE))

    await poll_until(pods, lambda count: count == 3)
    with pytest.raises(PilothouseError, match="QUOTA_EXCEEDED"):
        await containers.scale(namespace=NAMESPACE, name="web", replicas=5)
    with pytest.raises(PilothouseError, match="ABORTED"):
        await containers.scale(namespace=NAMESPACE, name="web", replicas=1, etag=made.etag)
    with pytest.raises(PilothouseError, match="replicas: must be given"):
        await containers.scale(namespace=NAMESPACE, name="web")
    await containers.scale(namespace=NAMESPACE, name="web", replicas=1, validate_only=True)
    await containers.stop(namespace=NAMESPACE, name="web")
    await poll_until(pods, lambda count: count == 0)
    stopped = await containers.scale(namespace=NAMESPACE, name="web", replicas=2)
    assert (stopped.status, await pods()) == (pb.CONTAINER_STATUS_STOPPED, 0)
    await containers.start(namespace=NAMESPACE, name="web")
    await poll_until(pods, lambda count: count == 2)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [({"daemon_set": pb.DaemonSetSettings()}, "DaemonSet"), ({"job": pb.JobSettings()}, "for a Job")],
)
async def test_a_kind_without_replicas_is_refused(
    demo: Server, kind: dict[str, pb.JobSettings], reason: str
) -> None:
    (name,) = kind
    container = pb.Container(name=name.replace("_", "-"), image="a:1", **kind)  # type: ignore[arg-type]
    await demo.admin.containers.create(namespace=NAMESPACE, container=container)
    with pytest.raises(PilothouseError, match=f"replicas: .*{reason}"):
        await demo.admin.containers.scale(namespace=NAMESPACE, name=container.name, replicas=1)


async def test_a_responder_may_scale_but_change_nothing_else(demo: Server) -> None:
    await demo.admin.containers.create(
        namespace=NAMESPACE, container=pb.Container(name="on-call", image="a:1")
    )
    responder = await demo.user("scaling-responder", {NAMESPACE: "responder"})
    observer = await demo.user("scaling-observer", {NAMESPACE: "observer"})
    await responder.containers.scale(namespace=NAMESPACE, name="on-call", replicas=2)
    await responder.containers.restart(namespace=NAMESPACE, name="on-call")
    for refused in (
        responder.containers.update(
            namespace=NAMESPACE,
            name="on-call",
            container=pb.Container(name="on-call", image="a:2"),
            update_mask=FieldMask(paths=["image"]),
        ),
        responder.containers.rollback(namespace=NAMESPACE, name="on-call"),
        responder.containers.delete(namespace=NAMESPACE, name="on-call"),
        observer.containers.scale(namespace=NAMESPACE, name="on-call", replicas=1),
        observer.containers.restart(namespace=NAMESPACE, name="on-call"),
    ):
        with pytest.raises(PilothouseError, match="PERMISSION_DENIED"):
            await refused
    seen = await observer.containers.get(namespace=NAMESPACE, name="on-call")
    assert seen.replicas == 2
