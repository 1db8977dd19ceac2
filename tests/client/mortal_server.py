"""A server process that takes a call, commits it and dies before it answers.

`python -m tests.client.mortal_server PORT LEDGER` serves `CreateContainer` on 127.0.0.1:PORT (0: a free one) and prints
the port once it does. Committing means a line in the file LEDGER: the request's `request_id`. A request that stands
there already is a replay, and is answered. Any other is committed, and then the process kills itself, so that the
client sees a broken connection and, from then on, nobody who listens.
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
    # It serves one RPC, not all that the servicer declares.
    container_pb2_grpc.add_ContainerServiceServicer_to_server(cast("Any", Containers)(ledger), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
