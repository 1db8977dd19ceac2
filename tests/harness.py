"""The whole server in this process: a real gRPC port, a real database, a simulated cluster at ten times the speed.

    async with running_server(database, tmp_path) as server:
        await server.admin.namespaces.create(…)

Tests wait with `tests.waiting.poll_until`: for a condition with a deadline, never for a fixed time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import grpc.aio
import msgspec

from pilothouse.identity.v1 import identity_pb2, identity_pb2_grpc
from pilothouse_client import AsyncClient
from pilothouse_server.app import Application
from pilothouse_server.flowcontrol.classes import CallLimits
from pilothouse_server.reconcile.queue.worker import WorkerSettings
from pilothouse_server.reconcile.reconciler import ReconcilerSettings
from pilothouse_server.settings.model import Settings
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database

T = TypeVar("T")

PASSWORD = "correct horse battery staple"
# A cluster that does not respond, for tests that are not about clusters. Nothing ever listens on port 1.
NOWHERE: Mapping[str, Any] = {
    "clusters": [{"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}}],
    "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere"}}],
    "current-context": "nowhere",
}
_numbers = count(1)
QUICK = ReconcilerSettings(usage_period_seconds=0.5, clusters_period_seconds=0.25)
# No work is leased, so the reconciler writes no resource's row.
IDLE = msgspec.structs.replace(QUICK, worker=WorkerSettings(workers_per_cluster=0))


@dataclass
class Server:
    """A running server, and an administrator who is logged in."""

    application: Application
    address: str
    database: Database
    cluster: SimulatedCluster | None
    admin: AsyncClient
    # The name that a test gives its namespace.
    namespace: str = "demo"
    # The suffix of user names.
    _suffix: str = ""
    _clients: list[AsyncClient] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    def for_one_test(self) -> Server:
        """Returns the same server with a namespace name that no other test uses."""
        number = next(_numbers)
        return replace(self, namespace=f"demo-{number}", _suffix=f"-{number}")

    def own(self, username: str) -> str:
        """Returns the name that `user` gives a user."""
        return username + self._suffix

    @property
    def legacy(self) -> str:
        """Returns the name that a test gives a Kubernetes namespace that Pilothouse does not own."""
        return f"legacy{self._suffix}"

    def client(self, username: str, password: str = PASSWORD) -> AsyncClient:
        """Returns a client that logs in as another user."""
        made = AsyncClient(self.address, username=username, password=password)
        self._clients.append(made)
        return made

    def channel(self, *, own_connection: bool = False) -> grpc.aio.Channel:
        """Returns a bare channel, for calls that the client library would not make.

        gRPC shares one connection among all channels to an address, unless `own_connection` is set.
        """
        options = (("grpc.use_local_subchannel_pool", 1),) if own_connection else ()
        made = grpc.aio.insecure_channel(self.address, options=options)
        self._channels.append(made)
        return made

    async def token(self, username: str = "admin", password: str = PASSWORD) -> str:
        """Returns an access token, for bare calls."""
        # The asynchronous stub exists only as a type; at run time there is one class for both.
        stub: Any = identity_pb2_grpc.IdentityServiceStub(self.channel())
        answer = await stub.Login(identity_pb2.LoginRequest(username=username, password=password))
        return str(answer.access_token)

    async def user(self, username: str, grants: Mapping[str, str]) -> AsyncClient:
        """Creates a user with roles by namespace ('' means everywhere), and returns a client of that user."""
        username = self.own(username)
        await self.admin.identity.create_user(
            user=identity_pb2.User(username=username, email=f"{username}@example.org"), password=PASSWORD
        )
        for namespace, role in grants.items():
            await self.admin.identity.grant_role(username=username, role=role, namespace=namespace)
        return self.client(username)

    async def close(self) -> None:
        """Closes the clients and stops the server."""
        for client in (self.admin, *self._clients):
            await client.close()
        for channel in self._channels:
            await channel.close()
        await self.application.stop()


def settings_for(database: Database, directory: Path, **changes: Any) -> Settings:
    """Returns the settings of a server on a test's database, on a free port."""
    return msgspec.structs.replace(
        Settings(
            listen="127.0.0.1:0",
            data_dir=directory,
            bootstrap_password=PASSWORD,
            database_url=database.app_dsn,
            system_database_url=database.system_dsn,
            maintenance_database_url=database.maintenance_dsn,
            pool_open_connections=20,
            pool_idle_connections=4,
            # Each session plans its own statements. With the usual eight working connections, the start of a server
            # opens five more sessions, and PostgreSQL needs a sixth more CPU time for a short test.
            pool_working_connections=2,
            grace_seconds=5.0,
            # The tests' clusters run on this machine.
            outbound_networks="127.0.0.0/8",
        ),
        **changes,
    )


def limits_of(changes: Mapping[str, Any]) -> tuple[CallLimits, dict[str, Any]]:
    """Splits a server's changes into the limits of calls and the changes of its settings."""
    limits = {each.name for each in fields(CallLimits)}
    of_settings = {name: value for name, value in changes.items() if name not in limits}
    return CallLimits(**{name: value for name, value in changes.items() if name in limits}), of_settings


@asynccontextmanager
async def running_server(
    database: Database,
    directory: Path,
    *,
    speed: float = 10.0,
    cluster: SimulatedCluster | None = None,
    with_cluster: bool = True,
    reconciler: ReconcilerSettings = QUICK,
    **changes: Any,
) -> AsyncIterator[Server]:
    """Yields a server until the end of the block; the test itself stops a `cluster` that it passes."""
    own = SimulatedCluster(speed=speed) if cluster is None and with_cluster else None
    if own is not None:
        await own.start()
    used = cluster or own
    kubeconfigs = {"local": NOWHERE if used is None else used.kubeconfig()}
    limits, changes = limits_of(changes)
    application = Application(
        settings_for(database, directory, **changes), kubeconfigs, reconciler=reconciler, limits=limits
    )
    try:
        port = await application.start()
        address = f"127.0.0.1:{port}"
        admin = AsyncClient(address, username="admin", password=PASSWORD)
        server = Server(application, address, database, used, admin)
        try:
            yield server
        finally:
            await server.close()
    finally:
        if own is not None:
            await own.stop()


def request_id() -> str:
    """Returns a new `request_id`."""
    return str(uuid4())
