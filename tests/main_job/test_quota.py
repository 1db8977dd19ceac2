"""The quota of a namespace holds under any concurrency."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.protobuf import field_mask_pb2

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from tests.conftest import Database
from tests.harness import Server, running_server


def container(
    name: str, cpu: str = "100m", memory: str = "64Mi", replicas: int = 1
) -> container_pb2.Container:
    return container_pb2.Container(
        name=name,
        image="nginx:1.27",
        replicas=replicas,
        resources=container_pb2.Resources(cpu_request=cpu, memory_request=memory),
    )


async def namespace(server: Server, name: str = "tight", /, **quota: object) -> None:
    await server.admin.namespaces.create(
        namespace=namespace_pb2.Namespace(
            name=name,
            resource_quota=namespace_pb2.ResourceQuota(**quota),  # type: ignore[arg-type]
        )
    )


async def test_fifty_concurrent_creates_never_exceed_the_quota(database: Database, tmp_path: Path) -> None:
    quotas: dict[str, tuple[object, int]] = {"containers": (7, 7), "cpu": ("1", 10), "memory": ("256Mi", 4)}
    async with running_server(database, tmp_path, with_cluster=False) as server:
        for name, (quota, fits) in quotas.items():
            await namespace(server, name, **{name: quota})

            async def create(index: int, space: str = name) -> str:
                try:
                    await server.admin.containers.create(namespace=space, container=container(f"c{index}"))
                except PilothouseError as error:
                    return error.reason
                return "created"

            outcomes = await asyncio.gather(*(create(index) for index in range(50)))
            assert outcomes.count("created") == fits
            assert set(outcomes) == {"created", "QUOTA_EXCEEDED"}
            assert len([item async for item in server.admin.containers.list(namespace=name)]) == fits
            used = await server.admin.namespaces.get_quota_usage(name=name)
            assert used.used.containers == fits
            assert used.used.cpu == ("1" if fits == 10 else f"{fits * 100}m")


async def test_the_quota_counts_replicas_updates_and_deletions(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await namespace(server, cpu="1")
        containers = server.admin.containers
        await containers.create(namespace="tight", container=container("a", cpu="200m", replicas=3))
        with pytest.raises(PilothouseError) as refused:
            await containers.create(namespace="tight", container=container("b", cpu="500m"))
        assert refused.value.reason == "QUOTA_EXCEEDED"
        assert refused.value.metadata == {"resource": "cpu", "limit": "1", "used": "600m", "asked": "500m"}
        await containers.stop(namespace="tight", name="a")
        with pytest.raises(PilothouseError):
            await containers.create(namespace="tight", container=container("b", cpu="500m"))
        with pytest.raises(PilothouseError) as refused:
            await containers.update(
                namespace="tight",
                name="a",
                container=container_pb2.Container(replicas=6),
                update_mask=field_mask_pb2.FieldMask(paths=["replicas"]),
            )
        assert refused.value.reason == "QUOTA_EXCEEDED"
        await containers.delete(namespace="tight", name="a")
        await containers.create(namespace="tight", container=container("b", cpu="500m"))


async def test_a_container_without_requests_and_limits_uses_no_quota(
    database: Database, tmp_path: Path
) -> None:
    """It is created although the quota is used up, and counts as soon as it has a request or a limit."""
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await namespace(server, cpu="1", memory="1Gi", containers=3)
        containers = server.admin.containers

        async def used() -> tuple[int, str, str]:
            found = (await server.admin.namespaces.get_quota_usage(name="tight")).used
            return found.containers, found.cpu, found.memory

        await containers.create(namespace="tight", container=container("full", cpu="1", memory="1Gi"))
        await containers.create(namespace="tight", container=container("none", cpu="", memory="", replicas=9))
        assert await used() == (2, "1", "1Gi")
        named = {
            "resources": container_pb2.Container(
                replicas=9, resources=container_pb2.Resources(cpu_limit="1m")
            ),
            "init_containers": container_pb2.Container(
                init_containers=[
                    container_pb2.InitContainer(
                        name="first",
                        image="nginx:1.27",
                        resources=container_pb2.Resources(memory_limit="1Mi"),
                    )
                ]
            ),
        }
        for path, wanted in named.items():
            with pytest.raises(PilothouseError) as refused:
                await containers.update(
                    namespace="tight",
                    name="none",
                    container=wanted,
                    update_mask=field_mask_pb2.FieldMask(paths=[path]),
                )
            assert refused.value.reason == "QUOTA_EXCEEDED"
        # The number of containers includes all of them.
        await containers.create(namespace="tight", container=container("more", cpu="", memory=""))
        with pytest.raises(PilothouseError) as refused:
            await containers.create(namespace="tight", container=container("too-many", cpu="", memory=""))
        assert refused.value.metadata["resource"] == "containers"
