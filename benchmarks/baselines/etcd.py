"""etcd as a baseline: one server on a free port, and the three messages that it needs, encoded by hand.

Field numbers are those of etcd's `rpc.proto`: `PutRequest` { key = 1, value = 2 },
`WatchRequest` { create_request = 1 } and `WatchCreateRequest` { key = 1 }.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from benchmarks.machine import free_port, pin

PUT = "/etcdserverpb.KV/Put"
WATCH = "/etcdserverpb.Watch/Watch"
KEY = b"measured"
_START_SECONDS = 30.0


def put_request(key: bytes, value: bytes) -> bytes:
    """Returns a `PutRequest`."""
    return _field(1, key) + _field(2, value)


def watch_request(key: bytes) -> bytes:
    """Returns a `WatchRequest` that creates a watch of one key."""
    return _field(1, _field(1, key))


def _field(number: int, value: bytes) -> bytes:
    if len(value) > 127:
        raise ValueError("longer than a length of one byte says")
    return bytes((number << 3 | 2, len(value))) + value


def installed() -> bool:
    """Returns whether etcd is installed."""
    return shutil.which("etcd") is not None


@asynccontextmanager
async def running(directory: Path, cores: frozenset[int]) -> AsyncIterator[tuple[str, int]]:
    """Runs etcd with its default settings, which flush each put; yields its address and its process id.

    Raises:
            RuntimeError: etcd is not installed.
    """
    program = shutil.which("etcd")
    if program is None:
        raise RuntimeError("etcd is not installed")
    client, peer = free_port(), free_port()
    url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    process = await asyncio.create_subprocess_exec(
        program,
        *("--data-dir", str(directory), "--log-level", "error", "--name", "measured"),
        *("--listen-client-urls", url, "--advertise-client-urls", url),
        *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
        *("--initial-cluster", f"measured={peer_url}"),
    )
    pin(process.pid, cores)
    try:
        address = f"127.0.0.1:{client}"
        await _answers(address)
        yield address, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answers(address: str) -> None:
    async with asyncio.timeout(_START_SECONDS), grpc.aio.insecure_channel(address) as channel:
        put: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUT)
        while True:
            try:
                await put(put_request(KEY, b"first"), wait_for_ready=True)
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
