"""A name that is taken is refused in the same words, whatever else is wrong and however many ask at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from tests.conftest import Database
from tests.harness import Server, running_server

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
async def test_the_name_is_what_the_caller_hears_of_first(
    database: Database, tmp_path: Path, validate_only: bool
) -> None:
    """Beside a service that is taken, a source that is missing, and a quota that is full."""
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


async def test_of_many_creates_at_once_one_has_the_name_and_the_others_are_told(
    database: Database, tmp_path: Path
) -> None:
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
