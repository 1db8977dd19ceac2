"""All containers of a server: as the first state of a watch, or as pages of a list."""

from __future__ import annotations

import time

import grpc.aio

from benchmarks.child import answering
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource

_SERVICE = "/pilothouse.container.v1.ContainerService"
_LIMIT_BYTES = 64 << 20
_OPTIONS = (("grpc.max_receive_message_length", _LIMIT_BYTES),)


async def watch(address: str, token: str) -> dict[str, float]:
    """Returns the seconds until the first message and until SYNCED, and the number of containers."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            f"{_SERVICE}/WatchContainers"
        )
        await channel.channel_ready()
        began = time.perf_counter()
        stream = call(b"", metadata=(("authorization", f"Bearer {token}"),))
        first, containers = 0.0, 0
        async for raw in stream:
            first = first or time.perf_counter() - began
            answer = pb.WatchContainersResponse.FromString(raw)
            if answer.change_type == resource.CHANGE_TYPE_SYNCED:
                break
            containers += 1
        seconds = time.perf_counter() - began
        stream.cancel()
        return {"first": first, "seconds": seconds, "calls": containers}


async def pages(address: str, token: str, page_size: int) -> dict[str, float]:
    """Returns the seconds until all pages have arrived, and the number of containers in them."""
    request = pb.ListContainersRequest(page_size=page_size)
    containers = 0
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"{_SERVICE}/ListContainers"
        )
        await channel.channel_ready()
        began = time.perf_counter()
        while True:
            raw = await call(request.SerializeToString(), metadata=(("authorization", f"Bearer {token}"),))
            answer = pb.ListContainersResponse.FromString(raw)
            containers += len(answer.containers)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return {"seconds": time.perf_counter() - began, "calls": containers}


def main() -> None:
    """Runs the process."""
    answering({"watch": watch, "pages": pages})


if __name__ == "__main__":
    main()
