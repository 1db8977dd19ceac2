"""`pilothouse serve --dev` and its simulated cluster: two processes, of which neither harms the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_server.launch.development import DATABASE
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_simulator.store.state_file import parse
from tests.conftest import StartMigrated
from tests.processes import is_gone
from tests.readme.served import BIN, Shell, server_variables
from tests.waiting import patient, poll_until, within

PASSWORD = "correct horse battery staple"
_LISTENING = re.compile(r"serves gRPC on (\S+)")


@dataclass
class Development:
    """A server started with --dev, and its output after its address."""

    process: asyncio.subprocess.Process
    client: AsyncClient
    printed: list[str]

    @property
    def simulator(self) -> int:
        """The process id of its simulated cluster."""
        found: list[int] = []
        for child in psutil.Process(self.process.pid).children():
            # A child may end while it is read.
            with contextlib.suppress(psutil.NoSuchProcess):
                if "pilothouse_server.launch.simulation" in child.cmdline():
                    found.append(child.pid)
        (simulator,) = found
        return simulator

    def said(self, words: str) -> bool:
        return any(words in line for line in self.printed)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@pytest_asyncio.fixture
async def folder(tmp_path: Path, start_migrated: StartMigrated) -> Path:
    """Returns a directory with a migrated database for the start."""
    postgres = EmbeddedPostgres(tmp_path / "data" / "postgres")
    try:
        await start_migrated(postgres, DATABASE)
    finally:
        await postgres.stop()
    return tmp_path


@asynccontextmanager
async def development(directory: Path) -> AsyncIterator[Development]:
    """Starts the server on the data in the directory, and kills it at the end."""
    variables = {
        "PILOTHOUSE_LISTEN": "127.0.0.1:0",
        "PILOTHOUSE_DATA_DIR": str(directory / "data"),
        "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
    }
    process = await asyncio.create_subprocess_exec(
        BIN / "pilothouse",
        "serve",
        "--dev",
        cwd=directory,
        env={**server_variables(directory), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    printed: list[str] = []
    reading = None
    try:
        async with within(60.0):
            while (found := _LISTENING.search(printed[-1] if printed else "")) is None:
                printed.append((await process.stdout.readline()).decode())
                assert printed[-1], "".join(printed)
        reading = asyncio.create_task(_read(process.stdout, printed))
        async with AsyncClient(found[1], username="admin", password=PASSWORD) as client:
            yield Development(process, client, printed)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if reading is not None:
            await asyncio.wait_for(reading, patient(10.0))


async def _read(stream: asyncio.StreamReader, printed: list[str]) -> None:
    while line := await stream.readline():
        printed.append(line.decode())


async def _run_web(client: AsyncClient) -> str:
    """Makes a container, waits until it runs, and returns the address of its pod."""
    await client.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    await _create(client, "web")
    return await _running(client)


async def _create(client: AsyncClient, name: str) -> container_pb2.Container:
    container = container_pb2.Container(name=name, image="nginx:1.27")
    return await client.containers.create(namespace="demo", container=container)


async def _running(client: AsyncClient, name: str = "web") -> str:
    found = await poll_until(
        lambda: client.containers.get(namespace="demo", name=name),
        lambda found: found.status == container_pb2.CONTAINER_STATUS_RUNNING and found.pod_ip,
        what="the container runs",
    )
    return found.pod_ip


@pytest.mark.full(minutes=5)
async def test_a_killed_server_ends_the_simulator_and_loses_nothing(folder: Path) -> None:
    state = folder / "data" / "cluster.json"
    async with development(folder) as run:
        address = await _run_web(run.client)
        simulator = run.simulator
        await run.kill()
        await poll_until(lambda: is_gone(simulator), what="the simulator's end")
    kept = parse(state.read_bytes())
    (pod,) = [obj for obj in kept.objects if obj["kind"] == "Pod"]
    assert (pod["status"]["phase"], pod["status"]["podIP"]) == ("Running", address)
    async with development(folder) as run:
        assert await _running(run.client) == address
    (again,) = [obj for obj in parse(state.read_bytes()).objects if obj["kind"] == "Pod"]
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]


@pytest.mark.full(minutes=5)
async def test_a_hanging_simulator_blocks_no_call_and_a_dead_one_is_started_again(folder: Path) -> None:
    async with development(folder) as run:
        address = await _run_web(run.client)
        killed = run.simulator
        os.kill(killed, signal.SIGSTOP)
        try:
            async with within(10.0):
                created = await _create(run.client, "later")
                assert created.status == container_pb2.CONTAINER_STATUS_PENDING
                names = {each.name async for each in run.client.containers.list(namespace="demo")}
                assert names == {"web", "later"}
        finally:
            os.kill(killed, signal.SIGCONT)

        os.kill(killed, signal.SIGKILL)

        async def is_back() -> bool:
            return run.said("the simulated cluster is back")

        await poll_until(is_back, what="the simulator is started again")
        assert run.said("the simulated cluster has ended")
        assert run.simulator != killed
        await _create(run.client, "last")
        for name in ("later", "last"):
            await _running(run.client, name)
        assert await _running(run.client) == address


@pytest.mark.full(minutes=5)
async def test_a_simulator_that_cannot_start_ends_the_start_and_the_database(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "cluster.json").write_text('{"format": 99}')
    variables = {"PILOTHOUSE_LISTEN": "127.0.0.1:0", "PILOTHOUSE_DATA_DIR": str(data)}
    said = await Shell("", tmp_path, variables).run("pilothouse serve --dev", succeeds=False)
    assert "cluster.json holds no cluster that can be loaded: it is in format 99" in said
    assert "pilothouse: the simulated cluster did not start" in said
    assert "Traceback" not in said
    assert (data / "postgres" / "data" / "PG_VERSION").exists()
    assert not (data / "postgres" / "data" / "postmaster.pid").exists()
