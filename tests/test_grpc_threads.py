"""A process serves calls before it reads new data: gRPC's threads have a higher nice value than its own."""

from __future__ import annotations

import json
import sys

from pilothouse_server.runtime.process_tuning import READING_NICENESS as NICENESS
from tests.processes import finished

# Starts a server, makes it read many connections in parallel, so that gRPC starts further threads, and prints the
# niceness of each thread.
_PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
import grpc.aio
from pilothouse_server.runtime.process_tuning import served_calls_go_first

def nice():
    found = {}
    for thread in Path("/proc/self/task").glob("*"):
        name = (thread / "comm").read_text().strip()
        name = "main" if int(thread.name) == os.getpid() else name
        found.setdefault(name, []).append(os.getpriority(os.PRIO_PROCESS, int(thread.name)))
    return found

async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    own = (("grpc.use_local_subchannel_pool", 1),)
    async def call():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own) as channel:
            try:
                await channel.unary_unary("/a/b")(b"x" * 100_000)
            except grpc.aio.AioRpcError:
                pass
    await call()
    if sys.argv[1] == "told":
        served_calls_go_first()
    for _ in range(3):
        await asyncio.gather(*(call() for _ in range(50)))
    print(json.dumps(nice()))
    await server.stop(None)

asyncio.run(main())
"""


async def _niceness(told: str) -> dict[str, list[int]]:
    code, output, errors = await finished(sys.executable, "-c", _PROGRAM, told)
    assert code == 0, errors.decode()
    found: dict[str, list[int]] = json.loads(output)
    return found


async def test_serving_calls_has_priority_over_reading_new_ones() -> None:
    told, other = await _niceness("told"), await _niceness("not told")
    (usual,) = told["main"]
    assert set(told["event_engine"]) == {max(usual, NICENESS)}
    # The control.
    assert set(other["event_engine"]) == {usual}
