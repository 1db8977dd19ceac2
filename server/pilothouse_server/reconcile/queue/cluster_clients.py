"""The clients of the clusters: one each, made on first use and shared by all tasks.

Each cluster has its own connection pool, rate limit and failure count, so no call waits for another cluster.

When a cluster goes away, many tasks fail, and they fail repeatedly until it is back. The log gets one line when the
cluster goes away and one when it is back (`went_away`, `came_back`); the failures of single tasks are logged at level
DEBUG (`log_failure`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from time import monotonic

import structlog

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    AnswerTooLarge,
    Away,
    ClusterError,
    CredentialsRefused,
    StorageStalled,
    TooManyValues,
    Unauthorized,
    Unreachable,
)
from pilothouse_server.runtime.tasks import cancel_and_wait

log = structlog.get_logger(__name__)

# Time for requests in flight with a replaced client: longer than a request may take.
RETIRED_SECONDS = 30.0
# The number of consecutive failures after which a cluster counts as not reached.
FAILURES = 3
# The time for which a result counts: longer than the interval of health checks.
KNOWN_SECONDS = 15.0


def is_out_of_reach(error: ClusterError) -> bool:
    """Returns whether this server does not reach the cluster, but another server may.

    A stalled storage, and responses or objects that are too large, fail on every server.
    """
    refused = isinstance(error, Unauthorized | CredentialsRefused)
    for_all = isinstance(error, StorageStalled | AnswerTooLarge | TooManyValues)
    return refused or (isinstance(error, Unreachable) and not for_all)


def log_failure(event: str, cluster: str, error: ClusterError, **facts: str) -> None:
    """Logs a cluster's error for a task that continues after it."""
    write = log.debug if is_out_of_reach(error) else log.info
    write(event, cluster=cluster, reason=error.reason, message=error.message, **facts)


class ClusterClients:
    """Clients by cluster name.

    `connect` makes one; it raises ClusterError if this server cannot connect.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._clients: dict[str, asyncio.Task[ClusterClient]] = {}
        self._retired: dict[asyncio.Task[None], asyncio.Task[ClusterClient]] = {}
        # Consecutive failures by cluster.
        self._failures: Counter[str] = Counter()
        self._elsewhere: set[str] = set()
        # `_reported`: why a cluster does not respond, by its row. `_noted`: when it last responded to this server or
        # failed to, and the error.
        self._reported: dict[str, str] = {}
        self._noted: dict[str, tuple[float, ClusterError | None]] = {}
        # Whether the log's last line about the cluster says that it responds.
        self._reported_reachable: dict[str, bool] = {}
        self._closed = False

    def note(self, name: str, error: ClusterError | None) -> None:
        """Records the result of reaching a cluster from here: its error, or None."""
        self._noted[name] = (monotonic(), error)
        if error is None or not is_out_of_reach(error):
            self._failures.pop(name, None)
        else:
            self._failures[name] += 1

    def went_away(self, name: str, error: ClusterError) -> None:
        """Logs that a cluster is away, once until it is back."""
        if self._reported_reachable.get(name) is not False:
            self._reported_reachable[name] = False
            log.warning("cluster is away", cluster=name, reason=error.reason, message=error.message)

    def came_back(self, name: str, version: str) -> None:
        """Logs that a cluster responds, once until it is away."""
        if self._reported_reachable.get(name) is not True:
            self._reported_reachable[name] = True
            log.info("cluster answers", cluster=name, version=version)

    def report(self, away: Mapping[str, str]) -> None:
        """Stores why clusters do not respond, as the servers that observe them report."""
        self._reported = dict(away)

    def away(self, name: str) -> Away | None:
        """Returns the error of a cluster that is known not to respond, so that no caller waits to find out.

        The reason is in the cluster's row, unless the cluster has responded to this server since; otherwise recent
        consecutive failures of this server count.
        """
        at, error = self._noted.get(name, (-KNOWN_SECONDS, None))
        lately = monotonic() - at < KNOWN_SECONDS
        if lately and error is None:
            return None
        if name in self._reported:
            return Away(self._reported[name] or f"cluster {name!r} does not respond")
        if lately and error is not None and self._failures[name] >= FAILURES:
            return Away(error.message)
        return None

    def led_elsewhere(self, name: str, *, elsewhere: bool) -> None:
        """Records whether another server leads the cluster, which means that that server reaches it."""
        (self._elsewhere.add if elsewhere else self._elsewhere.discard)(name)

    def left(self) -> set[str]:
        """Returns the clusters that another server reaches, and this server does not."""
        return {name for name in self._elsewhere if self._failures[name] >= FAILURES}

    async def version(self, name: str, seconds: float) -> str:
        """Returns the version that the cluster reports within `seconds`, and records the result.

        Raises:
            ClusterError: the cluster does not respond, or not to this server.
        """
        try:
            async with asyncio.timeout(seconds):
                version = await (await self.client(name)).version()
        except TimeoutError:
            unreachable = Unreachable(f"cluster {name!r} did not respond in time")
            self.note(name, unreachable)
            raise unreachable from None
        except ClusterError as error:
            self.note(name, error)
            raise
        self.note(name, None)
        return version

    async def is_reached(self, name: str, seconds: float) -> bool:
        """Returns whether the cluster responds to this server within `seconds`."""
        try:
            version = await self.version(name, seconds)
        except ClusterError as error:
            return not is_out_of_reach(error)
        self.came_back(name, version)
        return True

    async def client(self, name: str) -> ClusterClient:
        """Returns the client of a cluster. Raises ClusterError; a failure is not remembered."""
        while not self._closed:
            task = self._clients.get(name)
            if task is None:
                task = self._clients[name] = asyncio.ensure_future(self._connect(name))
            # One caller's cancellation must not take the client away from the others.
            if not task.done():
                await asyncio.wait([task])
            if (task.cancelled() or task.exception() is not None) and self._clients.get(name) is task:
                del self._clients[name]
            # A task is cancelled if its cluster was forgotten while it connected.
            if not task.cancelled():
                return task.result()
        raise Unreachable(f"this server is shutting down and has closed its connection to cluster {name!r}")

    def forget(self, name: str) -> None:
        """Drops the client after a change of credentials or a deregistration.

        The next call connects again.
        """
        self._failures.pop(name, None)
        self._noted.pop(name, None)
        self._reported_reachable.pop(name, None)
        self._elsewhere.discard(name)
        task = self._clients.pop(name, None)
        if task is not None:
            retired = asyncio.create_task(_retire(task), name=f"retired client of {name}")
            self._retired[retired] = task
            retired.add_done_callback(self._retired.pop)

    async def close(self) -> None:
        """Closes all clients."""
        self._closed = True
        retired = dict(self._retired)
        tasks = [*self._clients.values(), *retired.values()]
        self._clients.clear()
        await cancel_and_wait(*retired)
        for task in tasks:
            await _close(task)


async def _retire(task: asyncio.Task[ClusterClient]) -> None:
    if task.done():
        await asyncio.sleep(RETIRED_SECONDS)
    await _close(task)


async def _close(task: asyncio.Task[ClusterClient]) -> None:
    await cancel_and_wait(task)
    if not task.cancelled() and task.exception() is None:
        await task.result().close()
