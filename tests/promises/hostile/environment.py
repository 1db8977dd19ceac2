"""The environment of attacks: a server, its bystanders, and measurements of both.

    verdict = await ground.attacked(lambda: attacking(MODULE, "resets", address=ground.address, count=2000))
    assert verdict.faults() == []

A machine that does other work is slower for every caller, with or without an attack. So windows without the
attack alternate with windows of the attack. Each window with the attack is compared with the one before it, and
the median of these ratios counts. If the median is near the promised bound, on either side, more pairs are
measured: with few windows the result may be chance. An attack begins in its window, so its effect on others
counts from its first moment. The memory is the maximum that the server had in any window.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import grpc.aio

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, MemoryTokenStore
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database, connection, number_changes
from tests.harness import PASSWORD
from tests.processes import started
from tests.promises.calling import served
from tests.promises.hostile.attacker import Attack, Report
from tests.promises.hostile.bystanders import Window
from tests.promises.watches.proxy import Proxy
from tests.promises.watches.servers import ServerProcess
from tests.readme.served import ROOT, server_variables
from tests.waiting import patient, poll_until, within

BYSTANDERS = 3
# The promise: at most twice the time, and these limits of memory and log. In the first second of an attack, no
# call takes longer by more than `MOST_FIRST_WAIT_SECONDS` than the slowest call without the attack.
MOST_RATIO, MOST_FIRST_WAIT_SECONDS = 2.0, 0.7
MOST_MEMORY_BYTES, MOST_LOG_BYTES_A_MINUTE = 100 << 20, 1 << 20
# The number of calls in a window. The 99th percentile is then not the slowest call.
CALLS = 300
# A median ratio outside these bounds is clear. Within them, up to `_MOST_PAIRS` pairs are measured. The upper
# bound is high, because for one attack the median of three pairs was 3.3, and the median of eight other pairs
# was 1.25.
_UNSURE, _MOST_PAIRS = (1.5, 6.0), 7
_CONTAINERS = 5
_KIBIBYTE = 1024

Making = Callable[[], AbstractAsyncContextManager[Attack | None]]


def _nothing() -> AbstractAsyncContextManager[None]:
    return nullcontext()


@dataclass
class Verdict:
    """The effect of an attack on other callers."""

    ratios: list[float] = field(default_factory=list)
    # The seconds by which the slowest call of the first second took longer than without the attack.
    first_waits: list[float] = field(default_factory=list)
    quiet: list[Window] = field(default_factory=list)
    loud: list[Window] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    memory_growth_bytes: int = 0
    log_bytes: int = 0

    @property
    def log_bytes_a_minute(self) -> float:
        """Returns the bytes a minute that the server wrote during the attack.

        Records and output count together.
        """
        return self.log_bytes * 60.0 / sum(window.seconds for window in self.loud)

    def add(self, quiet: Window, loud: Window) -> None:
        """Adds a pair of windows."""
        self.quiet.append(quiet)
        self.loud.append(loud)
        self.ratios.append(loud.p99 / quiet.p99)
        self.first_waits.append(loud.longest_of_first - quiet.longest_of_first)

    @property
    def is_plain(self) -> bool:
        """Returns whether the median ratio is far from the promised bound."""
        lowest, highest = _UNSURE
        return not lowest < median(self.ratios) < highest

    def faults(self, *, strangers: bool = True) -> list[str]:
        """Returns broken promises.

        The log is bounded only if the callers are anonymous or silent.
        """
        found = [f"a bystander failed: {error}" for window in self.loud for error in window.errors]
        found += [f"health failed: {error}" for window in self.loud for error in window.health_errors]
        # A call that fails without an attack does not count as the attack's effect, but is reported.
        found += [f"without the attack: {error}" for window in self.quiet for error in window.errors]
        if median(self.ratios) > MOST_RATIO:
            shown = [
                (round(quiet.p99, 4), round(loud.p99, 4))
                for quiet, loud in zip(self.quiet, self.loud, strict=True)
            ]
            found.append(f"the p99 rose {median(self.ratios):.1f} times: {shown}")
        if median(self.first_waits) > MOST_FIRST_WAIT_SECONDS:
            found.append(f"calls of the first second took longer by {self.first_waits} s")
        if self.memory_growth_bytes > MOST_MEMORY_BYTES:
            found.append(f"memory grew by {self.memory_growth_bytes >> 20} MiB")
        if strangers and self.log_bytes_a_minute > MOST_LOG_BYTES_A_MINUTE:
            found.append(f"the log grew by {self.log_bytes_a_minute / 2**20:.1f} MiB a minute")
        return found


@dataclass
class Environment:
    """A server process with its bystanders.

    The administrator's client prepares attacks.
    """

    server: ServerProcess
    address: str
    database: Database
    cluster: SimulatedCluster
    admin: AsyncClient
    output: Path
    bystanders: asyncio.subprocess.Process

    async def attacked(
        self, attack: Making, *, without: Making = _nothing, pairs: int = 3, warm: bool = False
    ) -> Verdict:
        """Measures bystanders without and with the attack, in turn.

        `without` runs in the quiet windows. At least `pairs` pairs are measured. With `pairs` above one,
        further pairs are measured until the ratio is clear, up to seven.

        `warm`: the attack runs once before the measurement. The first attack on a server opens its connections
        to PostgreSQL. Each new connection plans every statement again, which also delays other callers.
        """
        verdict = Verdict()
        if warm:
            async with attack():
                await self.window(CALLS // 3)
        # Memory that the very first calls need does not count as growth.
        await self.window(CALLS // 3)
        before = self.memory_bytes()
        most = _MOST_PAIRS if pairs > 1 else 1
        while len(verdict.ratios) < pairs or not (verdict.is_plain or len(verdict.ratios) >= most):
            logged = await self.log_bytes()
            async with without():
                quiet = await self.window(CALLS)
            between = await self.log_bytes()
            self._forget_peak()
            async with attack() as going_on:
                loud = await self.window(CALLS)
            # The usual log without the attack does not count.
            verdict.log_bytes += max(0, await self.log_bytes() - 2 * between + logged)
            verdict.memory_growth_bytes = max(verdict.memory_growth_bytes, self.peak_bytes() - before)
            verdict.add(quiet, loud)
            if going_on is not None:
                verdict.reports.append(going_on.report)
            # Unfinished work of the attack must not fall into the next window.
            await self.window(CALLS // 5)
        return verdict

    async def window(self, calls: int) -> Window:
        """Makes `calls` calls of the bystanders, at their usual rate."""
        assert self.bystanders.stdin is not None
        assert self.bystanders.stdout is not None
        self.bystanders.stdin.write(f"{calls}\n".encode())
        async with within(120):
            line = await self.bystanders.stdout.readline()
        assert line, "the bystanders ended"
        return Window(*json.loads(line))

    def memory_bytes(self) -> int:
        """Returns the server's resident memory."""
        return self._status("VmRSS")

    def peak_bytes(self) -> int:
        """Returns the most memory that the server had since the last window began."""
        return self._status("VmHWM")

    def _forget_peak(self) -> None:
        Path(f"/proc/{self.server.process_id}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.server.process_id}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * _KIBIBYTE

    async def log_bytes(self) -> int:
        """Returns the bytes of all audit records, and of the server's output."""
        async with connection(self.database.admin_dsn) as sql:
            await number_changes(sql)
            records = "SELECT coalesce(sum(pg_column_size(operation_logs.*)), 0) FROM operation_logs"
            return int(await sql.fetchval(records)) + self.output.stat().st_size

    async def user(self, name: str, role: str, namespace: str) -> str:
        """Creates a user with a role in a namespace; returns the token of a session."""
        wanted = identity_pb2.User(username=name, email=f"{name}@example.org")
        await self.admin.identity.create_user(user=wanted, password=PASSWORD)
        await self.admin.identity.grant_role(username=name, role=role, namespace=namespace)
        store = MemoryTokenStore()
        async with AsyncClient(self.address, tokens=store) as client:
            await client.login(name, PASSWORD)
        tokens = store.load()
        assert tokens is not None
        return tokens.access_token

    async def methods(self) -> list[str]:
        """Returns the full names of all served Pilothouse methods."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            return sorted(await served(channel))

    async def populate(self, namespace: str, containers: int = _CONTAINERS) -> None:
        """Creates a namespace with `containers` containers."""
        await self.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=namespace))
        for number in range(containers):
            await self.admin.containers.create(
                namespace=namespace,
                container=container_pb2.Container(name=f"web-{number}", image="nginx:1.27"),
            )


@asynccontextmanager
async def environment(
    database: Database,
    directory: Path,
    *,
    injected_fault: str = "",
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[Environment]:
    """Yields a server with default settings, and bystanders who are logged in.

    `injected_fault` names injected faults as in `ServerProcess`.
    """
    async with AsyncExitStack() as stack:
        cluster = SimulatedCluster(speed=10.0)
        await cluster.start()
        stack.push_async_callback(cluster.stop)
        kubeconfig = directory / "kubeconfig.json"
        kubeconfig.write_text(json.dumps(cluster.kubeconfig()))
        key_file = directory / "master.key"
        KeyRing.load(key_file, create=True)
        output = directory / "server.log"
        front = Proxy()
        server = ServerProcess(
            front,
            {
                **server_variables(directory),
                "PILOTHOUSE_DATABASE_URL": database.app_dsn,
                "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
                "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
                "PILOTHOUSE_DATA_DIR": str(directory / "server"),
                "PILOTHOUSE_SECRET_KEY_FILE": str(key_file),
                "PILOTHOUSE_KUBECONFIG": str(kubeconfig),
                "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
                "PILOTHOUSE_LISTEN": "127.0.0.1:0",
                "PILOTHOUSE_SESSION_ACCESS_SECONDS": "86400",
                **(variables or {}),
            },
            output,
            injected_fault,
        )
        await server.start()
        stack.push_async_callback(server.kill)
        address = f"127.0.0.1:{front.target}"
        admin = await stack.enter_async_context(
            AsyncClient(address, username="admin", password=PASSWORD, timeout=patient(10.0))
        )
        pipe = asyncio.subprocess.PIPE
        words = (sys.executable, "-m", "tests.promises.hostile.bystanders")
        process = await stack.enter_async_context(started(*words, stdin=pipe, stdout=pipe, cwd=ROOT))
        made = Environment(server, address, database, cluster, admin, output, process)
        await _bystanders(made)
        yield made


async def _bystanders(made: Environment) -> None:
    callers: list[dict[str, Any]] = []
    for number in range(1, BYSTANDERS + 1):
        namespace = f"own-{number}"
        await made.populate(namespace)
        settings = config_pb2.ConfigMap(name="settings", data={"number": "0"})
        await made.admin.config.create_config_map(namespace=namespace, config_map=settings)
        token = await made.user(f"bystander-{number}", "developer", namespace)
        callers.append({"token": token, "namespace": namespace, "source": f"127.0.0.{number + 1}"})
    await poll_until(lambda: _running(made), lambda count: count == BYSTANDERS * _CONTAINERS, seconds=60)
    order = {"address": made.address, "callers": callers, "seconds": patient(5.0)}
    assert made.bystanders.stdin is not None
    made.bystanders.stdin.write(json.dumps(order).encode() + b"\n")


async def _running(made: Environment) -> int:
    found: Sequence[Any] = [each async for each in made.admin.containers.list(filter="status = RUNNING")]
    return len(found)
