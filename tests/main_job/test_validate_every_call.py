"""`validate_only` reports the cluster's response for every call that would write to a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2 as config
from pilothouse.container.v1 import container_pb2 as container
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2 as network
from pilothouse.storage.v1 import storage_pb2 as storage
from pilothouse_client import PilothouseError, RetryPolicy
from pilothouse_client.all_nouns import Nouns
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import CONFIG_MAPS, Manifest, Resource
from pilothouse_simulator.admission.webhooks import Webhook
from tests.harness import Server
from tests.main_job.command import logged_in
from tests.waiting import patient, poll_until

SPACE = "demo"
Call = Callable[[], Awaitable[Any]]

QUOTAS: Resource[Any] = Resource("/api/v1", "resourcequotas", "ResourceQuota", CONFIG_MAPS.type)


@asynccontextmanager
async def prepare(server: Server) -> AsyncIterator[ClusterClient]:
    """Makes a namespace with a running, a paused and a stopped container and their sources, all on the cluster."""
    assert server.cluster is not None
    admin = server.admin
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=SPACE))
    await admin.config.create_config_map(
        namespace=SPACE, config_map=config.ConfigMap(name="settings", data={"a": "1"})
    )
    await admin.config.create_secret(
        namespace=SPACE, secret=config.Secret(name="login", string_data={"a": "of the user"})
    )
    for name in ("disk", "spare"):
        claim = storage.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM
        volume = storage.Volume(name=name, type=claim, size="1Gi", mount_path=f"/{name}")
        await admin.storage.create_volume(namespace=SPACE, volume=volume)
    await admin.network.create_service(
        namespace=SPACE,
        service=network.Service(name="front", selector={"app": "web"}, ports=[network.ServicePort(port=80)]),
    )
    port = container.Port(container_port=80)
    mount = container.VolumeMount(volume="disk", mount_path="/disk")
    for name in ("web", "paused", "stopped"):
        wanted = container.Container(
            name=name, image="nginx:1.27", ports=[port], volume_mounts=[mount] if name == "web" else []
        )
        await admin.containers.create(namespace=SPACE, container=wanted)
    await admin.containers.stop(namespace=SPACE, name="stopped")
    await admin.containers.pause(namespace=SPACE, name="paused")

    async def settled() -> bool:
        listed: list[Any] = [item async for item in admin.containers.list(namespace=SPACE)]
        volumes: list[Any] = [item async for item in admin.storage.list_volumes(namespace=SPACE)]
        maps: list[Any] = [item async for item in admin.config.list_config_maps(namespace=SPACE)]
        secrets: list[Any] = [item async for item in admin.config.list_secrets(namespace=SPACE)]
        web = next(item for item in listed if item.name == "web")
        services: list[Any] = [item async for item in admin.network.list_services(namespace=SPACE)]
        waiting = [
            each.name
            for group in (listed, volumes, services, maps, secrets)
            for each in group
            if each.reconciling
        ]
        return web.status == container.CONTAINER_STATUS_RUNNING and not waiting

    await poll_until(settled, seconds=40.0)
    client = await ClusterClient.from_kubeconfig(server.cluster.kubeconfig(), name="local")
    yield client
    await client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def demo(shared_server: Server) -> AsyncIterator[ClusterClient]:
    """Yields a client for tests that do not change the objects."""
    async with prepare(shared_server) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def own_demo(server: Server) -> AsyncIterator[ClusterClient]:
    async with prepare(server) as client:
        yield client


def calls(client: Nouns[Any]) -> Mapping[str, Call]:
    """Returns a `validate_only` call of each method that writes to the cluster, by method."""
    configs, volumes, containers = client.config, client.storage, client.containers
    here: dict[str, Any] = {"namespace": SPACE, "validate_only": True}
    mask = FieldMask

    def on(method: Callable[..., Awaitable[Any]], name: str, **fields: Any) -> Call:
        return lambda: method(**here, name=name, **fields)

    claim = storage.Volume(name="more", type=storage.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM, size="1Gi")
    return {
        "CreateConfigMap": lambda: configs.create_config_map(
            **here, config_map=config.ConfigMap(name="more", data={"a": "1"})
        ),
        "UpdateConfigMap": on(
            configs.update_config_map,
            "settings",
            config_map=config.ConfigMap(data={"a": "2"}),
            update_mask=mask(paths=["data"]),
        ),
        "DeleteConfigMap": on(configs.delete_config_map, "settings"),
        "CreateSecret": lambda: configs.create_secret(
            **here, secret=config.Secret(name="more", string_data={"a": "1"})
        ),
        "UpdateSecret": on(
            configs.update_secret,
            "login",
            secret=config.Secret(labels={"a": "b"}),
            update_mask=mask(paths=["labels"]),
        ),
        "DeleteSecret": on(configs.delete_secret, "login"),
        "CreateVolume": lambda: volumes.create_volume(**here, volume=claim),
        "UpdateVolume": on(
            volumes.update_volume,
            "disk",
            volume=storage.Volume(labels={"a": "b"}),
            update_mask=mask(paths=["labels"]),
        ),
        "DeleteVolume": on(volumes.delete_volume, "spare"),
        "CreateService": lambda: client.network.create_service(
            **here,
            service=network.Service(
                name="more", selector={"app": "web"}, ports=[network.ServicePort(port=80)]
            ),
        ),
        "UpdateService": on(
            client.network.update_service,
            "front",
            service=network.Service(ports=[network.ServicePort(port=81)]),
            update_mask=mask(paths=["ports"]),
        ),
        "DeleteService": on(client.network.delete_service, "front"),
        "AttachVolume": on(volumes.attach_volume, "spare", container="web"),
        "DetachVolume": on(volumes.detach_volume, "disk", container="web"),
        "CreateContainer": lambda: containers.create(
            **here, container=container.Container(name="more", image="nginx:1.27")
        ),
        "UpdateContainer": on(
            containers.update,
            "web",
            container=container.Container(image="nginx:1.28"),
            update_mask=mask(paths=["image"]),
        ),
        "DeleteContainer": on(containers.delete, "web"),
        "StopContainer": on(containers.stop, "web"),
        "StartContainer": on(containers.start, "stopped"),
        "PauseContainer": on(containers.pause, "web"),
        "ResumeContainer": on(containers.resume, "paused"),
        "RestartContainer": on(containers.restart, "web"),
        "DeleteNamespace": lambda: client.namespaces.delete(name=SPACE, cascade=True, validate_only=True),
    }


async def refusal(call: Call) -> PilothouseError:
    with pytest.raises(PilothouseError) as refused:
        await call()
    return refused.value


async def state(server: Server, client: ClusterClient) -> list[str]:
    """Returns the state that a dry run must not change: our etags, and versions of the cluster's objects."""
    admin = server.admin
    found = [item.etag async for item in admin.containers.list(namespace=SPACE)]
    found += [item.etag async for item in admin.network.list_services(namespace=SPACE)]
    found += [item.etag async for item in admin.storage.list_volumes(namespace=SPACE)]
    found += [item.etag async for item in admin.config.list_config_maps(namespace=SPACE)]
    found += [item.etag async for item in admin.config.list_secrets(namespace=SPACE)]
    on_cluster = (await client.list(CONFIG_MAPS, SPACE)).items
    return found + [item.metadata.resource_version for item in on_cluster]


async def test_a_cluster_policy_refuses_every_call_and_nothing_is_written(
    shared_server: Server, demo: ClusterClient
) -> None:
    assert shared_server.cluster is not None
    before = await state(shared_server, demo)
    for call in calls(shared_server.admin).values():
        await call()
    resources = (
        *("configmaps", "secrets", "persistentvolumeclaims", "services", "deployments"),
        "namespaces",
    )
    every = ("CREATE", "UPDATE", "DELETE")
    shared_server.cluster.faults.webhooks.append(
        Webhook("policy.example.org", resources, "policy says no", operations=every)
    )
    try:
        heard = {name: await refusal(call) for name, call in calls(shared_server.admin).items()}
    finally:
        shared_server.cluster.faults.webhooks.clear()
    assert {name: (error.code.name, error.reason) for name, error in heard.items()} == dict.fromkeys(
        heard, ("FAILED_PRECONDITION", "CLUSTER_REFUSED")
    )
    assert [name for name, error in heard.items() if "policy says no" not in str(error)] == []
    assert await state(shared_server, demo) == before


async def test_dry_runs_of_stop_and_start_use_the_scale_subresource(
    shared_server: Server, demo: ClusterClient
) -> None:
    assert shared_server.cluster is not None
    asked: list[str] = []
    for name, scaled in {
        "StopContainer": "web",
        "StartContainer": "stopped",
        "PauseContainer": "web",
        "ResumeContainer": "paused",
    }.items():
        asked.clear()
        shared_server.cluster.faults.on_request = lambda method, path: asked.append(f"{method} {path}")
        try:
            await calls(shared_server.admin)[name]()
        finally:
            shared_server.cluster.faults.on_request = None
        assert f"PATCH /apis/apps/v1/namespaces/{SPACE}/deployments/{scaled}/scale" in asked, name
    web = await shared_server.admin.containers.get(namespace=SPACE, name="web")
    assert web.status == container.CONTAINER_STATUS_RUNNING


async def test_every_call_reports_an_unreachable_cluster(shared_server: Server, demo: ClusterClient) -> None:
    assert shared_server.cluster is not None
    shared_server.cluster.faults.refuse_connections = True
    try:
        asked = calls(shared_server.admin.with_options(retry=RetryPolicy(attempts=1), timeout=patient(30.0)))
        heard = dict(zip(asked, await asyncio.gather(*map(refusal, asked.values())), strict=True))
    finally:
        shared_server.cluster.faults.clear()
    assert {name: (error.code.name, error.metadata.get("cluster")) for name, error in heard.items()} == (
        dict.fromkeys(heard, ("UNAVAILABLE", "local"))
    )


async def test_foreign_objects_and_exceeded_quotas_are_reported(
    server: Server, own_demo: ClusterClient, tmp_path: Path
) -> None:
    theirs: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "more", "namespace": SPACE},
        "data": {"a": "theirs"},
    }
    await own_demo.apply(CONFIG_MAPS, theirs)
    error = await refusal(calls(server.admin)["CreateConfigMap"])
    assert (error.code.name, error.metadata["cluster_reason"]) == ("FAILED_PRECONDITION", "NameTaken")
    assert f"ConfigMap {SPACE}/more exists and does not belong to this config map" in str(error)
    quota: Manifest = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": SPACE},
        "spec": {"hard": {"configmaps": "2", "secrets": "1"}},
    }
    await own_demo.apply(QUOTAS, quota)

    async def counted() -> bool:
        return "secrets" in (await own_demo.read(QUOTAS, SPACE, "few")).get("status", {}).get("used", {})

    await poll_until(counted)
    file = tmp_path / "configs.yaml"
    file.write_text("""
apiVersion: v1
kind: ConfigMap
metadata: {name: third}
data: {a: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: second}
stringData: {a: s3cret-value}
""")
    shell = await logged_in(server, tmp_path)
    for arguments in ((), ("--dry-run",)):
        outcome = await shell.run("apply", "-f", str(file), "-n", SPACE, *arguments)
        assert outcome.code == 3
        for subject in ("configmap/third", "secret/second"):
            (line,) = [each for each in outcome.errors.splitlines() if subject in each]
            assert "exceeded quota: few" in line
        assert "s3cret-value" not in outcome.errors + outcome.output


async def test_an_object_too_large_for_the_cluster_is_reported(
    shared_server: Server, demo: ClusterClient
) -> None:
    # Control characters take six bytes each in the request.
    wanted = config.ConfigMap(name="large", data={"a": "\x01" * (1 << 20)})
    error = await refusal(
        lambda: shared_server.admin.config.create_config_map(
            namespace=SPACE, config_map=wanted, validate_only=True
        )
    )
    assert error.metadata["cluster_reason"] == "TooLarge"


async def test_no_refusal_repeats_a_value_of_a_secret(shared_server: Server, demo: ClusterClient) -> None:
    assert shared_server.cluster is not None
    shared_server.cluster.faults.webhooks.append(
        Webhook("leaky.example.org", ("secrets",), "no 'of the user' here")
    )
    try:
        error = await refusal(calls(shared_server.admin)["UpdateSecret"])
    finally:
        shared_server.cluster.faults.webhooks.clear()
    assert "no '[redacted]' here" in str(error)
    assert "of the user" not in str(error)
