"""The environment of all rows: a PostgreSQL server of the run, its databases, and the product's processes.

PostgreSQL is as durable as in production, and each database has a given number of containers. A database is filled
once for each number of containers and then copied, so that the writes of one row do not affect the next.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType

import asyncpg

from benchmarks import population, processor
from benchmarks.child import Child
from benchmarks.machine import Cores, environment, pin
from benchmarks.measure import Run
from benchmarks.product import Product
from pilothouse_migrations import roles, runner
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres

# A hundred thousand messages take a minute on a quiet machine.
_RENDERED_SECONDS = 900.0
_SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "work_mem": "32MB",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a measurement: runs of each arm, seconds of a run under load, and the compared sizes.

    `bring_ups` is the number of runs of measurements that start with a new server and a new cluster. `held_seconds`
    is how long a snapshot stays open under load before it is measured against none; `idle_seconds` is how long an
    idle server is observed. If `warm` is set, each arm runs once before its runs count.
    """

    runs: int = 5
    bring_ups: int = 3
    seconds: float = 2.0
    warm: bool = True
    containers: tuple[int, ...] = (1_000, 100_000)
    writers: tuple[int, ...] = (1, 16, 64)
    watchers: tuple[int, ...] = (10, 100, 1_000)
    idle_watchers: int = 500
    records: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    listed: tuple[int, ...] = (10_000, 100_000)
    credentials: tuple[int, ...] = (1_000, 1_000_000)
    samples: int = 20_000
    usage_containers: int = 1_000
    observed_pods: int = 5_000
    pods: int = 5_000
    brought_up: int = 100
    applied: int = 100
    held_seconds: float = 20.0
    idle_seconds: float = 10.0


DEFAULT = Scale()
QUICK = Scale(
    runs=3,
    bring_ups=1,
    seconds=0.5,
    containers=(1_000,),
    writers=(1, 16),
    watchers=(100,),
    records=(10_000,),
    listed=(1_000, 10_000),
    credentials=(1_000, 100_000),
    samples=5_000,
    usage_containers=50,
    pods=1_000,
    held_seconds=5.0,
    idle_seconds=5.0,
)
FULL = replace(DEFAULT, runs=9, bring_ups=5, seconds=4.0, held_seconds=600.0, idle_seconds=60.0)
# Only checks that each row works: its figures mean nothing.
SMOKE = replace(
    QUICK,
    runs=1,
    seconds=0.1,
    warm=False,
    containers=(200,),
    writers=(2,),
    watchers=(10,),
    idle_watchers=20,
    records=(500,),
    listed=(200, 400),
    credentials=(100, 1_000),
    samples=1_000,
    usage_containers=5,
    observed_pods=100,
    pods=50,
    brought_up=5,
    applied=4,
    held_seconds=0.2,
    idle_seconds=0.5,
)


@dataclass(frozen=True, slots=True)
class Database:
    """One database, with the addresses of its roles."""

    name: str
    app: str
    system: str
    maintenance: str
    superuser: str


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Yields a connection that is closed at the end of the block."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@dataclass
class Testbed:
    """The environment of a run; `close` ends every process."""

    directory: Path
    scale: Scale
    cores: Cores
    postgres: EmbeddedPostgres
    _filled: dict[int, Database] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    async def found(cls, directory: Path, scale: Scale, cores: Cores) -> Testbed:
        """Starts PostgreSQL in a folder of the run; it flushes to disk as in production."""
        postgres = EmbeddedPostgres(directory / "postgres", settings=_SETTINGS)
        await postgres.start()
        testbed = cls(directory, scale, cores, postgres)
        if postgres.process_id is not None:
            # The postmaster forks the backends, and they inherit its cores.
            pin(postgres.process_id, cores.database)
        return testbed

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of the processes that are started."""
        return environment()

    async def close(self) -> None:
        """Stops PostgreSQL."""
        await self.postgres.stop()

    async def version(self) -> str:
        """Returns PostgreSQL's version."""
        async with connected(self.postgres.dsn()) as connection:
            return str(await connection.fetchval("SHOW server_version"))

    async def metered(
        self,
        process_id: int,
        database: Database | None,
        calls: Awaitable[Mapping[str, float]],
        figure: str = "rate",
    ) -> Run:
        """Runs calls that one process serves, and measures the CPU time of a call in that process and in PostgreSQL.

        `calls` returns the result of a child of `loads`: the `figure`, and the number of `calls`.
        """
        before = self._used(process_id, database)
        answer = await calls
        after = self._used(process_id, database)
        server, stored = ((b - a) / answer["calls"] * 1e6 for a, b in zip(before, after, strict=True))
        return Run(answer[figure], server, None if database is None else stored)

    def _used(self, process_id: int, database: Database | None) -> tuple[float, float]:
        postmaster = self.postgres.process_id
        assert postmaster is not None
        stored = 0.0 if database is None else processor.database_seconds(postmaster, database.name)
        return processor.seconds(process_id), stored

    @asynccontextmanager
    async def database(self, containers: int = 0, *, reconciled: bool = False) -> AsyncIterator[Database]:
        """Yields a copy of a database with this number of containers, which is dropped at the end of the block.

        Work for the reconciler never becomes due in it, unless `reconciled` is set.
        """
        if containers not in self._filled:
            self._filled[containers] = await self._fill(containers)
        made = await self._create(f"copy_{next(self._numbers)}", self._filled[containers].name)
        try:
            if reconciled:
                async with connected(made.superuser) as connection:
                    await connection.execute("DROP TRIGGER never_due ON reconcile_work")
            yield made
        finally:
            async with connected(self.postgres.dsn()) as admin:
                await admin.execute(f"DROP DATABASE {made.name} WITH (FORCE)")

    async def _fill(self, containers: int) -> Database:
        if not containers:
            return await self._migrate()
        if 0 not in self._filled:
            self._filled[0] = await self._migrate()
        made = await self._create(f"filled_{containers}", self._filled[0].name)
        async with connected(made.superuser) as connection:
            await population.containers(connection, containers)
            await population.used(connection)
        await self._render(made)
        return made

    async def _render(self, database: Database) -> None:
        """Makes the product render the messages that reads return; the new rows are also updated once."""
        program = (sys.executable, "-m", "benchmarks.rendering", "serve")
        async with (
            self.product(database, program=program),
            connected(database.superuser) as connection,
            asyncio.timeout(_RENDERED_SECONDS),
        ):
            # The product sends no notification when it is done.
            while await connection.fetchval(population.UNRENDERED):  # noqa: ASYNC110
                await asyncio.sleep(0.25)
        async with connected(database.superuser) as connection:
            await population.used(connection, population.RENDERED)

    async def _migrate(self) -> Database:
        made = await self._create("filled_0", "template0")
        await ensure_roles(made.superuser)
        await runner.upgrade(made.maintenance)
        async with connected(made.superuser) as connection:
            await population.tenants(connection)
            await population.used(connection)
        return made

    async def _create(self, name: str, template: str) -> Database:
        async with connected(self.postgres.dsn()) as admin:
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
            await admin.execute("CHECKPOINT")
            await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            if template != "template0":
                # The copy does not include grants on the database itself.
                await admin.execute(f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {name} TO {roles.OWNER}")
                logins = ", ".join(roles.LOGINS.values())
                await admin.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {logins}")
        dsn = self.postgres.dsn
        return Database(
            name,
            app=dsn(name, roles.APP),
            system=dsn(name, roles.SYSTEM),
            maintenance=dsn(name, roles.MAINTENANCE),
            superuser=dsn(name),
        )

    @asynccontextmanager
    async def product(
        self,
        database: Database,
        *,
        program: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
        kubeconfig: Path | None = None,
        cores: frozenset[int] | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> AsyncIterator[Product]:
        """Runs `pilothouse serve` on this database, on the serving cores; `program` replaces the command."""
        data_directory = self.directory / f"server_{next(self._numbers)}"
        product = await Product.start(
            data_directory,
            {
                **self.environment,
                "PILOTHOUSE_DATABASE_URL": database.app,
                "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system,
                "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance,
                **({"PILOTHOUSE_KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
                **variables,
            },
            self.cores.serving if cores is None else cores,
            program=program,
            arguments=arguments,
        )
        try:
            yield product
        finally:
            await product.stop()

    @asynccontextmanager
    async def children(self, *wanted: tuple[str, frozenset[int]]) -> AsyncIterator[tuple[Child, ...]]:
        """Starts processes of `benchmarks`, each a module on its cores, and ends them at the end of the block."""
        async with AsyncExitStack() as stack:
            started = []
            for module, cores in wanted:
                child = await Child.start(f"benchmarks.{module}", self.environment, cores)
                stack.push_async_callback(child.stop)
                started.append(child)
            yield tuple(started)
