"""The checker of promise 8: a worker that is killed during an operation.

Another worker finishes the operation. A worker is killed just after its write number `step` to the cluster.
That is also just before the next write, and after the last write it is before the database is updated. The
result is compared with that of an undisturbed run: the objects and pods on the cluster, and their form in the
API.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from google.protobuf.json_format import MessageToDict
from sqlalchemy import text

from pilothouse_server.containers import manifests
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.worker import Worker, WorkerSettings
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from tests.conftest import Database, new_database
from tests.harness import IDLE, Server, running_server
from tests.promises.tables import NOTHING_FOLLOWS
from tests.waiting import poll_until

SPACE, REGISTERED = "legacy", "second"
# The promised limit.
AGREED_SECONDS = 10.0
_SAME_LOOKS = 10
# The file that stores the cluster's state.
_STATE = "cluster"
SHORT = WorkerSettings(poll_seconds=0.05, lease_seconds=0.4)
_WRITES = ("apply", "set_scale", "delete", "merge_patch")
_KINDS = (
    *(NAMESPACES, DEPLOYMENTS, SERVICES, SERVICE_ACCOUNTS, CONFIG_MAPS, SECRETS, PERSISTENT_VOLUME_CLAIMS),
    NETWORK_POLICIES,
)
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOMENT = re.compile(rf'("{re.escape(manifests.RESTARTED_AT)}":)"[^"]*"')
# Fields in the API's responses that differ from run to run.
_IDENTITIES = ("uid", "etag", "keyId", "apiServer", "podName", "podIp", "hostIp", "replicaSetName")
_MOMENTS = ("createTime", "updateTime", "lastSeenTime", "startedAt", "finishedAt", "uptime")
_WORDS = ("reason", "message")
_OF_THE_RUN = (*_IDENTITIES, *_MOMENTS, *_WORDS)


class Killed(BaseException):
    """Stands for the end of the process: none of the worker's code runs after this."""


class DyingClient:
    """A client whose process is killed just after write number `step`."""

    def __init__(self, client: ClusterClient, step: int) -> None:
        self._client = client
        self._step = step
        self.writes = 0
        self.died = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in _WRITES:
            return method

        async def write(*arguments: Any, **keywords: Any) -> Any:
            if self.died.is_set():
                raise Killed
            answer = await method(*arguments, **keywords)
            self.writes += 1
            if self.writes > self._step:
                self.died.set()
                raise Killed
            return answer

        return write


class Seen(NamedTuple):
    """The compared state at the end, by the name of the object.

    Each text is the same after every run.
    """

    cluster: Mapping[str, str]
    database: Mapping[str, str]


class Ran(NamedTuple):
    """Whether the first worker was killed, its number of writes, and the final state."""

    died: bool
    writes: int
    seen: Seen


async def _nobody(_: Server) -> None:
    """Does nothing between the kill and the next worker.

    Only tests that break something pass another function.
    """


class Operation(NamedTuple):
    """An operation under test, its preparation, and the required results.

    `before` are the calls of the preparation, one after the other. `writes` is the least number of writes, so
    that the checker sees something. `shows` checks the state after an undisturbed run. With `registered` the
    operation uses a cluster that was registered by the API as `REGISTERED`, and not the cluster that the
    server's configuration names.
    """

    before: tuple[Callable[[Server], Awaitable[None]], ...]
    asked: Callable[[Server], Awaitable[None]]
    writes: int
    shows: Callable[[Seen], bool] = lambda _: True
    registered: bool = False


async def work(server: Server, client: Any, until: Callable[[], Awaitable[bool]]) -> None:
    """Runs one worker until `until` returns True."""

    async def connect(_: str) -> Any:
        return client

    application = server.application
    worker = Worker(
        application.store,
        ClusterClients(connect),
        AppliedGenerations(),
        SHORT,
        reconcilers=application.reconcilers,
    )
    running = asyncio.ensure_future(worker.run())
    try:
        await poll_until(until, seconds=60, what="the worker's end")
    finally:
        await cancel_and_wait(running)


async def _rows(server: Server, query: str) -> list[tuple[Any, ...]]:
    """Runs a query on a connection that the server has.

    The checks are frequent, and a new connection costs more than a check.
    """
    async with server.application.store.system_read() as transaction:
        return [tuple(row) for row in (await transaction.connection.execute(text(query))).all()]


async def nothing_is_due(server: Server) -> bool:
    """Returns whether no work is due.

    Rows stay with their resources and become due again after a long time.
    """
    due = "SELECT count(*) FROM reconcile_work WHERE due_at < clock_timestamp() + interval '60 seconds'"
    return await _rows(server, due) == [(0,)]


async def nothing_follows(server: Server) -> bool:
    """Returns whether the events of mounts and of containers' Services are written."""
    return await _rows(server, NOTHING_FOLLOWS) == [(True,)]


def on_cluster(server: Server) -> dict[str, str]:
    """Returns the compared state on the cluster.

    The parts that differ from run to run are left out.
    """
    assert server.cluster is not None
    found = {}
    for resource in _KINDS:
        for each in server.cluster.store.list(resource, None if resource is NAMESPACES else SPACE):
            metadata = each["metadata"]
            if resource is NAMESPACES and metadata["name"] != SPACE:
                continue
            kept: dict[str, Any] = {
                key: each[key] for key in ("spec", "data", "type", "immutable") if key in each
            }
            # A copy, because these are the cluster's own objects.
            if "spec" in kept:
                chosen = ("clusterIP", "clusterIPs", "volumeName", "volumeMode")
                kept["spec"] = {key: value for key, value in kept["spec"].items() if key not in chosen}
            kept["labels"] = sorted(metadata.get("labels", {}).items())
            found[f"{resource.kind}/{metadata['name']}"] = _text(kept)
    pods = Counter(map(_pod, _staying(server.cluster.store.list(PODS, SPACE))))
    return found | {f"{count} pods": each for each, count in pods.items()}


async def in_database(server: Server) -> dict[str, str]:
    """Returns the compared state in the database.

    This is the API's responses, the remaining work, and the watchers' events of creations and deletions.
    """
    admin = server.admin
    listed: dict[str, AsyncIterator[Any]] = {
        "cluster": admin.namespaces.list_clusters(),
        "namespace": admin.namespaces.list(),
        "container": admin.containers.list(),
        "volume": admin.storage.list_volumes(),
        "config map": admin.config.list_config_maps(),
        "secret": admin.config.list_secrets(),
        "object": admin.objects.list(),
    }
    found = {}
    for noun, items in listed.items():
        async for item in items:
            if noun == "cluster" and item.name != REGISTERED:
                continue
            shown = {k: v for k, v in MessageToDict(item).items() if k not in _OF_THE_RUN}
            conditions = shown.pop("conditions", ())
            shown["conditions"] = sorted((each["type"], each["status"]) for each in conditions)
            # The names of pods and their times differ.
            if programs := shown.pop("programs", ()):
                shown["programs"] = [[each[key] for key in ("name", "kind", "state")] for each in programs]
            found[f"{noun}/{item.name}"] = _text(shown)
    left = await _rows(server, "SELECT resource_type FROM reconcile_work ORDER BY 1")
    told = await _rows(
        server,
        "SELECT resource_type, resource_name, kind, count(*) FROM events WHERE kind <> 'modified' "
        "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    found["work"] = _text([resource_type for (resource_type,) in left])
    found["told"] = _text(told)
    return found


async def seen(server: Server) -> Seen:
    """Returns the state of the cluster and of the database."""
    return Seen(on_cluster(server), await in_database(server))


async def settled(server: Server) -> bool:
    """Returns whether the cluster has done all work, and the database records it."""
    assert server.cluster is not None
    if not await nothing_is_due(server) or not await nothing_follows(server):
        return False
    replicas = {}
    for each in server.cluster.store.list(DEPLOYMENTS, SPACE):
        spec, status = each["spec"], each.get("status", {})
        if status.get("observedGeneration") != each["metadata"]["generation"]:
            return False
        replicas[each["metadata"]["name"]] = spec["replicas"]
        counts = ["replicas", "readyReplicas"] + ([] if spec.get("paused") else ["updatedReplicas"])
        if any(status.get(count, 0) != spec["replicas"] for count in counts):
            return False
    async for container in server.admin.containers.list():
        wanted = replicas.get(container.kubernetes_name, 0)
        if container.reconciling or container.ready_replicas != wanted:
            return False
    async for volume in server.admin.storage.list_volumes():
        if volume.reconciling or volume.size != volume.capacity:
            return False
    pods = server.cluster.store.list(PODS, SPACE)
    return bool(len(pods) == len(_staying(pods)) == sum(replicas.values()))


@asynccontextmanager
async def platform(
    database: Database, directory: Path, *, registered: bool, state: Path | None = None
) -> AsyncIterator[Server]:
    """Yields a server and a cluster.

    The server leases no work, because the test's workers do. `registered` has the meaning it has in
    `Operation`. `state` is the file that stores the cluster's state.
    """
    async with SimulatedCluster(speed=10.0, state_path=state) as cluster:
        own = None if registered else cluster
        async with running_server(
            database, directory, cluster=own, with_cluster=False, reconciler=IDLE
        ) as running:
            yield dataclasses.replace(running, cluster=cluster)


async def _prepare(server: Server, client: ClusterClient, operation: Operation) -> None:
    for make in operation.before:
        await make(server)
        await work(server, client, partial(settled, server))


@asynccontextmanager
async def prepared(
    postgres: EmbeddedPostgres, template: str, directory: Path, operation: Operation
) -> AsyncIterator[tuple[Operation, str, Path | None]]:
    """Prepares an operation once for all its kills.

    Yields the rest of the operation, the database to clone, and the folder with the server's key and the
    cluster's file. A registered cluster has an address, which another process may take between two kills, so it
    is prepared for each kill.
    """
    if not operation.before or operation.registered:
        yield operation, template, None
        return
    async with new_database(postgres, template) as database:
        directory.mkdir()
        state = directory / _STATE
        async with platform(database, directory, registered=False, state=state) as server:
            assert server.cluster is not None
            client = await ClusterClient.from_kubeconfig(server.cluster.kubeconfig(), name="local")
            try:
                await _prepare(server, client, operation)
            finally:
                await client.close()
        yield operation._replace(before=()), database.name, directory


async def run(
    database: Database,
    directory: Path,
    operation: Operation,
    step: int,
    *,
    ends: Callable[[Server], Awaitable[bool]],
    between: Callable[[Server], Awaitable[None]] = _nobody,
    folder: Path | None = None,
) -> Ran:
    """Runs a worker that is killed at write `step`, then the next one until `ends`.

    The first worker may finish before it makes that write. The run begins with the files in `folder`, if given.
    """
    state = None
    if folder is not None:
        directory.mkdir()
        for name in ("master.key", _STATE):
            shutil.copy(folder / name, directory)
        state = directory / _STATE
    async with platform(database, directory, registered=operation.registered, state=state) as server:
        assert server.cluster is not None
        client = await ClusterClient.from_kubeconfig(server.cluster.kubeconfig(), name="local")
        try:
            await _prepare(server, client, operation)
            await operation.asked(server)
            dying = DyingClient(client, step)

            async def over() -> bool:
                """Returns whether the first worker is killed or has reached the required result.

                Work may be done and due again, because the observer reports changes by others one after the
                other.
                """
                if dying.died.is_set():
                    return True
                if not await nothing_is_due(server):
                    return False
                # Before that, there are pods of two kinds, or none.
                with suppress(KeyError, ValueError):
                    return operation.shows(await seen(server))
                return False

            await work(server, dying, over)
            if dying.died.is_set():
                await between(server)
            await work(server, client, partial(ends, server))
            return Ran(dying.died.is_set(), dying.writes, await seen(server))
        finally:
            await client.close()


async def kills(
    postgres: EmbeddedPostgres, template: str, directory: Path, operation: Operation
) -> AsyncIterator[tuple[int, Seen, Seen]]:
    """Yields each kill and its results.

    These are the number of the write, the state at the end, and the state after an undisturbed run.
    """
    async with prepared(postgres, template, directory / "before", operation) as (left, there, folder):
        async with new_database(postgres, there) as database:
            undisturbed = await run(
                database, directory / "undisturbed", left, 1_000, ends=at_rest(), folder=folder
            )
        assert not undisturbed.died
        assert operation.shows(undisturbed.seen), undisturbed.seen
        for step in range(undisturbed.writes):
            async with new_database(postgres, there) as database:
                ends = agreeing(undisturbed.seen)
                ran = await run(database, directory / str(step), left, step, ends=ends, folder=folder)
            # The last write may be a check that is not made in every run.
            if ran.died:
                yield step, ran.seen, undisturbed.seen


def at_rest() -> Callable[[Server], Awaitable[bool]]:
    """Returns a function that is True after ten equal states in a row.

    Later writes of observers would therefore be seen.
    """
    before: list[Seen] = []

    async def ends(server: Server) -> bool:
        if not await settled(server):
            before.clear()
            return False
        now = await seen(server)
        if before and before[-1] != now:
            before.clear()
        before.append(now)
        return len(before) == _SAME_LOOKS

    return ends


def agreeing(undisturbed: Seen) -> Callable[[Server], Awaitable[bool]]:
    """Returns a function that waits for the state of an undisturbed run.

    If the time is up, the caller's comparison reports the differences.
    """

    async def ends(server: Server) -> bool:
        async def done() -> Seen | None:
            over = await nothing_is_due(server) and await nothing_follows(server)
            return await seen(server) if over else None

        with suppress(AssertionError):
            await poll_until(done, lambda now: now == undisturbed, seconds=AGREED_SECONDS)
        return True

    return ends


def differences(found: Seen, undisturbed: Seen) -> str:
    """Returns the differences from an undisturbed run; empty if there are none."""
    return "\n".join(
        f"{where}: {name} is {here.get(name)}, not {there.get(name)}"
        for where, here, there in zip(Seen._fields, found, undisturbed, strict=True)
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    )


def _staying(pods: list[Any]) -> list[Any]:
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def _pod(pod: dict[str, Any]) -> str:
    spec = pod["spec"]
    mounts = [
        sorted(each["mountPath"] for each in part.get("volumeMounts", ())) for part in spec["containers"]
    ]
    claims = [
        each["persistentVolumeClaim"] for each in spec.get("volumes", ()) if "persistentVolumeClaim" in each
    ]
    return _text(
        {
            "images": [part["image"] for part in spec["containers"]],
            "mounts": mounts,
            "claims": claims,
            "restarted": manifests.RESTARTED_AT in pod["metadata"].get("annotations", {}),
        }
    )


def _text(value: Any) -> str:
    return _MOMENT.sub(
        r'\1"then"', _UID.sub("uid", msgspec.json.encode(value, order="deterministic").decode())
    )
