"""The time of a Python that only imports grpc and connects: the minimum for the start of any server."""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks.child import answering

_PROGRAM = """
import asyncio, sys
import grpc.aio

async def main():
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        await channel.channel_ready()

asyncio.run(main())
"""


async def connect(address: str) -> float:
    """Returns the seconds from the start of the interpreter until it has connected and ended."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, address)
    if await process.wait():
        raise RuntimeError("it cannot connect")
    return time.monotonic() - began


def main() -> None:
    """Runs the process."""
    answering({"connect": connect})


if __name__ == "__main__":
    main()
