"""Calls of one method with HTTP, concurrently over as many persistent connections, like `loads.calls` with gRPC."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from itertools import count

import aiohttp

from benchmarks.child import answering


async def run(
    url: str, requests: list[str], headers: dict[str, str], concurrency: int, seconds: float
) -> dict[str, float]:
    """Posts `requests` (base64) in turn. Raises ClientResponseError if one fails."""
    ready = [b64decode(request) for request in requests]
    numbers = count()
    answered = 0
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:

        async def call() -> None:
            body = ready[next(numbers) % len(ready)]
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()

        await call()
        began = time.perf_counter()
        end = began + seconds

        async def one_client() -> None:
            nonlocal answered
            while time.perf_counter() < end:
                await call()
                answered += 1

        await asyncio.gather(*(one_client() for _ in range(concurrency)))
        taken = time.perf_counter() - began
    return {"rate": answered / taken, "calls": answered + 1}


if __name__ == "__main__":
    answering({"run": run})
