"""A server process that commits a call and dies before it responds.

`python -m tests.client.mortal_server PORT LEDGER` serves `CreateContainer` on 127.0.0.1:PORT (0 selects a free port)
and prints the port when it is ready. To commit, it appends the request's `request_id` to the file LEDGER. A request
whose id is already in the file is a replay, and receives a response. After any other request the process kills itself:
the client sees a broken connection, and later connections are refused.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

import grpc.aio

from pilothouse.container.v1 import container_pb2, container_pb2_grpc


class Containers(container_pb2_grpc.ContainerServiceServicer):
    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger

    async def CreateContainer(self, request: Any, _context: Any) -> Any:
        if request.request_id not in self._ledger.read_text().splitlines():
            with self._ledger.open("a") as ledger:
                ledger.write(f"{request.request_id}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return container_pb2.CreateContainerResponse(container=request.container)


async def serve(port: int, ledger: Path) -> None:
    ledger.touch()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    # It implements one RPC of the servicer, hence the cast.
    container_pb2_grpc.add_ContainerServiceServicer_to_server(cast("Any", Containers)(ledger), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
