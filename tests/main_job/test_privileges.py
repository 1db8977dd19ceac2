"""Rights over the node need `container.privileged`, whether a container is made, changed, attached to or taken over."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.legacy import DEPLOYMENTS, SERVICES, all_run, deployment, legacy, running, service
from tests.waiting import poll_until


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    return shared_server.for_one_test()


PRIVILEGED = pb.SecurityContext(privileged=True)
UNFILTERED = pb.SeccompProfile(type="Unconfined")


def container(name: str, **fields: object) -> pb.Container:
    return pb.Container(name=name, image="busybox:1.37", **fields)  # type: ignore[arg-type]


async def refused(made: object) -> PilothouseError:
    with pytest.raises(PilothouseError) as told:
        await made  # type: ignore[misc]
    assert told.value.code.name == "PERMISSION_DENIED"
    assert told.value.metadata["permission"] == "container.privileged"
    assert told.value.metadata["namespace"] in told.value.message
    assert told.value.metadata["field"] in told.value.message
    return told.value


@pytest.fixture
async def developer(server: Server) -> AsyncClient:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=server.namespace))
    return await server.user("dora", {server.namespace: "developer"})


RIGHTS: dict[str, dict[str, object]] = {
    "container.security_context.privileged": {"security_context": PRIVILEGED},
    "container.security_context.capabilities_add": {
        "security_context": pb.SecurityContext(capabilities_add=["CHOWN", "SYS_ADMIN"])
    },
    "container.security_context.seccomp_profile": {
        "security_context": pb.SecurityContext(seccomp_profile=UNFILTERED)
    },
    "container.pod_security_context.seccomp_profile": {
        "pod_security_context": pb.PodSecurityContext(seccomp_profile=UNFILTERED)
    },
    "container.init_containers[0].security_context.privileged": {
        "init_containers": [pb.InitContainer(name="init", image="busybox:1.37", security_context=PRIVILEGED)]
    },
    "container.sidecars[0].security_context.capabilities_add": {
        "sidecars": [
            pb.Program(
                name="side",
                image="busybox:1.37",
                security_context=pb.SecurityContext(capabilities_add=["NET_ADMIN"]),
            )
        ]
    },
    "container.sidecars[0].ports[0].host_port": {
        "sidecars": [
            pb.Program(
                name="side",
                image="busybox:1.37",
                ports=[pb.ProgramPort(container_port=80, host_port=8080)],
            )
        ]
    },
    "container.sidecars[0].probes.readiness.http_get.host": {
        "sidecars": [
            pb.Program(
                name="side",
                image="busybox:1.37",
                probes=pb.Probes(
                    readiness=pb.Probe(http_get=pb.HttpGetAction(port=80, host="169.254.169.254"))
                ),
            )
        ]
    },
    "container.init_containers[0].ports[0].host_port": {
        "init_containers": [
            pb.InitContainer(
                name="init",
                image="busybox:1.37",
                ports=[pb.ProgramPort(container_port=80, host_port=8080)],
            )
        ]
    },
    "container.lifecycle.pre_stop.http_get.host": {
        "lifecycle": pb.Lifecycle(
            pre_stop=pb.LifecycleHandler(http_get=pb.HttpGetAction(port=80, host="169.254.169.254"))
        )
    },
    "container.init_containers[0].lifecycle.post_start.http_get.host": {
        "init_containers": [
            pb.InitContainer(
                name="init",
                image="busybox:1.37",
                restart_policy="Always",
                lifecycle=pb.Lifecycle(
                    post_start=pb.LifecycleHandler(http_get=pb.HttpGetAction(port=80, host="10.0.0.1"))
                ),
            )
        ]
    },
    "container.ports[0].host_port": {"ports": [pb.Port(container_port=80, host_port=8080)]},
    # The kubelet sends the probe, so the metadata service of the cloud would respond.
    "container.probes.liveness.http_get.host": {
        "probes": pb.Probes(liveness=pb.Probe(http_get=pb.HttpGetAction(port=80, host="169.254.169.254")))
    },
    "container.probes.startup.tcp_socket.host": {
        "probes": pb.Probes(startup=pb.Probe(tcp_socket=pb.TcpSocketAction(port=80, host="10.0.0.1")))
    },
    "container.annotations": {
        "annotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}
    },
    "container.labels": {"labels": {"azure.workload.identity/use": "true"}},
    "container.tolerations[0]": {
        "tolerations": [pb.Toleration(key="node-role.kubernetes.io/control-plane", operator="Exists")]
    },
    "container.priority_class": {"priority_class": "system-node-critical"},
}


async def test_only_an_administrator_makes_a_privileged_container(
    server: Server, developer: AsyncClient
) -> None:
    for number, (field, fields) in enumerate(RIGHTS.items()):
        told = await refused(
            developer.containers.create(namespace=server.namespace, container=container("web", **fields))
        )
        assert told.metadata["field"] == field
        await server.admin.containers.create(
            namespace=server.namespace, container=container(f"web-{number}", **fields)
        )
    # Rights that every container has need no permission.
    usual = pb.SecurityContext(
        privileged=False,
        capabilities_add=["NET_BIND_SERVICE"],
        capabilities_drop=["ALL"],
        seccomp_profile=pb.SeccompProfile(type="RuntimeDefault"),
    )
    ports = [pb.Port(container_port=80)]
    await developer.containers.create(
        namespace=server.namespace, container=container("web", security_context=usual, ports=ports)
    )
    assert not await developer.identity.check_permission(
        permission="container.privileged", namespace=server.namespace
    )


async def test_service_annotations_are_free_or_need_the_permission(
    server: Server, developer: AsyncClient
) -> None:
    def web(name: str, **annotations: str) -> pb.Container:
        keys = {key.replace("__", "/").replace("_", "."): text for key, text in annotations.items()}
        return container(name, ports=[pb.Port(container_port=80, service_annotations=keys)])

    free, guarded = web("free", prometheus_io__port="80"), web("web", cloud_example__public="true")
    await developer.containers.create(namespace=server.namespace, container=free)
    told = await refused(developer.containers.create(namespace=server.namespace, container=guarded))
    assert told.metadata["field"] == "container.ports[0].service_annotations"
    assert '"cloud.example/public"' in told.message
    mask = FieldMask(paths=["ports"])
    wanted = web("free", cloud_example__public="true")
    await refused(
        developer.containers.update(
            namespace=server.namespace, name="free", container=wanted, update_mask=mask
        )
    )
    # Existing annotations stay when a developer changes the rest; another value needs the permission.
    await server.admin.containers.create(namespace=server.namespace, container=guarded)
    wanted = web("web", cloud_example__public="true", prometheus_io__scrape="true")
    changed = await developer.containers.update(
        namespace=server.namespace, name="web", container=wanted, update_mask=mask
    )
    assert len(changed.ports[0].service_annotations) == 2
    wanted = web("web", cloud_example__public="false")
    await refused(
        developer.containers.update(
            namespace=server.namespace, name="web", container=wanted, update_mask=mask
        )
    )
    assert server.cluster is not None

    async def stands_on_the_service() -> bool:
        assert server.cluster is not None
        found = server.cluster.store.get(resources.SERVICES, server.namespace, "web")
        return found is not None and found["metadata"].get("annotations") == dict(
            changed.ports[0].service_annotations
        )

    await poll_until(stands_on_the_service)
    # Two ports of one Service must not differ, and a port without a Service has none.
    served = pb.Port(
        name="http", container_port=80, service_name="bad", service_annotations={"prometheus.io/port": "80"}
    )
    bare = pb.Port(container_port=81, service_type=pb.SERVICE_TYPE_NONE)
    bare.service_annotations["prometheus.io/port"] = "81"
    for second in (pb.Port(name="more", container_port=81, service_name="bad"), bare):
        ports = [served, second]
        with pytest.raises(PilothouseError) as wrong:
            await developer.containers.create(
                namespace=server.namespace, container=container("bad", ports=ports)
            )
        assert wrong.value.violations[0].field == "container.ports[1].service_annotations"


async def test_a_privileged_container_keeps_running_but_runs_no_other_program(
    server: Server, developer: AsyncClient
) -> None:
    await server.admin.containers.create(
        namespace=server.namespace, container=container("web", security_context=PRIVILEGED)
    )
    await developer.containers.create(namespace=server.namespace, container=container("plain"))

    def update(client: AsyncClient, name: str, mask: str, **fields: object) -> object:
        return client.containers.update(
            namespace=server.namespace,
            name=name,
            container=container("", **fields),
            update_mask=FieldMask(paths=[mask]),
        )

    changed = await update(developer, "web", "replicas", replicas=2)  # type: ignore[misc]
    assert changed.replicas == 2
    await developer.containers.restart(namespace=server.namespace, name="web")
    await refused(update(developer, "web", "args", args=["evil"]))
    await refused(update(developer, "plain", "security_context", security_context=PRIVILEGED))
    await refused(update(developer, "plain", "ports", ports=[pb.Port(container_port=80, host_port=80)]))
    unconfined = {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}
    for wanted in (unconfined, {"k8s.v1.cni.cncf.io/networks": "storage"}):
        await refused(update(developer, "plain", "pod_annotations", pod_annotations=wanted))
    await server.admin.storage.create_volume(
        namespace=server.namespace,
        volume=storage_pb2.Volume(
            name="scratch", type=storage_pb2.VOLUME_TYPE_EMPTY_DIR, mount_path="/scratch"
        ),
    )
    attach = {"namespace": server.namespace, "name": "scratch", "container": "web"}
    await refused(developer.storage.attach_volume(**attach))  # type: ignore[arg-type]
    await server.admin.storage.attach_volume(**attach)  # type: ignore[arg-type]
    # Guarded keys have the same effect: a volume would change the pods on which other programs act.
    meshed = container("meshed", annotations={"linkerd.io/inject": "enabled"})
    await server.admin.containers.create(namespace=server.namespace, container=meshed)
    attach |= {"container": "meshed"}
    told = await refused(developer.storage.attach_volume(**attach))  # type: ignore[arg-type]
    assert "linkerd.io/inject" in told.message
    await server.admin.storage.attach_volume(**attach)  # type: ignore[arg-type]
    await developer.storage.detach_volume(**attach)  # type: ignore[arg-type]
    # Existing pods would keep the right as long as their replacement is held or fails.
    told = await refused(update(developer, "web", "security_context"))
    assert "which its pods keep until they are replaced" in told.message
    await refused(update(developer, "meshed", "pod_annotations"))
    await update(server.admin, "web", "security_context")  # type: ignore[misc]
    await update(developer, "web", "args", args=["fine"])  # type: ignore[misc]

    # A separate role gives the right, but not in one namespace: all namespaces share the node.
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="root", permissions=["container.privileged"])
    )
    await server.admin.identity.grant_role(
        username=server.own("dora"), role="root", namespace=server.namespace
    )
    owner = await server.user("olga", {server.namespace: "admin"})
    for client in (developer, owner):
        assert not await client.identity.check_permission(
            permission="container.privileged", namespace=server.namespace
        )
        told = await refused(update(client, "plain", "security_context", security_context=PRIVILEGED))
        assert "requires a grant over all namespaces" in told.message
    await server.admin.identity.grant_role(username=server.own("dora"), role="root")

    async def allowed() -> bool:
        try:
            await update(developer, "plain", "security_context", security_context=PRIVILEGED)  # type: ignore[misc]
        except PilothouseError as error:
            return error.code.name != "PERMISSION_DENIED"
        return True

    await poll_until(allowed)


async def test_only_a_holder_of_the_permission_imports_a_privileged_container(server: Server) -> None:
    kubectl = await legacy(server)
    manifest = deployment("agent", replicas=1)
    manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    await kubectl.ask("POST", DEPLOYMENTS, manifest)
    await all_run(kubectl, "agent", 1)
    developer = await server.user("dora", {server.legacy: "developer"})
    (result,) = (await developer.containers.import_(namespace=server.legacy)).results
    assert not result.HasField("container")
    assert "permission container.privileged is needed" in result.problems[0]
    (result,) = (await server.admin.containers.import_(namespace=server.legacy)).results
    assert result.container.security_context.privileged
    assert not result.problems


async def test_pods_with_identities_or_sidecars_need_the_permission_to_import(server: Server) -> None:
    kubectl = await legacy(server)
    manifest = deployment("agent", replicas=1)
    manifest["spec"]["template"]["metadata"]["annotations"] = {"iam.amazonaws.com/role": "root"}
    await kubectl.ask("POST", DEPLOYMENTS, manifest)
    developer = await server.user("dora", {server.legacy: "developer"})
    (result,) = (await developer.containers.import_(namespace=server.legacy)).results
    assert not result.HasField("container")
    assert 'container.pod_annotations sets "iam.amazonaws.com/role"' in result.problems[0]
    (result,) = (await server.admin.containers.import_(namespace=server.legacy)).results
    assert result.container.name == "agent"


async def test_guarded_service_annotations_stay_on_the_cluster_after_an_import(server: Server) -> None:
    kubectl = await legacy(server)
    await kubectl.ask("POST", DEPLOYMENTS, deployment("agent", replicas=1))
    annotations = {"prometheus.io/port": "80", "cloud.example/public": "true"}
    there = service("agent")
    await kubectl.ask("POST", SERVICES, there | {"metadata": {"name": "agent", "annotations": annotations}})
    developer = await server.user("dora", {server.legacy: "developer"})
    (result,) = (await developer.containers.import_(namespace=server.legacy)).results
    served = next(port for port in result.container.ports if port.service_name == "agent")
    assert dict(served.service_annotations) == {"prometheus.io/port": "80"}
    await running(server, "agent")
    found = await kubectl.ask("GET", f"{SERVICES}/agent")
    assert found["metadata"]["annotations"] == annotations
