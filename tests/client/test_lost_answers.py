"""The client's report about a call whose response is lost, and the duration of its retries.

The server is a separate process that commits a call and dies (`mortal_server`). The same tests run with the blocking
and the asynchronous client.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from pilothouse.container.v1.container_pb2 import Container
from pilothouse_client import (
    AsyncClient,
    Client,
    NotFoundError,
    PilothouseError,
    RetryPolicy,
    UnavailableError,
)
from tests.client.conftest import PASSWORD
from tests.client.fake_server import FakeServer
from tests.conventions.sources import ROOT
from tests.waiting import patient

# Far more attempts than a restart needs, with short delays.
EAGER = RetryPolicy(initial_delay=0.005, greatest_delay=0.05)

Create = Callable[..., Coroutine[Any, Any, Container]]


async def _with_the_blocking_client(address: str, **options: Any) -> Any:
    def create() -> Any:
        with Client(address, token="key", **options) as client:
            return client.containers.create(namespace="shop", container=Container(name="web", image="nginx"))

    return await asyncio.to_thread(create)


async def _with_the_asynchronous_client(address: str, **options: Any) -> Any:
    async with AsyncClient(address, token="key", **options) as client:
        return await client.containers.create(
            namespace="shop", container=Container(name="web", image="nginx")
        )


both_clients = pytest.mark.parametrize(
    "create", [_with_the_blocking_client, _with_the_asynchronous_client], ids=["blocking", "asynchronous"]
)


@dataclass
class Mortal:
    """One process of the server. `ledger` outlives it."""

    process: asyncio.subprocess.Process
    port: int
    ledger: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def committed(self) -> list[str]:
        return self.ledger.read_text().split()


@contextlib.asynccontextmanager
async def _mortal_server(ledger: Path, port: int = 0) -> AsyncIterator[Mortal]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.client.mortal_server",
        str(port),
        str(ledger),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        yield Mortal(process, int(line), ledger)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@both_clients
async def test_a_committed_call_is_never_reported_as_unsent(tmp_path: Path, create: Create) -> None:
    async with _mortal_server(tmp_path / "ledger") as mortal:
        with pytest.raises(UnavailableError) as caught:
            await create(mortal.address, retry=EAGER, timeout=patient(0.4))
        await mortal.process.wait()
        # The last attempts were refused connections, and each of them by itself was certainly not sent.
        assert "no server responds" in caught.value.message
        assert not caught.value.never_sent
        assert [caught.value.request_id] == mortal.committed


@both_clients
async def test_a_call_outlasts_a_restart_and_happens_once(tmp_path: Path, create: Create) -> None:
    async with _mortal_server(tmp_path / "ledger") as mortal:
        waiting = asyncio.create_task(create(mortal.address, retry=EAGER))
        await mortal.process.wait()
        async with _mortal_server(mortal.ledger, mortal.port) as again:
            assert (await waiting).name == "web"
            assert len(again.committed) == 1


@both_clients
async def test_a_call_that_no_server_received_is_reported_as_unsent(create: Create) -> None:
    # The attempts end the call, not its deadline: whether an attempt was sent that the deadline cut off is unknown.
    # The port is taken and nothing listens on it, so no other process can get it.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError) as caught:
            await create(address, retry=replace(EAGER, attempts=5), timeout=patient(5.0))
    assert caught.value.never_sent
    assert uuid.UUID(caught.value.request_id).version == 4


async def test_every_error_of_a_mutation_has_its_request_id(fake: FakeServer) -> None:
    async with AsyncClient(fake.address, username="admin", password=PASSWORD) as client:
        given = str(uuid.uuid4())
        with pytest.raises(NotFoundError) as caught:
            await client.containers.delete(namespace="shop", name="none", request_id=given)
        assert caught.value.request_id == given
        fake.fail("CreateContainer", grpc.StatusCode.INTERNAL, reason="FAULT")
        with pytest.raises(PilothouseError) as failed:
            await client.containers.create(namespace="shop", container=Container(name="web"))
        assert failed.value.request_id == fake.calls_of("CreateContainer")[0].request.request_id
        with pytest.raises(NotFoundError) as read:
            await client.containers.get(namespace="shop", name="none")
        assert read.value.request_id == ""
