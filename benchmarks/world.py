"""What all rows are measured in: a PostgreSQL server of the run's own, durable as in production, with databases that
hold so many containers, and the product's processes on them.

A database is filled once for each number of containers and then copied, so that what one row writes is not in the way
of the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg

from benchmarks import population
from benchmarks.child import Child
from benchmarks.machine import Cores, environment, pin
from benchmarks.product import Product
from pilothouse_migrations import runner
from pilothouse_migrations.roles import RoleNames, ensure_roles
from pilothouse_server.embedded.postgres import EmbeddedPostgres

_ROLES = RoleNames()
_SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "work_mem": "32MB",
}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: runs of each arm, seconds of a run with a load, and the sizes that are compared.

    `bring_ups` are the runs of what begins with a server and a cluster that are new.
    """

    runs: int
    bring_ups: int
    seconds: float
    containers: tuple[int, ...]
    watchers: tuple[int, ...]
    records: tuple[int, ...]
    usage_containers: int
    pods: int


QUICK = Scale(3, 1, 0.5, (1_000,), (100,), (10_000,), 50, 1_000)
DEFAULT = Scale(5, 3, 2.0, (1_000, 100_000), (10, 100, 1_000), (10_000, 100_000, 1_000_000), 1_000, 5_000)
FULL = Scale(9, 5, 4.0, (1_000, 100_000), (10, 100, 1_000), (10_000, 100_000, 1_000_000), 1_000, 5_000)


@dataclass(frozen=True, slots=True)
class Database:
    """One database, by the addresses of its roles."""

    name: str
    app: str
    system: str
    maintenance: str
    superuser: str


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that is closed at the end of the block."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@dataclass
class World:
    """The surroundings of a run. `close` ends every process."""

    directory: Path
    scale: Scale
    cores: Cores
    postgres: EmbeddedPostgres
    _filled: dict[int, Database] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    async def found(cls, directory: Path, scale: Scale, cores: Cores) -> World:
        """Starts PostgreSQL in a folder of the run's own; it flushes to disk as in production."""
        postgres = EmbeddedPostgres(directory / "postgres", settings=_SETTINGS)
        await postgres.start()
        world = cls(directory, scale, cores, postgres)
        if postgres.process_id is not None:
            # Servers of connections are forked by the first process and stay where it is.
            pin(postgres.process_id, cores.database)
        return world

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the processes that are started."""
        return environment(self.directory / "compiled")

    async def close(self) -> None:
        """Stops PostgreSQL."""
        await self.postgres.stop()

    async def version(self) -> str:
        """PostgreSQL's version."""
        async with connected(self.postgres.dsn()) as connection:
            return str(await connection.fetchval("SHOW server_version"))

    @asynccontextmanager
    async def database(self, containers: int = 0, *, reconciled: bool = False) -> AsyncIterator[Database]:
        """A database with so many containers, a copy that may be changed, dropped at the end of the block.

        Work for the reconciler is never due in it, unless it shall be `reconciled`.
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
        made = await self._create(f"filled_{containers}", "template0")
        await ensure_roles(made.superuser)
        await runner.upgrade(made.maintenance)
        async with connected(made.superuser) as connection:
            await population.tenants(connection)
            if containers:
                await population.containers(connection, containers)
        return made

    async def _create(self, name: str, template: str) -> Database:
        async with connected(self.postgres.dsn()) as admin:
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
            await admin.execute("CHECKPOINT")
            await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            if template != "template0":
                # Rights on the database itself are not copied with it.
                await admin.execute(f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {name} TO {_ROLES.owner}")
                logins = ", ".join(_ROLES.logins().values())
                await admin.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {logins}")
        dsn = self.postgres.dsn
        return Database(
            name,
            app=dsn(name, _ROLES.app),
            system=dsn(name, _ROLES.system),
            maintenance=dsn(name, _ROLES.maintenance),
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
    ) -> AsyncIterator[Product]:
        """`pilothouse serve` on this database, where the one that serves runs; `program` stands in for the command."""
        data_directory = self.directory / f"server_{next(self._numbers)}"
        product = await Product.start(
            data_directory,
            {
                **self.environment,
                "PILOTHOUSE_DATABASE_URL": database.app,
                "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system,
                "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance,
                **({"PILOTHOUSE_KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
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
        """Processes of `benchmarks`, each a module and its cores, ended at the end of the block."""
        async with AsyncExitStack() as stack:
            started = []
            for module, cores in wanted:
                child = await Child.start(f"benchmarks.{module}", self.environment, cores)
                stack.push_async_callback(child.stop)
                started.append(child)
            yield tuple(started)
