"""The simulated cluster as a separate process: started, stopped, killed, restarted, refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from pilothouse_server.launch.embedded.simulator import EmbeddedSimulator, EmbeddedSimulatorError
from pilothouse_simulator.store.state_file import parse
from tests.processes import is_gone
from tests.waiting import poll_until, runs_out

JsonObject = dict[str, Any]
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"

LAUNCHER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from pilothouse_server.launch.embedded.simulator import EmbeddedSimulator

    async def main():
        simulator = EmbeddedSimulator(Path(sys.argv[1]))
        await simulator.start()
        print(simulator.process_id, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
    """
)


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[EmbeddedSimulator, aiohttp.ClientSession]]:
    """Yields a simulator, and an HTTP session with its cluster."""
    simulator = EmbeddedSimulator(path)
    try:
        kubeconfig = await simulator.start()
        async with session_at(kubeconfig) as session:
            yield simulator, session
    finally:
        await simulator.stop()


def session_at(kubeconfig: Mapping[str, Any]) -> aiohttp.ClientSession:
    (cluster,), (user,) = kubeconfig["clusters"], kubeconfig["users"]
    headers = {"authorization": f"Bearer {user['user']['token']}"}
    return aiohttp.ClientSession(cluster["cluster"]["server"], headers=headers)


async def write(session: aiohttp.ClientSession, name: str) -> None:
    """Writes a config map. Returns when the cluster has responded."""
    async with session.post(CONFIG_MAPS, json={"metadata": {"name": name}}) as response:
        assert response.status == 201


async def names(session: aiohttp.ClientSession) -> set[str]:
    """Returns the config maps of the cluster, or none if it does not respond."""
    try:
        async with session.get(CONFIG_MAPS) as response:
            return {item["metadata"]["name"] for item in (await response.json())["items"]}
    except aiohttp.ClientError:
        return set()


def process_of(simulator: EmbeddedSimulator) -> int:
    process_id = simulator.process_id
    assert process_id is not None
    return process_id


async def test_the_simulator_responds_when_started_and_ends_when_stopped(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    async with running(path) as (simulator, session):
        await write(session, "kept")
        process_id = process_of(simulator)
        # Ctrl-C in the server's terminal must not reach the simulator, because the server drains first.
        assert os.getsid(process_id) == process_id != os.getsid(0)
    assert simulator.process_id is None
    assert await is_gone(process_id)
    async with running(path) as (_, session):
        assert "kept" in await names(session)


async def test_the_command_line_contains_no_token(tmp_path: Path) -> None:
    async with running(tmp_path / "cluster.json") as (simulator, session):
        token = session.headers["authorization"].removeprefix("Bearer ")
        folder = Path(f"/proc/{process_of(simulator)}")
        assert b"pilothouse_server.launch.simulation" in (folder / "cmdline").read_bytes()
        assert token.encode() not in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


async def test_a_killed_simulator_restarts_with_all_confirmed_writes(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    with capture_logs() as logs:
        async with running(path) as (simulator, session):
            for number in range(50):
                await write(session, f"map-{number}")
            killed = process_of(simulator)
            os.kill(killed, signal.SIGKILL)

            async def is_back() -> bool:
                return simulator.process_id not in (None, killed)

            # The new process may respond before the keeper has noted it.
            await poll_until(is_back, what="a new process")
            found = await poll_until(lambda: names(session), bool, what="the cluster at its old address")
            assert {f"map-{number}" for number in range(50)} <= found
    told = " ".join(line["event"] for line in logs)
    assert "has ended" in told
    assert "is back" in told


async def test_a_kill_of_the_launcher_ends_the_simulator(tmp_path: Path) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path / "cluster.json")], stdout=subprocess.PIPE, text=True
    )
    with launcher:
        assert launcher.stdout is not None
        process_id = int(await asyncio.to_thread(launcher.stdout.readline))
        assert not await is_gone(process_id)
        launcher.kill()
        await poll_until(lambda: is_gone(process_id), what="the end of the simulator")


async def test_a_failed_start_is_reported_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.json"
    path.write_text('{"format": 99}')
    with pytest.raises(EmbeddedSimulatorError, match="did not start: status 1"):
        await EmbeddedSimulator(path).start()
    assert "format 99" in capfd.readouterr().err


@pytest.mark.full
async def test_a_simulator_that_never_responds_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    # The simulator blocks forever when it reads this FIFO.
    os.mkfifo(path)
    simulator = EmbeddedSimulator(path, start_seconds=runs_out(3.0))
    with pytest.raises(EmbeddedSimulatorError, match="does not respond after 3 s"):
        await simulator.start()
    assert simulator.process_id is None
    waiting = [folder for folder in Path("/proc").glob("[0-9]*") if str(path) in _open_files(folder)]
    assert waiting == []


def _open_files(process: Path) -> set[str]:
    try:
        return {os.readlink(entry) for entry in (process / "fd").iterdir()}
    except OSError:
        return set()


@pytest.mark.full
async def test_a_second_simulator_on_one_file_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cluster.json"
    async with running(path) as (_, session):
        with pytest.raises(EmbeddedSimulatorError):
            await EmbeddedSimulator(path).start()
        assert "another simulated cluster is kept in" in capfd.readouterr().err
        await write(session, "first")
    assert "first" in {obj["metadata"]["name"] for obj in parse(path.read_bytes()).objects}


async def test_only_the_main_thread_may_start_a_simulator(tmp_path: Path) -> None:
    def elsewhere() -> None:
        asyncio.run(EmbeddedSimulator(tmp_path / "cluster.json").start())

    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(elsewhere)


async def test_definitions_are_served_next_to_the_gateway_api(tmp_path: Path) -> None:
    file = tmp_path / "definitions.yaml"
    file.write_text(
        """
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {name: stores.data.example.com}
        spec:
          group: data.example.com
          scope: Namespaced
          names: {kind: Store, plural: stores}
          versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
        """
    )
    simulator = EmbeddedSimulator(tmp_path / "cluster.json", definitions_path=file)
    try:
        async with session_at(await simulator.start()) as session, session.get("/apis") as response:
            groups = {group["name"] for group in (await response.json())["groups"]}
    finally:
        await simulator.stop()
    assert {"data.example.com", "gateway.networking.k8s.io"} <= groups
    file.write_text("{kind: Secret}")
    with pytest.raises(EmbeddedSimulatorError):
        await EmbeddedSimulator(tmp_path / "other.json", definitions_path=file).start()
