"""Several processes behave as one server for every caller, watcher, scraper and operator."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.launch.processes.supervisor import of_one_process
from pilothouse_server.settings.model import Settings, SettingsError, load
from tests.conftest import Database, connection
from tests.processes import is_gone
from tests.readme.served import Shell, serving
from tests.supervisor.group import Group, group, variables
from tests.waiting import poll_until

CALLS = 7
_NUMBER = re.compile(r"process=[12]\b")
_PASSWORD = re.compile(r"password +(\S+)")
_RECORDS = "SELECT count(*) FROM operation_logs WHERE request_path LIKE '%/GetNamespace'"


async def test_two_processes_are_one_server(database: Database, tmp_path: Path) -> None:
    async with group(tmp_path, variables(database, tmp_path)) as running:
        children = running.children()
        assert len(children) == 2
        one, other = [await running.client(child) for child in children]
        # A write through one process is immediately visible in the other, because both use one database and each
        # receives the other's changes.
        await one.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        for client in (one, other):
            for _ in range(CALLS):
                assert (await client.namespaces.get(name="demo")).name == "demo"
        await each_is_healthy(running)

        async def counted() -> float:
            return await running.counted("GetNamespace")

        # A process that responds too late to a scrape is in a later one.
        assert await poll_until(counted, lambda count: count >= 2 * CALLS) == 2 * CALLS
        await of_each_process(running)

        async def recorded() -> int:
            async with connection(database.admin_dsn) as sql:
                return int(await sql.fetchval(_RECORDS))

        assert await poll_until(recorded, lambda count: count >= 2 * CALLS) == 2 * CALLS

        async def lines_say_their_process() -> bool:
            return any("cluster=local" in line and _NUMBER.search(line) for line in running.printed)

        await poll_until(lines_say_their_process, what="a line of the process that looks for the cluster")
        assert running.said("serves gRPC on") == 1
        assert await running.end() == 0
        for child in children:
            assert await is_gone(child)
    assert running.said("draining") == 1


async def each_is_healthy(running: Group) -> None:
    """Makes health checks on new connections until both processes have reported that they serve."""
    healthy: set[int] = set()

    async def all_asked() -> bool:
        options = [("grpc.use_local_subchannel_pool", 1)]
        before = running.connections()
        async with grpc.aio.insecure_channel(running.address, options) as channel:
            # The asynchronous stub is a type only; at run time there is one class for both.
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            now = running.connections()
            healthy.update(now[port] for port in now.keys() - before.keys())
        return healthy == running.children()

    await poll_until(all_asked, what="an answer of each process's health")


async def of_each_process(running: Group) -> None:
    """Checks the metrics that have the label of a process."""
    samples = await running.metrics()
    assert ("pilothouse_processes_serving", {}, 2.0) in samples
    in_flight = {labels["process"] for name, labels, _ in samples if name == "pilothouse_rpc_in_flight"}
    assert in_flight == {"1", "2"}
    memory = {
        labels["process"]: value for name, labels, value in samples if name == "process_resident_memory_bytes"
    }
    assert memory.keys() == {"1", "2", "supervisor"}
    assert memory["supervisor"] < min(memory["1"], memory["2"])


@pytest.mark.full
@pytest.mark.parametrize(
    ("setting", "option"), [("LISTEN", socket.SO_REUSEPORT), ("METRICS_LISTEN", socket.SO_REUSEADDR)]
)
async def test_a_taken_address_is_reported(
    database: Database, tmp_path: Path, setting: str, option: int
) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, option, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        shell = Shell(
            "", tmp_path, {**variables(database, tmp_path), f"PILOTHOUSE_{setting}": address}, tmp_path
        )
        said = await shell.run("pilothouse serve --processes 2", succeeds=False)
    assert said == (
        f"pilothouse: PILOTHOUSE_{setting}: {address} cannot be listened on: another program listens there, this"
        " machine does not have the address, or the port needs a privilege\n"
    )


@pytest.mark.full
async def test_a_failed_start_reports_its_reason_once(database: Database, tmp_path: Path) -> None:
    nowhere = {"PILOTHOUSE_MAINTENANCE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    shell = Shell("", tmp_path, {**variables(database, tmp_path), **nowhere}, tmp_path)
    said = await shell.run("pilothouse serve --processes 2", succeeds=False)
    assert len(re.findall("PILOTHOUSE_MAINTENANCE_DATABASE_URL: cannot connect to the database", said)) == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"PROCESSES": "0"}, "PILOTHOUSE_PROCESSES must be from 1 to 64"),
        ({"PROCESSES": "65"}, "PILOTHOUSE_PROCESSES must be from 1 to 64"),
        (
            {"PROCESSES": "3", "POOL_OPEN_CONNECTIONS": "2"},
            "PILOTHOUSE_POOL_OPEN_CONNECTIONS must be at least",
        ),
    ],
)
def test_invalid_settings_are_named(changed: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load({f"PILOTHOUSE_{name}": value for name, value in changed.items()})


def test_the_pool_limits_are_divided_among_the_processes() -> None:
    settings = of_one_process(
        Settings(processes=3, pool_open_connections=100, pool_idle_connections=10, listen="a:0"), "a:1"
    )
    assert (settings.pool_open_connections, settings.pool_idle_connections) == (33, 3)
    assert settings.pool_working_connections == 2
    assert of_one_process(Settings(processes=9), "a:1").pool_working_connections == 1
    assert (settings.listen, settings.metrics_listen) == ("a:1", "")


@pytest.mark.full
async def test_the_first_administrator_is_created_once_with_the_printed_password(
    database: Database, tmp_path: Path
) -> None:
    of = variables(database, tmp_path)
    del of["PILOTHOUSE_BOOTSTRAP_PASSWORD"]
    printed: list[str] = []
    async with serving("pilothouse serve --processes 2", tmp_path, of, printed) as address:
        (shown,) = _PASSWORD.findall("".join(printed))
        shell = Shell(address, tmp_path)
        login = f"pilothouse login --server {address} --user admin --password-stdin"
        for _ in range(6):
            assert "logged in" in await shell.run(login, shown + "\n")
