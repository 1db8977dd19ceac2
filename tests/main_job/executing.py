"""Runs programs in the container `web` of a namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict

from pilothouse.audit.v1 import audit_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.transport import AsyncTransport
from tests.harness import Server
from tests.waiting import poll_until, within


async def make_web(server: Server) -> None:
    """Makes the namespace and the container, and waits until the container runs."""
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=server.namespace))
    await server.admin.containers.create(
        namespace=server.namespace,
        container=pb.Container(name="web", image="busybox:1.37", command=["sleep", "3600"]),
    )

    async def runs() -> bool:
        found = await server.admin.containers.get(namespace=server.namespace, name="web")
        return found.status == pb.CONTAINER_STATUS_RUNNING

    await poll_until(runs)


def start(*command: str, stdin: bool = False, record: bool = False, **more: Any) -> pb.ExecRequest:
    """Returns the first message of an `exec` call."""
    return pb.ExecRequest(
        start=pb.ExecStart(
            namespace="demo", name="web", command=command, stdin=stdin, record_content=record, **more
        )
    )


async def held(*requests: pb.ExecRequest) -> AsyncIterator[pb.ExecRequest]:
    """Yields the requests and then waits for ever, like a person at a terminal."""
    for request in requests:
        yield request
    await asyncio.Event().wait()


async def run(
    client: Nouns[AsyncTransport], requests: Sequence[pb.ExecRequest] | AsyncIterator[pb.ExecRequest]
) -> tuple[bytes, bytes, pb.ExecResult]:
    """Runs a program to its end; returns its output, its errors and its result."""
    out, err, result = b"", b"", pb.ExecResult(exit_code=-100)
    async with within(20), client.containers.exec(requests) as answers:
        async for answer in answers:
            out += answer.stdout
            err += answer.stderr
            if answer.HasField("result"):
                result = answer.result
    return out, err, result


async def records_of_ends(
    server: Server, count: int, command: Sequence[str] | None = None
) -> list[audit_pb2.Operation]:
    """Returns the records of ended programs, or of those with this command, once there are `count` of them."""

    async def closed() -> list[audit_pb2.Operation]:
        found = [
            item
            async for item in server.admin.audit.list_operations(
                filter='action = "exec"', order_by="start_time"
            )
            if item.metadata["stream_event"] == "closed"
            and (command is None or MessageToDict(item.metadata)["command"] == list(command))
        ]
        return found if len(found) >= count else []

    return await poll_until(closed)
