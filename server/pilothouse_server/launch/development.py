"""The dependencies that `pilothouse serve --dev` starts: PostgreSQL and a simulated cluster.

Each is a process of its own that ends with the server, so that one command is enough to try Pilothouse.

Everything is stored under `data_dir`: `postgres/` (the database, kept between runs), `cluster.json` (the
simulated cluster, kept too), `master.key`. If the folder is created here, only its owner may enter it.
PostgreSQL, which runs as another user if root starts everything, still gets access (`runtime.account`). The
first start creates the roles, migrates and continues; a later one only migrates. A configured database or
kubeconfig is used instead of an embedded one.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from pilothouse_migrations import roles, schema
from pilothouse_migrations.databases import ensure_database
from pilothouse_migrations.roles import ensure_roles
from pilothouse_server.clusters.access import Kubeconfigs
from pilothouse_server.launch.embedded.postgres import DataDirectoryInUseError, EmbeddedPostgres
from pilothouse_server.launch.embedded.simulator import EmbeddedSimulator
from pilothouse_server.launch.embedded.template import DatabaseTemplate
from pilothouse_server.outbound.destinations import LOOPBACK
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError

DATABASE = "pilothouse"
# Host names that resolve to this machine, and those of examples (RFC 6761).
_HOSTS = "*.localhost,*.example.com"


def running_database(settings: Settings) -> str:
    """Returns the maintenance login's URL of the database that a server with these settings runs; "" without one."""
    postgres = EmbeddedPostgres(settings.data_dir.resolve() / "postgres")
    there = (postgres.socket_directory / f".s.PGSQL.{postgres.port}").exists()
    return postgres.dsn(DATABASE, roles.MAINTENANCE) if there else ""


@asynccontextmanager
async def local_database(settings: Settings) -> AsyncIterator[Settings]:
    """Yields settings that use the database in the data folder.

    If no server runs the database at the moment, it is started until the end of the block.

    Raises:
        SettingsError: there is none.
        EmbeddedProgramError: it does not start.
    """
    postgres = EmbeddedPostgres(settings.data_dir.resolve() / "postgres")
    if not postgres.has_data:
        raise SettingsError(
            f"{settings.data_dir} contains no database: set {PREFIX}DATA_DIR to the server's folder, "
            f"or {PREFIX}DATABASE_URL to its database"
        )
    own = True
    try:
        await postgres.start()
    except DataDirectoryInUseError:
        own = False
    try:
        yield _reaching(settings, postgres)
    finally:
        if own:
            await postgres.stop()


@asynccontextmanager
async def new_database(settings: Settings) -> AsyncIterator[str]:
    """Yields a superuser's URL of a new, empty database in the data folder, which runs until the end of the block.

    If the block raises, the database is removed.

    Raises:
        SettingsError: there is one already.
        EmbeddedProgramError: it does not start.
    """
    postgres = EmbeddedPostgres(settings.data_dir.resolve() / "postgres")
    if postgres.has_data:
        raise SettingsError(
            f"{settings.data_dir} contains a database: move the folder away, or name another one in {PREFIX}DATA_DIR"
        )
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    await postgres.start()
    try:
        await ensure_database(postgres.dsn(), DATABASE)
        yield postgres.dsn(DATABASE)
    except BaseException:
        await postgres.stop()
        await asyncio.to_thread(shutil.rmtree, postgres.directory)
        raise
    await postgres.stop()


def _reaching(settings: Settings, postgres: EmbeddedPostgres) -> Settings:
    return msgspec.structs.replace(
        settings,
        database_url=postgres.dsn(DATABASE, roles.APP),
        system_database_url=postgres.dsn(DATABASE, roles.SYSTEM),
        maintenance_database_url=postgres.dsn(DATABASE, roles.MAINTENANCE),
    )


class Development:
    """The environment of a server on one machine. `start` returns the settings for using it.

    Args:
        settings: the server's settings.
        kubeconfigs: the clusters that are configured, by name; if there are none, a simulated one is started.
        say: called before each step that takes time, with the step and its effect, as in ("database", "starts …").
    """

    def __init__(self, settings: Settings, kubeconfigs: Kubeconfigs, say: Callable[[str, str], None]) -> None:
        self._settings = settings
        self._say = say
        self.kubeconfigs: dict[str, Mapping[str, Any]] = dict(kubeconfigs)
        self._postgres: EmbeddedPostgres | None = None
        self._simulator: EmbeddedSimulator | None = None

    async def start(self) -> Settings:
        """Starts the dependencies that are not configured.

        Raises:
            EmbeddedProgramError: PostgreSQL or the simulated cluster does not start; the text gives the reason.
            SettingsError: the data folder contains a database that was created before 0.2.0.
            OSError: the data folder cannot be created.
        """
        settings = self._settings
        if not settings.outbound_networks:
            # In a trial, the user's clusters are on this machine.
            settings = msgspec.structs.replace(settings, outbound_networks=",".join(map(str, LOOPBACK)))
        if not settings.namespace_allowed_hosts:
            settings = msgspec.structs.replace(settings, namespace_allowed_hosts=_HOSTS)
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        starting = None if self.kubeconfigs else asyncio.create_task(self._start_simulator())
        try:
            if not settings.database_url:
                settings = await self._start_postgres(settings)
            if starting is not None:
                # It has been starting concurrently with the database.
                self._say("cluster", f"starts a simulated Kubernetes cluster, kept in {settings.data_dir}")
                self.kubeconfigs["local"] = await starting
        except BaseException:
            if starting is not None:
                await cancel_and_wait(starting)
            raise
        return settings

    async def stop(self) -> None:
        """Stops the started dependencies, the database last."""
        if self._simulator is not None:
            await self._simulator.stop()
        if self._postgres is not None:
            await self._postgres.stop()

    async def _start_simulator(self) -> Mapping[str, Any]:
        self._simulator = EmbeddedSimulator(
            self._settings.data_dir / "cluster.json",
            log_level=self._settings.log_level,
            log_format=self._settings.log_format,
            definitions_path=self._settings.simulated_definitions_file,
        )
        return await self._simulator.start()

    async def _start_postgres(self, settings: Settings) -> Settings:
        postgres = self._postgres = EmbeddedPostgres(settings.data_dir.resolve() / "postgres")
        verb = "starts" if postgres.has_data else "makes and starts"
        self._say("database", f"{verb} PostgreSQL in {settings.data_dir / 'postgres'}")
        template = None
        if settings.database_template_dir is not None and not postgres.has_data:
            template = DatabaseTemplate(settings.database_template_dir)
            await template.copy_to(postgres)
        await postgres.start()
        await ensure_database(postgres.dsn(), DATABASE)
        await ensure_roles(postgres.dsn(DATABASE))
        reaching = _reaching(settings, postgres)
        maintenance = reaching.maintenance_database_url
        try:
            pending = await schema.pending_migrations(maintenance)
        except schema.TooOldError:
            raise SettingsError(
                f"{settings.data_dir} contains a database that was created before release 0.2.0 and cannot be upgraded:"
                f" move the folder away, or name another one in {PREFIX}DATA_DIR"
            ) from None
        if pending:
            # Imports Alembic, which a server with an up-to-date schema does not need.
            from pilothouse_migrations import runner

            self._say("database", f"brings its schema up to date: migrations to apply: {len(pending)}")
            await runner.upgrade(maintenance)
            if template is not None:
                await postgres.stop()
                await template.take_from(postgres)
                await postgres.start()
        return reaching
