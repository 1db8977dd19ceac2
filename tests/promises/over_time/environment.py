"""The environment of promise 15's campaign: servers, PostgreSQL, and a cluster.

Each of these can be put back to an earlier state. PostgreSQL has one address, whichever server is behind it
(see `tests.store.going_back`). The cluster keeps its state in a file, and its port. The servers are processes
of their own with the default settings.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import grpc.aio

from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.launch.embedded import postgres
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.engine import Database as Pools
from pilothouse_server.store.unit_of_work import Store
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database, StartMigrated, connection, number_changes
from tests.harness import PASSWORD
from tests.promises.calling import Caller, Outcome, served
from tests.promises.requests import Fields, request_for
from tests.promises.stored_log import log_faults
from tests.promises.watches.proxy import proxy
from tests.promises.watches.servers import ServerProcess
from tests.readme.served import server_variables
from tests.reconcile.unseen import kept_cluster
from tests.state_comparison import agree
from tests.store.going_back import NAME, SETTINGS, one_address, point
from tests.waiting import poll_until, runs_out, within

SPACE = "shop"
_SERVERS = 2
# The path of the library in Debian's package `faketime`.
_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
FAKETIME = _LIBRARIES[0] if _LIBRARIES else None
_UNDECIDED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "RESOURCE_EXHAUSTED")
_LEADS = (
    "SELECT count(*) FROM leases WHERE name = 'observe/local' AND owner IS NOT NULL AND expires_at > now()"
)


def clock(days_ahead: int) -> dict[str, str]:
    """Returns the variables that set a program's clock `days_ahead` days ahead."""
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME": f"{days_ahead:+}d",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


class ClockedPostgres(EmbeddedPostgres):
    """A PostgreSQL server whose clock is `days_ahead` days ahead."""

    def __init__(
        self, directory: Path, *, days_ahead: int = 0, settings: Mapping[str, str] = SETTINGS
    ) -> None:
        super().__init__(directory, settings=settings)
        self._days_ahead = days_ahead

    def _launch(self) -> None:
        usual = postgres._environment
        if self._days_ahead:
            postgres._environment = lambda: {**usual(), **clock(self._days_ahead)}
        try:
            super()._launch()
        finally:
            postgres._environment = usual


@dataclass
class Environment:
    """The environment, and its acknowledged state: container → image."""

    folder: Path
    database: Database
    address: Path
    postgres: EmbeddedPostgres
    cluster: SimulatedCluster
    servers: list[ServerProcess] = field(default_factory=list)
    rules: dict[str, Rule] = field(default_factory=dict)
    token: str = ""
    # A clock years ahead ends sessions. They stay ended when it is right again.
    clock_was_wrong: bool = False
    expected: dict[str, str] = field(default_factory=dict)
    numbers: Any = field(default_factory=count)
    _stores: AsyncExitStack = field(default_factory=AsyncExitStack)

    # The servers

    async def start(self) -> None:
        """Starts all servers."""
        for server in self.servers:
            await server.start()

    async def stop(self, *, outright: bool) -> None:
        """Ends all servers: with SIGKILL if `outright`, or else properly."""
        for server in self.servers:
            await (server.kill() if outright else server.stop())

    @asynccontextmanager
    async def caller(self, number: int = 0) -> AsyncIterator[Caller]:
        """Yields the administrator at one server."""
        channel = grpc.aio.insecure_channel(
            self.servers[number % len(self.servers)].front.address,
            options=(("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)),
        )
        async with channel:
            yield Caller(channel, self.token)

    async def certainly(self, name: str, fields: Fields) -> Outcome:
        """Returns the definite outcome of a call.

        The servers are tried one after the other until one returns it.
        """
        request = request_for(self.rules[name], fields)
        last: Outcome | None = None

        async def decided() -> bool:
            nonlocal last
            async with self.caller(next(self.numbers)) as caller:
                last = await caller.invoke(self.rules[name], request, timeout=runs_out(5.0))
            if last.code == "UNAUTHENTICATED" and self.clock_was_wrong and name != "Login":
                await self.log_in()
                return False
            return last.code not in _UNDECIDED

        await poll_until(decided, seconds=60, what=f"{name} is answered")
        assert last is not None
        return last

    async def log_in(self) -> None:
        """Begins a session of the administrator."""
        answer = await self.must("Login", {"username": "admin", "password": PASSWORD})
        self.token = answer.access_token

    async def must(self, name: str, fields: Fields) -> Any:
        """Returns the response of a call that must succeed."""
        outcome = await self.certainly(name, fields)
        assert outcome.code == "OK", f"{name} {fields}: {outcome.code} {outcome.message}"
        return outcome.answer

    # PostgreSQL

    async def serve_from(self, server: EmbeddedPostgres) -> None:
        """Starts another PostgreSQL server, and points the address at it."""
        await server.start()
        self.postgres = server
        point(self.address, server)

    async def restart_postgres(self, *, days_ahead: int = 0) -> None:
        """Stops PostgreSQL if it runs, and starts it again with the given clock."""
        await self.postgres.stop()
        await self.serve_from(ClockedPostgres(self.postgres.directory, days_ahead=days_ahead))

    def another(self, **more: Any) -> ClockedPostgres:
        """Returns a PostgreSQL server on a new folder."""
        return ClockedPostgres(self.folder / f"postgres-{next(self.numbers)}", **more)

    # The cluster

    async def restart_cluster(self, state: Path | None = None) -> None:
        """Restarts the cluster under its address, with an older state if one is given.

        A restore takes time, so the servers must first notice that the cluster is unavailable.
        """
        path, port = self.folder / "cluster", self.cluster.api_server.port
        await self.cluster.stop()
        if state is not None:
            shutil.copy(state, path)
            async with connection(self.database.admin_dsn) as sql:
                away = "SELECT status = 'unreachable' FROM clusters WHERE name = 'local'"
                await poll_until(
                    lambda: sql.fetchval(away), seconds=60, what="the cluster is seen to be away"
                )
        self.cluster = kept_cluster(path, port=port)
        await self.cluster.start()

    # Invariants

    async def faults(self, seconds: float = 10.0) -> list[str]:
        """Returns the faults that remain `seconds` after everything was restored."""
        found: list[str] = []
        try:
            await poll_until(
                self._listed, lambda listed: listed == self.expected, seconds=2 * seconds, what="the list"
            )
            store = await self._store()
            await agree(store, self.cluster.kubeconfig(), seconds=seconds)
            async with connection(self.database.admin_dsn) as sql:
                await number_changes(sql)
                # The records and the head must be of one moment, because servers continue to write.
                async with sql.transaction(isolation="repeatable_read", readonly=True):
                    found += await log_faults(sql)
                await poll_until(lambda: sql.fetchval(_LEADS), seconds=seconds, what="a leader")
        except AssertionError as error:
            found.append(str(error)[:2000])
        finally:
            await self._stores.aclose()
        return found

    async def _listed(self) -> dict[str, str]:
        answer = await self.must("ListContainers", {"namespace": SPACE, "pageSize": 1000})
        return {each.name: each.image for each in answer.containers}

    async def _store(self) -> Store:
        pools = Pools.connect(
            Settings(database_url=self.database.app_dsn, system_database_url=self.database.system_dsn)
        )
        self._stores.push_async_callback(pools.close)
        return Store(pools)


@asynccontextmanager
async def environment(
    folder: Path, start_migrated: StartMigrated, injected_fault: str = ""
) -> AsyncIterator[Environment]:
    """Runs two servers, with a namespace and a logged-in administrator."""
    first = ClockedPostgres(folder / "postgres")
    async with AsyncExitStack() as stack:
        await start_migrated(first, NAME)
        cluster = kept_cluster(folder / "cluster")
        await cluster.start()
        kubeconfig = folder / "kubeconfig.json"
        kubeconfig.write_text(json.dumps(cluster.kubeconfig()))
        database, address = stack.enter_context(one_address(folder, first))
        made = Environment(folder, database, address, first, cluster)
        stack.push_async_callback(_end, made)
        key_file = folder / "master.key"
        KeyRing.load(key_file, create=True)
        for number in range(_SERVERS):
            variables = {
                **server_variables(folder),
                "PILOTHOUSE_DATABASE_URL": database.app_dsn,
                "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
                "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
                "PILOTHOUSE_DATA_DIR": str(folder / f"server-{number}"),
                "PILOTHOUSE_SECRET_KEY_FILE": str(key_file),
                "PILOTHOUSE_KUBECONFIG": str(kubeconfig),
                "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
                "PILOTHOUSE_LISTEN": "127.0.0.1:0",
                "PILOTHOUSE_SESSION_ACCESS_SECONDS": "86400",
            }
            front = await stack.enter_async_context(proxy())
            log = folder / f"server-{number}.log"
            server = ServerProcess(front, variables, log, injected_fault, forked=True)
            await server.start()
            stack.push_async_callback(server.kill)
            made.servers.append(server)
        async with grpc.aio.insecure_channel(made.servers[0].front.address) as channel, within(30):
            made.rules = {rule.name: rule for rule in (await served(channel)).values()}
        await made.log_in()
        await made.must("CreateNamespace", {"namespace": {"name": SPACE}})
        yield made


async def _end(made: Environment) -> None:
    await made.cluster.stop()
    await made.postgres.stop()
