"""Warnings of the cluster and of the server reach the caller: from a dry run, from an apply, about a quota."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.container.v1 import container_pb2_grpc
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.kubernetes import warnings
from pilothouse_simulator.admission.pod_security import ENFORCE, WARN
from pilothouse_simulator.admission.webhooks import Webhook
from pilothouse_simulator.values import resources
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.waiting import poll_until


@pytest.fixture
def server(shared_server: Server) -> Server:
    """Returns the shared server with a namespace for one test."""
    return shared_server.for_one_test()


PRIVILEGED = pb.Container(
    name="web", image="nginx:1.27", security_context=pb.SecurityContext(privileged=True)
)
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: main, image: "nginx:1.27", securityContext: {privileged: true}}]
"""
SAID = 'would violate PodSecurity "baseline:latest": privileged (container "main" must not set'


async def make(server: Server, **fields: object) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=server.namespace, **fields))  # type: ignore[arg-type]

    async def is_there() -> bool:
        assert server.cluster is not None
        return server.cluster.store.get(resources.NAMESPACES, None, server.namespace) is not None

    await poll_until(is_there)


async def calls(server: Server) -> Any:
    """Returns the bare calls: the client library returns only the container."""
    metadata = (("authorization", f"Bearer {await server.token()}"),)
    stub: Any = container_pb2_grpc.ContainerServiceStub(server.channel())

    class Calls:
        async def create(self, **fields: Any) -> pb.CreateContainerResponse:
            request = pb.CreateContainerRequest(namespace=server.namespace, **fields)
            return cast("pb.CreateContainerResponse", await stub.CreateContainer(request, metadata=metadata))

        async def update(self, **fields: Any) -> pb.UpdateContainerResponse:
            request = pb.UpdateContainerRequest(namespace=server.namespace, name="web", **fields)
            return cast("pb.UpdateContainerResponse", await stub.UpdateContainer(request, metadata=metadata))

    return Calls()


async def test_a_dry_run_and_an_apply_return_pod_security_warnings(server: Server) -> None:
    await make(server)
    assert server.cluster is not None
    labels = server.cluster.store.get(resources.NAMESPACES, None, server.namespace)["metadata"]["labels"]  # type: ignore[index]
    assert (labels[ENFORCE], labels[WARN]) == ("baseline", "baseline")
    containers, bare = server.admin.containers, await calls(server)
    tried = await bare.create(container=PRIVILEGED, validate_only=True)
    (told,) = tried.warnings
    assert (told.reason, told.message.startswith(SAID)) == ("CLUSTER", True)
    made = await bare.create(container=PRIVILEGED)
    # A call that changes something asks no cluster.
    assert not made.warnings

    async def shown(warned: bool) -> bool:
        found = await containers.get(namespace=server.namespace, name="web")
        assert all(each.type != "Warned" for each in found.conditions)
        # Wait for an observation after the apply: it keeps the warnings.
        observed = not found.reconciling and any(each.type == "Available" for each in found.conditions)
        return observed and [each.message[: len(SAID)] for each in found.warnings] == (
            [SAID] if warned else []
        )

    await poll_until(lambda: shown(True))
    mask = FieldMask(paths=["security_context"])
    await containers.update(
        namespace=server.namespace, name="web", container=pb.Container(), update_mask=mask
    )
    await poll_until(lambda: shown(False))


async def test_the_command_prints_the_warnings(server: Server, tmp_path: Path) -> None:
    await make(server, resource_quota=namespace_pb2.ResourceQuota(cpu="2"))
    shell = await logged_in(server, tmp_path)
    missing = "container.resources.cpu_request"
    made = await shell.run("containers", "create", "plain", "-n", server.namespace, "--image", "nginx:1.27")
    assert f"warning: plain: {missing}:" in made.errors, made
    file = tmp_path / "web.yaml"
    file.write_text(MANIFEST)
    tried = await shell.run("apply", "-f", str(file), "-n", server.namespace, "--dry-run")
    assert f"warning: {file}:2: container/web: {missing}:" in tried.errors, tried
    assert f"warning: {file}:2: container/web: {SAID}" in tried.errors, tried


async def test_a_container_that_counts_nothing_against_a_quota_is_warned_about(server: Server) -> None:
    await make(server, resource_quota=namespace_pb2.ResourceQuota(cpu="2", memory="1Gi"))
    bare = await calls(server)
    plain = pb.Container(name="web", image="nginx:1.27")
    for again in (True, False):
        made = await bare.create(container=plain, validate_only=again)
        assert [(each.reason, each.path) for each in made.warnings] == [
            ("MISSING_REQUESTS", "container.resources.cpu_request"),
            ("MISSING_REQUESTS", "container.resources.memory_request"),
        ]
    wanted = pb.Container(resources=pb.Resources(cpu_limit="1", memory_request="64Mi"))
    mask = FieldMask(paths=["resources"])
    changed = await bare.update(container=wanted, update_mask=mask)
    assert not changed.warnings


async def test_dry_runs_of_the_other_nouns_return_the_warnings(server: Server, tmp_path: Path) -> None:
    await make(server)
    assert server.cluster is not None
    kinds = ("services", "configmaps", "secrets", "persistentvolumeclaims")
    server.cluster.faults.webhooks = [
        Webhook("policy.example", (kind,), f"{kind}: old hunter2-value", warns=True) for kind in kinds
    ]
    network, config, storage = server.admin.network, server.admin.config, server.admin.storage
    service = network_pb2.Service(
        name="s", selector={"app": "a"}, ports=[network_pb2.ServicePort(port=80)], labels={"a": "b"}
    )
    settings = config_pb2.ConfigMap(name="c", data={"k": "v"})
    secret = config_pb2.Secret(name="k", data={"k": b"hunter2-value"})
    volume = storage_pb2.Volume(name="v", type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM, size="1Gi")
    for again in (True, False):
        where: dict[str, Any] = {"namespace": server.namespace, "validate_only": again}
        answers: list[Any] = [
            await network.create_service.send(network_pb2.CreateServiceRequest(service=service, **where)),
            await config.create_config_map.send(
                config_pb2.CreateConfigMapRequest(config_map=settings, **where)
            ),
            await config.create_secret.send(config_pb2.CreateSecretRequest(secret=secret, **where)),
            await storage.create_volume.send(storage_pb2.CreateVolumeRequest(volume=volume, **where)),
        ]
        told = [[(each.reason, each.message) for each in answer.warnings] for answer in answers]
        # No warning repeats a value of a secret, and a call that changes something asks no cluster.
        words = {"secrets": "secrets: old [redacted]"}
        expected = [[("CLUSTER", words.get(kind, f"{kind}: old hunter2-value"))] for kind in kinds]
        assert told == (expected if again else [[]] * len(kinds))
    changed = await network.update_service.send(
        network_pb2.UpdateServiceRequest(
            namespace=server.namespace,
            name="s",
            service=network_pb2.Service(labels={"a": "c"}),
            update_mask=FieldMask(paths=["labels"]),
            validate_only=True,
        )
    )
    assert [each.reason for each in changed.warnings] == ["CLUSTER"]
    shell = await logged_in(server, tmp_path)
    file = tmp_path / "c.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {a: b}\n")
    tried = await shell.run("apply", "-f", str(file), "-n", server.namespace, "--dry-run")
    assert f"warning: {file}:1: configmap/d: configmaps: old" in tried.errors, tried


@pytest.mark.parametrize(
    ("headers", "texts"),
    [
        (['299 - "v1 Endpoints is deprecated"'], ["v1 Endpoints is deprecated"]),
        (['299 - "unknown field \\"spec.replicaz\\""', '299 - "a"'], ['unknown field "spec.replicaz"', "a"]),
        (['299 - "a", 299 - "b", 299 - "a"'], ["a", "b"]),
        (['199 - "not ours"', "nonsense", '299 - "cut'], []),
        ([f'299 - "{number}"' for number in range(50)], [str(number) for number in range(warnings.MOST)]),
    ],
)
def test_the_warning_header_is_parsed_as_clusters_write_it(headers: list[str], texts: list[str]) -> None:
    with warnings.noted() as told:
        warnings.note(headers)
    assert list(told) == texts
    warnings.note(headers)
    assert list(told) == texts
