"""A taken name is refused with the same message, regardless of other faults and of concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client import PilothouseError
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.waiting import poll_until

_TAKEN = ("CONTAINER_ALREADY_EXISTS", {"resource_type": "container", "name": "web"})


def _container(name: str = "web", **fields: object) -> container_pb2.Container:
    return container_pb2.Container(name=name, image="nginx:1.27", **fields)  # type: ignore[arg-type]


def _port(service: str) -> container_pb2.Port:
    return container_pb2.Port(container_port=80, service_name=service)


async def _refused(
    server: Server, container: container_pb2.Container, *, validate_only: bool
) -> PilothouseError:
    with pytest.raises(PilothouseError) as raised:
        await server.admin.containers.create(
            namespace="small", container=container, validate_only=validate_only
        )
    return raised.value


@pytest.mark.parametrize("validate_only", [False, True])
async def test_a_taken_name_is_reported_before_other_faults(
    database: Database, tmp_path: Path, validate_only: bool
) -> None:
    """The request also has a taken service, a missing source, and exceeds the quota."""
    async with running_server(database, tmp_path, with_cluster=False) as server:
        quota = namespace_pb2.ResourceQuota(containers=2)
        await server.admin.namespaces.create(
            namespace=namespace_pb2.Namespace(name="small", resource_quota=quota)
        )
        await server.admin.containers.create(namespace="small", container=_container())
        wrong = [_container(), _container(image_pull_secrets=["nowhere"])]
        await server.admin.containers.create(
            namespace="small", container=_container("other", ports=[_port("taken")])
        )
        wrong += [_container(ports=[_port("taken")])]
        for container in wrong:
            error = await _refused(server, container, validate_only=validate_only)
            assert (error.reason, error.metadata) == _TAKEN
            assert 'container "web" already exists' in str(error)
        error = await _refused(server, _container("new", ports=[_port("taken")]), validate_only=validate_only)
        assert error.reason == "SERVICE_ALREADY_EXISTS"
        assert error.metadata == {"service": "taken", "container": "other"}
        error = await _refused(server, _container("new"), validate_only=validate_only)
        assert error.reason == "QUOTA_EXCEEDED"


async def test_only_one_of_many_concurrent_creates_gets_the_name(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="small"))

        async def create() -> tuple[str, dict[str, str]]:
            try:
                await server.admin.containers.create(namespace="small", container=_container())
            except PilothouseError as error:
                return error.reason, dict(error.metadata)
            return "created", {}

        outcomes = await asyncio.gather(*(create() for _ in range(8)))
        assert outcomes.count(("created", {})) == 1
        assert outcomes.count(_TAKEN) == 7


async def test_the_name_of_an_object_being_deleted_is_refused_as_such(
    database: Database, tmp_path: Path
) -> None:
    """The cluster no longer responds, so the deleted container stays until it does."""
    async with running_server(database, tmp_path) as server:
        admin = server.admin
        home = namespace_pb2.Namespace(name="small")
        await admin.namespaces.create(namespace=home)
        # An object that was never on the cluster would be deleted immediately.
        await poll_until(lambda: admin.namespaces.get(name="small"), lambda found: found.phase == "Active")
        assert server.cluster is not None
        server.cluster.faults.latency_seconds = 60.0
        volume = storage_pb2.Volume(
            name="web", type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM, size="1Gi"
        )
        mounting = _container(volume_mounts=[container_pb2.VolumeMount(volume="other", mount_path="/a")])
        await admin.storage.create_volume(
            volume=storage_pb2.Volume(
                name="other", type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM, size="1Gi"
            ),
            namespace="small",
        )
        config, secret = config_pb2.ConfigMap(name="web"), config_pb2.Secret(name="web")
        making: list[Callable[[], Awaitable[object]]] = [
            lambda: admin.containers.create(container=_container(), namespace="small"),
            lambda: admin.storage.create_volume(volume=volume, namespace="small"),
            lambda: admin.config.create_config_map(config_map=config, namespace="small"),
            lambda: admin.config.create_secret(secret=secret, namespace="small"),
        ]
        for make in making:
            await make()
        await admin.containers.delete(name="web", namespace="small")
        await admin.storage.delete_volume(name="web", namespace="small")
        await admin.config.delete_config_map(name="web", namespace="small")
        await admin.config.delete_secret(name="web", namespace="small")
        # A container that mounts a volume is created by other statements.
        making.append(lambda: admin.containers.create(container=mounting, namespace="small"))
        for make in making:
            with pytest.raises(PilothouseError) as raised:
                await make()
            assert raised.value.code.name == "ALREADY_EXISTS"
            assert raised.value.metadata["being_deleted"] == "true"
            assert '"web" already exists, and is being deleted' in str(raised.value)
        await admin.namespaces.delete(name="small", cascade=True)
        with pytest.raises(PilothouseError) as raised:
            await admin.namespaces.create(namespace=home)
        assert raised.value.metadata["being_deleted"] == "true"
        server.cluster.faults.clear()
