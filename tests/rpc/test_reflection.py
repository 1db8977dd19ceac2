"""Reflection in both versions: the requests of clients for descriptors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from tests.conftest import Database
from tests.harness import running_server
from tests.readme.served import BIN

_METHOD = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"
_SERVICE = "pilothouse.container.v1.ContainerService"


async def _answers(channel: grpc.aio.Channel, version: str, **request: Any) -> Any:
    converse: Any = channel.stream_stream(_METHOD.format(version))
    message = reflection_pb2.ServerReflectionRequest(**request).SerializeToString()
    (raw,) = [each async for each in converse(iter([message]))]
    return reflection_pb2.ServerReflectionResponse.FromString(raw)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_each_version_lists_services_and_describes_them(
    database: Database, tmp_path: Path, version: str
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        channel = server.channel()
        listed = (await _answers(channel, version, list_services="*")).list_services_response.service
        names = {each.name for each in listed}
        assert {_SERVICE, "grpc.reflection.v1.ServerReflection", "grpc.health.v1.Health"} <= names
        for symbol in (_SERVICE, "grpc.reflection.v1.ServerReflection"):
            answer = await _answers(channel, version, file_containing_symbol=symbol)
            files = [
                FileDescriptorProto.FromString(each)
                for each in answer.file_descriptor_response.file_descriptor_proto
            ]
            services = {f"{file.package}.{each.name}" for file in files for each in file.service}
            assert symbol in services


async def test_buf_curl_reads_the_services_by_reflection(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        process = await asyncio.create_subprocess_exec(
            BIN / "buf", "curl", "--list-services", "--http2-prior-knowledge", "--protocol", "grpc",
            "--reflect-protocol", "grpc-v1", f"http://{server.address}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        listed, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert _SERVICE in listed.decode().split()
