"""The end of several processes: one by one or all together, orderly or killed, and the effects on callers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import (
    AsyncClient,
    NotFoundError,
    PermissionDeniedError,
    PilothouseError,
    RetryPolicy,
)
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import Database, connection
from tests.processes import is_gone
from tests.supervisor.group import PASSWORD, Group, group, variables
from tests.waiting import patient, poll_until

pytestmark = pytest.mark.full(minutes=3)

# The limits of promise 5, for unary calls and for streams.
UNARY_SECONDS, STREAM_SECONDS = 1.0, 5.0
ONCE = RetryPolicy(attempts=1)
_CREATE = "/pilothouse.container.v1.ContainerService/CreateContainer"
_RECORDED = "SELECT count(*) FROM operation_logs WHERE request_path = $1 AND error_code IS NULL"


@asynccontextmanager
async def running_group(database: Database, directory: Path) -> AsyncIterator[Group]:
    async with group(directory, variables(database, directory)) as running:
        yield running


class Load:
    """Creates containers one after the other, by each client, and watches them by other clients.

    If `measured`, the makers pause once they have created five times the number that `grows` waits for: a server takes
    seconds to start again, and thousands of containers show no more than some hundred.
    """

    def __init__(
        self, clients: list[AsyncClient], watchers: list[AsyncClient], *, measured: bool = False
    ) -> None:
        self._turns = asyncio.Semaphore(0) if measured else None
        self.made: list[str] = []
        self.seen: list[list[str]] = [[] for _ in watchers]
        self.refused: list[PilothouseError] = []
        self._enough = False
        self._makers = [asyncio.create_task(self._make(i, client)) for i, client in enumerate(clients)]
        self._watching = [asyncio.create_task(self._watch(i, client)) for i, client in enumerate(watchers)]

    async def _make(self, number: int, client: AsyncClient) -> None:
        step = 0
        while not self._enough:
            if self._turns is not None:
                await self._turns.acquire()
            name = f"load-{number}-{step}"
            container = container_pb2.Container(name=name, image="nginx:1.27")
            try:
                await client.containers.create(namespace="shop", container=container)
            except PilothouseError as error:
                if error.code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    raise
                # The call reached a server that had closed already; the error may have several codes. It was no call in
                # flight: the tests prove that by their counts.
                self.refused.append(error)
                return
            self.made.append(name)
            step += 1

    async def _watch(self, number: int, client: AsyncClient) -> None:
        async for change in client.containers.watch(namespace="shop"):
            if change.kind.name == "ADDED":
                self.seen[number].append(change.resource.name)

    async def grows(self, by: int = 20) -> None:
        """Returns once `by` more containers are created."""
        wanted = len(self.made) + by
        self._give_turns(5 * by)

        async def enough() -> bool:
            return len(self.made) >= wanted or all(maker.done() for maker in self._makers)

        await poll_until(enough, seconds=60.0, what="more containers")
        assert not self.refused

    async def finish(self) -> None:
        """Ends the makers; raises the error that one of them raised."""
        self._enough = True
        self._give_turns(len(self._makers))
        await asyncio.wait_for(asyncio.gather(*self._makers), patient(60.0))

    def _give_turns(self, count: int) -> None:
        if self._turns is not None:
            for _ in range(count):
                self._turns.release()

    async def all_are_seen(self) -> None:
        """Waits until each watcher has seen each container once."""

        async def seen() -> list[list[str]]:
            return [sorted(each) for each in self.seen]

        expected = [sorted(self.made)] * len(self.seen)
        await poll_until(
            seen, lambda found: all(map(_holds, found, expected)), what="every container is seen"
        )
        assert await seen() == expected
        await cancel_and_wait(*self._watching)


def _holds(found: list[str], expected: list[str]) -> bool:
    return set(expected) <= set(found)


async def test_a_killed_process_costs_its_callers_nothing(database: Database, tmp_path: Path) -> None:
    async with running_group(database, tmp_path) as running:
        clients = [await running.client(child) for child in sorted(running.children()) * 2]
        await clients[0].namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        load = Load(clients[:2], clients[2:], measured=True)
        for _ in range(2):
            # The second round kills the other process, unless the restarted one has a lower process id.
            victim = min(running.children())
            await load.grows()
            before, backs = await running.counted("CreateContainer"), running.said("is back")
            os.kill(victim, signal.SIGKILL)

            async def is_back(backs: int = backs) -> bool:
                return running.said("is back") > backs

            await poll_until(is_back, seconds=60.0, what="a new process")
            assert len(running.children() - {victim}) == 2
            await load.grows()
            assert await running.counted("CreateContainer") >= before
        await load.finish()
        await load.all_are_seen()
        async with connection(database.admin_dsn) as sql:
            # The response may have been lost with its process; even then the call was executed once.
            assert await sql.fetchval("SELECT count(*) FROM containers") == len(load.made)
        assert running.said("a server process has ended") == 2
        assert await running.end() == 0


async def test_a_drain_under_load_fails_no_call_in_flight(database: Database, tmp_path: Path) -> None:
    async with running_group(database, tmp_path) as running:
        children = sorted(running.children())
        clients = [await running.client(child, retry=ONCE) for child in children]
        for name in ("shop", "held-0", "held-1"):
            await clients[0].namespaces.create(namespace=namespace_pb2.Namespace(name=name))
        watcher = asyncio.create_task(followed(clients[0]))
        load = Load(clients, [])
        await load.grows()
        # The statistics of waits are fixed within a transaction: the observer has another connection.
        async with connection(database.admin_dsn) as sql, connection(database.admin_dsn) as looking:
            async with sql.transaction():
                await sql.execute("SELECT FROM namespaces WHERE name LIKE 'held-%' FOR UPDATE")
                held = [
                    asyncio.create_task(described(client, f"held-{number}"))
                    for number, client in enumerate(clients)
                ]

                async def waited_for() -> int:
                    return int(await looking.fetchval(_WAITING))

                await poll_until(waited_for, lambda count: count >= 2, what="a call held up in each process")
                running.supervisor.send_signal(signal.SIGTERM)
                # Watchers are notified while the calls are still in progress.
                ended = await asyncio.wait_for(watcher, patient(5.0))
            assert [(await each).description for each in held] == ["held", "held"]
            assert await asyncio.wait_for(running.supervisor.wait(), patient(30.0)) == 0
            await load.finish()
            assert await sql.fetchval("SELECT count(*) FROM containers") == len(load.made)
            assert await sql.fetchval(_RECORDED, _CREATE) == len(load.made)
        assert ended.reason == "SHUTTING_DOWN"
        # Later callers were sent to another server, or found the server closed.
        assert {error.reason for error in load.refused if error.from_server} <= {"SHUTTING_DOWN"}
        for child in children:
            assert await is_gone(child)


_WAITING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%namespaces%'"
)


async def described(client: AsyncClient, name: str) -> namespace_pb2.Namespace:
    return await client.namespaces.update(
        name=name,
        namespace=namespace_pb2.Namespace(description="held"),
        update_mask=FieldMask(paths=["description"]),
    )


async def followed(client: AsyncClient) -> PilothouseError:
    """Returns the error that ends a watch without resumption."""
    try:
        async for _ in client.containers.watch(namespace="shop"):
            pass
    except PilothouseError as error:
        return error
    raise AssertionError("the watch ended without a word")


async def test_revoked_access_ends_in_every_process(database: Database, tmp_path: Path) -> None:
    async with running_group(database, tmp_path) as running:
        children = sorted(running.children())
        admin = await running.client(children[0])
        await admin.namespaces.create(namespace=namespace_pb2.Namespace(name="shop"))
        user = identity_pb2.User(username="anna", email="anna@example.org")
        await admin.identity.create_user(user=user, password=PASSWORD)
        await admin.identity.grant_role(username="anna", role="viewer", namespace="shop")
        async with AsyncClient(running.address) as anonymous:
            token = (await anonymous.login("anna", PASSWORD)).access_token
        clients = [await running.client(child, token=token) for child in children]
        watching = [asyncio.create_task(followed(client)) for client in clients]

        async def watched() -> int:
            return sum(
                int(value)
                for name, labels, value in await running.metrics()
                if name == "pilothouse_rpc_in_flight" and labels["method"] == "WatchContainers"
            )

        await poll_until(watched, lambda count: count == 2, what="a watch in each process")
        await admin.identity.revoke_role(username="anna", role="viewer", namespace="shop")
        for client in clients:

            async def refused(of: AsyncClient = client) -> bool:
                try:
                    await of.containers.get(namespace="shop", name="none")
                except PermissionDeniedError:
                    return True
                except NotFoundError as error:
                    return error.reason == "NAMESPACE_NOT_FOUND"
                return False

            await poll_until(refused, seconds=UNARY_SECONDS, what="the end of unary calls")
        for each in watching:
            error = await asyncio.wait_for(each, patient(STREAM_SECONDS))
            assert isinstance(error, PermissionDeniedError | NotFoundError)


async def test_no_process_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    of = {
        name: value
        for name, value in variables(Database("", "", "", "", ""), tmp_path).items()
        if not name.endswith(("DATABASE_URL", "KUBECONFIG"))
    }
    async with group(tmp_path, of, "--dev") as running:
        begun = {each.pid for each in psutil.Process(running.supervisor.pid).children(recursive=True)}
        # The database, the simulated cluster, and the processes that use both.
        assert len(begun) > len(running.children()) + 2
        await running.end(signal.SIGKILL)

        async def are_gone() -> bool:
            return all([await is_gone(each) for each in begun])

        await poll_until(are_gone, what="the end of all that it had started")
