"""Changes of containers of one kind, by concurrent callers, for some seconds; each caller has its own containers.

A kind that consists of two opposite calls (stop and start, pause and resume, two replicas and one) makes both calls
in turn for a container, so a run leaves the containers as it found them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any
from uuid import uuid4

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from benchmarks.child import answering
from pilothouse.container.v1 import container_pb2 as pb

_SERVICE = "/pilothouse.container.v1.ContainerService/"
# A call, and the fields of its request in addition to the names.
_Step = tuple[str, type[Message], Callable[[int], dict[str, Any]]]


def _update(path: str, value: Callable[[int], Any]) -> _Step:
    def fields(number: int) -> dict[str, Any]:
        return {
            "container": pb.Container(**{path: value(number)}),
            "update_mask": FieldMask(paths=[path]),
        }

    return "UpdateContainer", pb.UpdateContainerRequest, fields


def _named(method: str, request: type[Message]) -> _Step:
    return method, request, lambda _number: {}


KINDS: Mapping[str, tuple[_Step, ...]] = {
    "update": (_update("labels", lambda number: {"app": "web", "number": f"{number}"}),),
    "scale": (_update("replicas", lambda _number: 2), _update("replicas", lambda _number: 1)),
    "stop, start": (
        _named("StopContainer", pb.StopContainerRequest),
        _named("StartContainer", pb.StartContainerRequest),
    ),
    "pause, resume": (
        _named("PauseContainer", pb.PauseContainerRequest),
        _named("ResumeContainer", pb.ResumeContainerRequest),
    ),
    "restart": (_named("RestartContainer", pb.RestartContainerRequest),),
}


class Changes:
    """The changes of this process."""

    def __init__(self) -> None:
        self._numbers = count()

    async def run(
        self, address: str, kind: str, owned: list[list[list[str]]], seconds: float, token: str
    ) -> dict[str, float]:
        """Runs one caller for each list of `owned`, which contains the namespace and name of the caller's containers.

        Raises AioRpcError if a call fails.
        """
        metadata = (("authorization", f"Bearer {token}"),)
        answered = 0
        async with grpc.aio.insecure_channel(address) as channel:
            steps: list[tuple[Any, Any, Callable[[int], dict[str, Any]]]] = [
                (channel.unary_unary(_SERVICE + method), request, fields)
                for method, request, fields in KINDS[kind]
            ]
            began = time.perf_counter()
            end = began + seconds

            async def one_client(containers: list[list[str]]) -> None:
                nonlocal answered
                number = 0
                while time.perf_counter() < end:
                    namespace, name = containers[number % len(containers)]
                    number += 1
                    for call, request, fields in steps:
                        sent = request(
                            namespace=namespace,
                            name=name,
                            request_id=str(uuid4()),
                            **fields(next(self._numbers)),
                        )
                        await call(sent.SerializeToString(), metadata=metadata)
                        answered += 1

            await asyncio.gather(*(one_client(containers) for containers in owned))
            taken = time.perf_counter() - began
        return {"rate": answered / taken, "calls": answered}


def main() -> None:
    """Runs the process."""
    answering({"run": Changes().run})


if __name__ == "__main__":
    main()
